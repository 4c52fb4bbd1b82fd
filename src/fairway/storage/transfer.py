"""Several files at once, to a store and from one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from functools import partial
from pathlib import Path
from typing import TypeVar

from fairway.storage.files import storage_errors
from fairway.storage.stores.store import Count, Store, uncounted

T = TypeVar("T")

THREADS = 16
"""Transfers at once: enough to hide a store's latency; the bandwidth is shared anyway."""


def in_parallel(calls: Sequence[Callable[[], T]]) -> list[T]:
    """Return the results of calls that are made in threads.

    Raises:
        Exception: the first error of a call; calls that have not begun are not made then.
    """
    if len(calls) <= 1:
        return [call() for call in calls]
    with ThreadPoolExecutor(min(THREADS, len(calls)), thread_name_prefix="transfer") as executor:
        futures = [executor.submit(call) for call in calls]
        try:
            done, _ = wait(futures, return_when=FIRST_EXCEPTION)
        except BaseException:  # Ctrl-C
            executor.shutdown(wait=False, cancel_futures=True)
            raise
        for future in done:
            if error := future.exception():
                executor.shutdown(cancel_futures=True)
                raise error
        return [future.result() for future in futures]


def upload_files(
    directory: Path, names: Iterable[str], store: Store, prefix: str, count: Count = uncounted
) -> None:
    """Write files of a directory under `prefix` and their own names.

    Raises:
        StorageError: a file cannot be read or written.
    """
    in_parallel([partial(store.upload, directory / name, prefix + name, count) for name in names])


def download_files(store: Store, keys: Mapping[str, str], directory: Path, count: Count = uncounted) -> None:
    """Read files into a directory.

    Args:
        store: Where they are.
        keys: By the names that they get in the directory.
        directory: It exists; sub-directories are made.
        count: Is told of the bytes.

    Raises:
        StorageError: a file is not there, cannot be read, or cannot be written here.
    """
    with storage_errors("write to", directory):
        for name in keys:
            (directory / name).parent.mkdir(parents=True, exist_ok=True)
    in_parallel([partial(store.download, key, directory / name, count) for name, key in keys.items()])
