"""MNIST as a workload: its data, models and recipes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from fairway.config import TrainSettings
from fairway.workloads.base import Dataset, Endpoint, Recipe
from fairway.workloads.mnist import data

if TYPE_CHECKING:
    import keras
    import tensorflow as tf


class Mnist:
    """Handwritten digits, 28 by 28 pixels, ten classes."""

    name = "mnist"
    class_names = tuple("0123456789")

    def load(self, settings: TrainSettings) -> Dataset:
        """Return the data; see `data.load`."""
        return data.load(settings)

    def recipe(self, model_type: str, dataset: Dataset, images_per_step: int) -> Recipe:
        """One epoch of the full set; on the embedded digits 16 epochs of varied images."""
        epoch = max(dataset.train_images // images_per_step, 1)
        small = dataset.name == "embedded"
        if model_type == "linear":
            return Recipe(train_steps=(40 if small else 5) * epoch, learning_rate=0.005, augment=False)
        return Recipe(train_steps=(16 if small else 1) * epoch, learning_rate=0.02, augment=small)

    def build_model(self, model_type: str) -> keras.Model:
        """Return a new model of type `cnn` or `linear`."""
        from fairway.workloads.mnist import model

        return model.BUILDERS[model_type]()

    def augment(self, images: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """Return a random variation of the images."""
        from fairway.workloads.mnist import model

        return model.augment(images, seed)

    def endpoints(self, model: keras.Model) -> Mapping[str, Endpoint]:
        """Return the ways to call an exported model."""
        from fairway.workloads.mnist import model as definition

        return definition.endpoints(model)
