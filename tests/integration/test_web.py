"""`fairway web` as a process: it says where it is, reads from stores, and ends when it is told to."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable

import httpx
import pytest

from fairway.storage.stores.uri import open_store
from tests.servers.fixtures import use
from tests.servers.moto import Moto
from tests.servers.proxy import Answer, FaultProxy


def start(environment: dict[str, str], *words: str) -> tuple[subprocess.Popen[str], str]:
    process = subprocess.Popen(
        [sys.executable, "-m", "fairway", "web", "--port", "0", "--server", "127.0.0.1:1", *words],
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr
    line = process.stderr.readline()
    match = re.fullmatch(r"web UI at (http://\S+:[1-9]\d*/)\n", line)
    assert match, line + process.stderr.read()
    return process, match[1]


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_the_printed_address_answers_and_a_signal_ends_it_cleanly(
    environment: dict[str, str], signum: signal.Signals
) -> None:
    process, url = start(environment)
    try:
        assert httpx.get(f"{url}healthz").text == "ok\n"
        state = httpx.get(f"{url}api/state").json()["server"]
        assert state["message"] == "model server at 127.0.0.1:1 does not answer: nothing listens there"
        process.send_signal(signum)
        _, errors = process.communicate(timeout=20)
        assert (process.returncode, errors) == (0, "")
    finally:
        process.kill()
        process.communicate()


def test_a_body_that_is_too_large_is_refused_before_it_is_all_there(environment: dict[str, str]) -> None:
    process, url = start(environment)
    try:
        response = httpx.post(f"{url}api/predict", content=bytes(100 * 2**20), timeout=30)
        assert response.status_code == 413
        assert httpx.get(f"{url}healthz").status_code == 200
    except httpx.WriteError:
        pass  # closed while the rest was being sent: refused as well
    finally:
        process.terminate()
        _, errors = process.communicate(timeout=20)
    assert errors == ""


def test_a_training_in_a_store_is_shown(
    environment: dict[str, str], moto: Moto, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(moto, monkeypatch)
    uri = moto.new_bucket()
    store = open_store(f"{uri}/model")
    store.write("config.json", json.dumps({"run": "r", "train_steps": 468, "model_type": "cnn"}).encode())
    row = {"time": 4e9, "step": 240, "loss": 0.1, "accuracy": 0.979}
    store.write("metrics.jsonl", json.dumps(row).encode() + b"\n")
    with FaultProxy(moto.address) as proxy:
        variables = environment | moto.environment | {"S3_ENDPOINT": proxy.endpoint}
        words = ("--model-dir", f"{uri}/model", "--export-dir", f"{uri}/export")
        process, url = start(variables, *words)
        try:
            for _ in range(5):
                training = httpx.get(f"{url}api/state").json()["training"]
                assert training["message"] == "training, step 240 of 468, 97.9 %"
            gets = [request.path for request in proxy.requests if request.method == "GET"]
            assert len(gets) == 2  # each file's content once
            proxy.fault = lambda _: Answer(403, "AccessDenied")
            assert httpx.get(f"{url}api/state").json()["training"] == training
        finally:
            process.terminate()
            process.communicate(timeout=20)
    assert process.returncode == 0


def test_a_taken_port_is_named_with_its_flag(
    fairway: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        result = fairway("web", "--port", str(port))
    assert result.returncode == 1
    assert f"port {port} on 127.0.0.1 is taken" in result.stderr
    assert "--port" in result.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--server", "a b"), "server is 'a b', but must be HOST:PORT"),
        (("--path-prefix", "/a b"), "path_prefix is '/a b'"),
        (("--port", "70000"), "port is 70000"),
    ],
)
def test_nonsense_is_refused_at_the_start(
    fairway: Callable[..., subprocess.CompletedProcess[str]], words: tuple[str, str], message: str
) -> None:
    result = fairway("web", *words)
    assert result.returncode == 2
    assert message in result.stderr
    assert "Traceback" not in result.stderr
