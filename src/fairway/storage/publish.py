"""Versions come whole and go whole, wherever the export directory lies.

On a disk a version appears and disappears by a rename. An object store has no rename, so the order counts:

1. the claim `.claims/<version>`, which only one writer can create: the SHA-256 of the version's manifest,
2. the data files, 3. `saved_model.pb`, 4. the manifest, which must not exist.

A reader takes a version only with its manifest and all that it names. A version is deleted in the opposite
order. The claim of the highest version stays for ever: no number is used twice.
"""

from __future__ import annotations

import hashlib
import shutil
import time
from contextlib import suppress
from pathlib import Path

from fairway.errors import StorageError
from fairway.progress import Progress
from fairway.storage.exports import CLAIMS, Catalog, Version, list_versions, read_version
from fairway.storage.files import (
    ABANDONED_S,
    publish_directory,
    scratch_directory,
    storage_errors,
)
from fairway.storage.manifest import MANIFEST, SAVED_MODEL, Manifest, describe_files
from fairway.storage.stores.store import Count, Entry, ExistsError, Store, read_if_there, uncounted
from fairway.storage.stores.uri import join_uri, local_path, open_store
from fairway.storage.transfer import download_files, upload_files

_NEW = ".new-"
_OLD = ".old-"


class TakenError(StorageError):
    """A version of this number exists or is being written, and it is another one."""

    def __init__(self, number: int, export_dir: str) -> None:
        super().__init__(
            f"version {number} in {export_dir} belongs to another writer",
            hint="A version is never written twice. Publish under another number.",
        )


def publish_version(version: Version, export_dir: str, count: Count = uncounted) -> Version:
    """Publish a complete version of this machine in another export directory, under its own number.

    Publishing the same again is no error: what a killed publisher has left is completed, and files that
    are there already are not sent again.

    Args:
        version: What to publish.
        export_dir: A path or a URI.
        count: Is told of the bytes, besides the progress that is shown; what it raises ends the transfer.

    Raises:
        TakenError: the number belongs to another version; nothing of that was touched.
        StorageError: a file cannot be read or written.
    """
    directory = local_path(export_dir)
    if directory is not None:
        return _publish_on_disk(version, directory, count)
    store = open_store(export_dir)
    if version.manifest is None:
        raise StorageError(
            f"version {version.number} has no {MANIFEST}, without which none is complete in {export_dir}",
            hint="Export it with fairway, or copy it into a directory of this machine or a volume.",
        )
    content = (version.path / MANIFEST).read_bytes()
    there = _claim(store, version.number, content)
    if MANIFEST not in there:
        _upload(version, version.manifest, store, there, count)
        _create(store, f"{version.number}/{MANIFEST}", content, version.number)
    return Version(version.number, join_uri(store.uri, str(version.number)), version.manifest)


def is_claimed(version: Version, export_dir: str) -> bool:
    """Tell whether a version's number is claimed for this very version in an object store.

    Args:
        version: A complete version of this machine.
        export_dir: A URI.

    Raises:
        StorageError: the store does not answer or refuses, or the version's manifest cannot be read.
    """
    with storage_errors("read", version.path):
        claim = _claim_of((version.path / MANIFEST).read_bytes())
    return read_if_there(open_store(export_dir), f"{CLAIMS}/{version.number}") == claim


def fetch_version(version: Version, export_dir: Path, count: Count = uncounted) -> Version:
    """Copy a complete version into an export directory of this machine, each file checked.

    Args:
        version: What to copy.
        export_dir: Where to.
        count: As for `publish_version`.

    Raises:
        StorageError: a file is missing or damaged, or cannot be written; nothing is left then. Or a
            version of this number is there already.
    """
    target = export_dir / str(version.number)
    if target.exists():
        raise StorageError(f"{target} exists already")
    store = open_store(version.uri)
    manifest = version.manifest
    names = [*manifest.files, MANIFEST] if manifest else [entry.key for entry in store.list()]
    total = sum(entry["size"] for entry in manifest.files.values()) if manifest else 0
    with scratch_directory(export_dir, prefix=_NEW) as scratch:
        with Progress(f"fetching version {version.number}", total, unit="bytes") as progress:
            counts = _both(progress.advance, count)
            download_files(store, {name: name for name in names}, scratch, counts)
        if manifest:
            _check(scratch, manifest, version.uri)
        publish_directory(scratch, target)
    return read_version(target)


def remove_version(export_dir: str, number: int) -> None:
    """Delete a version such that no reader sees a part of it, and its number is not used again.

    Raises:
        StorageError: a file cannot be deleted.
    """
    directory = local_path(export_dir)
    if directory is not None:
        _remove_on_disk(directory, number)
    else:
        store = open_store(export_dir)
        _remove(store, number, [entry.key for entry in store.list(f"{number}/")])


def remove_leftovers(export_dir: Path) -> None:
    """Delete what killed processes have left in an export directory in which no other is at work."""
    for prefix in (_NEW, _OLD):
        for left in export_dir.glob(f"{prefix}*"):
            shutil.rmtree(left, ignore_errors=True)


