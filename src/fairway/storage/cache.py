"""What is kept on this machine of directories in object stores, so that it is not fetched again."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Any

from fairway.config import cache_dir
from fairway.errors import StorageError
from fairway.progress import Progress
from fairway.storage.files import scratch_directory, storage_errors, write_atomic
from fairway.storage.stores.store import Entry, Store
from fairway.storage.stores.uri import local_path, open_store
from fairway.storage.transfer import download_files

Choose = Callable[[Collection[str]], list[str]]
"""Returns which of some file names are needed."""

_INDEX = ".copied.json"
_SCRATCH = ".new-"
# The same URI is another directory at another server.
_ENDPOINTS = ("S3_ENDPOINT", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "STORAGE_EMULATOR_HOST")

log = logging.getLogger(__name__)


def cache_path(kind: str, uri: str, *more: str) -> Path:
    """Return the directory of this machine for what is kept of a URI: the same after a restart.

    Args:
        kind: What for.
        uri: Of an object store.
        more: What else tells it from others.
    """
    words = uri.partition("://")[2].strip("/").replace("/", "-")[-40:]
    identity = "\n".join([uri.rstrip("/"), *more, *(os.environ.get(name, "") for name in _ENDPOINTS)])
    return cache_dir() / kind / f"{words}-{hashlib.sha256(identity.encode()).hexdigest()[:12]}"


def local_copy(uri: str, choose: Choose) -> Path:
    """Return a directory of this machine with files of a URI: the directory itself, or copies of them.

    A copy is fetched again only if the file has changed in the store. While the store does not answer,
    complete copies of an earlier time serve.

    Args:
        uri: A path or a URI.
        choose: Which of the files there are needed; none: the directory is empty.

    Raises:
        UsageError: the URI is not one.
        StorageError: the files cannot be read, and there are no copies of all.
    """
    path = local_path(uri)
    if path is not None:
        return path
    copies, store = cache_path("data", uri), open_store(uri)
    known = _read_index(copies)
    try:
        listed = {entry.key: entry for entry in store.list()}
        _fetch(store, [listed[name] for name in choose(listed)], copies, known)
    except StorageError as err:
        if not known or sorted(choose(known)) != sorted(known):
            raise
        log.warning("%s; going on with the copies in %s", err.message, copies)
    return copies


def _fetch(store: Store, entries: Iterable[Entry], copies: Path, known: dict[str, Any]) -> None:
    """Make a directory hold these files of a store and no other."""
    needed: dict[str, Any] = {entry.key: {"tag": entry.tag, "size": entry.size} for entry in entries}
    if needed and needed == known:
        return
    changed = [name for name, state in needed.items() if known.get(name) != state]
    total = sum(needed[name]["size"] for name in changed)
    with scratch_directory(copies, prefix=_SCRATCH) as scratch, storage_errors("write to", copies):
        with Progress(f"fetching {store.uri}", total, unit="bytes") as progress:
            download_files(store, {name: name for name in changed}, scratch, progress.advance)
        (copies / _INDEX).unlink(missing_ok=True)  # whoever is killed from here on leaves a mixture
        _remove_others(copies, needed)
        for name in changed:
            (scratch / name).replace(copies / name)
        write_atomic(copies / _INDEX, json.dumps(needed).encode())


def _remove_others(copies: Path, needed: Collection[str]) -> None:
    for path in copies.iterdir():
        if path.name not in needed and not path.name.startswith("."):
            path.unlink(missing_ok=True)


def _read_index(copies: Path) -> dict[str, Any]:
    """Return `tag` and `size` of the copies that are there, by name."""
    try:
        index = json.loads((copies / _INDEX).read_bytes())
        return {name: state for name, state in index.items() if _size(copies / name) == state["size"]}
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return {}


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else -1
