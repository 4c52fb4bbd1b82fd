"""`fairway serve --workers`: several processes that answer as one, with real models."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.integration.serving.wire import answered_beyond

WORKERS = 2
BODY = b'{"instances": [1.0]}'


@pytest.fixture
def server(publish: Callable[[str, int], Path], serve: Callable[..., Any]) -> Any:
    publish("half_plus_two", 1)
    server = serve(flags=[f"--workers={WORKERS}"])
    server.wait_for_version(1)
    return server


def pids(server: Any) -> set[int]:
    return {child.pid for child in psutil.Process(server.process.pid).children()}


def ask(server: Any) -> Any:
    """Return the answer, or the error, over a connection of its own: any of the processes may get it."""
    try:
        answer = httpx.post(f"{server.model}:predict", content=BODY, timeout=60, verify=False)
        return answer.json().get("predictions", answer.text)
    except httpx.HTTPError as err:
        return err


@contextmanager
def asking(server: Any) -> Iterator[list[tuple[float, Any]]]:
    """Ask again and again in two threads during the block; collect when each was asked, and the answers."""
    stop = threading.Event()
    answers: list[tuple[float, Any]] = []

    def go_on() -> None:
        while not stop.is_set():
            started = time.monotonic()
            answers.append((started, ask(server)))

    threads = [threading.Thread(target=go_on) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        yield answers
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def test_all_switch_together_without_a_failed_request(
    server: Any, publish: Callable[[str, int], Path]
) -> None:
    def state_of(number: int) -> str:
        content = server.client.get(f"{server.model}/versions/{number}").json()
        state: str = content["model_version_status"][0]["state"]
        return state

    with asking(server) as answers:
        server.wait_for(lambda: bool(answers))
        for number in range(2, 5):
            publish("half_plus_three" if number % 2 == 0 else "half_plus_two", number)
            server.wait_for_version(number)
            server.wait_for(lambda number=number: state_of(number - 1) == "END")
            switched, new = time.monotonic(), [3.5] if number % 2 == 0 else [2.5]
            count = len(answers)
            server.wait_for(lambda count=count: len(answers) > count + 8)
            assert {str(answer) for at, answer in answers if at > switched} == {str(new)}
    assert [answer for _, answer in answers if answer not in ([2.5], [3.5])] == []


def test_a_killed_worker_is_replaced_while_the_others_answer(
    server: Any, publish: Callable[[str, int], Path]
) -> None:
    before = pids(server)
    assert len(before) == WORKERS
    with asking(server) as answers:
        server.wait_for(lambda: bool(answers))
        victim = before.pop()
        os.kill(victim, signal.SIGKILL)
        server.wait_for(lambda: victim not in pids(server) and len(pids(server)) == WORKERS)
        server.reconnect()  # the connection so far may have been to that process
        publish("half_plus_three", 2)
        server.wait_for_version(2)
        count = len(answers)
        server.wait_for(lambda: len(answers) > count + 8)
    failed = [answer for _, answer in answers if answer not in ([2.5], [3.5])]
    assert all(isinstance(answer, httpx.TransportError) for answer in failed), failed
    # What was under way in that process, and what reached it before the last of its sockets was closed.
    assert len(failed) <= 4
    assert "ended (SIGKILL); starting another one" in server.output


def test_a_version_that_no_worker_can_load_again_takes_no_other_model_down(
    models: Path, serve: Callable[..., Any], tmp_path: Path
) -> None:
    configs = ""
    for name in ("a", "b"):
        shutil.copytree(models / "half_plus_two", tmp_path / name / "1")
        configs += f'config {{ name: "{name}" base_path: "{tmp_path / name}" }}\n'
    (tmp_path / "models.config").write_text(f"model_config_list {{\n{configs}}}\n")
    server = serve(flags=[f"--workers={WORKERS}", f"--model_config_file={tmp_path / 'models.config'}"])

    def serving() -> Any:
        try:
            return httpx.get(f"{server.root}/readyz", timeout=60).json()["models"]
        except httpx.HTTPError as err:
            return err

    server.wait_for(lambda: serving() == {"a": [1], "b": [1]})
    (tmp_path / "b" / "1" / "saved_model.pb").unlink()
    (tmp_path / "b" / "1" / "model.tflite").unlink()
    before = pids(server)
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    server.wait_for(lambda: len(pids(server) - before) == WORKERS and serving() == {"a": [1], "b": []})
    status = httpx.get(f"{server.root}/v1/models/b", timeout=60).json()["model_version_status"]
    assert [each["state"] for each in status] == ["END"]

    shutil.rmtree(tmp_path / "b" / "1")
    shutil.copytree(models / "half_plus_two", tmp_path / "new")
    (tmp_path / "new").rename(tmp_path / "b" / "1")
    server.wait_for(lambda: serving() == {"a": [1], "b": [1]})


def test_no_worker_outlives_the_one_that_decides(server: Any) -> None:
    children = psutil.Process(server.process.pid).children()
    server.process.kill()
    server.process.wait()
    server.exit_code = -signal.SIGKILL
    _, alive = psutil.wait_procs(children, timeout=30)
    assert alive == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_requests_in_flight_are_answered_before_the_end(server: Any, number: signal.Signals) -> None:
    children = psutil.Process(server.process.pid).children()
    reply = answered_beyond(server, number, BODY, (ConnectionRefusedError, ConnectionResetError))
    assert b"200 OK" in reply
    assert server.stop() == 0
    assert [child for child in children if child.is_running()] == []


def test_the_metrics_are_those_of_all(server: Any) -> None:
    for _ in range(12):
        assert ask(server) == [2.5]
    for _ in range(4):
        page = httpx.get(f"{server.root}/monitoring/prometheus/metrics", timeout=60).text
        counted = re.findall(r':tensorflow:serving:request_count\{.*status="OK".*\} (\S+)', page)
        assert [float(count) for count in counted] == [12.0], page

    before = pids(server)
    os.kill(min(before), signal.SIGKILL)
    server.wait_for(lambda: min(before) not in pids(server))
    page = httpx.get(f"{server.root}/monitoring/prometheus/metrics", timeout=60).text
    counted = re.findall(r':tensorflow:serving:request_count\{.*status="OK".*\} (\S+)', page)
    assert [float(count) for count in counted] == [12.0], page


@pytest.mark.parametrize("workers", [1, WORKERS])
def test_another_server_does_not_get_a_share_of_the_ports(server: Any, workers: int) -> None:
    port = server.root.rpartition(":")[2]
    flags = [f"--workers={workers}", f"--rest_api_port={port}", "--port=0", "--model_base_path=nothing"]
    command = [sys.executable, "-m", "fairway", "serve", *flags]
    other = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert other.returncode == 1
    assert f"port {port} on 127.0.0.1 is taken by process {server.process.pid} (" in other.stderr
