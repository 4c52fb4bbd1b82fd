"""The end of a server, told by a signal, with clients that are connected."""

from __future__ import annotations

import asyncio
import gc
import http.client
import os
import resource
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from fairway.net import connection
from fairway.net.asgi import run_app

# Is released with each request for /never.
asked = threading.Semaphore(0)


class Asgi:
    """Answers; /never does not."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        status = 200
        try:
            if scope["path"] == "/never":
                asked.release()
                await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            status = 503
        await send({"type": "http.response.start", "status": status, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})


class Direct(Asgi):
    """Answers at once."""

    def answer_at_once(self, *_: Any) -> tuple[bytes, bytes] | None:
        return b"", b"ok"


@pytest.fixture(autouse=True)
def _process() -> Iterator[None]:
    """Leave the process as it was."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    gc.unfreeze()


def run(app: Any, *clients: Callable[[http.client.HTTPConnection], None], drain_s: float = 5) -> float:
    """Serve the clients, each in a thread, until they end it; return the seconds that the end took."""
    listener = socket.create_server(("127.0.0.1", 0))
    address, port = listener.getsockname()
    connections = [http.client.HTTPConnection(address, port, timeout=10) for _ in clients]
    threads = [
        threading.Thread(target=client, args=(each,))
        for client, each in zip(clients, connections, strict=True)
    ]
    told: list[float] = []

    def start() -> None:
        for thread in threads:
            thread.start()

    run_app(
        app,
        listener,
        start,
        drain_s=drain_s,
        lifespan="off",
        stopping=lambda: told.append(time.monotonic()),
    )
    seconds = time.monotonic() - told[0]
    for thread in threads:
        thread.join()
    for each in connections:
        each.close()
    return seconds


def end() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize("app", [Asgi(), Direct()], ids=["asgi", "direct"])
def test_no_request_is_lost(app: Any) -> None:
    ends: list[str] = []
    answered = threading.Semaphore(0)

    def ask(client: http.client.HTTPConnection) -> None:
        try:
            while True:
                client.request("POST", "/", b"x")
                reply = client.getresponse()
                assert reply.read() == b"ok"
                answered.release()
                if reply.will_close:
                    ends.append("told")
                    return
        except (OSError, http.client.HTTPException) as err:
            ends.append(repr(err))

    def stop(client: http.client.HTTPConnection) -> None:
        for _ in range(100):
            answered.acquire()
        end()

    run(app, ask, ask, ask, ask, stop)

    assert ends == ["told"] * 4


def test_idle_connections_are_closed_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "ENDING_S", 0.05)

    def idle(client: http.client.HTTPConnection) -> None:
        client.request("GET", "/")
        assert client.getresponse().read() == b"ok"
        end()

    assert run(Asgi(), idle) < 1


@pytest.mark.parametrize("drain_s", [0, 0.2])
def test_what_takes_too_long_is_cut(drain_s: float, caplog: pytest.LogCaptureFixture) -> None:
    statuses: list[int] = []

    def ask(client: http.client.HTTPConnection) -> None:
        client.request("GET", "/never")
        asked.acquire()
        end()
        statuses.append(client.getresponse().status)

    seconds = run(Asgi(), ask, drain_s=drain_s)

    assert statuses == [503]
    assert drain_s <= seconds < drain_s + 0.6
    assert caplog.records == []


def test_idle_connections_are_cut_without_a_word(caplog: pytest.LogCaptureFixture) -> None:
    def idle(client: http.client.HTTPConnection) -> None:
        client.connect()
        end()

    run(Asgi(), idle, drain_s=0)

    assert caplog.records == []
