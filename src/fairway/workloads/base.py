"""What a workload is made of; `mnist` is the built-in one.

Nothing here imports TensorFlow: the model server and the web UI read data sets too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from fairway.config import DatasetName, TrainSettings
from fairway.storage.manifest import DatasetRecord

if TYPE_CHECKING:
    import keras
    import tensorflow as tf


@dataclass(frozen=True)
class Split:
    """Images and their labels.

    Attributes:
        images: uint8 [N, height, width], 0 is background.
        labels: int64 [N], the class of each image.
        name: What they are, in words: "the MNIST test set".
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    name: str

    def __len__(self) -> int:
        return len(self.images)


@dataclass(frozen=True)
class Dataset:
    """What a model is trained and measured on.

    Attributes:
        name: `mnist` or `embedded`.
        source: Where it was read from: a path, an address, a package.
        sha256: Checksum of each file that was read, by file name.
        train: What the model learns from.
        test: What the shown accuracy is measured on; no image of it is in `train`.
        whole: Number of training images, where `train` is only a part of them.
    """

    name: DatasetName
    source: str
    sha256: dict[str, str]
    train: Split
    test: Split
    whole: int | None = None

    @property
    def train_images(self) -> int:
        """Number of training images in all."""
        return len(self.train) if self.whole is None else self.whole

    def keep(self, part: slice) -> Dataset:
        """Return the data with a part of the training images, a copy, so that the others need no memory."""
        images, labels = self.train.images[part].copy(), self.train.labels[part].copy()
        return replace(self, train=Split(images, labels, self.train.name), whole=self.train_images)

    def record(self) -> DatasetRecord:
        """Return what `config.json` and a version's manifest say of the data."""
        return DatasetRecord(
            name=self.name,
            source=self.source,
            train_images=self.train_images,
            test_images=len(self.test),
            test_name=self.test.name,
            sha256=self.sha256,
        )


@dataclass(frozen=True)
class Recipe:
    """How a model type is trained on a data set; a setting the user gives wins over it."""

    train_steps: int
    learning_rate: float
    """Peak of the one-cycle schedule."""
    augment: bool


@dataclass(frozen=True)
class Endpoint:
    """One way to call an exported model: what becomes a signature of the SavedModel.

    Attributes:
        function: Takes the inputs as tensors in the order of `inputs`, returns named tensors.
        inputs: Name, shape and dtype of each input; the first dimension is the batch.
    """

    function: Callable[..., dict[str, tf.Tensor]]
    inputs: tuple[tf.TensorSpec, ...]


class Workload(Protocol):
    """A data set, the models for it, and how they are called once exported."""

    name: str
    class_names: tuple[str, ...]

    def load(self, settings: TrainSettings) -> Dataset:
        """Return the data.

        Raises:
            DataError: it cannot be had, or is damaged.
        """

    def recipe(self, model_type: str, dataset: Dataset, images_per_step: int) -> Recipe:
        """Return how a model type is best trained on this data, with so many images a step."""

    def build_model(self, model_type: str) -> keras.Model:
        """Return a new model, float32 [N, height, width] in 0..1 -> logits float32 [N, classes]."""

    def augment(self, images: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """Return a random variation of images, float32 [N, height, width]; same seed, same variation.

        Args:
            images: float32 [N, height, width] in 0..1.
            seed: int32 [2].
        """

    def endpoints(self, model: keras.Model) -> Mapping[str, Endpoint]:
        """Return the ways to call the model, `serving_default` among them."""
