"""Which versions of one model serve: what its policy wants of what lies at its base path and answers.

A thread looks at the base path at an interval, after the cache was brought up to date where the path is one.
A new version is loaded beside those that serve and takes its place once it has answered. A request in
flight keeps an old one alive until it is done.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from fairway.errors import FairwayError
from fairway.serve.versions.backend import Backend
from fairway.serve.versions.cache import Cache
from fairway.serve.versions.table import ModelTable
from fairway.storage.exports import Version, read_version, version_paths
from fairway.tfs.configs import Latest, ModelConfig, Specific
from fairway.tfs.versions import State, VersionStatus

_MAX_RETRY_S = 60.0

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Loading:
    """What the models of a server share to load their versions.

    Attributes:
        backend: Where they are loaded.
        keys: Gives each loaded version another key.
        turn: Is held while one loads: two at a time would take more from those that answer.
        record: Is told of each load: model, version, and seconds, or `None` if it failed.
        clock: Seconds that never go back.
    """

    backend: Backend
    keys: Iterator[int]
    turn: threading.Lock
    record: Callable[[str, int, float | None], None]
    clock: Callable[[], float] = time.monotonic


@dataclass(frozen=True)
class View:
    """How a model is doing at one moment.

    Attributes:
        table: For the clients.
        keys: Those of the versions that serve, by number.
    """

    table: ModelTable
    keys: dict[int, int]


@dataclass(frozen=True)
class _Failure:
    fingerprint: object
    error: str
    retry_at: float
    delay_s: float


class Versions:
    """The versions of one model.

    Args:
        config: The model.
        directory: Where its versions lie on this machine; it may be empty, or not exist yet.
        poll_s: Seconds between two looks.
        loading: How versions are loaded.
        changed: Is called when `view` has changed.
        cache: Fills the directory where the base path lies in an object store.
    """

    def __init__(
        self,
        config: ModelConfig,
        directory: Path,
        poll_s: float,
        loading: Loading,
        changed: Callable[[], None],
        cache: Cache | None = None,
    ) -> None:
        self._config = config
        self._directory = directory
        self._poll_s = poll_s
        self._loading = loading
        self._changed = changed
        self._cache = cache
        self._loaded: dict[int, int] = {}
        self._unloading: list[tuple[int, int]] = []
        self._statuses: dict[int, VersionStatus] = {}
        self._failures: dict[int, _Failure] = {}
        self._path_error = ""
        self._polling = threading.Lock()
        self._showing = threading.Lock()
        self._stop = threading.Event()
        self._wake = threading.Event()
        self._discarded = False
        self._is_started = False
        self._unsaid: list[tuple[int, str]] = []  # of what is loaded, but not published yet
        self._thread = threading.Thread(target=self._run, name=f"versions of {config.name}", daemon=True)
        self.view = self._look()

    @property
    def directory(self) -> Path:
        """Where the versions lie on this machine."""
        return self._directory

    @property
    def has_more(self) -> bool:
        """Whether another look at once would find more."""
        return self._cache is not None and self._cache.has_more and not self._stop.is_set()

    def start(self) -> None:
        """Start to look for versions, in a thread; what is loaded already must be published."""
        self._is_started = True
        self._say_what_serves()
        self._thread.start()

    def configure(self, config: ModelConfig, cache: Cache | None) -> None:
        """Take another policy and other labels, for the same directory; the labels are in `view` at once.

        Args:
            config: With the same name and base path.
            cache: One for the policy, where the base path lies in an object store.
        """
        with self._showing:
            if config.policy == self._config.policy:
                cache = self._cache
            elif self._cache:
                self._cache.stop()
            self._config, self._cache = config, cache
        self._show()
        self._wake.set()

    def stop(self) -> None:
        """Stop looking; what serves goes on serving. Returns at once."""
        self._stop.set()
        self._wake.set()
        if self._cache:
            self._cache.stop()

    def join(self, timeout_s: float) -> None:
        """Wait until nothing is looked for any more, or what is being loaded takes too long."""
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    def discard(self) -> None:
        """Stop looking and free all versions, which must be in no table any more; returns at once."""
        self._discarded = True
        self.stop()
        if not self._thread.is_alive():
            self._drop_all()

    def poll(self) -> None:
        """Look once: load what the policy wants, and let go of what it does not once something serves."""
        if cache := self._cache:
            cache.refresh(self._loaded.keys())
        with self._polling:
            config = self._config
            self._give_up_lost()
            try:
                # What serves is not withdrawn by a volume that is away, or a directory that is being swapped.
                paths = version_paths(self._directory, must_exist=bool(self._loaded))
            except FairwayError as err:
                self._report_path(err.message)
            else:
                self._report_path("")
                present = {int(path.name): path for path in paths}
                self._forget(present)
                chosen = self._choose(config, present)
                if not self._stop.is_set():
                    self._keep_only(chosen)
            self._reap()
            self._show()

    def found(self, config: ModelConfig) -> list[int]:
        """Return the versions on this machine that a policy takes into account, newest first; none is read.

        Raises:
            StorageError: the directory cannot be read.
        """
        return _candidates(config, {int(path.name) for path in version_paths(self._directory)})

    def wanted(self, config: ModelConfig) -> list[int]:
        """Return those of `found` that are to serve if none of them is broken."""
        found = self.found(config)
        return found[: _most(config, found)]

    @contextmanager
    def ahead(self, numbers: Collection[int]) -> Iterator[None]:
        """Load versions that only the next policy wants, which the block is to take on if they serve.

        Raises:
            StorageError: the directory cannot be read.
        """
        with self._polling:
            try:
                for path in version_paths(self._directory):
                    number = int(path.name)
                    if number in numbers and number not in self._loaded and not self._stop.is_set():
                        self._try(number, path)
                yield
            finally:
                self._wake.set()

    def _run(self) -> None:
        first = True
        while not self._stop.is_set():
            self._wake.clear()
            try:
                self.poll()
                if first and not self._loaded:
                    logger.info("nothing of %s to serve yet: %s", self._config.name, self.view.table.problem)
                first = False
            except Exception:  # the thread must live, or no new version would ever be seen
                logger.exception("looking for versions in %s failed", self._directory)
            if not self._stop.is_set():
                self._wake.wait(0 if self.has_more else self._poll_s)
        if self._discarded:
            self._drop_all()

    def _choose(self, config: ModelConfig, present: dict[int, Path]) -> set[int]:
        """Load what the policy wants and return the versions that are to serve."""
        wanted = _candidates(config, present)
        most = _most(config, wanted)
        chosen: set[int] = set()
        for number in wanted:
            if len(chosen) == most or self._stop.is_set():
                break
            # What serves is in memory: it is not read again, and stays while its directory is there.
            if number in self._loaded or self._try(number, present[number]):
                chosen.add(number)
        return chosen or (self._loaded.keys() & present.keys())

    def _try(self, number: int, path: Path) -> bool:
        """Load a version unless it has failed just now; return whether it serves."""
        failure = self._failures.get(number)
        fingerprint = _fingerprint(path)
        if failure and failure.fingerprint == fingerprint and self._loading.clock() < failure.retry_at:
            return False
        version = read_version(path)
        if version.problem:
            self._fail(number, fingerprint, f"incomplete: {version.problem}")
            return False
        try:
            runtime = self._load(version)
        except FairwayError as err:
            self._fail(number, fingerprint, f"{err.message} ({err.hint})" if err.hint else err.message)
            return False
        except Exception as err:  # a broken version must never take down the good one
            logger.debug("version %d of %s", number, self._config.name, exc_info=True)
            self._fail(number, fingerprint, f"{type(err).__name__}: {err}")
            return False
        self._failures.pop(number, None)
        if self._cache:
            self._cache.accept(number)
        self._note(number, State.AVAILABLE)
        self._unsaid.append((number, runtime))
        if self._is_started:
            self._say_what_serves()
        return True

    def _say_what_serves(self) -> None:
        for number, runtime in self._unsaid:
            logger.info("version %d of %s serves, on %s", number, self._config.name, runtime)
        self._unsaid.clear()

    def _load(self, version: Version) -> str:
        model, key, clock = self._config.name, next(self._loading.keys), self._loading.clock
        self._note(version.number, State.START)
        with self._loading.turn:
            self._note(version.number, State.LOADING)
            started = clock()
            try:
                runtime = self._loading.backend.load(key, model, version)
            except Exception:
                self._loading.record(model, version.number, None)
                raise
            self._loading.record(model, version.number, clock() - started)
        self._loaded[version.number] = key
        return runtime

    def _fail(self, number: int, fingerprint: object, error: str) -> None:
        if self._stop.is_set():
            return  # that is why
        before = self._failures.get(number)
        if before is None or before.error != error:
            logger.warning("version %d of %s is skipped: %s", number, self._config.name, error)
        same = before is not None and before.fingerprint == fingerprint
        delay_s = min(2 * before.delay_s, _MAX_RETRY_S) if before and same else self._poll_s
        retry_at = self._loading.clock() + delay_s
        self._failures[number] = _Failure(fingerprint, error, retry_at, delay_s)
        if self._cache:
            self._cache.reject(number)
        self._note(number, State.END, error)

    def _give_up_lost(self) -> None:
        """Take versions from the table that no process has any more; they are tried again later."""
        lost = self._loading.backend.lost(self._loaded.values())
        for number, key in self._loaded.copy().items():
            if key in lost and not self._stop.is_set():
                del self._loaded[number]
                self._fail(number, _fingerprint(self._directory / str(number)), lost[key])
                self._loading.backend.drop(key)

    def _keep_only(self, chosen: set[int]) -> None:
        """Take the other versions from the table, then free them."""
        gone = {number: key for number, key in self._loaded.items() if number not in chosen}
        if not gone:
            return
        if not chosen:
            logger.warning(
                "%s of %s is gone from %s: nothing serves",
                ", ".join(f"version {number}" for number in gone),
                self._config.name,
                self._place(),
            )
        for number, key in gone.items():
            del self._loaded[number]
            self._unloading.append((number, key))
            self._statuses[number] = VersionStatus(number, State.UNLOADING)
        self._show()
        for key in gone.values():
            self._loading.backend.drop(key)

    def _reap(self) -> None:
        """Note which versions are freed by now."""
        if not self._unloading:
            return
        held = self._loading.backend.held([key for _, key in self._unloading])
        freed = [number for number, key in self._unloading if key not in held]
        self._unloading = [(number, key) for number, key in self._unloading if key in held]
        for number in freed:
            status = self._statuses.get(number)
            if status and status.state is State.UNLOADING:
                if (self._directory / str(number)).exists():
                    self._statuses[number] = VersionStatus(number, State.END)
                else:
                    del self._statuses[number]

    def _forget(self, present: dict[int, Path]) -> None:
        kept = {*present, *self._loaded, *(number for number, _ in self._unloading)}
        for number in self._statuses.keys() - kept:
            del self._statuses[number]
            self._failures.pop(number, None)

    def _drop_all(self) -> None:
        while self._loaded:
            self._loading.backend.drop(self._loaded.popitem()[1])

    def _note(self, number: int, state: State, error: str = "") -> None:
        self._statuses[number] = VersionStatus(number, state, error)
        self._show()

    def _show(self) -> None:
        with self._showing:
            view = self._look()
            if view == self.view:
                return
            self.view = view
        self._changed()

    def _look(self) -> View:
        not_fetched = self._cache.failures if self._cache else {}
        failed = {number: VersionStatus(number, State.END, error) for number, error in not_fetched.items()}
        statuses = sorted((failed | self._statuses.copy()).values(), key=lambda status: -status.number)
        loaded = self._loaded.copy()
        problem = "" if loaded else self._problem(statuses)
        serving = tuple(sorted(loaded, reverse=True))
        return View(ModelTable(serving, self._config.labels, tuple(statuses), problem), loaded)

    def _problem(self, statuses: list[VersionStatus]) -> str:
        """Return why nothing serves."""
        if self._path_error:
            return self._path_error
        for status in statuses:
            if status.state in (State.START, State.LOADING):
                return f"version {status.number} is loading"
            if status.error:
                return f"version {status.number} cannot be served: {status.error}"
        if self._cache and self._cache.problem:
            return self._cache.problem
        if isinstance(self._config.policy, Specific):
            numbers = " or ".join(map(str, self._config.policy.numbers))
            return f"no version {numbers} in {self._place()} yet"
        return f"no version in {self._place()} yet"

    def _place(self) -> str:
        return self._cache.uri if self._cache else str(self._directory)

    def _report_path(self, error: str) -> None:
        if error and error != self._path_error:
            meanwhile = "; what serves goes on serving" if self._loaded else ""
            logger.warning("model %s: %s%s", self._config.name, error, meanwhile)
        elif self._path_error and not error:
            logger.info("model %s: %s can be read again", self._config.name, self._directory)
        self._path_error = error


def _candidates(config: ModelConfig, present: Collection[int]) -> list[int]:
    """Return the versions that the policy wants, newest first, and those that make up for broken ones."""
    numbers = sorted(present, reverse=True)
    if isinstance(config.policy, Specific):
        return [number for number in numbers if number in config.policy.numbers]
    return numbers


def _most(config: ModelConfig, candidates: Collection[int]) -> int:
    """Return how many of them are to serve."""
    return config.policy.count if isinstance(config.policy, Latest) else len(candidates)


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
