"""The file that a worker's images are in."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from fairway.train.shards import FRESH_S, LABEL_BYTES, shard_file, write_shard
from fairway.workloads.base import Split


@pytest.fixture(autouse=True)
def shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "fairway" / "shards"


def make_old(path: Path) -> None:
    then = path.stat().st_mtime - FRESH_S - 1
    os.utime(path, (then, then))


def test_a_record_is_pixels_and_a_label(shards: Path) -> None:
    images = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4)
    with shard_file("127.0.0.1:2222") as path:
        shard = write_shard(Split(images, np.array([7, -2]), "two"), path)
        assert shard == (str(path), 2, 3, 4)
        records = np.fromfile(path, np.uint8).reshape(2, -1)
    assert np.array_equal(records[:, :-LABEL_BYTES].reshape(images.shape), images)
    assert records[:, -LABEL_BYTES:].copy().view("<i4").ravel().tolist() == [7, -2]
    assert not list(shards.iterdir())


def test_it_is_removed_however_the_task_ends(shards: Path) -> None:
    with pytest.raises(KeyboardInterrupt), shard_file("a:1"):
        raise KeyboardInterrupt
    assert not list(shards.iterdir())


def test_what_a_kill_has_left_is_removed_and_what_is_in_use_is_not(shards: Path) -> None:
    shards.mkdir(parents=True)
    left, fresh = shards / "b:1", shards / "c:1"
    for path in (left, fresh):
        path.write_bytes(b"images")
    make_old(left)
    with shard_file("a:1") as used:
        make_old(used)
        with shard_file("d:1") as other:
            assert set(shards.iterdir()) == {used, other, fresh}
