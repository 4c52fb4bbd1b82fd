"""A directory of this machine, or of any file system that is mounted on it, as a store."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from fairway.storage.files import UNFINISHED, fsync_path, storage_errors
from fairway.storage.stores.store import (
    Count,
    Entry,
    ExistsError,
    NotThereError,
    check_key,
    is_key,
    uncounted,
)


class LocalStore:
    """A `Store` on a directory, which is created when something is written.

    Args:
        uri: As the user gave it.
        path: The same, as a path.
    """

    def __init__(self, uri: str, path: Path) -> None:
        self.uri = uri.rstrip("/") or "/"
        self._path = path

    def list(self, prefix: str = "") -> list[Entry]:
        """Return all files below the directory whose key starts with a prefix."""
        with storage_errors("read", self.uri):
            directory = prefix.rpartition("/")[0]
            if directory and not is_key(directory):
                return []
            entries = (self.stat(key) for key in self._keys(self._path / directory) if is_key(key))
            return sorted(entry for entry in entries if entry and entry.key.startswith(prefix))

    def stat(self, key: str) -> Entry | None:
        """Return one file's entry; `None` if it is not there."""
        path = self._at(key)
        with storage_errors("read", path):
            try:
                found = path.stat()
            except (FileNotFoundError, NotADirectoryError):
                return None
            if stat.S_ISDIR(found.st_mode):
                return None
            return Entry(key, found.st_size, found.st_mtime, f"{found.st_size}-{found.st_mtime_ns}")

    def read(self, key: str, start: int = 0) -> bytes:
        """Return the content from a byte on."""
        with self._reading(key) as path, path.open("rb") as file:
            file.seek(start)
            return file.read()

    def write(self, key: str, data: bytes) -> None:
        """Write a file whole."""
        path = self._at(key)
        with storage_errors("write", path), self._unfinished(path) as part:
            part.write_bytes(data)
            self._finish(part, path)

    def create(self, key: str, data: bytes) -> None:
        """Write a file that must not exist: a hard link, unlike a rename, fails where something is."""
        path = self._at(key)
        with storage_errors("write", path), self._unfinished(path) as part:
            part.write_bytes(data)
            fsync_path(part)
            try:
                os.link(part, path)
            except FileExistsError as err:
                if part.stat().st_nlink == 1:  # else NFS has lost the answer to the call that succeeded
                    raise ExistsError(f"{path} exists already") from err
            fsync_path(path.parent)

    def upload(self, source: Path, key: str, count: Count = uncounted) -> None:
        """Copy a file into the directory."""
        path = self._at(key)
        with storage_errors("read", source):
            content = source.open("rb")
        with content, storage_errors("write", path), self._unfinished(path) as part:
            with part.open("wb") as file:
                shutil.copyfileobj(content, file)
            size = part.stat().st_size
            self._finish(part, path)
        count(size)

    def download(self, key: str, target: Path, count: Count = uncounted) -> None:
        """Copy a file out of the directory."""
        with self._reading(key) as path:
            source = path.open("rb")
        with source, storage_errors("write", target), target.open("wb") as file:
            shutil.copyfileobj(source, file)
            count(file.tell())

    def delete(self, keys: Iterable[str]) -> None:
        """Delete files, and the directories that are empty then."""
        for path in [self._at(key) for key in keys]:
            with storage_errors("delete", path):
                with suppress(NotADirectoryError):
                    path.unlink(missing_ok=True)
                self._remove_empty(path.parent)

    def _keys(self, top: Path) -> Iterator[str]:
        for directory, _, names in os.walk(top, onerror=_raise_unless_gone):
            for name in names:
                if not name.startswith(UNFINISHED):
                    yield (Path(directory) / name).relative_to(self._path).as_posix()

    def _at(self, key: str) -> Path:
        check_key(key)
        return self._path / key

    @contextmanager
    def _reading(self, key: str) -> Iterator[Path]:
        path = self._at(key)
        with storage_errors("read", path):
            try:
                yield path
            except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as err:
                raise NotThereError(f"there is no {key} in {self.uri}") from err

    @contextmanager
    def _unfinished(self, path: Path) -> Iterator[Path]:
        """Give a name beside a file under which it is written; nothing is left of it afterwards."""
        part = _new_file(path.parent)
        part.chmod(0o644)  # mkstemp makes it 0600, but servers run as other users
        try:
            yield part
        finally:
            part.unlink(missing_ok=True)

    def _finish(self, part: Path, path: Path) -> None:
        fsync_path(part)
        part.replace(path)
        fsync_path(path.parent)

    def _remove_empty(self, directory: Path) -> None:
        while directory != self._path and self._path in directory.parents:
            try:
                directory.rmdir()
            except OSError:  # not empty, or gone already
                return
            directory = directory.parent


def _raise_unless_gone(err: OSError) -> None:
    """Let nobody take a directory that cannot be read for an empty one."""
    if not isinstance(err, FileNotFoundError | NotADirectoryError):
        raise err


def _new_file(directory: Path, attempts: int = 100) -> Path:
    """Create a file in a directory, which is made if need be, or again if it was empty and was deleted."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=UNFINISHED, dir=directory)
    except FileNotFoundError:
        if attempts == 1:
            raise
        return _new_file(directory, attempts - 1)
    os.close(handle)
    return Path(name)
