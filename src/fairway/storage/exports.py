"""The versions in an export directory, TensorFlow Serving's layout with a manifest in each version.

    <export>/<version>/         see `manifest`
    <export>/.claims/<version>  in an object store: who may write that version, see `publish`

A version is a whole number, a Unix time, always rising and never used twice. One with a manifest is
complete if every file that it names is there in its recorded size. One without, of another program, is
complete on a disk if it holds `saved_model.pb`; in an object store nothing tells whether all of it is
there, so it is not used.
"""

from __future__ import annotations

import os
import re
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from fairway.errors import StorageError
from fairway.storage.files import storage_errors
from fairway.storage.manifest import MANIFEST, SAVED_MODEL, Manifest, wrong_checksums
from fairway.storage.stores.store import Entry, NotThereError, Store
from fairway.storage.stores.uri import join_uri, local_path, open_store
from fairway.storage.transfer import download_files, in_parallel

CLAIMS = ".claims"

_NUMBER = re.compile(r"[0-9]{1,18}")


@dataclass(frozen=True)
class Version:
    """One version in an export directory."""

    number: int
    uri: str
    """Its directory: a path or a URI."""
    manifest: Manifest | None
    """`None` for a SavedModel that fairway did not write."""
    problem: str = ""
    """Why it cannot be used; empty for a complete version."""

    @property
    def path(self) -> Path:
        """Its directory on this machine.

        Raises:
            StorageError: it lies in an object store.
        """
        path = local_path(self.uri)
        if path is None:
            raise StorageError(f"{self.uri} is not on this machine")
        return path


class Catalog:
    """The versions in an object store: one request a look, as each manifest is read only once.

    Args:
        store: The export directory.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._manifests: dict[str, tuple[Manifest | None, str]] = {}

    def versions(self) -> list[Version]:
        """Return all versions, oldest first, complete or not.

        Raises:
            StorageError: the store does not answer or refuses.
        """
        return self.from_entries(self._store.list())

    def from_entries(self, entries: Iterable[Entry]) -> list[Version]:
        """Return the versions in a listing of the store."""
        listed: dict[int, dict[str, Entry]] = defaultdict(dict)
        for entry in entries:
            number, _, name = entry.key.partition("/")
            if _NUMBER.fullmatch(number) and str(int(number)) == number and name:
                listed[int(number)][name] = entry
        self._read_manifests([files[MANIFEST] for files in listed.values() if MANIFEST in files])
        return [self._version(number, listed[number]) for number in sorted(listed)]

    def _read_manifests(self, entries: list[Entry]) -> None:
        known = {_identity(entry): self._manifests.get(_identity(entry)) for entry in entries}
        unknown = [entry for entry in entries if known[_identity(entry)] is None]
        read = in_parallel([partial(self._read, entry.key) for entry in unknown])
        known |= {_identity(entry): found for entry, found in zip(unknown, read, strict=True)}
        self._manifests = {key: found for key, found in known.items() if found}

    def _read(self, key: str) -> tuple[Manifest | None, str] | None:
        try:
            return Manifest.from_json(self._store.read(key)), ""
        except NotThereError:  # deleted since it was listed, or listed before it can be read, as in Swift
            return None
        except ValueError as err:
            return None, f"{MANIFEST} cannot be read: {err}"

    def _version(self, number: int, files: dict[str, Entry]) -> Version:
        uri = join_uri(self._store.uri, str(number))
        found = self._manifests.get(_identity(files[MANIFEST])) if MANIFEST in files else None
        if found is None:
            return Version(number, uri, None, f"no {MANIFEST}")
        manifest, problem = found
        if manifest:
            problem = _missing(manifest, {name: entry.size for name, entry in files.items()})
        return Version(number, uri, manifest, problem)


def version_paths(export_dir: Path, *, must_exist: bool = False) -> list[Path]:
    """Return the directories of all versions on a disk, oldest first, without reading them.

    Args:
        export_dir: The export directory.
        must_exist: Whether one that does not exist is an error; else it has no versions.

    Raises:
        StorageError: the export directory cannot be read.
    """
    with storage_errors("read", export_dir):
        try:
            with os.scandir(export_dir) as entries:
                names = [each.name for each in entries if _NUMBER.fullmatch(each.name) and each.is_dir()]
        except FileNotFoundError:
            if must_exist:
                raise
            return []
    return [export_dir / name for name in sorted(names, key=int)]


def list_versions(export_dir: str | Path) -> list[Version]:
    """Return all versions, oldest first, complete or not; none if the directory does not exist.

    Raises:
        StorageError: the directory cannot be read.
    """
    path = local_path(str(export_dir))
    if path is None:
        return Catalog(open_store(str(export_dir))).versions()
    return [read_version(each) for each in version_paths(path)]


def read_version(path: Path) -> Version:
    """Return one version's manifest, or the reason why it is not complete (sizes only; no checksums)."""
    number, uri = int(path.name), str(path)
    try:
        manifest = Manifest.from_json((path / MANIFEST).read_bytes())
        return Version(number, uri, manifest, _missing(manifest, _sizes(path, manifest)))
    except FileNotFoundError:
        return Version(number, uri, None, "" if (path / SAVED_MODEL).is_file() else f"no {SAVED_MODEL}")
    except (ValueError, OSError) as err:
        return Version(number, uri, None, f"{MANIFEST} cannot be read: {err}")


