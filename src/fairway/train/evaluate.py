"""How good a model is, on images it has not learnt from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fairway.workloads.base import Endpoint, Split

BATCH = 500


@dataclass(frozen=True)
class Evaluation:
    """The answers of a model to a split.

    Attributes:
        accuracy: Share of right answers, 0..1.
        loss: Mean cross-entropy, nats.
        confusion: int64 [classes, classes]: rows are the truth, columns the answer.
        mistakes: int64 [M]: numbers of the images answered wrongly, the surest wrong answer first.
        predicted: int64 [N]: the answer to each image.
    """

    accuracy: float
    loss: float
    confusion: NDArray[np.int64]
    mistakes: NDArray[np.int64]
    predicted: NDArray[np.int64]


def evaluate(endpoint: Endpoint, split: Split, classes: int) -> Evaluation:
    """Ask a model's `serving_default` about all images of a split."""
    probabilities = np.concatenate(
        [
            np.asarray(
                endpoint.function(split.images[first : first + BATCH].astype(np.float32) / 255)["predictions"]
            )
            for first in range(0, len(split), BATCH)
        ]
    )
    predicted = probabilities.argmax(axis=1)
    confusion = np.zeros((classes, classes), np.int64)
    np.add.at(confusion, (split.labels, predicted), 1)
    losses = -np.log(np.maximum(probabilities[np.arange(len(split)), split.labels], 1e-12))
    wrong = np.flatnonzero(predicted != split.labels)
    return Evaluation(
        accuracy=float(np.mean(predicted == split.labels)),
        loss=float(losses.mean()),
        confusion=confusion,
        mistakes=wrong[np.argsort(-losses[wrong])],
        predicted=predicted,
    )
