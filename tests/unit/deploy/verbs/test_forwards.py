"""What can be opened, and how it is shown."""

from __future__ import annotations

import asyncio
import logging
import re
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

import pytest

from fairway.config import UpSettings
from fairway.deploy.kube.errors import AwayError
from fairway.deploy.kube.forward import PodStream
from fairway.deploy.resources import Manifest
from fairway.deploy.settings import OpenSettings
from fairway.deploy.target import Target
from fairway.deploy.verbs import forwards as module
from fairway.deploy.verbs import open as verb
from fairway.deploy.verbs.ending import together
from fairway.deploy.verbs.forwards import Forward, find_forwards, open_forwards
from fairway.errors import ClusterError, FairwayError, UsageError
from tests.unit.deploy.fake import APP, Cluster, make_target

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
WEB = Forward("Draw a digit", "web-ui", "web-ui", "http", 0, "--web-port", ("web-ui",), ready="/healthz")


class Stream:
    """A connection to a pod that answers 200 to all."""

    def __init__(self) -> None:
        self._asked = asyncio.Event()

    async def send(self, _data: bytes) -> None:
        self._asked.set()

    async def receive(self) -> bytes:
        await self._asked.wait()
        self._asked.clear()
        return ANSWER


class Answering(Cluster):
    """A cluster whose pods answer."""

    away = False

    @asynccontextmanager
    async def forward(self, _pod: str, _port: int) -> AsyncIterator[PodStream]:
        yield cast(PodStream, Stream())

    async def get(self, kind: str, name: str) -> Manifest | None:
        if self.away:
            raise AwayError("the cluster does not answer")
        return await super().get(kind, name)

    def start_web(self, *, ready: bool) -> None:
        labels = {"app": "web-ui"}
        ports = [{"name": "http", "port": 80, "targetPort": 5000}]
        spec = {"selector": labels, "ports": ports}
        self.put({"kind": "Service", "metadata": {"name": "web-ui"}, "spec": spec})
        status = {"conditions": [{"type": "Ready", "status": str(ready)}]}
        metadata = {"name": "web-ui-1", "labels": labels}
        self.put({"kind": "Pod", "metadata": metadata, "spec": {"containers": []}, "status": status})


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(module, "BUSY_S", 0.01)
    monkeypatch.setattr(module, "CALM_S", 0.01)
    caplog.set_level(logging.INFO, "fairway")


def find(directory: Path, *overrides: str, app: str = APP) -> list[Forward]:
    target = make_target(directory, *overrides, app=app)
    return find_forwards(target, target.choose(), UpSettings(rest_api_port=7))


def test_what_people_open_has_a_port(tmp_path: Path) -> None:
    found = find(tmp_path, app=f"{APP}  tensorboard: {{kind: tensorboard}}\n")
    assert [(each.title, each.service, each.port) for each in found] == [
        ("Draw a digit", "web-ui", 8080),
        ("TensorBoard", "tensorboard-tb", 8090),
        ("Model server", "mnist-service", 7),
        ("Model server, gRPC", "mnist-service", 9000),
    ]
    assert found[2].pods_of == ("serving",)
    assert found[2].link("127.0.0.1", 7).url == "http://127.0.0.1:7/v1/models/mnist"


def test_what_speaks_grpc_has_an_address(tmp_path: Path) -> None:
    grpc = find(tmp_path)[-1]
    assert grpc.flag == "--grpc-port"
    link = grpc.link("127.0.0.1", 9000)
    assert (link.url, link.ready) == ("127.0.0.1:9000", "")


def test_of_two_web_uis_the_first_is_opened(tmp_path: Path) -> None:
    found = find(tmp_path, app=f"{APP}  other: {{kind: web-ui, params: {{name: other}}}}\n")
    assert [each.component for each in found] == ["web-ui", "mnist-service", "mnist-service"]


def test_a_component_without_a_port_is_refused(tmp_path: Path) -> None:
    target = make_target(tmp_path)
    with pytest.raises(UsageError, match="^train has nothing to open$") as refused:
        verb.run(target, OpenSettings(component=("train",)))
    assert refused.value.hint == "These have: web-ui, mnist-service."


def test_a_taken_port_is_named() -> None:
    async def enter(port: int) -> None:
        forward = Forward("Draw a digit", "web-ui", "web-ui", "http", port, "--web-port", ("web-ui",))
        async with open_forwards(Cluster().kube, [forward], "127.0.0.1"):
            pass

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(FairwayError, match=f"^port {port} on 127.0.0.1 is taken") as error:
            asyncio.run(enter(port))
    assert "--web-port" in error.value.hint


def test_the_link_is_shown_when_a_pod_answers(caplog: pytest.LogCaptureFixture) -> None:
    async def show() -> None:
        cluster = Answering()
        cluster.start_web(ready=False)
        async with open_forwards(cluster.kube, [WEB], "127.0.0.1") as opened:
            await opened.refresh()
            assert opened.is_applied
            assert opened.waiting == {"web-ui"}
            assert "answers" not in caplog.text
            cluster.start_web(ready=True)
            following = asyncio.create_task(opened.follow())
            await asyncio.wait_for(opened.show("the end"), 10)
            assert opened.waiting == set()
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)

    asyncio.run(show())
    assert re.search(r"Draw a digit answers at http://127.0.0.1:\d+/\n", caplog.text)
    assert re.search(r"\nready:\n  Draw a digit  http://127.0.0.1:\d+/\n  the end\n", caplog.text)


def test_a_cluster_that_is_away_is_told_once_and_its_return(caplog: pytest.LogCaptureFixture) -> None:
    async def lose() -> None:
        cluster = Answering()
        cluster.start_web(ready=True)
        async with open_forwards(cluster.kube, [WEB], "127.0.0.1") as opened:
            await opened.refresh()
            cluster.away = True
            following = asyncio.create_task(opened.follow())
            await asyncio.sleep(0.1)
            cluster.away = False
            async with asyncio.timeout(5):
                while "answers again" not in caplog.text:
                    await asyncio.sleep(0.01)
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)

    asyncio.run(lose())
    assert caplog.text.count("the cluster does not answer; the ports stay open") == 1


def test_a_refusal_ends_it() -> None:
    class Refusing(Answering):
        async def get(self, kind: str, name: str) -> Manifest | None:
            raise ClusterError("the credentials have expired")

    async def enter() -> None:
        async with open_forwards(Refusing().kube, [WEB], "127.0.0.1") as opened:
            await together(opened.follow(), opened.show("the end"))

    with pytest.raises(ClusterError, match="^the credentials have expired$"):
        asyncio.run(enter())


def test_why_something_is_waited_for_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verb, "LOOK_S", 0.01)

    async def explain(target: Target) -> None:
        cluster = Answering()
        async with open_forwards(cluster.kube, [WEB], "127.0.0.1") as opened:
            await opened.refresh()
            explaining = asyncio.create_task(verb.explain(cluster.kube, target, opened))
            await asyncio.sleep(0.1)
            explaining.cancel()
            await asyncio.gather(explaining, return_exceptions=True)

    asyncio.run(explain(make_target(tmp_path)))
    assert caplog.text.count("web-ui is absent: is not applied yet") == 1


def test_without_anything_to_open_nothing_is_waited_for(caplog: pytest.LogCaptureFixture) -> None:
    async def enter() -> None:
        async with open_forwards(Cluster().kube, [], "127.0.0.1") as opened:
            await together(opened.follow(), opened.show("the end"))

    asyncio.run(enter())
    assert caplog.text == ""
