"""The access log: what is in a line, and that a reader who is slow or gone does no harm."""

import json
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from fairway.serve import access as access_module
from fairway.serve.access import AccessLog
from fairway.tfs.status import Code

WAIT_S = 20.0


class Pipe:
    """A pipe whose writing end is the log's stdout."""

    def __init__(self) -> None:
        self.reader, self.writer = os.pipe()
        self.is_open = True

    def close_reader(self) -> None:
        if self.is_open:
            self.is_open = False
            os.close(self.reader)

    def close(self) -> None:
        self.close_reader()
        os.close(self.writer)

    def lines(self) -> list[dict[str, Any]]:
        """Return what the pipe holds now."""
        return [json.loads(line) for line in os.read(self.reader, 1 << 20).splitlines()]


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    pipe = Pipe()
    yield pipe
    pipe.close()


def write(log: AccessLog, **fields: Any) -> None:
    line: dict[str, Any] = {
        "api": "GRPC",
        "method": "Predict",
        "path": "/tensorflow.serving.PredictionService/Predict",
        "model": "mnist",
        "code": Code.OK,
        "seconds": 0.0012345,
        "size_in": 3170,
        "size_out": 90,
        "peer": "127.0.0.1:40000",
    }
    log.write(**(line | fields))


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline


def test_a_line(pipe: Pipe) -> None:
    with AccessLog(pipe.writer) as log:
        write(log)
    (line,) = pipe.lines()
    moment = line.pop("time")
    assert moment.endswith("Z")
    assert abs(datetime.fromisoformat(moment) - datetime.now(UTC)) < timedelta(minutes=1)
    assert line == {
        "api": "GRPC",
        "method": "Predict",
        "path": "/tensorflow.serving.PredictionService/Predict",
        "model": "mnist",
        "code": "OK",
        "ms": 1.234,
        "bytes_in": 3170,
        "bytes_out": 90,
        "peer": "127.0.0.1:40000",
    }


def test_codes_of_http_are_numbers(pipe: Pipe) -> None:
    with AccessLog(pipe.writer) as log:
        write(log, code=404)
    assert pipe.lines()[0]["code"] == 404


def test_the_order_is_kept(pipe: Pipe) -> None:
    with AccessLog(pipe.writer) as log:
        for number in range(200):
            write(log, size_in=number)
    assert [line["bytes_in"] for line in pipe.lines()] == list(range(200))


@pytest.mark.parametrize("name", ['quote"', "line\nbreak", "\x00\x1b[31m", "ü🚢", "\ud800", "x" * 100_000])
def test_what_clients_write_stays_one_short_line(pipe: Pipe, name: str) -> None:
    with AccessLog(pipe.writer) as log:
        write(log, model=name, path=name)
    data = os.read(pipe.reader, 1 << 20)
    assert data.count(b"\n") == 1
    assert len(data) <= 4096  # is written at once, so that it mixes with no other process's
    assert json.loads(data)["model"] == name[:256].encode(errors="replace").decode()


def test_writes_are_short_enough_not_to_mix(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    real = os.write

    def note(fd: int, data: bytes) -> int:
        if fd == pipe.writer:
            sizes.append(len(data))
            assert data.endswith(b"\n")
        return real(fd, data)

    monkeypatch.setattr(os, "write", note)
    with AccessLog(pipe.writer) as log:
        for _ in range(100):
            write(log)
    assert len(pipe.lines()) == 100
    assert len(sizes) > 1
    assert max(sizes) <= 4096


def test_a_reader_that_has_gone(pipe: Pipe, caplog: pytest.LogCaptureFixture) -> None:
    pipe.close_reader()
    with AccessLog(pipe.writer) as log:
        write(log)
        until(lambda: caplog.records)
        write(log)
    assert [record.getMessage() for record in caplog.records] == [
        "the access log ends, stdout cannot be written to: Broken pipe"
    ]


def test_a_reader_that_does_not_read(
    pipe: Pipe, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.WARNING)
    monkeypatch.setattr(access_module, "_MAX_WAITING", 1000)
    with AccessLog(pipe.writer) as log:
        start = time.monotonic()
        for _ in range(20_000):
            write(log)
        assert time.monotonic() - start < WAIT_S  # none of them has waited for the reader
        read = 0

        def slowly() -> bool:
            nonlocal read
            with suppress(BlockingIOError):
                read += os.read(pipe.reader, 1 << 20).count(b"\n")
            return "are lost" in caplog.text

        os.set_blocking(pipe.reader, False)
        until(slowly)
    assert 0 < read < 20_000


def test_its_end_does_not_wait_for_a_reader_for_long(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access_module, "_STOP_S", 0.1)
    log = AccessLog(pipe.writer)
    for _ in range(2000):
        write(log)
    start = time.monotonic()
    log.close()
    assert time.monotonic() - start < WAIT_S
    assert log._thread.is_alive()
    pipe.close_reader()  # lets its thread go
    log._thread.join(WAIT_S)
    assert not log._thread.is_alive()


def test_a_pipe_that_others_have_made_non_blocking(pipe: Pipe) -> None:
    os.set_blocking(pipe.writer, False)
    with AccessLog(pipe.writer) as log:
        for number in range(2000):
            write(log, size_in=number)
        data = b""
        while data.count(b"\n") < 2000:
            data += os.read(pipe.reader, 1 << 20)
    assert [json.loads(line)["bytes_in"] for line in data.splitlines()] == list(range(2000))


def test_a_process_without_stdout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    with AccessLog() as log:
        write(log)
        assert not log._thread.is_alive()
        assert not log._waiting