def keep_newest(export_dir: str, keep: int) -> list[int]:
    """Delete all but the newest complete versions, and what publishers abandoned a day ago or earlier.

    In an object store a version of another program, without manifest and claim, stays as it is.

    Args:
        export_dir: A path or a URI.
        keep: How many complete versions stay; at least 1.

    Returns:
        The numbers of the complete versions that were deleted, oldest first.

    Raises:
        StorageError: the directory cannot be read, or a file cannot be deleted.
    """
    if local_path(export_dir) is not None:
        old = [version.number for version in list_versions(export_dir) if not version.problem][:-keep]
        for number in old:
            remove_version(export_dir, number)
        return old
    store = open_store(export_dir)
    entries = store.list()
    versions = Catalog(store).from_entries(entries)
    complete = [version.number for version in versions if not version.problem]
    old = complete[:-keep]
    for number in [*old, *(v.number for v in versions if v.problem and _is_abandoned(v, entries, complete))]:
        _remove(store, number, [entry.key for entry in entries if entry.key.startswith(f"{number}/")])
    _forget_claims(store, entries, {version.number for version in versions}, old)
    return old


def _publish_on_disk(version: Version, directory: Path, count: Count) -> Version:
    target = directory / str(version.number)
    if not target.exists():
        try:
            return fetch_version(version, directory, count)
        except StorageError:
            if not target.exists():
                raise
    there = read_version(target)
    if there.manifest is None or there.manifest != version.manifest or there.problem:
        raise TakenError(version.number, str(directory))
    return there


def _claim(store: Store, number: int, manifest: bytes) -> dict[str, Entry]:
    """Become the one writer of a version; return what is there of it already, by name."""
    key = f"{CLAIMS}/{number}"
    there = {entry.key.removeprefix(f"{number}/"): entry for entry in store.list(f"{number}/")}
    # A program that makes no claims has written it: claimed, it would be taken for our own the next time.
    if there and read_if_there(store, key) is None:
        raise TakenError(number, store.uri)
    _create(store, key, _claim_of(manifest), number)
    return there


def _claim_of(manifest: bytes) -> bytes:
    return hashlib.sha256(manifest).hexdigest().encode() + b"\n"


def _create(store: Store, key: str, content: bytes, number: int) -> None:
    """Create a file of a version, unless it is there with the same content."""
    try:
        store.create(key, content)
    except ExistsError as err:
        if read_if_there(store, key) != content:
            raise TakenError(number, store.uri) from err


def _upload(
    version: Version, manifest: Manifest, store: Store, there: dict[str, Entry], count: Count
) -> None:
    """Send the files that are not there; equal claims make sure that those there are the same."""
    sizes = {name: entry["size"] for name, entry in manifest.files.items()}
    missing = [name for name, size in sizes.items() if name not in there or there[name].size != size]
    prefix = f"{version.number}/"
    total = sum(sizes[name] for name in missing)
    with Progress(f"publishing version {version.number}", total, unit="bytes") as progress:
        counts = _both(progress.advance, count)
        data = [name for name in missing if name != SAVED_MODEL]
        upload_files(version.path, data, store, prefix, counts)
        if SAVED_MODEL in missing:
            upload_files(version.path, [SAVED_MODEL], store, prefix, counts)


def _both(first: Count, second: Count) -> Count:
    def count(size: int) -> None:
        first(size)
        second(size)

    return count


def _check(directory: Path, manifest: Manifest, uri: str) -> None:
    try:
        right = Manifest.from_json((directory / MANIFEST).read_bytes()) == manifest
    except ValueError:
        right = False
    if not right:
        raise StorageError(f"{join_uri(uri, MANIFEST)} has changed or is damaged", hint="Try again.")
    found = describe_files(directory)
    for name, expected in manifest.files.items():
        if any(found[name][what] != expected[what] for what in ("size", "sha256")):
            raise StorageError(
                f"{join_uri(uri, name)} is damaged: it is not what {MANIFEST} says",
                hint="Delete the version, or publish it again under another number.",
            )


def _remove_on_disk(directory: Path, number: int) -> None:
    with (
        scratch_directory(directory, prefix=_OLD) as grave,
        storage_errors("delete", directory / str(number)),
        suppress(FileNotFoundError),  # another process has deleted it
    ):
        (directory / str(number)).rename(grave / str(number))


def _remove(store: Store, number: int, keys: list[str]) -> None:
    store.delete([f"{number}/{MANIFEST}"])
    store.delete([key for key in keys if key != f"{number}/{MANIFEST}"])


def _is_abandoned(version: Version, entries: list[Entry], complete: list[int]) -> bool:
    """Tell whether a claimed version without a manifest is older than a complete one, and at rest."""
    last = max(entry.modified for entry in entries if entry.key.startswith(f"{version.number}/"))
    claimed = any(entry.key == f"{CLAIMS}/{version.number}" for entry in entries)
    newer = any(number > version.number for number in complete)
    return version.manifest is None and claimed and newer and _is_old(last)


def _forget_claims(store: Store, entries: list[Entry], present: set[int], deleted: list[int]) -> None:
    """Delete the claims of versions that are gone, but for the highest: the next number is above it.

    A fresh claim without files may be of a publisher that is about to send them.
    """
    claims: dict[int, Entry] = {}
    for entry in entries:
        directory, _, name = entry.key.partition("/")
        if directory == CLAIMS and name.isdecimal():
            claims[int(name)] = entry
    gone = [
        n for n, claim in claims.items() if n in deleted or (n not in present and _is_old(claim.modified))
    ]
    store.delete(claims[number].key for number in gone if number != max(claims))


def _is_old(modified: float) -> bool:
    return time.time() - modified > ABANDONED_S
