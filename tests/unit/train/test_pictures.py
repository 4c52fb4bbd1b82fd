"""Evaluation and the pictures made of it."""

from __future__ import annotations

import numpy as np
import pytest

from fairway.train.evaluate import evaluate
from fairway.train.pictures import CELL, draw_confusion, draw_mistakes
from fairway.workloads.base import Endpoint, Split

NAMES = ("a", "b", "c")


def answer(images: np.ndarray) -> dict[str, np.ndarray]:
    """Say with 0.8 the class that the first pixel names."""
    said = (images[:, 0, 0] * 255).round().astype(int)
    return {
        "predictions": np.full((len(images), 3), 0.1, np.float32) + 0.7 * np.eye(3, dtype=np.float32)[said]
    }


@pytest.fixture
def split() -> Split:
    said, truth = [0, 1, 2, 2, 1], [0, 1, 2, 0, 2]
    images = np.zeros((5, 28, 28), np.uint8)
    images[:, 0, 0] = said
    return Split(images, np.array(truth), "five")


def test_accuracy_loss_confusion_and_mistakes(split: Split) -> None:
    result = evaluate(Endpoint(answer, ()), split, 3)
    assert result.accuracy == pytest.approx(3 / 5)
    assert result.loss == pytest.approx(-(3 * np.log(0.8) + 2 * np.log(0.1)) / 5, rel=1e-5)
    assert result.confusion.tolist() == [[1, 0, 1], [0, 1, 0], [0, 1, 1]]
    assert sorted(result.mistakes) == [3, 4]
    assert result.predicted.tolist() == [0, 1, 2, 2, 1]


def test_confusion_is_darkest_where_most_answers_are(split: Split) -> None:
    picture = draw_confusion(np.array([[9, 1, 0], [0, 10, 0], [0, 0, 0]]), NAMES)
    assert picture.shape == (4 * CELL, 4 * CELL, 3)

    def cell(row: int, column: int) -> int:
        return int(picture[(row + 1) * CELL + 2, (column + 1) * CELL + 2, 0])

    assert cell(1, 1) < cell(0, 0) < cell(0, 1) < cell(0, 2) == cell(2, 2) == 255


def test_mistakes_are_shown_and_none_is_no_error(split: Split) -> None:
    result = evaluate(Endpoint(answer, ()), split, 3)
    assert (draw_mistakes(result, split, NAMES) < 255).any()
    right = Split(split.images[:3], split.labels[:3], "three")
    result = evaluate(Endpoint(answer, ()), right, 3)
    assert (draw_mistakes(result, right, NAMES) == 255).all()
