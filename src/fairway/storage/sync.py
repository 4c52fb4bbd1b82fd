"""Copies versions from one export directory to another, wherever the two lie.

Only complete versions are copied, the newest first, and each appears whole: see `publish`. What the source
holds is asked with one request a look.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from fairway.config import cache_dir
from fairway.errors import StorageError, StoreAwayError, UsageError
from fairway.storage.exports import Catalog, Version, damaged_files, list_versions
from fairway.storage.files import scratch_directory
from fairway.storage.outage import explain
from fairway.storage.publish import fetch_version, keep_newest, publish_version, remove_version
from fairway.storage.stores.uri import local_path, open_store, split_uri

FIRST_RETRY_S = 2.0
MAX_RETRY_S = 300.0
"""Longest time until a version that could not be copied is tried again: that may be gigabytes."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Failure:
    error: str
    retry_at: float
    delay_s: float
    is_away: bool


class StoppedError(Exception):
    """`Sync.stop` was called; nothing half-copied is left."""


class Sync:
    """Brings the complete versions of a source to a target, one at a `step`.

    What cannot be copied, be it damaged or its number taken, is reported once and tried again ever more
    rarely; it keeps no other version from being copied.

    Args:
        source: An export directory, a path or a URI.
        target: Another one.
        keep: How many of the newest versions the target is to have; `None`: all. What is more is deleted
            there once nothing is missing.
        delete: Whether versions then go from the target when they have gone from the source. Only those go
            of which the source lists no file any more, and only while the target holds a version that the
            source has too: what empties the source by mistake leaves the target as it is.
        clock: Seconds that never go back.

    Raises:
        UsageError: a URI is not one, or one directory lies in the other.
        FairwayError: the extra for a kind of store is not installed.
    """

    def __init__(
        self,
        source: str,
        target: str,
        keep: int | None = None,
        delete: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        _refuse_overlap(source, target)
        self._source, self._target = source, target
        self._list_source, self._list_target = _lister(source), _lister(target)
        self._keep, self._delete, self._clock = keep, delete, clock
        self._failures: dict[int, _Failure] = {}
        self._passed_over: dict[int, str] = {}
        self._said_empty = False
        self._stopped = threading.Event()
        self.rejected: set[int] = set()
        """Versions that are of no use to the target's reader: they do not count for `keep`."""
        self.only: set[int] | None = None
        """The only versions that the target's reader wants; `None`: it wants the newest."""
        self.hold = False
        """While it is set, nothing is deleted because of `keep` or `only`."""
        self.found: list[Version] = []
        """What the source held at the last look, complete or not, oldest first."""
        self.settled = False
        """Whether the last step found nothing to do: a version that failed has to wait."""

    def stop(self) -> None:
        """End the step that another thread is in, if it transfers files: it raises `StoppedError`."""
        self._stopped.set()

    @property
    def failures(self) -> dict[int, str]:
        """Why versions could not be copied, by number."""
        return {number: failure.error for number, failure in self._failures.copy().items()}

    @property
    def is_away(self) -> bool:
        """Whether a store that gave no answer is why versions could not be copied, and nothing else."""
        return bool(self._failures) and all(failure.is_away for failure in self._failures.copy().values())

    def run(self) -> Iterator[Version]:
        """Step until nothing is left to do; yield each version as it has been copied.

        Raises:
            StorageError: as `step` does.
        """
        self.settled = False
        while not self.settled:
            if version := self.step(retry=False):
                yield version

    def step(self, retry: bool = True) -> Version | None:
        """Look once, copy the newest version that is missing, if any, and return it.

        Args:
            retry: Whether what failed is tried again when its time has come.

        Raises:
            StorageError: the source or the target does not answer or refuses. A version that could not be
                copied raises nothing: see `failures`.
        """
        missing = self.look(retry)
        return self._copy(missing) if missing else None

    def look(self, retry: bool = True) -> Version | None:
        """Return the newest version that is to be copied; if there is none, delete what has to go.

        Raises:
            StorageError: as `step` does.
        """
        self.found, there = self._list_source(), self._there()
        self._note_changes()
        self._drop_rejected(there)
        wanted = self._wanted(there, retry)
        missing = next((version for version in wanted if not _is_same(version, there)), None)
        self.settled = missing is None
        if not missing:
            self._prune(there)
        return missing

    def _complete(self) -> dict[int, Version]:
        return {version.number: version for version in self.found if not version.problem}

    def _there(self) -> dict[int, Version]:
        return {version.number: version for version in self._list_target() if not version.problem}

    def _wanted(self, there: dict[int, Version], retry: bool) -> Sequence[Version]:
        """Return what the target is to have of the source's versions, newest first."""
        now = self._clock()
        waiting = {number for number, failed in self._failures.items() if not retry or now < failed.retry_at}
        useless = waiting | self.rejected
        complete = self._complete()
        wanted = complete.keys() if self.only is None else complete.keys() & self.only
        offered = {number: complete[number] for number in wanted - useless}
        # What stays in the target although it has gone from the source takes a place, if it is newer.
        numbers = sorted(offered if self._delete else offered.keys() | there.keys(), reverse=True)
        return [offered[number] for number in numbers[: self._keep] if number in offered]

    def _copy(self, version: Version) -> Version | None:
        try:
            copied = self._transfer(version)
        except StorageError as err:
            self._fail(version.number, err)
            return None
        self._failures.pop(version.number, None)
        return copied

    def _transfer(self, version: Version) -> Version:
        into_store = local_path(self._target) is None
        if into_store and local_path(version.uri) is None:
            with scratch_directory(cache_dir() / "sync", prefix="version-") as scratch:
                fetched = fetch_version(version, scratch, self._count)
                return publish_version(fetched, self._target, self._count)
        if into_store and (damaged := damaged_files(version)):
            raise StorageError(f"{version.uri} is damaged: wrong checksum of {', '.join(damaged)}")
        return publish_version(version, self._target, self._count)

    def _count(self, _size: int) -> None:
        if self._stopped.is_set():
            raise StoppedError

    def _fail(self, number: int, err: StorageError) -> None:
        before, error = self._failures.get(number), explain(err)
        if before is None or before.error != error:
            log.warning("version %d is not copied: %s", number, error)
        delay_s = min(2 * before.delay_s, MAX_RETRY_S) if before else FIRST_RETRY_S
        self._failures[number] = _Failure(
            error, self._clock() + delay_s, delay_s, isinstance(err, StoreAwayError)
        )

    def _prune(self, there: dict[int, Version]) -> None:
        """Delete what has gone from the source, and what is more than is to be kept."""
        complete = self._complete()
        if not any(_is_same(complete[number], there) for number in complete.keys() - self.rejected):
            if self._delete and there and not complete and not self._said_empty:
                text = "%s holds no complete version; the %d in %s stay"
                log.warning(text, self._source, len(there), self._target)
                self._said_empty = True
            return
        left = set(there)
        if self._delete:
            left &= {version.number for version in self.found}
            for number in sorted(there.keys() - left):
                log.info("version %d has gone from %s and goes from %s", number, self._source, self._target)
                remove_version(self._target, number)
        if self.only is not None and not self.hold:
            for number in sorted(left - self.only):
                remove_version(self._target, number)
            left &= self.only
        if self._keep and not self.hold and len(left - self.rejected) > self._keep:
            self._delete_older(left - self.rejected, self._keep)

    def _delete_older(self, numbers: set[int], keep: int) -> None:
        if local_path(self._target) is None:
            keep_newest(self._target, keep)  # which also removes what publishers have abandoned
            return
        for number in sorted(numbers)[:-keep]:
            remove_version(self._target, number)

    def _drop_rejected(self, there: dict[int, Version]) -> None:
        """Delete what the reader rejects, but for the newest: these may yet be of use to it."""
        newest = sorted(there)[-self._keep :] if self._keep else there
        for number in self.rejected & there.keys() - set(newest):
            remove_version(self._target, number)
            del there[number]

    def _note_changes(self) -> None:
        """Say once of each version that it is not complete, and forget what was of others."""
        before, self._passed_over = self._passed_over, {v.number: v.problem for v in self.found if v.problem}
        for number, problem in sorted(self._passed_over.items() - before.items()):
            log.info("version %d in %s is not complete and passed over: %s", number, self._source, problem)
        complete = self._complete()
        self._said_empty = self._said_empty and not complete
        self.rejected &= complete.keys()
        for number in self._failures.keys() - complete.keys():
            del self._failures[number]


def _lister(uri: str) -> Callable[[], list[Version]]:
    if local_path(uri) is not None:
        return partial(list_versions, uri)
    return Catalog(open_store(uri)).versions


def _is_same(version: Version, there: dict[int, Version]) -> bool:
    return version.number in there and there[version.number].manifest == version.manifest


def _refuse_overlap(source: str, target: str) -> None:
    """Refuse to copy a directory into itself."""
    here, there = _parts(source), _parts(target)
    shorter = min(len(here), len(there))
    if here[:shorter] == there[:shorter]:
        how = "are the same directory" if here == there else "lie one in the other"
        raise UsageError(f"{source} and {target} {how}", hint="Name two separate directories.")


def _parts(uri: str) -> tuple[str, ...]:
    path = local_path(uri)
    if path is not None:
        return ("", *path.resolve().parts)
    scheme, bucket, prefix = split_uri(uri)
    return (scheme, bucket, *filter(None, prefix.split("/")))
