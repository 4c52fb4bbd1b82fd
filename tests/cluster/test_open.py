"""`fairway open` on a real cluster: links, replaced pods, a cluster that is away for a while."""

from __future__ import annotations

import http.client
import re
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
import yaml

from tests.cluster.apps import ClusterApp
from tests.cluster.running import FREE_PORTS, running

TWO = ("-c", "web-ui", "-c", "tensorboard")


def make(tmp_path: Path, namespace: str) -> ClusterApp:
    """Return an app whose web UI and TensorBoard are applied; there is no model."""
    app = ClusterApp.make(tmp_path, namespace, {})
    app.fairway("apply", "dev", "-c", "storage", *TWO)
    return app


def test_pods_are_waited_for_and_may_be_replaced(namespace: str, tmp_path: Path) -> None:
    app = make(tmp_path, namespace)
    with running(app, "open", "dev", *TWO, *FREE_PORTS) as command:
        web, board = command.link("Draw a digit"), command.link("TensorBoard")
        assert "TensorBoard" in httpx.get(board, trust_env=False).text
        assert httpx.get(web, trust_env=False).status_code == 200
        command.wait_for("^ready:$")

        # As a browser, which keeps its connection.
        with closing(http.client.HTTPConnection(urlsplit(web).netloc, timeout=60)) as browser:
            browser.request("GET", "/healthz")
            assert browser.getresponse().read() == b"ok\n"
            app.kubectl("delete", "pod", "-l", "app.kubernetes.io/name=web-ui", "--wait=false")
            assert browser.sock.recv(1) == b""
        assert httpx.get(f"{web}healthz", trust_env=False, timeout=30).text == "ok\n"
        command.end(signal.SIGTERM)
        assert "Traceback" not in command.output


def test_what_is_not_there_yet_is_told_and_waited_for(namespace: str, tmp_path: Path) -> None:
    app = ClusterApp.make(tmp_path, namespace, {})
    refused = app.fairway("open", "dev", code=1).stderr
    assert "nothing to open is there yet of dev" in refused
    assert "fairway up dev" in refused

    app.fairway("apply", "dev", "-c", "mnist-service", "-c", "storage", "-c", "mnist-deploy-pvc")
    with running(app, "open", "dev", "-c", "mnist-service", *FREE_PORTS) as command:
        command.wait_for("^mnist-deploy-pvc is starting: runs, and waits for a model in /mnt/export")
        command.end(signal.SIGINT)


def test_what_has_no_port_is_refused(namespace: str, tmp_path: Path) -> None:
    app = ClusterApp.make(tmp_path, namespace, {})
    refused = app.fairway("open", "dev", "-c", "train", code=2).stderr
    assert "train has nothing to open" in refused
    assert "These have: web-ui, tensorboard, mnist-service." in refused


def test_a_taken_port_is_named(namespace: str, tmp_path: Path) -> None:
    app = ClusterApp.make(tmp_path, namespace, {})
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        refused = app.fairway("open", "dev", "-c", "web-ui", "--web-port", port, code=1).stderr
    assert f"port {port} on 127.0.0.1 is taken by process" in refused
    assert "--web-port" in refused


def test_the_ports_outlive_an_outage_of_the_cluster(namespace: str, tmp_path: Path) -> None:
    app = make(tmp_path, namespace)
    with Way(app) as way, running(app, "open", "dev", "-c", "web-ui", *FREE_PORTS) as command:
        web = command.link("Draw a digit")
        with way.cut():
            command.wait_for("does not answer .*; the ports stay open, and lead there again once it answers")
            with pytest.raises(httpx.HTTPError):
                httpx.get(f"{web}healthz", trust_env=False, timeout=2)
        command.wait_for("^the cluster answers again$")
        assert httpx.get(f"{web}healthz", trust_env=False, timeout=30).text == "ok\n"
        assert len(re.findall("the ports stay open, and", command.output)) == 1
        command.end(signal.SIGINT)


class Way:
    """A way to the cluster that can be cut: the app's kubeconfig then leads through it.

    Args:
        app: Is changed.
    """

    def __init__(self, app: ClusterApp) -> None:
        path = Path(app.variables["KUBECONFIG"])
        content = yaml.safe_load(path.read_text())
        self._cluster = content["clusters"][0]["cluster"]
        server = urlsplit(self._cluster["server"])
        self._there = (str(server.hostname), int(server.port or 443))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: set[socket.socket] = set()
        self._is_cut = threading.Event()
        port = self._listener.getsockname()[1]
        self._cluster |= {"server": f"https://127.0.0.1:{port}", "tls-server-name": server.hostname}
        copy = app.directory.parent / "kubeconfig"
        copy.write_text(yaml.safe_dump(content))
        app.variables = app.variables | {"KUBECONFIG": str(copy)}
        app.fairway("env", "set", "dev", "--context", content["current-context"])

    def __enter__(self) -> Way:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()
        self._close_all()

    @contextmanager
    def cut(self) -> Iterator[None]:
        """Break all connections, and let no new one through."""
        self._is_cut.set()
        self._close_all()
        yield
        self._is_cut.clear()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                here, _ = self._listener.accept()
                if self._is_cut.is_set():
                    here.close()
                    continue
                there = socket.create_connection(self._there)
                self._open |= {here, there}
                for one, other in ((here, there), (there, here)):
                    threading.Thread(target=self._carry, args=(one, other), daemon=True).start()

    def _carry(self, one: socket.socket, other: socket.socket) -> None:
        with suppress(OSError):
            while data := one.recv(65536):
                other.sendall(data)
        for each in (one, other):
            self._end(each)

    def _close_all(self) -> None:
        for each in list(self._open):
            self._end(each)
        self._open.clear()

    def _end(self, each: socket.socket) -> None:
        with suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)
        each.close()
