"""Any picture of one digit -> an image like MNIST's.

MNIST's digits were scaled to fit a box of 20 by 20 pixels, keeping their proportions and antialiased, and
placed in 28 by 28 pixels with their centre of mass in the middle
(Y. LeCun, C. Cortes, C. Burges, "The MNIST database", http://yann.lecun.com/exdb/mnist/).
A model trained on them knows nothing else, so a drawing or a photo has to be brought into that form.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter, ImageOps

from fairway.errors import DataError

SIZE = 28
BOX = 20

Array = NDArray[np.float32]

# Measured on the 60,000 training images: the centre of mass lies within half a pixel of index 14 in both
# directions, so the digits were moved by whole pixels.
_CENTRE = 14
# Pictures are reduced to this before anything is measured: enough for a digit that is 1/20 of a photo.
_WORKING_SIZE = 1024
# A digit is reduced to this before its strokes are measured; 8 pixels for each of the box.
_STROKE_SIZE = 8 * BOX
# In pixels of the box. MNIST's strokes are 2 to 4 wide; a ball pen's are 0.5 and would vanish in scaling.
_THINNEST_STROKE = 1.5
_WANTED_STROKE = 2.2
# Of 255. Less contrast than this between ink and paper is an empty picture.
_LEAST_CONTRAST = 20


def normalise(image: Image.Image) -> Array:
    """Return a picture of one digit as MNIST would show it.

    Args:
        image: Dark on light or light on dark, of any size and mode. The colour around the border is taken
            for the background; where the picture is transparent, the one that contrasts with the rest.

    Returns:
        float32 [28, 28] in 0..1, 0 is background, the brightest pixel is 1.

    Raises:
        DataError: there is nothing on the background.
    """
    digit = _box(_crop(_ink(_grey(image))))
    height, width = digit.shape
    rows, columns = _centre_of_mass(digit)
    top = min(max(round(_CENTRE - rows), 0), SIZE - height)
    left = min(max(round(_CENTRE - columns), 0), SIZE - width)
    result = np.zeros((SIZE, SIZE), np.float32)
    result[top : top + height, left : left + width] = digit / digit.max()
    return result


def _grey(image: Image.Image) -> Array:
    """Return float32 [height, width] in 0..255, upright as the camera's note (EXIF) says."""
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):  # 16 bits a pixel, as PNG has them
        image = Image.fromarray((np.asarray(image, np.float32) / 257).clip(0, 255).astype(np.uint8))
    elif image.has_transparency_data:
        image = _on_background(image.convert("RGBA"))
    image = image.convert("RGB").convert("L")
    image.thumbnail((_WORKING_SIZE, _WORKING_SIZE), Image.Resampling.BOX)
    return np.asarray(image, np.float32)


def _on_background(image: Image.Image) -> Image.Image:
    """Put a transparent picture on white or black, whichever its opaque part stands out from."""
    opacity = np.asarray(image.getchannel("A"), np.float32)
    lightness = np.asarray(image.convert("RGB").convert("L"), np.float32)
    mean = (lightness * opacity).sum() / max(float(opacity.sum()), 1)
    background = Image.new("RGBA", image.size, "white" if mean < 128 else "black")
    return Image.alpha_composite(background, image)


def _ink(grey: Array) -> Array:
    """Return how much ink there is at each pixel, 0..1, from the difference to the background.

    Raises:
        DataError: there is none.
    """
    background, noise = _background(grey)
    difference = grey - background
    dark_on_light = -difference.min() > difference.max()
    ink: Array = np.maximum(-difference if dark_on_light else difference, 0).astype(np.float32)
    peak = float(ink.max())
    if peak < max(_LEAST_CONTRAST, 6 * noise):
        raise DataError(
            "the picture is empty: nothing stands out from its background",
            hint="Draw or show one digit, dark on light or light on dark.",
        )
    ink /= peak
    ink[ink < _faintest(ink, noise)] = 0
    return ink


