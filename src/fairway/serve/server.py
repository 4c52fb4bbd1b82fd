"""The model server as a process: its socket, its signals, its end."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from fairway.config import ServeSettings
from fairway.errors import FairwayError
from fairway.net.asgi import run_app
from fairway.net.ports import listen, reachable
from fairway.serve.cache import Cache
from fairway.serve.http import App
from fairway.serve.versions import Versions
from fairway.storage.stores.uri import local_path

# Requests that are not answered on the event loop. LiteRT takes one at a time; the others serve TensorFlow.
_THREADS = 4
_DRAIN_S = 10


def run(settings: ServeSettings) -> None:
    """Serve until SIGTERM or Ctrl-C; then answer what has been asked, for at most ten seconds.

    Raises:
        FairwayError: the base path is a file or a URI that cannot be used, or the port cannot be had.
    """
    with (
        _open_versions(settings) as versions,
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


@contextmanager
def _open_versions(settings: ServeSettings) -> Iterator[Versions]:
    poll_s = settings.file_system_poll_wait_seconds
    path = local_path(settings.model_base_path)
    if path is None:
        with Cache(settings.model_base_path) as cache:
            yield Versions(cache.path, poll_s, cache=cache)
        return
    if path.exists() and not path.is_dir():
        raise FairwayError(
            f"model_base_path {path} is a file, but must be a directory of versions",
            hint="Give the export directory: --model_base_path mnist/export",
        )
    yield Versions(path, poll_s)


def _announcement(settings: ServeSettings, listener: socket.socket) -> str:
    address = f"{reachable(settings.host)}:{listener.getsockname()[1]}"
    url = f"http://{address}/v1/models/{settings.model_name}"
    return f"serving {settings.model_name} at {url} from {settings.model_base_path}"
