"""A TensorBoard profile of a few steps, for `--profile`."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Self

import tensorflow as tf

from fairway.storage.model_dir import EVENTS
from fairway.train.checkpoints import write_errors

FIRST, LAST = 2, 4
"""Reports between which it is taken: the first ones are slow, as the step is compiled."""

log = logging.getLogger(__name__)


class Profile:
    """Takes a profile between two reports of a training; a context manager.

    Args:
        model_dir: Gets it, as `events/plugins/profile/…`.
        is_wanted: Otherwise it does nothing.
    """

    def __init__(self, model_dir: Path, is_wanted: bool) -> None:
        self._directory = model_dir / EVENTS
        self._reports, self._is_wanted, self._is_running = 0, is_wanted, False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def advance(self) -> None:
        """Count a report, and begin or end at the right ones.

        Raises:
            StorageError: the directory cannot be written to.
        """
        self._reports += 1
        if self._is_wanted and self._reports == FIRST:
            tf.profiler.experimental.start(str(self._directory))
            self._is_running = True
        elif self._reports == LAST:
            self._stop()

    def _stop(self) -> None:
        if self._is_running:
            self._is_running = False
            with write_errors(self._directory):
                tf.profiler.experimental.stop()
            log.info("profile of %d reports written to %s", LAST - FIRST, self._directory)