def _faintest(ink: Array, noise: float) -> float:
    """Return what counts as ink: a photo has shadows to drop, JPEG leaves traces around every line."""
    if noise >= 1:
        return _threshold(ink) / 2
    # At MNIST's own resolution the faint pixels are the edges of the strokes.
    return 0.02 if max(ink.shape) <= SIZE else 0.1


def _background(grey: Array) -> tuple[Array, float]:
    """Return the background as a plane fitted to the border, and the noise around it (robust sigma).

    A plane follows light that falls from one side; ink that touches the border is left out as an outlier.
    """
    height, width = grey.shape
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float32)
    margin = max(1, min(height, width) // 32)
    border = np.ones(grey.shape, bool)
    border[margin : height - margin, margin : width - margin] = False
    design = np.stack([np.ones_like(grey), rows / height, columns / width], axis=-1)
    points, values = design[border], grey[border]
    plane = np.array([np.median(values), 0, 0], np.float32)
    for _ in range(3):
        distance = np.abs(values - points @ plane)
        near = distance <= max(3 * 1.4826 * float(np.median(distance)), 8)
        plane = np.linalg.lstsq(points[near], values[near], rcond=None)[0]
    noise = 1.4826 * float(np.median(np.abs(values - points @ plane)))
    return (design @ plane).astype(np.float32), noise


def _threshold(ink: Array) -> float:
    """Return the value that best parts ink from paper: Otsu's method, N. Otsu, 1979."""
    counts, edges = np.histogram(ink, bins=64, range=(0, 1))
    middles = (edges[:-1] + edges[1:]) / 2
    below = np.cumsum(counts)
    above = below[-1] - below
    sums = np.cumsum(counts * middles)
    with np.errstate(divide="ignore", invalid="ignore"):
        between = below * above * (sums / below - (sums[-1] - sums) / above) ** 2
    return float(edges[1 + int(np.nanargmax(between[:-1]))])


def _crop(ink: Array) -> Array:
    rows, columns = np.flatnonzero(ink.any(axis=1)), np.flatnonzero(ink.any(axis=0))
    return ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _box(ink: Array) -> Array:
    """Scale a cropped digit so that its longer side is 20 pixels."""
    if max(ink.shape) > _STROKE_SIZE:
        ink = _resize(ink, _STROKE_SIZE)
    return _resize(_thicken(ink), BOX)


def _resize(ink: Array, longer_side: int) -> Array:
    height, width = ink.shape
    scale = longer_side / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    # Averaging is the antialiasing in reduction; enlarged with it, pixels would become blocks.
    method = Image.Resampling.BOX if scale < 1 else Image.Resampling.BICUBIC
    return np.asarray(Image.fromarray(ink).resize(size, method), np.float32).clip(0, 1)


def _thicken(ink: Array) -> Array:
    """Widen the strokes of a thin pen to MNIST's."""
    pixel = max(ink.shape) / BOX
    missing = _WANTED_STROKE * pixel - _stroke_width(ink)
    if _stroke_width(ink) >= _THINNEST_STROKE * pixel or missing < 2:
        return ink
    reach = round(missing / 2)
    padded = Image.fromarray((np.pad(ink, reach) * 255).astype(np.uint8))
    return np.asarray(padded.filter(ImageFilter.MaxFilter(2 * reach + 1)), np.float32) / np.float32(255)


def _stroke_width(ink: Array) -> float:
    """Return the mean width of the strokes in pixels: twice the area over the length of the outline."""
    mask = np.pad(ink > 0.5, 1)
    inside = mask[:-2, 1:-1] & mask[2:, 1:-1] & mask[1:-1, :-2] & mask[1:-1, 2:]
    area = mask.sum()
    outline = area - (mask[1:-1, 1:-1] & inside).sum()
    return float(2 * area / max(outline, 1))


def _centre_of_mass(ink: Array) -> tuple[float, float]:
    mass = float(ink.sum())
    rows = float((ink.sum(axis=1) * np.arange(ink.shape[0])).sum())
    columns = float((ink.sum(axis=0) * np.arange(ink.shape[1])).sum())
    return rows / mass, columns / mass
