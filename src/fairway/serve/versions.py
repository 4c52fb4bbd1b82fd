"""Which version of the model serves: the newest on disk that answers, looked for again and again.

A thread looks at the base path at an interval, after the cache was brought up to date where the path is one.
A new version is loaded beside the one that serves and takes its place once it has answered. A request in
flight keeps the old one alive until it is done.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from fairway.errors import FairwayError
from fairway.serve.cache import Cache
from fairway.serve.servable import Servable, load_servable
from fairway.storage.exports import Version, read_version, version_paths

_MAX_RETRY_S = 60.0
_STOP_S = 5.0

logger = logging.getLogger(__name__)


class State(Enum):
    """The states of a version, a part of `ModelVersionStatus.State` of TensorFlow Serving."""

    LOADING = "LOADING"
    AVAILABLE = "AVAILABLE"
    END = "END"


@dataclass(frozen=True)
class VersionStatus:
    """How a version is doing. `error` is why it does not serve; empty if nothing is wrong with it."""

    number: int
    state: State
    error: str = ""


@dataclass(frozen=True)
class _Failure:
    fingerprint: object
    error: str
    retry_at: float
    delay_s: float


class Versions:
    """The versions of one model.

    Args:
        base_path: The export directory; it may be empty, or not exist yet.
        poll_s: Seconds between two looks.
        load: Loads a version, or raises `FairwayError`.
        clock: Seconds that never go back.
        cache: Fills the base path where the export directory lies in an object store.
    """

    def __init__(
        self,
        base_path: Path,
        poll_s: float,
        load: Callable[[Version], Servable] = load_servable,
        clock: Callable[[], float] = time.monotonic,
        cache: Cache | None = None,
    ) -> None:
        self._base_path = base_path
        self._cache = cache
        self._poll_s = poll_s
        self._load = load
        self._clock = clock
        self._current: Servable | None = None
        self._statuses: dict[int, VersionStatus] = {}
        self._failures: dict[int, _Failure] = {}
        self._path_error = ""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="versions", daemon=True)

    @property
    def current(self) -> Servable | None:
        """The version that serves; `None` while there is none."""
        return self._current

    @property
    def statuses(self) -> list[VersionStatus]:
        """The versions that serve, load, failed or have served, newest first."""
        not_fetched = self._cache.failures if self._cache else {}
        failed = {number: VersionStatus(number, State.END, error) for number, error in not_fetched.items()}
        return sorted((failed | self._statuses.copy()).values(), key=lambda status: -status.number)

    @property
    def problem(self) -> str:
        """Why nothing serves."""
        if self._path_error:
            return self._path_error
        for status in self.statuses:
            if status.state is State.LOADING:
                return f"version {status.number} is loading"
            if status.error:
                return f"version {status.number} cannot be served: {status.error}"
        if self._cache:
            return self._cache.problem or f"no version in {self._cache.uri} yet"
        return f"no version in {self._base_path} yet"

    def start(self) -> None:
        """Start to look for versions, in a thread."""
        self._thread.start()

    def stop(self) -> None:
        """Stop looking; what serves goes on serving."""
        self._stop.set()
        if self._cache:
            self._cache.stop()
        self._thread.join(_STOP_S)

    def poll(self) -> None:
        """Look once: load what is newer than what serves, roll back where that is gone."""
        if self._cache:
            self._cache.refresh(self._current.number if self._current else None)
        try:
            paths = version_paths(self._base_path)
        except FairwayError as err:
            self._report_path(err.message)
            return
        self._report_path("")
        self._forget({int(path.name) for path in paths})
        for path in reversed(paths):
            number = int(path.name)
            # What serves is in memory: it is not read again, and stays while its directory is there.
            if self._current and self._current.number == number:
                return
            if servable := self._try(number, path):
                self._switch(servable)
                return
        if self._current:
            place = self._cache.uri if self._cache else self._base_path
            logger.warning("version %d is gone from %s: nothing serves", self._current.number, place)
            del self._statuses[self._current.number]
            self._current = None

    def _watch(self) -> None:
        first = True
        while not self._stop.is_set():
            try:
                self.poll()
                if first and self._current is None:
                    logger.info("nothing to serve yet: %s", self.problem)
                first = False
            except Exception:  # the thread must live, or no new version would ever be seen
                logger.exception("looking for versions in %s failed", self._base_path)
            self._stop.wait(0 if self._cache and self._cache.has_more else self._poll_s)

    def _try(self, number: int, path: Path) -> Servable | None:
        failure = self._failures.get(number)
        fingerprint = _fingerprint(path)
        if failure and failure.fingerprint == fingerprint and self._clock() < failure.retry_at:
            return None
        version = read_version(path)
        if version.problem:
            self._fail(number, fingerprint, f"incomplete: {version.problem}")
            return None
        self._statuses[number] = VersionStatus(number, State.LOADING)
        try:
            return self._load(version)
        except FairwayError as err:
            self._fail(number, fingerprint, f"{err.message} ({err.hint})" if err.hint else err.message)
        except Exception as err:  # a broken version must never take down the good one
            logger.debug("version %d", number, exc_info=True)
            self._fail(number, fingerprint, f"{type(err).__name__}: {err}")
        return None

    def _fail(self, number: int, fingerprint: object, error: str) -> None:
        before = self._failures.get(number)
        if before is None or before.error != error:
            logger.warning("version %d is skipped: %s", number, error)
        same = before is not None and before.fingerprint == fingerprint
        delay_s = min(2 * before.delay_s, _MAX_RETRY_S) if before and same else self._poll_s
        self._failures[number] = _Failure(fingerprint, error, self._clock() + delay_s, delay_s)
        self._statuses[number] = VersionStatus(number, State.END, error)
        if self._cache:
            self._cache.reject(number)

    def _switch(self, servable: Servable) -> None:
        before, self._current = self._current, servable
        self._failures.pop(servable.number, None)
        if self._cache:
            self._cache.accept(servable.number)
        self._statuses[servable.number] = VersionStatus(servable.number, State.AVAILABLE)
        if before and before.number in self._statuses:
            self._statuses[before.number] = VersionStatus(before.number, State.END)
        logger.info("version %d serves, on %s", servable.number, "LiteRT" if servable.lite else "TensorFlow")

    def _forget(self, present: set[int]) -> None:
        for number in self._statuses.keys() - present:
            if self._current is None or number != self._current.number:
                del self._statuses[number]
                self._failures.pop(number, None)

    def _report_path(self, error: str) -> None:
        if error and error != self._path_error:
            logger.warning("%s", error)
        self._path_error = error


def _fingerprint(path: Path) -> object:
    """Return something that changes when a file of the version does."""
    found = []
    for file in sorted(path.rglob("*")):
        try:
            stat = file.stat()
        except OSError:  # deleted while we look
            continue
        found.append((file.as_posix(), stat.st_size, stat.st_mtime_ns))
    return tuple(found)
