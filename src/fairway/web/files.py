"""Files of a model or export directory as the page needs them: quickly, and never an error."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from fairway.errors import FairwayError
from fairway.storage.stores.store import Entry, NotThereError
from fairway.storage.stores.uri import local_path, open_store

FRESH_S = 4.0
"""Seconds for which a file of an object store is not asked for again, however many visitors poll."""
PATIENCE_S = 1.0
"""Longest that a visitor waits for a file of an object store; what comes later is shown the next time."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class File:
    """A file's content, and what the listing says of it."""

    content: bytes
    entry: Entry


@dataclass
class _Known:
    file: File | None = None
    asked_s: float = float("-inf")
    failed: bool = False
    answered: threading.Event = field(default_factory=threading.Event)
    """Is clear while the store is being asked."""

    def __post_init__(self) -> None:
        self.answered.set()


class Files:
    """The files of one directory, a path or a URI. Safe to use from several threads.

    A directory on a disk is read each time. An object store is asked in the background, and while it does
    not answer, what it said before counts.

    Args:
        uri: The directory; it need not exist.
        clock: Seconds that never go back.

    Raises:
        UsageError: the URI is not one.
        FairwayError: the extra for its kind of store is not installed.
    """

    def __init__(self, uri: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = open_store(uri)
        self._is_local = local_path(uri) is not None
        self._clock = clock
        self._lock = threading.Lock()
        self._known: dict[str, _Known] = {}

    def read(self, key: str) -> File | None:
        """Return a file; `None` if it is not there or cannot be read."""
        with self._lock:
            known = self._known.setdefault(key, _Known())
            is_stale = self._clock() - known.asked_s > FRESH_S
            due = self._is_local or (is_stale and known.answered.is_set())
            if due:
                known.asked_s = self._clock()
                known.answered.clear()
        if self._is_local:
            self._ask(key, known)
        elif due:
            threading.Thread(target=self._ask, args=(key, known), name="files", daemon=True).start()
            known.answered.wait(PATIENCE_S)
        return known.file

    def _ask(self, key: str, known: _Known) -> None:
        try:
            known.file = self._fetch(key, known.file)
            known.failed = False
        except FairwayError as err:
            if not known.failed:
                log.warning("%s; the page shows what it has", err.message)
            known.failed = True
        except Exception:
            log.exception("reading %s of %s failed", key, self._store.uri)
        finally:
            known.answered.set()

    def _fetch(self, key: str, before: File | None) -> File | None:
        entry = self._store.stat(key)
        if entry is None:
            return None
        if before and before.entry == entry and not self._is_local:
            return before
        try:
            return File(self._store.read(key), entry)
        except NotThereError:  # deleted in between
            return None
