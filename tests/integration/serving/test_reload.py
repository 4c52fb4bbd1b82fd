"""Versions that come, break and go while requests are answered."""

from __future__ import annotations

import json
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from fairway.storage.manifest import describe_files
from tests.integration.serving.wire import answered_beyond


@contextmanager
def requests_without_pause(server: Any, replies: list[Any]) -> Iterator[None]:
    """Ask again and again in two threads during the block; collect the predictions, or what went wrong."""
    stop = threading.Event()

    def ask() -> None:
        with httpx.Client(timeout=60) as client:
            while not stop.is_set():
                try:
                    answer = client.post(f"{server.model}:predict", content=b'{"instances": [1.0]}')
                    replies.append(answer.json().get("predictions", answer.text))
                except httpx.HTTPError as err:
                    replies.append(err)

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def test_versions_are_switched_without_a_failed_request(
    publish: Callable[[str, int], Path], serve: Callable[..., Any]
) -> None:
    publish("half_plus_two", 1)
    server = serve()
    server.wait_for_version(1)
    replies: list[Any] = []

    with requests_without_pause(server, replies):
        server.wait_for(lambda: bool(replies))
        for number in range(2, 8):
            publish("half_plus_three" if number % 2 == 0 else "half_plus_two", number)
            server.wait_for_version(number)
            answered = len(replies)
            server.wait_for(lambda answered=answered: len(replies) > answered + 4)

    assert [reply for reply in replies if reply not in ([2.5], [3.5])] == []
    assert [2.5] in replies
    assert [3.5] in replies
    status = server.client.get(server.model).json()["model_version_status"]
    assert status[0] == {
        "version": "7",
        "state": "AVAILABLE",
        "status": {"error_code": "OK", "error_message": ""},
    }


def truncate_file(path: Path) -> None:
    content = (path / "model.tflite").read_bytes()
    (path / "model.tflite").write_bytes(content[: len(content) // 2])


def flip_a_byte(path: Path) -> None:
    content = bytearray((path / "model.tflite").read_bytes())
    content[len(content) // 2] ^= 255
    (path / "model.tflite").write_bytes(content)


def write_garbage_with_a_right_checksum(path: Path) -> None:
    (path / "model.tflite").write_bytes(b"garbage")
    rewrite_manifest(path, files=describe_files(path))


def record_another_shape(path: Path) -> None:
    signatures = json.loads((path / "fairway.json").read_text())["signatures"]
    signatures["serving_default"]["inputs"]["x"]["shape"] = [-1, 28]
    rewrite_signatures(path, signatures)


def record_another_input(path: Path) -> None:
    signatures = json.loads((path / "fairway.json").read_text())["signatures"]
    inputs = signatures["serving_default"]["inputs"]
    inputs["z"] = inputs.pop("x")
    rewrite_signatures(path, signatures)


def delete_the_manifest(path: Path) -> None:
    (path / "fairway.json").unlink()


def cut_the_manifest(path: Path) -> None:
    (path / "fairway.json").write_text("{")


def rewrite_signatures(path: Path, signatures: Any) -> None:
    (path / "assets.extra" / "tf_serving_warmup_requests").unlink()  # which would not fit them
    rewrite_manifest(path, signatures=signatures, files=describe_files(path))


def rewrite_manifest(path: Path, **changes: Any) -> None:
    manifest = json.loads((path / "fairway.json").read_text())
    (path / "fairway.json").write_text(json.dumps(manifest | changes))


BROKEN = {
    truncate_file: "model.tflite has",
    flip_a_byte: "wrong checksum of model.tflite",
    write_garbage_with_a_right_checksum: "model.tflite cannot be loaded",
    record_another_shape: "input 'x' of model.tflite is float32 [-1] instead of DT_FLOAT [-1,28]",
    record_another_input: "model.tflite has the inputs ['x'] instead of ['z']",
    delete_the_manifest: "it has a model.tflite but no manifest",
    cut_the_manifest: "fairway.json cannot be read",
}


def test_broken_versions_are_skipped_and_reported(
    publish: Callable[[str, int], Path], serve: Callable[..., Any], tmp_path: Path
) -> None:
    publish("half_plus_two", 1)
    server = serve()
    server.wait_for_version(1)

    def error_of(number: int) -> str:
        answer = server.client.get(f"{server.model}/versions/{number}").json()
        statuses = answer.get("model_version_status", [{"status": {"error_message": ""}}])
        error: str = statuses[0]["status"]["error_message"]
        return error

    for number, (break_it, reason) in enumerate(BROKEN.items(), start=2):
        scratch = publish("half_plus_three", 1000).rename(tmp_path / "scratch")
        break_it(scratch)
        scratch.rename(tmp_path / "export" / str(number))
        server.wait_for(lambda number=number: error_of(number) != "")
        assert reason in error_of(number)
        assert server.predict(instances=[1.0]).json() == {"predictions": [2.5]}

    assert server.served() == 1
    shutil.rmtree(tmp_path / "export" / str(number))
    publish("half_plus_three", number)
    server.wait_for_version(number)
    assert server.predict(instances=[1.0]).json() == {"predictions": [3.5]}


def test_deleting_the_newest_rolls_back_under_requests(
    publish: Callable[[str, int], Path], serve: Callable[..., Any]
) -> None:
    publish("half_plus_two", 1)
    newest = publish("half_plus_three", 2)
    server = serve()
    server.wait_for_version(2)
    replies: list[Any] = []

    with requests_without_pause(server, replies):
        server.wait_for(lambda: bool(replies))
        shutil.rmtree(newest)
        server.wait_for_version(1)

    assert [reply for reply in replies if reply not in ([2.5], [3.5])] == []
    assert server.predict(instances=[1.0]).json() == {"predictions": [2.5]}
    assert server.client.get(f"{server.model}/versions/2").status_code in (200, 404)


def test_an_empty_base_path_is_waited_for(
    publish: Callable[[str, int], Path], serve: Callable[..., Any], tmp_path: Path
) -> None:
    server = serve()

    assert server.client.get(f"{server.root}/readyz").status_code == 503
    assert server.problem() == f"no version in {tmp_path / 'export'} yet"
    assert server.client.get(f"{server.root}/healthz").status_code == 200
    assert server.predict(instances=[1.0]).status_code == 404

    publish("half_plus_two", 5)
    server.wait_for_version(5)
    assert server.predict(instances=[1.0]).json() == {"predictions": [2.5]}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_requests_in_flight_are_answered_before_the_end(
    publish: Callable[[str, int], Path], serve: Callable[..., Any], number: signal.Signals
) -> None:
    publish("half_plus_two", 1)
    server = serve()
    server.wait_for_version(1)
    reply = answered_beyond(server, number, b'{"instances": [1.0]}')
    assert b"200 OK" in reply
    assert server.stop() == 0
