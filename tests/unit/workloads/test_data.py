"""Where the digits come from: directory, cache, download, installed package."""

from __future__ import annotations

import gzip
import shutil
from pathlib import Path

import numpy as np
import pytest

from fairway.config import DataSettings
from fairway.errors import DataError
from fairway.workloads.mnist import data
from tests.unit.workloads.test_idx import idx

DEAD = "http://127.0.0.1:9"


@pytest.fixture(autouse=True)
def empty_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "fairway" / "mnist"


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """Eight training and four test images, not MNIST's."""
    directory = tmp_path / "tiny"
    directory.mkdir()
    for name, count in (("train", 8), ("t10k", 4)):
        images = np.random.default_rng(count).integers(0, 256, (count, 28, 28), np.uint8)
        (directory / f"{name}-images-idx3-ubyte").write_bytes(idx(images))
        labels = np.arange(count, dtype=np.uint8)
        (directory / f"{name}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(labels)))
    return directory


def test_genuine_files_from_a_directory(mnist_dir: Path) -> None:
    dataset = data.load(DataSettings(data_dir=str(mnist_dir)))
    assert (dataset.name, len(dataset.train), len(dataset.test)) == ("mnist", 60_000, 10_000)
    assert dataset.train.labels[:5].tolist() == [5, 0, 4, 1, 9]
    assert dataset.test.labels[:5].tolist() == [7, 2, 1, 0, 4]
    assert len(dataset.sha256) == 4
    assert dataset.test.name == "the MNIST test set"


def test_genuine_pixels_count_whatever_the_container(mnist_dir: Path, tmp_path: Path) -> None:
    dataset = data.load(DataSettings(data_dir=str(mnist_dir)))
    arrays: dict[str, np.ndarray] = {}
    for part, split in (("train", dataset.train), ("test", dataset.test)):
        arrays |= {f"x_{part}": split.images, f"y_{part}": split.labels.astype(np.uint8)}
    np.savez(tmp_path / "mnist.npz", allow_pickle=False, **arrays)
    again = data.load(DataSettings(data_dir=str(tmp_path), dataset="mnist"))
    np.testing.assert_array_equal(again.test.images, dataset.test.images)
    assert list(again.sha256) == ["mnist.npz"]


def test_changed_pixel_is_not_genuine(mnist_dir: Path, tmp_path: Path) -> None:
    for path in mnist_dir.glob("*ubyte.gz"):
        shutil.copy(path, tmp_path)
    changed = tmp_path / "t10k-images-idx3-ubyte.gz"
    content = bytearray(gzip.decompress(changed.read_bytes()))
    content[5000] ^= 1
    changed.write_bytes(gzip.compress(bytes(content), 1))
    with pytest.raises(DataError, match="t10k-images-idx3-ubyte in .* is not MNIST's: sha256") as caught:
        data.load(DataSettings(data_dir=str(tmp_path)))
    assert "--dataset custom" in caught.value.hint


def test_own_images_only_when_asked_for(tiny: Path) -> None:
    with pytest.raises(DataError, match="is not MNIST's"):
        data.load(DataSettings(data_dir=str(tiny)))
    dataset = data.load(DataSettings(data_dir=str(tiny), dataset="custom"))
    assert (dataset.name, len(dataset.train), len(dataset.test)) == ("custom", 8, 4)
    assert "tiny" in dataset.test.name
    with pytest.raises(DataError, match="needs a data directory"):
        data.load(DataSettings(dataset="custom"))


@pytest.mark.parametrize(
    ("images", "labels", "problem"),
    [
        (np.zeros((8, 14, 14)), np.zeros(8), r"shape \[8, 14, 14\] instead of \[N, 28, 28\]"),
        (np.zeros((8, 28, 28)), np.zeros(7), "8 images, but labels of shape"),
        (np.zeros((8, 28, 28)), np.full(8, 10), "label 10; labels are 0 to 9"),
        (np.zeros((0, 28, 28)), np.zeros(0), "no images"),
        (np.zeros(8), np.zeros(8), "instead of"),
    ],
)
def test_wrong_shapes_are_explained(tiny: Path, images: np.ndarray, labels: np.ndarray, problem: str) -> None:
    (tiny / "train-images-idx3-ubyte").write_bytes(idx(images.astype(np.uint8)))
    (tiny / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(labels.astype(np.uint8))))
    with pytest.raises(DataError, match=problem):
        data.load(DataSettings(data_dir=str(tiny), dataset="custom"))


def test_directory_without_the_files_is_an_error_not_a_fallback(tmp_path: Path, tiny: Path) -> None:
    with pytest.raises(DataError, match="no MNIST files in data directory"):
        data.load(DataSettings(data_dir=str(tmp_path)))
    (tiny / "t10k-images-idx3-ubyte").unlink()
    with pytest.raises(DataError, match="no MNIST files"):
        data.load(DataSettings(data_dir=str(tiny), dataset="custom"))


def test_a_file_uri_is_a_directory(tiny: Path) -> None:
    dataset = data.load(DataSettings(data_dir=f"file://{tiny}", dataset="custom"))
    assert dataset.source == f"file://{tiny}"
    assert dataset.test.name == "the test images of tiny"


def test_offline_the_embedded_digits_serve(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fairway.workloads.mnist.download.MIRRORS", (DEAD,))
    dataset = data.load(DataSettings())
    assert (dataset.name, len(dataset.train), len(dataset.test)) == ("embedded", 4500, 500)
    assert np.bincount(dataset.train.labels).tolist() == [450] * 10
    assert np.bincount(dataset.test.labels).tolist() == [50] * 10
    assert "held out" in dataset.test.name


def test_mnist_forbids_the_fallback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fairway.workloads.mnist.download.MIRRORS", (DEAD,))
    with pytest.raises(DataError, match="MNIST cannot be had: download failed") as caught:
        data.load(DataSettings(dataset="mnist"))
    assert "--data-dir" in caught.value.hint


def test_embedded_digits_are_mnist_training_images(mnist_dir: Path) -> None:
    genuine = data.load(DataSettings(data_dir=str(mnist_dir)))
    embedded = data.load(DataSettings(dataset="embedded"))
    training = {image.tobytes() for image in genuine.train.images}
    assert {image.tobytes() for image in embedded.train.images} <= training
    assert not {image.tobytes() for image in genuine.test.images} & training


def test_nothing_at_hand_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "EMBEDDED", "no_such_package")
    with pytest.raises(DataError, match="no_such_package is not installed") as caught:
        data.load(DataSettings(dataset="embedded"))
    assert "fairway[samples]" in caught.value.hint


def test_test_images_alone_never_download(mnist_dir: Path, empty_cache: Path) -> None:
    assert len(data.load_test(DataSettings(data_url=DEAD))) == 500
    with pytest.raises(DataError, match="MNIST cannot be had"):
        data.load_test(DataSettings(dataset="mnist"))
    shutil.copytree(mnist_dir, empty_cache)
    assert len(data.load_test(DataSettings())) == 10_000
