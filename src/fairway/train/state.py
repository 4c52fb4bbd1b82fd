"""What a training has come to: all that a checkpoint holds."""

from __future__ import annotations

import keras
import tensorflow as tf

from fairway.config import TrainSettings
from fairway.train.precision import use_precision
from fairway.train.weights import Weights
from fairway.workloads.base import Workload


class State:
    """Weights, optimizer and counters, in the memory of one task.

    Attributes:
        model: The architecture, in the training's precision; its own weights are only the initial ones.
        weights: The weights.
        step: Steps trained, int64 [].
        seconds: Time spent on them, float64 [].

    Args:
        workload: What is trained.
        settings: Resolved: no value is `None` or `auto` any more. Same settings, same initial weights.
    """

    def __init__(self, workload: Workload, settings: TrainSettings) -> None:
        keras.utils.set_random_seed(settings.seed)
        with use_precision(settings.precision):
            self.model = workload.build_model(settings.model_type)
        self.weights = Weights(self.model, settings.learning_rate or 0)
        self.step = tf.Variable(0, dtype=tf.int64, trainable=False, name="step")
        self.seconds = tf.Variable(0.0, dtype=tf.float64, trainable=False, name="seconds")

    @property
    def variables(self) -> list[tf.Variable]:
        """All there is, in the same order for the same model."""
        return [*self.weights.variables, self.step, self.seconds]

    @property
    def parts(self) -> dict[str, object]:
        """The same by name, as a checkpoint has it."""
        weights = self.weights
        return {
            "kernels": weights.kernels,
            "offsets": weights.offsets,
            "statistics": weights.statistics,
            "optimizer": weights.optimizer,
            "step": self.step,
            "seconds": self.seconds,
        }
