"""The file that a worker's images are in."""

from __future__ import annotations

import fcntl
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from fairway.errors import StoppedError, StorageError
from fairway.train.shards import FRESH_S, LABEL_BYTES, shard_file, write_shard
from fairway.workloads.base import Split


@pytest.fixture(autouse=True)
def shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "fairway" / "shards"


def go_on() -> None:
    """Stand for `check_stop` where nothing is to stop."""


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Have a shard as another process has it, and remove it in the end."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
        path.unlink()


def make_old(path: Path) -> None:
    then = path.stat().st_mtime - FRESH_S - 1
    os.utime(path, (then, then))


def test_a_record_is_pixels_and_a_label(shards: Path) -> None:
    images = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4)
    with shard_file("127.0.0.1:2222", go_on) as path:
        shard = write_shard(Split(images, np.array([7, -2]), "two"), path)
        assert shard == (str(path), 2, 3, 4)
        records = np.fromfile(path, np.uint8).reshape(2, -1)
    assert np.array_equal(records[:, :-LABEL_BYTES].reshape(images.shape), images)
    assert records[:, -LABEL_BYTES:].copy().view("<i4").ravel().tolist() == [7, -2]
    assert not list(shards.iterdir())


def test_it_is_removed_however_the_task_ends(shards: Path) -> None:
    with pytest.raises(KeyboardInterrupt), shard_file("a:1", go_on):
        raise KeyboardInterrupt
    assert not list(shards.iterdir())


def test_what_a_kill_has_left_is_removed_and_what_is_in_use_is_not(shards: Path) -> None:
    shards.mkdir(parents=True)
    left, fresh = shards / "b:1", shards / "c:1"
    for path in (left, fresh):
        path.write_bytes(b"images")
    make_old(left)
    with shard_file("a:1", go_on) as used:
        make_old(used)
        with shard_file("d:1", go_on) as other:
            assert set(shards.iterdir()) == {used, other, fresh}


def test_one_that_another_process_has_is_waited_for_and_made_anew(shards: Path) -> None:
    looks = iter(range(1000))
    has_it, released = threading.Event(), threading.Event()

    def hold() -> None:
        with held(shards / "a:1"):
            has_it.set()
            released.wait(10)

    other = threading.Thread(target=hold)
    other.start()
    has_it.wait(10)
    with shard_file("a:1", lambda: released.set() if next(looks) == 2 else None) as path:
        other.join()
        assert path.exists()


def test_the_wait_for_another_process_has_an_end_and_names_what_it_has(
    shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fairway.train.shards.HELD_S", 0.3)
    with (
        held(shards / "a:1"),
        pytest.raises(StorageError, match=f"another process has {shards}/a:1 ") as caught,
        shard_file("a:1", go_on),
    ):
        pass
    assert "TF_CONFIG" in caught.value.hint


def test_the_wait_for_another_process_can_be_stopped(shards: Path) -> None:
    def stop() -> None:
        raise StoppedError(15, "")

    begun = time.monotonic()
    with held(shards / "a:1"), pytest.raises(StoppedError), shard_file("a:1", stop):
        pass
    assert time.monotonic() - begun < 5
