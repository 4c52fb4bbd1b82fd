"""Finds out before a training whether a directory will take what it writes."""

from __future__ import annotations

import secrets
from dataclasses import dataclass

from fairway.errors import FairwayError, StorageError
from fairway.storage.exports import list_versions
from fairway.storage.files import make_directory
from fairway.storage.stores.store import ExistsError, Store
from fairway.storage.stores.uri import local_path, open_store

_CONTENT = b"fairway was here"


@dataclass(frozen=True)
class Finding:
    """What was found out of a directory.

    Attributes:
        directory: A path or a URI.
        versions: How many complete versions it has; `None` where it cannot be read.
        problem: Why a training could not write there; empty if it can.
        hint: What to do then.
    """

    directory: str
    versions: int | None
    problem: str = ""
    hint: str = ""


def probe(directory: str) -> Finding:
    """Create, read and delete a small file in a directory, which is made if it does not exist.

    Args:
        directory: A path or a URI.
    """
    versions = None
    try:
        path = local_path(directory)
        if path is not None:
            make_directory(path)
        _try(open_store(directory))
        versions = sum(not version.problem for version in list_versions(directory))
    except FairwayError as err:
        return Finding(directory, versions, err.message, err.hint)
    return Finding(directory, versions)


def _try(store: Store) -> None:
    key = f".probe-{secrets.token_hex(4)}"
    store.create(key, _CONTENT)
    try:
        if (found := store.read(key)) != _CONTENT:
            raise StorageError(f"{store.uri} gives {found!r} for what was written as {_CONTENT!r}")
        _try_again(store, key)
    finally:
        store.delete([key])


def _try_again(store: Store, key: str) -> None:
    """See that a version could not be written over, which publishing relies on."""
    try:
        store.create(key, _CONTENT)
    except ExistsError:
        return
    raise StorageError(
        f"{store.uri} writes over what is there, although it was asked not to",
        hint="Its server ignores If-None-Match; use one that knows conditional writes.",
    )
