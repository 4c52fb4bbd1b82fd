"""A worker's images in a file of its own, where the steps that a lead sends it read them.

An asynchronous worker runs no code of its own, only functions that it is sent: the images would have to
come with them. A record is the pixels of an image, uint8, then its label, int32 in little-endian order.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from fairway.config import cache_dir
from fairway.errors import StorageError
from fairway.net.control.messages import Notice
from fairway.storage.files import make_directory, storage_errors
from fairway.workloads.base import Split

LABEL_BYTES = 4
FRESH_S = 60.0
"""Younger files are left alone: their task may be about to lock them."""
HELD_S = 30.0
"""How long an earlier process of the task may take to end, which has its file until then."""
LOOK_S = 0.2


class Shard(NamedTuple):
    """A file of records on the disk of a worker, and what is in it."""

    path: str
    images: int
    height: int
    width: int


@contextmanager
def shard_file(address: str, check_stop: Callable[[], None]) -> Iterator[Path]:
    """Give the path for a task's shard, the same after a restart, and remove the file in the end.

    Args:
        address: The task's, which no other training on this machine has at the same time.
        check_stop: Is called a few times a second while another process has the file; what it raises ends
            the waiting.

    Raises:
        StorageError: the cache cannot be written to, or another process has the file and does not end.
    """
    directory = cache_dir() / "shards"
    make_directory(directory)
    path = directory / address.replace("/", "_")
    with storage_errors("write", path):
        _clear(directory)
        held = _wait_for(path, check_stop)
    with held:
        try:
            yield path
        finally:
            path.unlink(missing_ok=True)


def _clear(directory: Path) -> None:
    """Remove what killed tasks have left: nobody holds it."""
    for left in directory.iterdir():
        with suppress(OSError), left.open("r+b") as file:  # in use, gone already, or somebody else's
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if time.time() - left.stat().st_mtime > FRESH_S:
                left.unlink(missing_ok=True)


def _wait_for(path: Path, check_stop: Callable[[], None]) -> BinaryIO:
    """Return the file, locked by this process."""
    notice, deadline = Notice(), time.monotonic() + HELD_S
    while (held := _lock(path)) is None:
        check_stop()
        if time.monotonic() >= deadline:
            raise StorageError(
                f"another process has {path} and does not release it within {HELD_S:g} s",
                hint="Kill it if it hangs. If it belongs to another training, give this task another address "
                "in TF_CONFIG, or set XDG_CACHE_HOME.",
            )
        notice.say(f"{path}, which another process has")
        time.sleep(LOOK_S)
    return held


def _lock(path: Path) -> BinaryIO | None:
    """Return the file, locked; `None` if another process has it, or has removed it just now."""
    with ExitStack() as stack, suppress(BlockingIOError):
        held = stack.enter_context(path.open("ab"))
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(held.fileno()).st_nlink:
            stack.pop_all()
            return held
    return None


def write_shard(split: Split, path: Path) -> Shard:
    """Write a worker's images.

    Raises:
        StorageError: the disk is full or refuses.
    """
    images, height, width = split.images.shape
    labels = split.labels.astype("<i4")[:, None].view(np.uint8)
    with storage_errors("write", path):
        np.concatenate([split.images.reshape(images, -1), labels], axis=1).tofile(path)
    return Shard(str(path), images, height, width)