def find_version(export_dir: str | Path, number: int | None = None) -> Version:
    """Return a complete version, the newest if no number is given.

    Raises:
        StorageError: there is none, or it is not complete.
    """
    versions = list_versions(export_dir)
    if number is None:
        complete = [version for version in versions if not version.problem]
        if not complete:
            raise StorageError(f"no model in {export_dir}", hint="Train one with: fairway train")
        return complete[-1]
    for version in versions:
        if version.number == number:
            if version.problem:
                raise StorageError(f"version {number} in {export_dir} is damaged: {version.problem}")
            return version
    have = ", ".join(str(version.number) for version in versions) or "none"
    raise StorageError(f"version {number} not found in {export_dir}; have: {have}")


def next_version(export_dir: str | Path) -> int:
    """Return the number for a new version: the Unix time, or one above the highest that was ever used."""
    path = local_path(str(export_dir))
    if path is None:
        keys = [entry.key for entry in open_store(str(export_dir)).list()]
        parts = (key.removeprefix(f"{CLAIMS}/").partition("/")[0] for key in keys)
        taken = [int(part) for part in parts if _NUMBER.fullmatch(part)]
    else:
        taken = [int(each.name) for each in version_paths(path)]
    return max([int(time.time()), *(number + 1 for number in taken)])


def damaged_files(version: Version) -> list[str]:
    """Return the files whose content is not what the manifest says: the full check, by checksum.

    Raises:
        StorageError: the files of a version in an object store cannot be read.
    """
    if version.manifest is None:
        return []
    files = version.manifest.files
    path = local_path(version.uri)
    if path is not None:
        return wrong_checksums(path, files)
    with tempfile.TemporaryDirectory() as scratch:
        download_files(open_store(version.uri), {name: name for name in files}, Path(scratch))
        return wrong_checksums(Path(scratch), files)


def _sizes(path: Path, manifest: Manifest) -> dict[str, int]:
    return {name: (path / name).stat().st_size for name in manifest.files if (path / name).exists()}


def _missing(manifest: Manifest, sizes: dict[str, int]) -> str:
    for name, entry in manifest.files.items():
        if name not in sizes:
            return f"{name} is missing"
        if sizes[name] != entry["size"]:
            return f"{name} has {sizes[name]} bytes instead of {entry['size']}"
    return ""


def _identity(entry: Entry) -> str:
    return f"{entry.key} {entry.tag} {entry.modified}"
