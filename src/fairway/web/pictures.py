"""Pictures that visitors send, read with care, and pictures for the page."""

from __future__ import annotations

import base64
import io
import struct

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile

from fairway.errors import DataError

MAX_BYTES = 5 * 1024 * 1024
MAX_PIXELS = 16_000_000
# A JPEG is decoded at the reduced size nearest above this, at a fraction of the time.
_ENOUGH = (1024, 1024)
# What Pillow raises for damaged files, by its own account in Image.open, and zlib's limit (ValueError).
_DAMAGED = (OSError, SyntaxError, ValueError, IndexError, TypeError, EOFError, struct.error)


def read_picture(data: bytes) -> Image.Image:
    """Return the decoded picture of a PNG or JPEG file.

    Raises:
        DataError: it is empty, another kind of file, damaged, animated, or too large once decoded.
    """
    if not data:
        raise DataError("the picture is empty: 0 bytes", hint="Send a PNG or JPEG file.")
    reader = _reader(data)
    try:
        # Not Image.open: that looks at the size with limits and warnings which belong to the process.
        image = reader(io.BytesIO(data))
        _check(image)
        image.draft("L", _ENOUGH)
        image.load()
    except _DAMAGED as err:
        raise DataError(f"the picture is damaged: {err}", hint="Save it again as PNG or JPEG.") from err
    return image


def png_data_url(image: NDArray[np.uint8]) -> str:
    """Return a grey image, uint8 [height, width], as the URL of a PNG."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _reader(data: bytes) -> type[PngImageFile | JpegImageFile]:
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return PngImageFile
    if data.startswith(b"\xff\xd8\xff"):
        return JpegImageFile
    raise DataError("that is not a PNG or JPEG picture", hint="Save it as PNG or JPEG and try again.")


def _check(image: PngImageFile | JpegImageFile) -> None:
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise DataError(
            f"the picture has {width:,} × {height:,} pixels; the limit is {MAX_PIXELS // 1_000_000} million",
            hint="Scale it down and try again.",
        )
    frames = getattr(image, "n_frames", 1)
    if frames > 1:
        raise DataError(f"the picture is animated: {frames} frames", hint="Send a picture that stands still.")
