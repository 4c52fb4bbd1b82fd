"""What users may send, and what they may not."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from fairway.client.pictures import read_picture, scaled, see
from fairway.errors import DataError


def encode(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png_header(width: int, height: int) -> bytes:
    """Return a small file that claims to be huge."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000)))


def animation() -> bytes:
    frames = [Image.new("L", (30, 30), level) for level in (0, 100, 200)]
    return encode(frames[0], save_all=True, append_images=frames[1:])


PLAIN = Image.linear_gradient("L")


@pytest.mark.parametrize(
    "data",
    [
        encode(PLAIN),
        encode(PLAIN, "JPEG"),
        encode(PLAIN.convert("CMYK"), "JPEG"),
        encode(PLAIN.convert("P"), transparency=3),
        encode(Image.fromarray(np.asarray(PLAIN).astype(np.uint16) * 257)),
    ],
)
def test_pictures_of_every_mode_are_read(data: bytes) -> None:
    assert read_picture(data).size == (256, 256)


def test_a_large_photo_is_reduced_while_it_is_decoded() -> None:
    assert read_picture(encode(Image.new("L", (4400, 3300)), "JPEG")).width < 2400


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "0 bytes"),
        (b"hello", "not a PNG or JPEG"),
        (encode(PLAIN, "GIF"), "not a PNG or JPEG"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not a PNG or JPEG"),
        (b"\x89PNG\r\n\x1a\n", "damaged"),
        (b"\xff\xd8\xff\xe0", "damaged"),
        (encode(PLAIN)[:400], "damaged"),
        (encode(PLAIN, "JPEG")[:700], "damaged"),
        (png_header(60_000, 60_000), r"60,000 × 60,000 pixels; the limit is 16 million"),
        (encode(PLAIN, "JPEG").replace(b"\x08\x01\x00\x01\x00", b"\x08\xff\xff\xff\xff"), "65,535 × 65,535"),
        (animation(), "animated: 3 frames"),
    ],
)
def test_what_cannot_be_used_is_explained(data: bytes, words: str) -> None:
    with pytest.raises(DataError, match=words) as raised:
        read_picture(data)
    assert raised.value.hint


@pytest.mark.parametrize("kind", ["GIF", "BMP", "TIFF", "WEBP", "PPM"])
def test_other_formats_are_read_where_they_are_allowed(kind: str) -> None:
    assert read_picture(encode(PLAIN, kind), any_format=True).size == (256, 256)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"hello", "not a picture"),
        (animation(), "animated: 3 frames"),
        (encode(PLAIN, "BMP")[:400], "damaged"),
        (b"P5 20000 20000 255\n", "more than 16 million pixels"),
        (b"P5 5000 5000 255\n", "5,000 × 5,000 pixels"),
    ],
)
def test_what_cannot_be_used_in_any_format_is_explained(data: bytes, words: str) -> None:
    with pytest.raises(DataError, match=words):
        read_picture(data, any_format=True)


def test_the_model_sees_light_on_dark_in_the_middle() -> None:
    drawing = Image.new("L", (300, 200), 255)
    drawing.paste(0, (30, 20, 60, 160))
    seen = see(encode(drawing))
    assert (seen.shape, seen.max()) == ((28, 28), 255)
    assert seen.dtype == np.uint8
    rows, columns = np.nonzero(seen)
    assert (rows.min(), rows.max()) == (4, 23)
    assert abs((columns.min() + columns.max()) / 2 - 13.5) <= 1
    assert scaled(seen).max() == 1
    assert scaled(seen).dtype == np.float32


def test_an_empty_picture_is_refused() -> None:
    with pytest.raises(DataError):
        see(encode(Image.new("L", (50, 50), 255)))
