"""Several files at once, to a store and from one."""

from __future__ import annotations

import threading
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


class _EndedError(Exception):
    """Another transfer has failed, or the user has had enough."""


def in_parallel(calls: Sequence[Callable[[], T]], end: Callable[[], object] = lambda: None) -> list[T]:
    """Return the results of calls that are made in threads.

    Args:
        calls: What to do.
        end: Is called when one has failed, to make the others give up, or all are done.

    Raises:
        Exception: the first error of a call; calls that have not begun are not made then.
    """
    if len(calls) <= 1:
        return [call() for call in calls]
    with ThreadPoolExecutor(min(THREADS, len(calls)), thread_name_prefix="transfer") as executor:
        futures = [executor.submit(call) for call in calls]
        try:
            done, _ = wait(futures, return_when=FIRST_EXCEPTION)
        finally:  # also after Ctrl-C
            executor.shutdown(wait=False, cancel_futures=True)
            end()
        for future in done:
            if error := future.exception():
                raise error
        return [future.result() for future in futures]


def upload_files(
    directory: Path, names: Iterable[str], store: Store, prefix: str, count: Count = uncounted
) -> None:
    """Write files of a directory under `prefix` and their own names.

    Raises:
        StorageError: a file cannot be read or written.
    """
    _transfer([partial(store.upload, directory / name, prefix + name) for name in names], count)


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
    _transfer([partial(store.download, key, directory / name) for name, key in keys.items()], count)


def _transfer(transfers: Iterable[Callable[[Count], None]], count: Count) -> None:
    """Make transfers at once; when one fails the others end with the bytes that they are at."""
    ended = threading.Event()

    def count_until_the_end(size: int) -> None:
        if ended.is_set():
            raise _EndedError
        count(size)

    in_parallel([partial(transfer, count_until_the_end) for transfer in transfers], ended.set)
