"""Pictures that users send, read with care and brought into the form that the model knows."""

from __future__ import annotations

import io
import struct
import warnings

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile

from fairway.errors import DataError
from fairway.workloads.mnist.digits import normalise

MAX_PIXELS = 16_000_000
# A JPEG is decoded at the reduced size nearest above this, at a fraction of the time.
_ENOUGH = (1024, 1024)
# What Pillow raises for damaged files, by its own account in Image.open, and zlib's limit (ValueError).
_DAMAGED = (OSError, SyntaxError, ValueError, IndexError, TypeError, EOFError, struct.error)
# Pillow's own limit lies above ours, and is raised before ours is looked at.
_TOO_LARGE = (Image.DecompressionBombError, Image.DecompressionBombWarning)


def see(data: bytes, *, any_format: bool = False) -> NDArray[np.uint8]:
    """Return a picture as the model gets it, in MNIST's 256 levels: uint8 [28, 28].

    Args:
        data: A PNG or JPEG file.
        any_format: Take every kind of file that Pillow can read. Only for files that come from the user of
            this machine: some of Pillow's decoders are old and rarely looked at.

    Raises:
        DataError: it cannot be read, or shows nothing.
    """
    return np.rint(normalise(read_picture(data, any_format=any_format)) * 255).astype(np.uint8)


def scaled(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return grey levels as the model's input: float32 in 0..1, of the same shape."""
    return image.astype(np.float32) / np.float32(255)


def read_picture(data: bytes, *, any_format: bool = False) -> Image.Image:
    """Return the decoded picture of a PNG or JPEG file, or of any that Pillow can read.

    Raises:
        DataError: it is empty, another kind of file, damaged, animated, or too large once decoded.
    """
    if not data:
        raise DataError("the picture is empty: 0 bytes", hint="Send a PNG or JPEG file.")
    try:
        image = _open(data, any_format)
        _check(image)
        image.draft("L", _ENOUGH)
        image.load()
    except _DAMAGED as err:
        raise DataError(f"the picture is damaged: {err}", hint="Save it again as PNG or JPEG.") from err
    return image


def _open(data: bytes, any_format: bool) -> ImageFile:
    # Not Image.open: that looks at the size with limits and warnings which belong to the process.
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return PngImageFile(io.BytesIO(data))
    if data.startswith(b"\xff\xd8\xff"):
        return JpegImageFile(io.BytesIO(data))
    if any_format:
        return _open_any(data)
    raise DataError("that is not a PNG or JPEG picture", hint="Save it as PNG or JPEG and try again.")


def _open_any(data: bytes) -> ImageFile:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            return Image.open(io.BytesIO(data))
    except UnidentifiedImageError as err:
        raise DataError("that is not a picture", hint="Save it as PNG or JPEG and try again.") from err
    except _TOO_LARGE as err:
        raise DataError(
            f"the picture has more than {MAX_PIXELS // 1_000_000} million pixels, which is the limit",
            hint="Scale it down and try again.",
        ) from err


def _check(image: ImageFile) -> None:
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise DataError(
            f"the picture has {width:,} × {height:,} pixels; the limit is {MAX_PIXELS // 1_000_000} million",
            hint="Scale it down and try again.",
        )
    frames = getattr(image, "n_frames", 1)
    if frames > 1:
        raise DataError(f"the picture is animated: {frames} frames", hint="Send a picture that stands still.")
