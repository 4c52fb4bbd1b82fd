"""Reading IDX files and mnist.npz: what is whole, what is damaged."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fairway.errors import DataError, StorageError
from fairway.workloads.mnist.idx import read_idx, read_npz


def idx(array: np.ndarray) -> bytes:
    return bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


@given(array=hnp.arrays(np.uint8, hnp.array_shapes(max_dims=3, max_side=9)), zipped=st.booleans())
def test_any_array_comes_back(
    tmp_path_factory: pytest.TempPathFactory, array: np.ndarray, zipped: bool
) -> None:
    path = tmp_path_factory.mktemp("idx") / "file"
    path.write_bytes(gzip.compress(idx(array)) if zipped else idx(array))
    np.testing.assert_array_equal(read_idx(path), array)


WHOLE = idx(np.zeros((2, 28, 28), np.uint8))


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "starts with nothing"),
        (b"\x00\x00", "starts with 00 00"),
        (b"<!DOCTYPE html>", "starts with 3c 21 44 4f"),
        (WHOLE[:9], "header is cut off"),
        (WHOLE[:-1], "holds 1,567 values instead of 1,568"),
        (WHOLE + b"x", "holds 1,569 values instead of 1,568"),
        (gzip.compress(WHOLE, mtime=0)[:-9], "gzip says"),
        (gzip.compress(WHOLE, mtime=0)[:20] + b"rubbish", "gzip says"),
        (b"\x1f\x8b", "gzip says"),
        (b"\x00\x00\x0d\x01\x00\x00\x00\x01\x00\x00\x00\x00", "not with 00 00 08"),
    ],
)
def test_damage_is_named_with_the_file(tmp_path: Path, content: bytes, why: str) -> None:
    path = tmp_path / "images"
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        read_idx(path)
    assert why in caught.value.message
    assert str(path) in caught.value.message
    assert "--data-dir" in caught.value.hint


def test_missing_file_is_a_storage_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="does not exist"):
        read_idx(tmp_path / "none")


def test_npz_whole_and_damaged(tmp_path: Path) -> None:
    path = tmp_path / "mnist.npz"
    np.savez_compressed(path, x=np.arange(6, dtype=np.uint8), y=np.ones(2))
    np.testing.assert_array_equal(read_npz(path, "x")[0], np.arange(6))
    with pytest.raises(DataError, match="array .*z.* is missing"):
        read_npz(path, "z")
    with pytest.raises(DataError, match="y holds float64 instead of uint8"):
        read_npz(path, "y")
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(DataError, match="not a whole MNIST file"):
        read_npz(path, "x")
    path.write_bytes(b"")
    with pytest.raises(DataError, match="not a whole MNIST file"):
        read_npz(path, "x")
