"""Pictures for TensorBoard: the confusion matrix, and the worst mistakes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from fairway.train.evaluate import Evaluation
from fairway.workloads.base import Split

CELL = 48
ZOOM = 3
SHOWN = 36
ROW = 9
INK, PAPER, ACCENT = (24, 24, 27), (255, 255, 255), (37, 99, 235)


def draw_confusion(confusion: NDArray[np.int64], names: tuple[str, ...]) -> NDArray[np.uint8]:
    """Return the matrix as a picture, uint8 [height, width, 3]: rows are the truth, columns the answer."""
    side = (len(names) + 1) * CELL
    picture = Image.new("RGB", (side, side), PAPER)
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(14)
    small = ImageFont.load_default(10)
    draw.text((CELL - 4, 4), "answer", INK, small, anchor="ra")
    draw.text((4, CELL - 4), "truth", INK, small, anchor="ls")
    shares = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    for row in range(len(names)):
        for place in ((0, row + 1), (row + 1, 0)):
            _write(draw, place, names[row], INK, font)
        for column in range(len(names)):
            count = confusion[row, column]
            # The square root makes single mistakes visible beside a thousand right answers.
            strength = float(shares[row, column]) ** 0.5
            colour = tuple(round(p + (a - p) * strength) for p, a in zip(PAPER, ACCENT, strict=True))
            corner = ((column + 1) * CELL, (row + 1) * CELL)
            draw.rectangle((*corner, corner[0] + CELL - 2, corner[1] + CELL - 2), fill=colour)
            if count:
                _write(draw, (column + 1, row + 1), str(count), PAPER if strength > 0.6 else INK, font)
    return np.asarray(picture)


def draw_mistakes(evaluation: Evaluation, split: Split, names: tuple[str, ...]) -> NDArray[np.uint8]:
    """Return the surest wrong answers as a picture, uint8 [height, width, 3], with "truth, not answer"."""
    shown = evaluation.mistakes[:SHOWN]
    side = split.images.shape[1] * ZOOM
    line = 20
    rows = max(-(-len(shown) // ROW), 1)
    picture = Image.new("RGB", (ROW * (side + 4), rows * (side + line + 4)), PAPER)
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(14)
    for place, number in enumerate(shown):
        left, top = place % ROW * (side + 4), place // ROW * (side + line + 4)
        digit = Image.fromarray(split.images[number]).resize((side, side), Image.Resampling.NEAREST)
        picture.paste(digit.convert("RGB"), (left, top))
        words = f"{names[split.labels[number]]}, not {names[evaluation.predicted[number]]}"
        draw.text((left + side / 2, top + side + line / 2), words, INK, font, anchor="mm")
    return np.asarray(picture)


def _write(
    draw: ImageDraw.ImageDraw,
    place: tuple[int, int],
    words: str,
    colour: tuple[int, int, int],
    font: ImageFont.ImageFont | ImageFont.FreeTypeFont,
) -> None:
    draw.text(((place[0] + 0.5) * CELL, (place[1] + 0.5) * CELL), words, colour, font, anchor="mm")
