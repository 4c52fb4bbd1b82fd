"""Runs an ASGI application on a socket until it is told to end."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import resource
import signal
import socket
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, Literal

import uvicorn

from fairway.net.connection import Connection
from fairway.net.direct import DirectConnection
from fairway.net.ports import BACKLOG

# Longer than proxies keep theirs: who is to close a connection must be the one who asks. nginx: 60 s.
_KEEP_ALIVE_S = 75
# Where there is no limit: some systems do not take infinity for an answer.
_OPEN_FILES = 65_536

# libuv takes one new connection from a socket each time it has served all others that have something to say:
# under load, the last of 64 that come together waited for half a second. So it gets the socket several times.
_ACCEPTED_AT_A_TIME = 16


def run_app(
    app: Any,
    listener: socket.socket,
    started: Callable[[], None],
    *,
    drain_s: float,
    lifespan: Literal["on", "off"],
    stopping: Callable[[], None] | None = None,
) -> None:
    """Serve until SIGTERM or Ctrl-C, then answer what has been asked.

    Args:
        app: An ASGI 3 application; with a method `answer_at_once` (see `net.direct`) it is asked that first.
        listener: A listening socket.
        started: Is called once requests are answered.
        drain_s: Seconds that requests in flight may take in the end.
        lifespan: Whether the application is told of start and end.
        stopping: Is called once when the signal to end has come, on the event loop: it must not block.
    """
    _allow_open_files()
    config = uvicorn.Config(
        app,
        http=DirectConnection if hasattr(app, "answer_at_once") else Connection,
        ws="none",
        lifespan=lifespan,
        interface="asgi3",
        log_config=None,
        log_level="error",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        backlog=BACKLOG,
        timeout_keep_alive=_KEEP_ALIVE_S,
    )
    listeners = [listener, *(listener.dup() for _ in range(_ACCEPTED_AT_A_TIME - 1))]
    _Server(config, started, drain_s, stopping).run(sockets=listeners)


def _allow_open_files() -> None:
    """Take as many open files, thus connections, as the system allows; the usual 1024 are for `select`."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _OPEN_FILES if hard == resource.RLIM_INFINITY else hard
    if resource.RLIM_INFINITY != soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


class _Server(uvicorn.Server):
    """uvicorn without its log and its way to end, which is to kill the process with the signal it got."""

    def __init__(
        self,
        config: uvicorn.Config,
        started: Callable[[], None],
        drain_s: float,
        stopping: Callable[[], None] | None,
    ) -> None:
        super().__init__(config)
        self._started = started
        self._drain_s = drain_s
        self._stopping = stopping

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        # What has been loaded by now stays: the search for garbage need not look at it again and again.
        gc.collect()
        gc.freeze()
        self._started()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for listener in (*self.servers, *(sockets or ())):
            listener.close()
        await asyncio.sleep(0)  # until the connections that have been accepted are among those here
        for connection in list(self.server_state.connections):
            connection.shutdown()
        try:
            async with asyncio.timeout(self._drain_s):
                await self._wait_tasks_to_complete()
        except TimeoutError:
            for task in list(self.server_state.tasks):
                task.cancel()
            await asyncio.sleep(0)  # until they have answered
            for connection in list(self.server_state.connections):
                connection.transport.close()
        if not self.force_exit:
            await self.lifespan.shutdown()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self._stopping and not self.should_exit:
            self._stopping()
        super().handle_exit(sig, frame)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self.handle_exit, number, None)
        yield
