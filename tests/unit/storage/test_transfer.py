"""Several transfers at once: what becomes of the others when one ends badly."""

from __future__ import annotations

import threading
import time
from functools import partial
from pathlib import Path

import pytest

from fairway.errors import StorageError
from fairway.storage.stores.local import LocalStore
from fairway.storage.stores.store import Count, uncounted
from fairway.storage.transfer import THREADS, download_files, in_parallel

LONG_S = 60.0


class SlowStore(LocalStore):
    """Takes a long time for every file but the one that fails, once the others are on their way."""

    def __init__(self, path: Path) -> None:
        super().__init__(str(path), path)
        self.begun: list[str] = []

    def download(self, key: str, target: Path, count: Count = uncounted) -> None:
        self.begun.append(key)
        end = time.monotonic() + LONG_S
        while time.monotonic() < end:
            if key == "bad" and len(self.begun) == THREADS:
                raise StorageError("bad cannot be read")
            count(1)
            time.sleep(0.01)


def test_results_are_in_the_order_of_the_calls() -> None:
    assert in_parallel([partial(int, number) for number in range(40)]) == list(range(40))
    assert in_parallel([]) == []


def test_a_failure_ends_the_other_transfers(tmp_path: Path) -> None:
    store, threads = SlowStore(tmp_path), threading.active_count()
    names = [
        *(f"file{number}" for number in range(THREADS - 1)),
        "bad",
        *(f"waiting{number}" for number in range(100)),
    ]
    started = time.monotonic()
    with pytest.raises(StorageError, match="bad cannot be read"):
        download_files(store, {name: name for name in names}, tmp_path / "fetched")
    assert time.monotonic() - started < LONG_S / 2
    assert len(store.begun) < len(names), "what has not begun is not begun"
    assert threading.active_count() == threads
