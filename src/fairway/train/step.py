"""One training step, the same for every strategy: gradients of the weights, and how they change them."""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from fairway.config import TrainSettings
from fairway.train.weights import Weights
from fairway.workloads.base import Workload

# Chosen on 10,000 images split off the training set, with the network of workloads/mnist/model.py.
LABEL_SMOOTHING = 0.1
"""Share of the target that is spread over all classes: 0.2 points of accuracy after one epoch."""
SHARPNESS = 2.0
"""What the logits are divided by to fit the smoothed targets, which ask for no more than 91 %. The logits
themselves, of which the served probabilities are made, are then as sure as they are right: 98.9 % on
images of which 99.3 % were answered rightly, and a cross-entropy of 0.027 instead of 0.130."""
WARM_UP = 0.3
"""Share of the steps in which the learning rate rises to its peak."""


class Computed(NamedTuple):
    """What a batch says, before anything is changed.

    Attributes:
        gradients: One for each of `Weights.trainable`, of its shape.
        drift: By how much the statistics change, float32 [S].
        loss: Mean cross-entropy in nats, without the label smoothing that the training adds to it.
        accuracy: Share of right answers, 0..1.
    """

    gradients: list[tf.Tensor]
    drift: tf.Tensor
    loss: tf.Tensor
    accuracy: tf.Tensor


class Step:
    """Computes and applies the gradients of a workload.

    Args:
        workload: Varies the images.
        settings: Resolved.
    """

    def __init__(self, workload: Workload, settings: TrainSettings) -> None:
        self._workload, self._settings = workload, settings

    def compute(
        self, weights: Weights, images: tf.Tensor, labels: tf.Tensor, step: tf.Tensor, rank: tf.Tensor | int
    ) -> Computed:
        """Compute the gradients of a batch.

        Args:
            weights: Are read once.
            images: uint8 [N, height, width].
            labels: Integers [N].
            step: Number of the step, an integer; the first is 0.
            rank: Number of the task; each draws other variations.
        """
        seed = tf.stack([self._settings.seed + tf.cast(rank, tf.int32), tf.cast(step, tf.int32)])
        pixels, labels = tf.cast(images, tf.float32) / 255, tf.cast(labels, tf.int64)
        if self._settings.augment:
            pixels = self._workload.augment(pixels, seed)
        trainable = [variable.read_value() for variable in weights.trainable]
        statistics = weights.statistics.read_value()
        with tf.GradientTape() as tape:
            tape.watch(trainable)
            logits, changed = weights.call(trainable, statistics, pixels, seed)
            loss = _cross_entropy(labels, logits / SHARPNESS, LABEL_SMOOTHING)
        gradients = tape.gradient(loss, trainable, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        right = tf.reduce_mean(tf.cast(tf.argmax(logits, axis=-1) == labels, tf.float32))
        return Computed(gradients, changed - statistics, _cross_entropy(labels, logits, 0.0), right)

    def apply(self, weights: Weights, gradients: list[tf.Tensor], drift: tf.Tensor, step: tf.Tensor) -> None:
        """Change the weights by gradients that were computed for this step."""
        weights.optimizer.learning_rate.assign(self.learning_rate(step))
        weights.optimizer.apply(gradients, weights.trainable)
        weights.statistics.assign_add(drift)

    def learning_rate(self, step: tf.Tensor) -> tf.Tensor:
        """One cycle: in straight lines from 4 % of the peak up to it, and down to zero; float32 [].

        Source: L. Smith, N. Topin, "Super-Convergence" (2018), https://arxiv.org/abs/1708.07120
        """
        done = tf.cast(step, tf.float32) / float(self._settings.train_steps or 1)
        rise, fall = 0.04 + 0.96 * done / WARM_UP, (1 - done) / (1 - WARM_UP)
        return self._settings.learning_rate * tf.minimum(rise, fall)


def _cross_entropy(labels: tf.Tensor, logits: tf.Tensor, smoothing: float) -> tf.Tensor:
    classes = logits.shape[-1]
    targets = tf.one_hot(labels, classes) * (1 - smoothing) + smoothing / classes
    return tf.reduce_mean(tf.nn.softmax_cross_entropy_with_logits(targets, logits))
