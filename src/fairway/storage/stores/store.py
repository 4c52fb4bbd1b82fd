"""One small interface over a local disk, S3 and Google Cloud Storage.

A key is a path relative to the store's URI, with `/` between its parts: `1767225600/saved_model.pb`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from fairway.errors import StorageError

Count = Callable[[int], None]
"""Is told each number of bytes that were transferred; it may be called from several threads."""


def uncounted(_size: int) -> None:
    """Be a `Count` where nobody counts."""


@dataclass(frozen=True, order=True)
class Entry:
    """One file of a store.

    Attributes:
        key: Relative to the store's URI.
        size: Bytes.
        modified: Unix time of the last change, by the store's clock.
        tag: Changes whenever the content does: an ETag, a generation, or size and time on a disk.
    """

    key: str
    size: int
    modified: float
    tag: str


class NotThereError(StorageError):
    """There is no such key; the store itself answered."""


class ExistsError(StorageError):
    """There is such a key already, so `create` has written nothing."""


def is_key(text: str) -> bool:
    """Tell whether a text can be a key: a relative path that does not lead out of the store."""
    return "\0" not in text and not {"", ".", ".."} & set(text.split("/"))


def check_key(key: str) -> None:
    """Refuse what cannot be a key, such as `../name`.

    Raises:
        StorageError: it cannot.
    """
    if not is_key(key):
        raise StorageError(
            f"{key!r} is not the name of a file in a store",
            hint="A name is a relative path without empty parts, '.' and '..'.",
        )


class Store(Protocol):
    """Files below one URI. Safe to use from several threads.

    Every method raises `StorageError` when the store refuses, or does not answer after retries with a
    deadline; the message names the URI and, where it cannot be reached, the endpoint.
    """

    uri: str
    """As the user gave it, without a `/` at its end."""

    def list(self, prefix: str = "") -> list[Entry]:
        """Return all files whose key starts with `prefix`, at any depth, by key; none if nothing is there.

        A file that `write`, `create` or `upload` has not finished is not listed.
        """

    def stat(self, key: str) -> Entry | None:
        """Return one file's entry; `None` if it is not there."""

    def read(self, key: str, start: int = 0) -> bytes:
        """Return the content from byte `start` on; nothing if the file ends there or before.

        Raises:
            NotThereError: there is no such key.
        """

    def write(self, key: str, data: bytes) -> None:
        """Write a small file whole: a reader sees the old content or the new."""

    def create(self, key: str, data: bytes) -> None:
        """Write a small file that must not exist; of several writers exactly one succeeds.

        Raises:
            ExistsError: it exists; its content is as before.
        """

    def upload(self, source: Path, key: str, count: Count = uncounted) -> None:
        """Write a file of any size from the disk, whole as by `write`; a large one in several parts."""

    def download(self, key: str, target: Path, count: Count = uncounted) -> None:
        """Write a file of any size to the disk; on an error `target` may hold a part of it.

        Raises:
            NotThereError: there is no such key.
        """

    def delete(self, keys: Iterable[str]) -> None:
        """Delete files, in any order; those not there are passed over."""


def read_if_there(store: Store, key: str) -> bytes | None:
    """Return the content of a file in a store; `None` if it is not there."""
    try:
        return store.read(key)
    except NotThereError:
        return None
