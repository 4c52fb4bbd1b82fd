"""Runs an ASGI application on a socket until it is told to end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
from collections.abc import Iterator
from typing import Any, Literal

import uvicorn

from fairway.net.ports import BACKLOG

log = logging.getLogger(__name__)


def run_app(
    app: Any, listener: socket.socket, announcement: str, *, drain_s: int, lifespan: Literal["on", "off"]
) -> None:
    """Serve until SIGTERM or Ctrl-C, then answer what has been asked.

    Args:
        app: An ASGI 3 application.
        listener: A listening socket.
        announcement: Is logged once requests are answered.
        drain_s: Seconds that requests in flight may take in the end.
        lifespan: Whether the application is told of start and end.
    """
    config = uvicorn.Config(
        app,
        http="httptools",
        ws="none",
        lifespan=lifespan,
        interface="asgi3",
        log_config=None,
        log_level="warning",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        backlog=BACKLOG,
        timeout_graceful_shutdown=drain_s,
    )
    _Server(config, announcement).run(sockets=[listener])


class _Server(uvicorn.Server):
    """uvicorn without its log and its way to end, which is to kill the process with the signal it got."""

    def __init__(self, config: uvicorn.Config, announcement: str) -> None:
        super().__init__(config)
        self._announcement = announcement

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        log.info("%s", self._announcement)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self.handle_exit, number, None)
        yield
