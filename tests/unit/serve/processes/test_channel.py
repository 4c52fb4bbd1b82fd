"""Calls over a pipe; both ends in this process."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any

import pytest

from fairway.errors import FairwayError
from fairway.serve.processes.channel import Channel, ClosedError
from fairway.tfs.status import Code, RequestError

DEADLINE_S = 10.0


@contextmanager
def connected(**answers: Callable[..., Any]) -> Iterator[tuple[Channel, Channel]]:
    """Two ends that read until the block ends; the second one answers."""
    ends = [Channel(end, answers) for end in Pipe()]
    threads = [threading.Thread(target=end.run) for end in ends]
    for thread in threads:
        thread.start()
    try:
        yield ends[0], ends[1]
    finally:
        for end in ends:
            end.close()
        for thread in threads:
            thread.join(DEADLINE_S)
            assert not thread.is_alive()


def refuse(kind: str) -> None:
    raise {
        "explained": FairwayError("it is full", hint="Empty it."),
        "request": RequestError(Code.NOT_FOUND, "not there"),
        "bug": KeyError("x"),
    }[kind]


def test_both_ends_call() -> None:
    with connected(double=lambda number: 2 * number) as (one, other):
        assert (one.call("double", 4), other.call("double", 5)) == (8, 10)


def test_a_long_call_holds_up_no_other() -> None:
    go_on = threading.Event()
    with connected(wait=lambda: go_on.wait(DEADLINE_S), answer=lambda: 1) as (one, _):
        waiting = one.ask("wait")
        assert one.call("answer") == 1
        assert not waiting.done()
        go_on.set()
        assert waiting.result(DEADLINE_S) is True


def test_errors_are_those_of_the_other_side() -> None:
    with connected(refuse=refuse) as (one, _):
        with pytest.raises(FairwayError, match="it is full") as caught:
            one.call("refuse", "explained")
        assert caught.value.hint == "Empty it."
        with pytest.raises(RequestError, match="not there") as refused:
            one.call("refuse", "request")
        assert refused.value.code is Code.NOT_FOUND


def test_an_error_that_nobody_has_explained(caplog: pytest.LogCaptureFixture) -> None:
    with connected(refuse=refuse) as (one, _):
        with pytest.raises(FairwayError, match="KeyError: 'x'"):
            one.call("refuse", "bug")
        assert "refuse failed" in caplog.text


def test_another_side_that_does_not_read_holds_nobody_up() -> None:
    ours, theirs = socket.socketpair()
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", 0, 50_000))
    with theirs:
        channel = Channel(Connection(ours.detach()), {})
        reading = threading.Thread(target=channel.run)
        reading.start()
        with pytest.raises(ClosedError):
            channel.ask("publish", bytes(10_000_000)).result(DEADLINE_S)
        reading.join(DEADLINE_S)
        assert not reading.is_alive()


def test_the_end_of_the_other_side_ends_all_calls() -> None:
    go_on = threading.Event()
    with connected(wait=lambda: go_on.wait(DEADLINE_S)) as (one, other):
        waiting = one.ask("wait")
        other.close()
        with pytest.raises(ClosedError):
            waiting.result(DEADLINE_S)
        with pytest.raises(ClosedError):
            one.call("wait")
        go_on.set()
