"""Follows the event files in an object store, so that TensorBoard reads them from a disk."""

from __future__ import annotations

import logging
import os
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path, PurePosixPath

from fairway.config import cache_dir
from fairway.progress import Progress
from fairway.storage.files import scratch_directory, storage_errors
from fairway.storage.outage import Outage
from fairway.storage.stores.store import Count, Entry, NotThereError, Store, is_key, uncounted
from fairway.storage.transfer import in_parallel

INTERVAL_S = 5.0
"""Seconds between two looks, each of which is one request where nothing has changed."""

_EVENTS = "tfevents"
_LONGEST_NAME = 255
_STOP_S = 2.0

log = logging.getLogger(__name__)


class _StoppedError(Exception):
    """`Follower.stop` was called in the middle of a transfer."""


class Follower:
    """Brings the event files of a store to a directory, and goes on doing so in a thread.

    A file that grows is appended to where it is: TensorBoard keeps it open and reads on.

    Args:
        store: Where the event files are, at any depth.
        directory: Gets them under the same names; nobody else writes to it.
        interval_s: Seconds between two looks.
    """

    def __init__(self, store: Store, directory: Path, interval_s: float = INTERVAL_S) -> None:
        self._store, self._directory, self._interval_s = store, directory, interval_s
        self._tags: dict[str, str] = {}
        self._outage = Outage(f"{store.uri} answers again")
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="follow", daemon=True)

    def start(self) -> None:
        """Begin to look again and again, in a thread."""
        self._thread.start()

    def stop(self) -> None:
        """Begin no further look, end the one that is under way, and wait a moment for that."""
        self._stop.set()
        self._thread.join(_STOP_S)

    def look(self) -> list[Entry]:
        """Delete what has gone from the store, and return what has changed since the last look.

        Raises:
            StorageError: the store does not answer or refuses.
        """
        with storage_errors("write to", self._directory):
            os.utime(self._directory)  # else it would seem abandoned after a day without a new file
        listed = {entry.key: entry for entry in self._store.list() if _is_wanted(entry.key)}
        # Keys know no directories: one that lies below another one's file cannot be a file here.
        entries = {
            key: entry
            for key, entry in listed.items()
            if not any(parent.as_posix() in listed for parent in PurePosixPath(key).parents)
        }
        for key in self._tags.keys() - entries.keys():
            self._forget(key)
        return [entry for key, entry in entries.items() if self._tags.get(key) != entry.tag]

    def bring(self, changed: list[Entry], count: Count = uncounted) -> None:
        """Bring files to the directory.

        Raises:
            StorageError: the store does not answer or refuses, or the disk does.
        """
        in_parallel([partial(self._bring, entry, count) for entry in changed])

    def _watch(self) -> None:
        while not self._stop.wait(self._interval_s):
            try:
                with suppress(_StoppedError), self._outage.noted("TensorBoard goes on with what it has"):
                    self.bring(self.look(), self._go_on)
            except Exception:  # the thread must live, or TensorBoard would stand still without a word
                log.exception("following %s failed", self._store.uri)

    def _go_on(self, _size: int) -> None:
        if self._stop.is_set():
            raise _StoppedError

    def _bring(self, entry: Entry, count: Count) -> None:
        path = self._directory / entry.key
        with suppress(NotThereError), storage_errors("write", path):  # or deleted since it was listed
            if path.exists():
                self._bring_rest(entry, path)
            else:
                self._bring_whole(entry, path, count)
            self._tags[entry.key] = entry.tag

    def _bring_rest(self, entry: Entry, path: Path) -> None:
        size = path.stat().st_size
        start = size if entry.size > size else 0  # otherwise it was replaced
        content = self._store.read(entry.key, start)
        with path.open("r+b") as file:
            file.seek(start)
            file.write(content)
            file.truncate()

    def _bring_whole(self, entry: Entry, path: Path, count: Count) -> None:
        """Download a file under another name first: large ones come in parts, not from front to back."""
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=".new-", dir=self._directory)
        os.close(handle)
        try:
            self._store.download(entry.key, Path(name), count)
            Path(name).replace(path)
        finally:
            Path(name).unlink(missing_ok=True)

    def _forget(self, key: str) -> None:
        path = self._directory / key
        with storage_errors("delete", path):
            path.unlink(missing_ok=True)
        del self._tags[key]
        for parent in path.parents:  # TensorBoard shows a directory as a run
            if parent == self._directory:
                break
            with suppress(OSError):  # not empty
                parent.rmdir()


@contextmanager
def follow(store: Store) -> Iterator[Path]:
    """Give a temporary directory with the event files of a store, which is kept up to date.

    Raises:
        StorageError: the store cannot be read at the start.
    """
    with scratch_directory(cache_dir() / "tensorboard", prefix="events-") as directory:
        follower = Follower(store, directory)
        changed = follower.look()
        total = sum(entry.size for entry in changed)
        with Progress("fetching event files", total, unit="bytes") as progress:
            follower.bring(changed, progress.advance)
        follower.start()
        try:
            yield directory
        finally:
            follower.stop()


def _is_wanted(key: str) -> bool:
    """Tell whether a key is an event file's; keys come from outside, and may be no name of a file here."""
    parts = key.split("/")
    fits = all(len(part.encode()) <= _LONGEST_NAME for part in parts)
    return _EVENTS in parts[-1] and is_key(key) and fits
