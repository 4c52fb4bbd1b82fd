"""Files and directories that are there whole or not at all."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from fairway.errors import StorageError

UNFINISHED = ".part-"
"""Beginning of the name of a file that is being written."""
ABANDONED_S = 24 * 3600
"""Age at which a temporary directory cannot be in use any more."""

_CAUSES = {
    errno.ENOSPC: ("the disk is full", "Free some space, then run the same command again."),
    errno.EFBIG: ("a file would grow beyond the limit", "Raise the limit (ulimit -f), then run it again."),
    errno.EDQUOT: ("the disk quota is used up", "Free some space, then run the same command again."),
    errno.EACCES: ("permission denied", "Choose another directory, or change its owner or mode."),
    errno.EPERM: ("permission denied", "Choose another directory, or change its owner or mode."),
    errno.EROFS: ("the file system is read-only", "Choose another directory."),
    errno.ENOTDIR: ("a part of the path is a file", "Choose another directory."),
    errno.ENOENT: ("it does not exist", "Check the path."),
}


@contextmanager
def storage_errors(action: str, path: str | Path) -> Iterator[None]:
    """Turn an `OSError` of the block into a `StorageError` that says what could not be done and why.

    Args:
        action: The words before the path: `write`, `read`, `create`.
        path: The file or directory the user knows.
    """
    try:
        yield
    except OSError as err:
        cause, hint = _CAUSES.get(err.errno or 0, (err.strerror or str(err), ""))
        raise StorageError(f"cannot {action} {path}: {cause}", hint=hint) from err


def make_directory(path: Path) -> None:
    """Create a directory and its parents, and make sure files can be written there.

    Raises:
        StorageError: it cannot be created or written to.
    """
    with storage_errors("write to", path):
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass


def write_atomic(path: Path, data: bytes) -> None:
    """Write a file such that a reader sees the old content or the new, also after a power failure.

    Raises:
        StorageError: the disk is full, or the directory cannot be written to; the old file is unharmed.
    """
    with storage_errors("write", path):
        handle, name = tempfile.mkstemp(prefix=UNFINISHED, dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            Path(name).chmod(0o644)  # mkstemp makes it 0600, but servers run as other users
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
        fsync_path(path.parent)


def publish_directory(source: Path, target: Path) -> None:
    """Rename a finished directory to the name under which it is read, after all of it is on disk.

    Raises:
        StorageError: the target exists already, or the disk refuses.
    """
    with storage_errors("publish", target):
        for path in [*source.rglob("*"), source]:
            fsync_path(path)
        if target.exists():
            raise FileExistsError(errno.EEXIST, "it exists already")
        source.rename(target)
        fsync_path(target.parent)


@contextmanager
def scratch_directory(parent: Path, prefix: str) -> Iterator[Path]:
    """Give a temporary directory on the same file system as `parent`; it is gone afterwards.

    Directories with the same prefix that a killed process left a day ago or earlier are removed.
    """
    with storage_errors("write to", parent):
        parent.mkdir(parents=True, exist_ok=True)
        for left in parent.glob(f"{prefix}*"):
            with suppress(FileNotFoundError):  # another process has removed its own
                if time.time() - left.stat().st_mtime > ABANDONED_S:
                    shutil.rmtree(left, ignore_errors=True)
        path = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
        path.chmod(0o755)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


@contextmanager
def lock_directory(path: Path, action: str) -> Iterator[None]:
    """Hold a directory for one process at a time; the system lets go of it when the process ends, however.

    Args:
        path: The directory; it exists.
        action: What it is held for, a word of the lock file's name.

    Raises:
        StorageError: another process holds it.
    """
    with storage_errors("lock", path), (path / f".{action}.lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as err:
            raise StorageError(
                f"another process is at work ({action}) in {path}",
                hint="Wait until it is done, or choose another directory.",
            ) from err
        yield


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file's content as 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fsync_path(path: Path) -> None:
    """Wait until a file's content, or a directory's names, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
