"""Fetch the four genuine files from a mirror into the cache."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path

from fairway.errors import DataError
from fairway.progress import Progress
from fairway.storage.files import make_directory, write_atomic

log = logging.getLogger(__name__)

# Mirrors named by the data loaders of TensorFlow Datasets and torchvision.
MIRRORS = (
    "https://storage.googleapis.com/cvdf-datasets/mnist",
    "https://ossci-datasets.s3.amazonaws.com/mnist",
)
# name -> bytes, SHA-256
FILES = {
    "train-images-idx3-ubyte.gz": (
        9912422,
        "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
    ),
    "train-labels-idx1-ubyte.gz": (28881, "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c"),
    "t10k-images-idx3-ubyte.gz": (
        1648877,
        "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
    ),
    "t10k-labels-idx1-ubyte.gz": (4542, "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6"),
}
CONNECT_TIMEOUT_S = 5.0
READ_TIMEOUT_S = 20.0


def download(directory: Path, url: str | None = None) -> None:
    """Put the four files into a directory, each whole or not at all; those there already are kept.

    Args:
        directory: It is created if need be.
        url: Where the files lie; `None` tries the mirrors in turn.

    Raises:
        DataError: no mirror gave a file with the right checksum; the message says why for each.
        StorageError: the directory cannot be written to.
    """
    make_directory(directory)
    failures = []
    for mirror in (url,) if url is not None else MIRRORS:
        try:
            _download_from(mirror.rstrip("/"), directory)
        except DataError as err:
            failures.append(err.message)
        else:
            return
    raise DataError(f"download failed ({'; '.join(failures)})")


def _download_from(mirror: str, directory: Path) -> None:
    import httpx  # 0.2 s to import, needed once in a cache's life

    wanted = [name for name in FILES if not (directory / name).is_file()]
    total = sum(FILES[name][0] for name in wanted)
    timeout = httpx.Timeout(READ_TIMEOUT_S, connect=CONNECT_TIMEOUT_S)
    done = 0
    log.info("downloading MNIST (%.1f MB) from %s to %s", total / 1e6, mirror, directory)
    try:
        with (
            httpx.Client(timeout=timeout, follow_redirects=True) as client,
            Progress("downloading", total, unit="bytes") as progress,
        ):
            for name in wanted:
                content = bytearray()
                with client.stream("GET", f"{mirror}/{name}") as response:
                    response.raise_for_status()
                    for chunk in response.iter_raw():
                        content += chunk
                        progress.update(done + len(content))
                        _check_size(name, content, mirror)
                _check_sum(name, content, mirror)
                write_atomic(directory / name, bytes(content))
                done += len(content)
    except httpx.HTTPStatusError as err:
        raise DataError(f"{mirror}: HTTP {err.response.status_code}") from err
    except (httpx.HTTPError, httpx.InvalidURL) as err:
        raise DataError(f"{mirror}: {str(err) or type(err).__name__}") from err


def _check_size(name: str, content: bytearray, mirror: str) -> None:
    if len(content) > FILES[name][0]:
        raise DataError(f"{mirror}: {name} is longer than {FILES[name][0]:,} bytes")


def _check_sum(name: str, content: bytearray, mirror: str) -> None:
    size, expected = FILES[name]
    found = hashlib.sha256(content).hexdigest()
    if found != expected:
        raise DataError(
            f"{mirror}: {name} has {len(content):,} bytes and sha256 {found[:16]}… "
            f"instead of {size:,} and {expected[:16]}…"
        )
