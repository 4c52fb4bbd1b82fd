"""Pictures become images like MNIST's."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from fairway.config import DataSettings
from fairway.errors import DataError
from fairway.workloads.mnist.data import load_test
from fairway.workloads.mnist.digits import normalise

Images = NDArray[np.uint8]


@pytest.fixture(scope="module")
def digits(mnist_dir: Path) -> Images:
    return load_test(DataSettings(data_dir=str(mnist_dir))).images[:60]


def draw_one(size: int = 280, pen: int = 24, ink: int = 0, paper: int = 255) -> Image.Image:
    image = Image.new("L", (size, size), paper)
    ImageDraw.Draw(image).line([(0.3 * size, 0.7 * size), (0.5 * size, 0.2 * size)], fill=ink, width=pen)
    return image


def enlarge(digit: Images, factor: float, shift: tuple[int, int] = (0, 0), margin: int = 60) -> Image.Image:
    size = round(28 * factor)
    image = Image.new("L", (size + 2 * margin, size + margin))
    large = Image.fromarray(digit).resize((size, size), Image.Resampling.BICUBIC)
    image.paste(large, (margin + shift[0], margin // 2 + shift[1]))
    return image


def difference(result: NDArray[np.float32], original: NDArray[np.floating[Any]]) -> float:
    """Return the mean difference where either has ink, at the best shift of at most a pixel."""
    return min(
        float(np.abs(moved - original)[(moved > 0) | (original > 0)].mean())
        for rows in (-1, 0, 1)
        for columns in (-1, 0, 1)
        for moved in [np.roll(result, (rows, columns), axis=(0, 1))]
    )


def test_a_genuine_digit_stays_as_it_is(digits: Images) -> None:
    for digit in digits:
        assert np.abs(normalise(Image.fromarray(digit)) - digit / 255).max() < 0.02


@pytest.mark.parametrize(("factor", "shift"), [(3.7, (0, 0)), (10.0, (40, -20)), (20.0, (-55, 25))])
def test_a_digit_is_found_again_at_any_size_and_place(
    digits: Images, factor: float, shift: tuple[int, int]
) -> None:
    differences = [difference(normalise(enlarge(digit, factor, shift)), digit / 255) for digit in digits]
    assert np.mean(differences) < 0.13
    assert max(differences) < 0.3
    strangers = [
        difference(normalise(enlarge(digit, factor)), digits[i - 1] / 255) for i, digit in enumerate(digits)
    ]
    assert np.mean(strangers) > 0.35  # the measure does tell digits apart


def test_size_and_centre_are_mnists() -> None:
    result = normalise(draw_one())
    rows, columns = np.flatnonzero(result.any(axis=1)), np.flatnonzero(result.any(axis=0))
    assert (result.shape, str(result.dtype), result.max()) == ((28, 28), "float32", 1)
    assert rows[-1] - rows[0] + 1 == 20
    assert abs((result.sum(axis=1) @ np.arange(28)) / result.sum() - 14) <= 0.51
    assert abs((result.sum(axis=0) @ np.arange(28)) / result.sum() - 14) <= 0.51
    assert columns[-1] - columns[0] + 1 < 20


def as_mode(mode: str) -> Callable[[Image.Image], Image.Image]:
    return lambda image: image.convert(mode)


def as_16_bit(image: Image.Image) -> Image.Image:
    return Image.fromarray(np.asarray(image).astype(np.uint16) * 257)


def as_transparent(colour: str) -> Callable[[Image.Image], Image.Image]:
    def convert(image: Image.Image) -> Image.Image:
        result = Image.new("RGBA", image.size, colour)
        result.putalpha(Image.eval(image, lambda level: 255 - level))
        return result

    return convert


def as_palette_with_alpha(image: Image.Image) -> Image.Image:
    buffer = io.BytesIO()
    as_transparent("black")(image).quantize(8).save(buffer, "PNG")
    return Image.open(buffer)


def as_jpeg_cmyk(image: Image.Image) -> Image.Image:
    buffer = io.BytesIO()
    image.convert("CMYK").save(buffer, "JPEG", quality=95)
    return Image.open(buffer)


@pytest.mark.parametrize(
    "convert",
    [
        *map(as_mode, ["RGB", "RGBA", "CMYK", "P", "LA", "1"]),
        as_16_bit,
        as_transparent("black"),
        as_transparent("white"),
        as_palette_with_alpha,
        as_jpeg_cmyk,
        lambda image: Image.eval(image, lambda level: 255 - level),
        lambda image: Image.eval(image, lambda level: 100 + level // 4),
    ],
)
def test_every_mode_and_polarity_gives_the_same(convert: Callable[[Image.Image], Image.Image]) -> None:
    image = draw_one()
    assert difference(normalise(convert(image)), normalise(image)) < 0.1


def test_ink_that_touches_the_border_does_not_turn_it_into_the_background() -> None:
    image = Image.new("L", (200, 200), 255)
    ImageDraw.Draw(image).line([(0, 100), (120, 100)], width=24)
    assert normalise(image)[14, 8:20].min() > 0.9


def test_a_photo_with_falling_light_and_noise_is_cleaned() -> None:
    clean = draw_one(size=600, pen=50)
    rng = np.random.default_rng(0)
    light = np.linspace(230, 150, 600)[None, :] * np.linspace(1, 0.9, 600)[:, None]
    photo = light * (0.3 + 0.7 * np.asarray(clean) / 255) + rng.normal(0, 4, (600, 600))
    result = normalise(Image.fromarray(photo.clip(0, 255).astype(np.uint8)))
    assert difference(result, normalise(clean)) < 0.15


def test_a_photo_lies_as_its_camera_was_held(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    draw_one().rotate(90).save(tmp_path / "photo.png", exif=exif)
    with Image.open(tmp_path / "photo.png") as photo:
        assert difference(normalise(photo), normalise(draw_one())) < 0.1


@pytest.mark.parametrize("pen", [2, 4, 8])
def test_a_thin_pen_is_widened_to_a_visible_stroke(pen: int) -> None:
    result = normalise(draw_one(size=600, pen=pen))
    middle = result[13:15]
    assert 1.5 <= middle.sum(axis=1).mean() <= 4
    assert middle.max() > 0.8


@pytest.mark.parametrize(
    "image",
    [
        Image.new("L", (280, 280), 255),
        Image.new("L", (280, 280), 0),
        Image.new("RGBA", (280, 280), (0, 0, 0, 0)),
        Image.new("L", (1, 1), 0),
        Image.fromarray(np.random.default_rng(0).normal(128, 20, (200, 200)).clip(0, 255).astype(np.uint8)),
    ],
    ids=["white", "black", "transparent", "1x1", "noise"],
)
def test_no_ink_is_an_error(image: Image.Image) -> None:
    with pytest.raises(DataError, match="the picture is empty"):
        normalise(image)


@pytest.mark.parametrize("size", [(2, 2), (1, 40), (40, 1), (3000, 5)])
def test_odd_shapes_give_an_image_or_an_error(size: tuple[int, int]) -> None:
    image = Image.new("L", size, 255)
    image.putpixel((0, 0), 0)
    with contextlib.suppress(DataError):
        assert normalise(image).shape == (28, 28)
