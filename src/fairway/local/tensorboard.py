"""TensorBoard on a model directory, without loading TensorFlow: 1 s and 100 MB instead of 5 s and 600 MB."""

from __future__ import annotations

import logging
import signal
import sys
import threading
import types
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fairway.config import TensorBoardSettings
from fairway.errors import FairwayError, missing_extra
from fairway.net.ports import available, claim_port
from fairway.storage.follow import follow
from fairway.storage.stores.uri import local_path, open_store

log = logging.getLogger(__name__)

RELOAD_INTERVAL_S = 2


def run(settings: TensorBoardSettings) -> None:
    """Serve TensorBoard until SIGINT or SIGTERM.

    Raises:
        FairwayError: TensorBoard is not installed, the port is taken, or TensorBoard refuses the settings.
        StorageError: the event files lie in an object store, which does not answer or refuses.
    """
    # TensorBoard looks for a module of this name; where it is, it uses its own reader of event files.
    sys.modules["tensorboard.compat.notf"] = types.ModuleType("tensorboard.compat.notf")
    try:
        from tensorboard import program
    except ImportError as err:
        raise missing_extra("TensorBoard", "tensorboard", "watching a training") from err

    port = claim_port(settings.host, settings.port, "--port")
    with _directory(settings.logdir) as directory:
        _serve(program.TensorBoard(), settings, directory, port)


@contextmanager
def _directory(logdir: str) -> Iterator[Path]:
    """Give the directory itself, or one that follows it in an object store, which TensorBoard cannot read."""
    path = local_path(logdir)
    if path is not None:
        yield path
        return
    # Until TensorBoard runs, SIGTERM ends as Ctrl-C does: nothing is left behind.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with follow(open_store(logdir)) as directory:
        yield directory


def _serve(board: Any, settings: TensorBoardSettings, directory: Path, port: int) -> None:
    words = ["tensorboard", f"--logdir={directory}", f"--host={available(settings.host)}", f"--port={port}"]
    words += [f"--path_prefix={settings.path_prefix}", f"--reload_interval={RELOAD_INTERVAL_S}"]
    board.configure(argv=[*words, "--load_fast=false"])  # the fast loader is one more process, for huge logs
    stop = threading.Event()
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, lambda *_: stop.set())
    try:
        url = board.launch()
    except Exception as err:  # TensorBoard's own errors share no base class
        raise FairwayError(f"TensorBoard does not start: {err}") from err
    log.info("TensorBoard at %s", url)
    stop.wait()
