"""The containers in which MNIST is handed round: IDX files and Keras's mnist.npz.

IDX (Y. LeCun, http://yann.lecun.com/exdb/mnist/): two zero bytes, one byte for the type (8: uint8), one
for the number of dimensions, each dimension as a big-endian 32-bit number, then the values.
"""

from __future__ import annotations

import gzip
import math
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fairway.errors import DataError
from fairway.storage.files import storage_errors

_UINT8 = 8


def read_idx(path: Path) -> NDArray[np.uint8]:
    """Return the array in an IDX file, gzipped or not.

    Raises:
        DataError: the file is not an IDX file of bytes, or is cut off.
        StorageError: it cannot be read.
    """
    with storage_errors("read", path):
        content = path.read_bytes()
    if content.startswith(b"\x1f\x8b"):
        try:
            content = gzip.decompress(content)
        except (EOFError, OSError, zlib.error) as err:
            raise _damaged(path, f"gzip says: {err}") from err
    if len(content) < 4 or content[:3] != bytes((0, 0, _UINT8)):
        raise _damaged(path, f"it starts with {content[:4].hex(' ') or 'nothing'}, not with 00 00 08")
    rank = content[3]
    header = 4 + 4 * rank
    if len(content) < header:
        raise _damaged(path, f"its header is cut off after {len(content)} bytes")
    shape = struct.unpack(f">{rank}I", content[4:header])
    if len(content) - header != math.prod(shape):
        raise _damaged(path, f"it holds {len(content) - header:,} values instead of {math.prod(shape):,}")
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)


def read_npz(path: Path, *names: str) -> list[NDArray[np.uint8]]:
    """Return arrays from an .npz file by name.

    Raises:
        DataError: the file is damaged, an array is missing or does not hold bytes.
        StorageError: it cannot be read.
    """
    try:
        with storage_errors("read", path):
            content = path.open("rb")
        with content, np.load(content, allow_pickle=False) as archive:
            arrays = [archive[name] for name in names]
    except KeyError as err:
        raise _damaged(path, f"array {err} is missing") from err
    except (ValueError, EOFError, OSError, zipfile.BadZipFile, zlib.error) as err:
        raise _damaged(path, str(err)) from err
    for name, array in zip(names, arrays, strict=True):
        if array.dtype != np.uint8:
            raise _damaged(path, f"{name} holds {array.dtype} instead of uint8")
    return arrays


def _damaged(path: Path, why: str) -> DataError:
    return DataError(
        f"{path} is not a whole MNIST file: {why}",
        hint="Remove it and fetch it again, or name another directory with --data-dir.",
    )
