"""Large files in parts: their size, several at a time, and what becomes of them together."""

from __future__ import annotations

import hashlib
import io
import os
import re
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor, wait
from pathlib import Path
from typing import Any, TypeVar

PART_BYTES = 8 * 2**20
"""Larger files are transferred in parts of this size. S3 wants at least 5 MiB."""
MAX_PARTS = 1000
"""Swift's limit; S3 allows ten times as many."""
PARTS_AT_ONCE = 8
"""In all, whatever the number of files: each keeps a part in memory."""

_IN_PART = {"ETag", "ChecksumCRC32", "ChecksumCRC32C", "ChecksumCRC64NVME", "ChecksumSHA1", "ChecksumSHA256"}

T = TypeVar("T")
R = TypeVar("R")


def part_size(size: int) -> int:
    """Return the size of the parts of a file, in bytes."""
    return max(PART_BYTES, -(-size // MAX_PARTS))


def at_once(pool: Executor, function: Callable[[T], R], items: Iterable[T]) -> Sequence[R]:
    """Apply a function to items in several threads; when it fails or is interrupted, none goes on."""
    futures = [pool.submit(function, item) for item in items]
    try:
        return [future.result() for future in futures]
    finally:
        for future in futures:
            future.cancel()
        wait(futures)


def description(number: int, answer: dict[str, Any]) -> dict[str, Any]:
    """Return what S3 wants to be told of a part at the end, from its answer to the part."""
    return {name: answer[name] for name in answer if name in _IN_PART} | {"PartNumber": number}


def tag_of(parts: Sequence[dict[str, Any]]) -> str:
    """Return the ETag of an object that was uploaded in parts, by the MD5 sums that theirs usually are."""
    tags = [part["ETag"].strip('"') for part in parts]
    sums = b"".join(bytes.fromhex(tag) for tag in tags if re.fullmatch("[0-9a-f]{32}", tag))
    return f"{hashlib.md5(sums, usedforsecurity=False).hexdigest()}-{len(parts)}"


def read_part(source: Path, start: int, size: int) -> io.BytesIO:
    """Return a part of a file, in a form that can be sent again."""
    with source.open("rb") as file:
        file.seek(start)
        return io.BytesIO(file.read(size))


def write_at(descriptor: int, data: bytes, at: int) -> None:
    """Write all of the data: one `pwrite` may write less, as before a disk is full."""
    left = memoryview(data)
    while left:
        written = os.pwrite(descriptor, left, at)
        left, at = left[written:], at + written
