"""All steps in this process, many of them in one call of a compiled function."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from fairway.config import TrainSettings
from fairway.train.batches import BatchOrder
from fairway.train.state import State
from fairway.train.step import Step
from fairway.train.stop import StopSignal
from fairway.train.strategies.base import CHUNK, Progressed
from fairway.workloads.base import Split, Workload


class Single:
    """Trains on images in memory.

    Args:
        workload: What is trained.
        settings: Resolved.
        split: The training images of this task; they stay in memory as bytes.
        stop: Tells whether this task was told to stop.
        rank: Number of this task among those that train.
        mean: Returns the mean of a vector, float32 [N], over the tasks that train in step.
    """

    def __init__(
        self,
        workload: Workload,
        settings: TrainSettings,
        split: Split,
        stop: StopSignal,
        *,
        rank: int = 0,
        mean: Callable[[tf.Tensor], tf.Tensor] = tf.identity,
    ) -> None:
        self.state = State(workload, settings)
        self.images_per_step = settings.batch_size
        self._step = Step(workload, settings)
        self._stop, self._rank, self._mean = stop, rank, mean
        self._order = BatchOrder(len(split), settings.batch_size, settings.seed)
        self._images, self._labels = tf.constant(split.images), tf.constant(split.labels)

    def spread(self) -> None:
        """Do nothing: the state is where it is needed."""

    def gather(self) -> None:
        """Do nothing, likewise."""

    def steps(self, first: int, until: int) -> Iterator[Progressed]:
        """Train from one step to another, see `Strategy`."""
        while first < until:
            chunk = min(CHUNK - first % CHUNK, until - first)
            means = self._advance(self._order.take(first, chunk), self._stop.signum is not None)
            loss, accuracy, stopping = (float(value) for value in means)
            first += chunk
            learning_rate = float(self.state.weights.optimizer.learning_rate)
            yield Progressed(first, chunk, loss, accuracy, learning_rate, is_stopping=stopping > 0)

    @tf.function(input_signature=[tf.TensorSpec([None, None], tf.int32), tf.TensorSpec([], tf.bool)])
    def _advance(self, batches: NDArray[np.int32], told_to_stop: bool) -> tf.Tensor:
        """Train on the images with these numbers, one row a step; return means of loss, accuracy and stop."""
        loss_sum, accuracy_sum = tf.constant(0.0), tf.constant(0.0)
        for numbers in batches:
            loss, accuracy = self._advance_one(numbers)
            loss_sum += loss
            accuracy_sum += accuracy
        steps = tf.cast(tf.shape(batches)[0], tf.float32)
        sums = [loss_sum / steps, accuracy_sum / steps, tf.cast(told_to_stop, tf.float32)]
        return self._mean(tf.stack(sums))

    def _advance_one(self, numbers: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        weights, step = self.state.weights, self.state.step
        images, labels = tf.gather(self._images, numbers), tf.gather(self._labels, numbers)
        computed = self._step.compute(weights, images, labels, step, self._rank)
        parts = [*computed.gradients, computed.drift]
        mean = self._mean(tf.concat(parts, 0))
        *gradients, drift = tf.split(mean, [part.shape[0] for part in parts])
        self._step.apply(weights, gradients, drift, step)
        step.assign_add(1)
        return computed.loss, computed.accuracy
