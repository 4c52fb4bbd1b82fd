"""A worker's images in a file of its own, where the steps that a lead sends it read them.

An asynchronous worker runs no code of its own, only functions that it is sent: the images would have to
come with them. A record is the pixels of an image, uint8, then its label, int32 in little-endian order.
"""

from __future__ import annotations

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fairway.config import cache_dir
from fairway.storage.files import make_directory, storage_errors
from fairway.workloads.base import Split

LABEL_BYTES = 4
FRESH_S = 60.0
"""Younger files are left alone: their task may be about to lock them."""


class Shard(NamedTuple):
    """A file of records on the disk of a worker, and what is in it."""

    path: str
    images: int
    height: int
    width: int


@contextmanager
def shard_file(address: str) -> Iterator[Path]:
    """Give the path for a task's shard, the same after a restart, and remove the file in the end.

    Args:
        address: The task's, which no other training on this machine has at the same time.

    Raises:
        StorageError: the cache cannot be written to.
    """
    directory = cache_dir() / "shards"
    make_directory(directory)
    path = directory / address.replace("/", "_")
    with storage_errors("write", path):
        _clear(directory)
        held = path.open("ab")
    with held:
        fcntl.flock(held, fcntl.LOCK_EX)
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
