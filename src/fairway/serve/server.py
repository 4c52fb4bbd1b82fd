"""The model server as a process: its socket, its signals, its end."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import signal
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import uvicorn

from fairway.config import ServeSettings
from fairway.errors import FairwayError
from fairway.serve.http import App
from fairway.serve.versions import Versions

# Requests that are not answered on the event loop. LiteRT takes one at a time; the others serve TensorFlow.
_THREADS = 4
_DRAIN_S = 10
_BACKLOG = 2048

logger = logging.getLogger(__name__)


def run(settings: ServeSettings) -> None:
    """Serve until SIGTERM or Ctrl-C; then answer what has been asked, for at most ten seconds.

    Raises:
        FairwayError: the base path is a file, or the port cannot be had.
    """
    base_path = Path(settings.model_base_path)
    if base_path.exists() and not base_path.is_dir():
        raise FairwayError(
            f"model_base_path {base_path} is a file, but must be a directory of versions",
            hint="Give the export directory: --model_base_path mnist/export",
        )
    versions = Versions(base_path, settings.file_system_poll_wait_seconds)
    with (
        _listen(settings.host, settings.rest_api_port) as listener,
        ThreadPoolExecutor(_THREADS, thread_name_prefix="predict") as executor,
    ):
        app = App(settings.model_name, versions, executor)
        versions.start()
        try:
            _Server(app, _announcement(settings, listener)).run(sockets=[listener])
        finally:
            versions.stop()
            executor.shutdown(wait=False, cancel_futures=True)


class _Server(uvicorn.Server):
    """uvicorn without its log and its way to end, which is to kill the process with the signal it got."""

    def __init__(self, app: App, announcement: str) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http="httptools",
                ws="none",
                lifespan="off",
                interface="asgi3",
                log_config=None,
                log_level="warning",
                access_log=False,
                proxy_headers=False,
                server_header=False,
                backlog=_BACKLOG,
                timeout_graceful_shutdown=_DRAIN_S,
            )
        )
        self._announcement = announcement

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        logger.info("%s", self._announcement)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self.handle_exit, number, None)
        yield


def _listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens.

    Raises:
        FairwayError: the port is taken or forbidden, or the address is not this machine's.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError as err:
        raise FairwayError(
            f"cannot listen on host {host}: {err.strerror}", hint="Set it with --host."
        ) from err
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(_BACKLOG)
    except OSError as err:
        listener.close()
        if err.errno == errno.EADDRINUSE:
            raise FairwayError(
                f"port {port} on {host} is taken",
                hint="Choose another with --rest_api_port; 0 takes a free one.",
            ) from err
        raise FairwayError(
            f"cannot listen on {host}:{port}: {err.strerror}",
            hint="Set them with --host and --rest_api_port.",
        ) from err
    return listener


def _announcement(settings: ServeSettings, listener: socket.socket) -> str:
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    url = f"http://{host}:{listener.getsockname()[1]}/v1/models/{settings.model_name}"
    return f"serving {settings.model_name} at {url} from {settings.model_base_path}"
