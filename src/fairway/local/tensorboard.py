"""TensorBoard on a model directory, without loading TensorFlow: 1 s and 100 MB instead of 5 s and 600 MB."""

from __future__ import annotations

import logging
import signal
import sys
import threading
import types

from fairway.config import TensorBoardSettings
from fairway.errors import FairwayError, missing_extra
from fairway.net.ports import claim_port

log = logging.getLogger(__name__)

RELOAD_INTERVAL_S = 2


def run(settings: TensorBoardSettings) -> None:
    """Serve TensorBoard until SIGINT or SIGTERM.

    Raises:
        FairwayError: TensorBoard is not installed, the port is taken, or TensorBoard refuses the settings.
    """
    # TensorBoard looks for a module of this name; where it is, it uses its own reader of event files.
    sys.modules["tensorboard.compat.notf"] = types.ModuleType("tensorboard.compat.notf")
    try:
        from tensorboard import program
    except ImportError as err:
        raise missing_extra("TensorBoard", "train", "watching a training") from err

    port = claim_port(settings.host, settings.port, "--port")
    board = program.TensorBoard()
    words = ["tensorboard", f"--logdir={settings.logdir}", f"--host={settings.host}", f"--port={port}"]
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
