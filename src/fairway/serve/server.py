"""The model server as a process: its socket, its signals, its end."""

from __future__ import annotations

import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from fairway.config import ServeSettings
from fairway.errors import FairwayError
from fairway.net.asgi import run_app
from fairway.net.ports import listen, reachable
from fairway.serve.http import App
from fairway.serve.versions import Versions

# Requests that are not answered on the event loop. LiteRT takes one at a time; the others serve TensorFlow.
_THREADS = 4
_DRAIN_S = 10


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
        listen(settings.host, settings.rest_api_port, "--rest_api_port") as listener,
        ThreadPoolExecutor(_THREADS, thread_name_prefix="predict") as executor,
    ):
        app = App(settings.model_name, versions, executor)
        versions.start()
        try:
            run_app(app, listener, _announcement(settings, listener), drain_s=_DRAIN_S, lifespan="off")
        finally:
            versions.stop()
            executor.shutdown(wait=False, cancel_futures=True)


def _announcement(settings: ServeSettings, listener: socket.socket) -> str:
    address = f"{reachable(settings.host)}:{listener.getsockname()[1]}"
    url = f"http://{address}/v1/models/{settings.model_name}"
    return f"serving {settings.model_name} at {url} from {settings.model_base_path}"
