"""The newest versions of an export directory in an object store, on this machine, to be served from there."""

from __future__ import annotations

import logging
from collections.abc import Collection
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Self

from fairway.errors import StorageError
from fairway.storage.cache import cache_path
from fairway.storage.exports import damaged_files, read_version, version_paths
from fairway.storage.files import lock_directory, make_directory
from fairway.storage.outage import Outage
from fairway.storage.publish import remove_leftovers, remove_version
from fairway.storage.sync import StoppedError, Sync
from fairway.tfs.configs import Latest, ModelConfig, Specific

SPARE = 1
"""Versions on this machine beside those that serve: the one before them, for a rollback."""

log = logging.getLogger(__name__)


def kept_in(config: ModelConfig) -> Path:
    """Return the directory of this machine for the versions of a model that lies in an object store.

    Servers and models that want the newest version share it; the others would delete each other's versions.
    """
    return cache_path("served", config.base_path, *(() if config.policy == Latest() else (config.name,)))


class Cache:
    """A directory with versions of another one in an object store; a context manager.

    It holds those that the model's policy wants; where that is the newest, the one before them, too.

    Args:
        config: The model; its base path is the export directory in the store.

    Raises:
        UsageError: the URI is not one.
        FairwayError: the extra for its kind of store is not installed.
    """

    def __init__(self, config: ModelConfig) -> None:
        self.uri = uri = config.base_path
        self.path = kept_in(config)
        self._policy = policy = config.policy
        keep = policy.count + SPARE if isinstance(policy, Latest) else None
        self._sync = Sync(uri, str(self.path), keep=keep, delete=True)
        self._outage = Outage(f"{uri} answers again")
        self._has_looked = False
        self._damaged: set[int] = set()
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        make_directory(self.path)
        with suppress(StorageError):  # another server of the same URI is at work here
            self._stack.enter_context(lock_directory(self.path, "serve"))
            remove_leftovers(self.path)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def problem(self) -> str:
        """Why the store did not answer the last time; empty if it did."""
        return self._outage.problem

    @property
    def failures(self) -> dict[int, str]:
        """Why versions could not be fetched, by number."""
        return self._sync.failures

    @property
    def has_more(self) -> bool:
        """Whether there is something to fetch at once."""
        return not self._sync.settled and not self._outage.problem

    def refresh(self, serving: Collection[int]) -> None:
        """Look into the store once and fetch a version, if one is missing; trouble is only noted.

        Args:
            serving: The versions that serve. As long as none does, none is deleted to make room.
        """
        self._sync.hold = not serving
        if isinstance(self._policy, Specific):
            self._sync.only = {*self._policy.numbers, *serving}
        is_filled = bool(version_paths(self.path))
        meanwhile = f", and serving what is in {self.path}" if is_filled else ""
        with suppress(StoppedError), self._outage.noted(f"asking again and again{meanwhile}"):
            if is_filled and not self._has_looked:
                # What an earlier process has fetched serves at once, unless it was withdrawn since.
                self._has_looked = True
                self._sync.look()
            elif version := self._sync.step():
                log.info("version %d is fetched from %s", version.number, self.uri)

    def reject(self, number: int) -> None:
        """Take note that a version cannot be served: an older one is needed, or a new copy of this one."""
        version = read_version(self.path / str(number))
        if number not in self._damaged and (version.problem or damaged_files(version)):
            log.warning("the copy of version %d in %s is damaged: fetching it anew", number, self.path)
            self._damaged.add(number)  # once: a disk that damages it again would have us fetch for ever
            remove_version(str(self.path), number)
        else:
            self._sync.rejected.add(number)

    def accept(self, number: int) -> None:
        """Take note that a version serves."""
        self._sync.rejected.discard(number)

    def stop(self) -> None:
        """End a fetch that is under way in another thread."""
        self._sync.stop()
