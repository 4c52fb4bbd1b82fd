"""The access log: a line of JSON on stdout for each request."""

from __future__ import annotations

import logging
import os
import select
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Self

import orjson

from fairway.tfs.status import Code

# Linux's PIPE_BUF: as much of whole lines is written at once, so that those of several processes never mix.
_CHUNK_BYTES = 4096
_TEXT_CHARS = 256
_MAX_WAITING = 10_000
_COLLECT_S = 0.05
_STOP_S = 1.0

logger = logging.getLogger(__name__)


class AccessLog:
    """Writes from a thread of its own; a context manager, which at its end writes what still waits.

    A reader that is slow or gone costs lines, never a request: of those that wait for it only so many are
    kept, and after it has gone none.

    Args:
        fd: Where to write; `None` is stdout.
    """

    def __init__(self, fd: int | None = None) -> None:
        self._fd = _stdout() if fd is None else fd
        self._waiting: deque[tuple[Any, ...]] = deque()
        self._dropped = 0
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="access-log", daemon=True)
        if self._fd is not None:
            self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def write(
        self,
        *,
        api: str,
        method: str,
        path: str,
        model: str,
        code: Code | int,
        seconds: float,
        size_in: int,
        size_out: int,
        peer: str,
    ) -> None:
        """Log a request that is done; returns at once.

        Args:
            api: `REST` or `GRPC`.
            method: `POST`, or `Predict`.
            path: What was asked for, as the client wrote it.
            model: The model's name as the client wrote it, or empty.
            code: The status: a number of HTTP, or gRPC's name of it.
            seconds: From its arrival to its reply.
            size_in: Bytes of the request's body or message.
            size_out: Bytes of the reply's.
            peer: The client's address, or empty where it has none.
        """
        if self._fd is None:
            return
        if len(self._waiting) >= _MAX_WAITING:
            self._dropped += 1
            return
        line = (time.time(), api, method, path, model, code, seconds, size_in, size_out, peer)
        self._waiting.append(line)
        if not self._wake.is_set():
            self._wake.set()

    def close(self) -> None:
        """Write what waits, unless that takes longer than a second, and end."""
        self._stop.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(_STOP_S)

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                self._wake.wait()
                # One write for many lines: to wake up for each costs more than the line.
                time.sleep(_COLLECT_S)
                self._wake.clear()
                self._drain()
            self._drain()
        except OSError as err:
            self._fd = None
            self._waiting.clear()
            logger.warning("the access log ends, stdout cannot be written to: %s", err.strerror)

    def _drain(self) -> None:
        for chunk in _chunks(self._lines()):
            self._write(chunk)
        if self._dropped:
            dropped, self._dropped = self._dropped, 0
            logger.warning("%d lines of the access log are lost: stdout is read too slowly", dropped)

    def _lines(self) -> Iterator[bytes]:
        while self._waiting:
            yield _line(*self._waiting.popleft())

    def _write(self, data: bytes) -> None:
        while data and self._fd is not None:
            try:
                data = data[os.write(self._fd, data) :]
            except BlockingIOError:  # whoever shares stdout with us has made it so
                select.select([], [self._fd], [], _STOP_S)


def _stdout() -> int | None:
    """Return the descriptor of stdout; `None` where the process was started without one."""
    return None if sys.stdout is None else sys.stdout.fileno()


def _line(
    moment: float,
    api: str,
    method: str,
    path: str,
    model: str,
    code: Code | int,
    seconds: float,
    size_in: int,
    size_out: int,
    peer: str,
) -> bytes:
    content = {
        "time": datetime.fromtimestamp(moment, UTC),
        "api": api,
        "method": _text(method),
        "path": _text(path),
        "model": _text(model),
        "code": code.name if isinstance(code, Code) else code,
        "ms": round(seconds * 1000, 3),
        "bytes_in": size_in,
        "bytes_out": size_out,
        "peer": peer,
    }
    return orjson.dumps(content, option=orjson.OPT_UTC_Z | orjson.OPT_APPEND_NEWLINE)


def _text(value: str) -> str:
    """Return what a client wrote, short enough for a line, and without what UTF-8 cannot hold."""
    return value[:_TEXT_CHARS].encode(errors="replace").decode()


def _chunks(lines: Iterator[bytes]) -> Iterator[bytes]:
    chunk = bytearray()
    for line in lines:
        if chunk and len(chunk) + len(line) > _CHUNK_BYTES:
            yield bytes(chunk)
            chunk.clear()
        chunk += line
    if chunk:
        yield bytes(chunk)
