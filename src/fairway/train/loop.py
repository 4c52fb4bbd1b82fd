"""The state of a training, and the compiled steps that advance it."""

from __future__ import annotations

from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from fairway.config import TrainSettings
from fairway.train.precision import use_precision
from fairway.workloads.base import Split, Workload

# Chosen on 10,000 images split off the training set, with the network of workloads/mnist/model.py.
WEIGHT_DECAY = 0.05
LABEL_SMOOTHING = 0.1
"""Share of the target that is spread over all classes: 0.2 points of accuracy after one epoch."""
SHARPNESS = 2.0
"""What the logits are divided by to fit the smoothed targets, which ask for no more than 91 %. The logits
themselves, of which the served probabilities are made, are then as sure as they are right: 98.9 % on
images of which 99.3 % were answered rightly, and a cross-entropy of 0.027 instead of 0.130."""
WARM_UP = 0.3
"""Share of the steps in which the learning rate rises to its peak."""


class Progressed(NamedTuple):
    """What some steps did: means over their images, and the last learning rate.

    The loss is the cross-entropy in nats, without the label smoothing that the training adds to it.
    The accuracy is a share, 0..1.
    """

    loss: float
    accuracy: float
    learning_rate: float


class Trainer:
    """Model, optimizer and step counter: all that a checkpoint holds.

    Args:
        workload: What is trained.
        settings: Resolved: no value is `None` or `auto` any more.
        split: The training images; they stay in memory as bytes.
    """

    def __init__(self, workload: Workload, settings: TrainSettings, split: Split) -> None:
        self._workload, self._settings = workload, settings
        keras.utils.set_random_seed(settings.seed)
        with use_precision(settings.precision):
            self.model = workload.build_model(settings.model_type)
        self.optimizer = keras.optimizers.AdamW(settings.learning_rate, weight_decay=WEIGHT_DECAY)
        self.optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
        self.optimizer.build(self.model.trainable_variables)
        self.step = tf.Variable(0, dtype=tf.int64, trainable=False, name="step")
        self.seconds = tf.Variable(0.0, dtype=tf.float64, trainable=False, name="seconds")
        self._images = tf.constant(split.images)
        self._labels = tf.constant(split.labels)

    def advance(self, batches: NDArray[np.int32]) -> Progressed:
        """Train on the images with these numbers, int32 [steps, batch_size], one row a step."""
        loss, accuracy, learning_rate = self._advance(batches)
        return Progressed(float(loss), float(accuracy), float(learning_rate))

    @tf.function(input_signature=[tf.TensorSpec([None, None], tf.int32)])
    def _advance(self, batches: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        loss_sum, right_sum = tf.constant(0.0), tf.constant(0.0)
        for numbers in batches:
            loss, right = self._train_step(numbers)
            loss_sum += loss
            right_sum += right
        steps = tf.cast(tf.shape(batches)[0], tf.float32)
        return loss_sum / steps, right_sum / steps, tf.identity(self.optimizer.learning_rate)

    def _train_step(self, numbers: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        images = tf.cast(tf.gather(self._images, numbers), tf.float32) / 255
        labels = tf.gather(self._labels, numbers)
        if self._settings.augment:
            images = self._workload.augment(images, self._step_seed())
        with tf.GradientTape() as tape:
            logits = self.model(images, training=True)
            loss = _cross_entropy(labels, logits / SHARPNESS, LABEL_SMOOTHING)
        variables = self.model.trainable_variables
        self.optimizer.learning_rate.assign(self._learning_rate())
        self.optimizer.apply(tape.gradient(loss, variables), variables)
        self.step.assign_add(1)
        right = tf.reduce_mean(tf.cast(tf.argmax(logits, axis=-1) == labels, tf.float32))
        return _cross_entropy(labels, logits, 0.0), right

    def _step_seed(self) -> tf.Tensor:
        return tf.stack([self._settings.seed, tf.cast(self.step, tf.int32)])

    def _learning_rate(self) -> tf.Tensor:
        """One cycle: in straight lines from 4 % of the peak up to it, and down to zero.

        Source: L. Smith, N. Topin, "Super-Convergence" (2018), https://arxiv.org/abs/1708.07120
        """
        done = tf.cast(self.step, tf.float32) / float(self._settings.train_steps or 1)
        rise, fall = 0.04 + 0.96 * done / WARM_UP, (1 - done) / (1 - WARM_UP)
        return self._settings.learning_rate * tf.minimum(rise, fall)


def _cross_entropy(labels: tf.Tensor, logits: tf.Tensor, smoothing: float) -> tf.Tensor:
    classes = logits.shape[-1]
    targets = tf.one_hot(labels, classes) * (1 - smoothing) + smoothing / classes
    return tf.reduce_mean(tf.nn.softmax_cross_entropy_with_logits(targets, logits))
