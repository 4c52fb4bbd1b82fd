"""`fairway sync`: copies the versions of an export directory once, or for as long as it runs."""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from fairway.config import SyncSettings
from fairway.errors import StorageError, StoreAwayError, UsageError
from fairway.storage.exports import Version
from fairway.storage.files import storage_errors
from fairway.storage.mirror import send_model_dir
from fairway.storage.model_dir import CONFIG
from fairway.storage.outage import Outage
from fairway.storage.stores.uri import local_path
from fairway.storage.sync import StoppedError, Sync

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_SLICE_S = 0.2

log = logging.getLogger(__name__)


def run(source: str, target: str, settings: SyncSettings, show: Callable[[Version], None]) -> None:
    """Copy what is missing; with `watch`, until SIGTERM or Ctrl-C.

    Args:
        source: An export directory, a path or a URI; or the model directory of a training on this machine.
        target: Where to; the same kind of directory.
        settings: How.
        show: Is called with each version that has been copied.

    Raises:
        UsageError: a URI is not one, or the two are not separate directories.
        StorageError: there is nothing to copy, or a version could not be copied.
        StoreAwayError: versions could not be copied, each for want of an answer of a store.
    """
    path = local_path(source)
    with storage_errors("read", source):
        is_model_dir = path is not None and (path / CONFIG).is_file()
    if path is not None and is_model_dir:
        _send(path, target, settings)
        return
    sync = Sync(source, target, settings.keep, settings.delete)
    if settings.watch:
        log.info("watching %s for versions that %s has not", source, target)
        with _Ending(sync) as ending:
            _watch(sync, ending, settings.poll_seconds, show)
        log.info("ended")
    else:
        _copy_once(sync, source, settings.keep, show)


def _send(model_dir: Path, target: str, settings: SyncSettings) -> None:
    if settings.watch or settings.keep or settings.delete:
        raise UsageError(
            f"{model_dir} is the model directory of a training, which is sent once and whole",
            hint="Leave out --watch, --keep and --delete.",
        )
    send_model_dir(model_dir, target)
    log.info("%s is in %s", model_dir, target)


def _copy_once(sync: Sync, source: str, keep: int | None, show: Callable[[Version], None]) -> None:
    copied = 0
    for version in sync.run():
        show(version)
        copied += 1
    complete = [version for version in sync.found if not version.problem][-(keep or 0) :]
    if not complete:
        problems = "; ".join(f"version {version.number}: {version.problem}" for version in sync.found)
        raise StorageError(
            f"no complete version in {source}{f' ({problems})' if problems else ''}",
            hint="Check the name; or wait for the first version with --watch.",
        )
    if failures := sync.failures:
        reasons = "; ".join(f"version {number}: {failures[number]}" for number in sorted(failures))
        kind = StoreAwayError if sync.is_away else StorageError
        raise kind(f"{len(failures)} of {len(complete)} versions could not be copied: {reasons}")
    if copied:
        log.info("copied %s", _count(copied))
    else:
        log.info("everything is there already: %s", _count(len(complete)))


def _count(number: int) -> str:
    return f"{number} version{'' if number == 1 else 's'}"


class _Ending:
    """SIGTERM and Ctrl-C: the first one stops what is being copied, a second one ends at once.

    Nothing is raised out of the blue, so what is half-copied is removed in any case.
    """

    def __init__(self, sync: Sync) -> None:
        self._sync = sync
        self._before: dict[signal.Signals, Any] = {}
        self.is_told = False

    def __enter__(self) -> Self:
        self._before = {number: signal.signal(number, self._end) for number in _SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def sleep(self, seconds: float) -> None:
        """Sleep, but not on when it is told to end."""
        end = time.monotonic() + seconds
        while not self.is_told and (left := end - time.monotonic()) > 0:
            time.sleep(min(left, _SLICE_S))  # a handler does not end a sleep

    def _end(self, signum: int, _frame: object) -> None:
        if self.is_told:
            os._exit(128 + signum)
        self.is_told = True
        self._sync.stop()


def _watch(sync: Sync, ending: _Ending, poll_s: float, show: Callable[[Version], None]) -> None:
    outage = Outage("copying goes on")
    while not ending.is_told:
        with suppress(StoppedError), outage.noted("trying again and again"):
            if version := sync.step():
                log.info("version %d is in %s", version.number, version.uri)
                show(version)
        if sync.settled or outage.problem:
            ending.sleep(poll_s)
