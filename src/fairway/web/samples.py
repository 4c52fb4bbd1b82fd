"""Random images of the test set."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from fairway.config import DataSettings
from fairway.workloads.base import Split
from fairway.workloads.mnist.data import load_test


@dataclass(frozen=True)
class Sample:
    """One image of the test set.

    Attributes:
        image: uint8 [28, 28].
        truth: The digit it shows.
        index: Its place in the test set, from 0.
        source: What the test set is, in words.
    """

    image: NDArray[np.uint8]
    truth: int
    index: int
    source: str


class Samples:
    """The test set, read when the first image is wanted.

    Args:
        settings: Where the digits come from; nothing is downloaded.
    """

    def __init__(self, settings: DataSettings) -> None:
        self._settings = settings
        self._split: Split | None = None
        self._reading = Lock()

    def draw(self) -> Sample:
        """Return a random image; blocks while the test set is read.

        Raises:
            DataError: no test set is at hand, or it is damaged.
        """
        with self._reading:
            if self._split is None:
                self._split = load_test(self._settings)
        split = self._split
        index = secrets.randbelow(len(split))
        return Sample(split.images[index], int(split.labels[index]), index, split.name)
