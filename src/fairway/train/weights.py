"""A model's weights as a few long vectors: what a step reads, changes, and sends to other tasks.

A small network has thirty variables; each would be a message of its own, several times a step, between
tasks that train together. As vectors they are three, whatever the network.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import keras
import numpy as np
import tensorflow as tf

UNDECAYED = ("bias", "gamma", "beta")
"""Names of the variables that the weight decay leaves alone."""
WEIGHT_DECAY = 0.05
"""Chosen on 10,000 images split off the training set, with the network of workloads/mnist/model.py."""
PIECE = 2**20
"""Values in one piece of the kernels, 4 MiB: the pieces go round the parameter servers."""


class Weights:
    """The weights of a model and the optimizer that changes them.

    Attributes:
        kernels: What the weight decay works on, in pieces, float32 [<= PIECE] each.
        offsets: The other trainable weights, float32 [M].
        statistics: What is not trained, the moving averages of BatchNorm, float32 [S].
        optimizer: Built for `kernels` and `offsets`.

    Args:
        model: Gives the initial values, and is not changed.
        learning_rate: Of the optimizer, until it is assigned.
    """

    def __init__(self, model: keras.Model, learning_rate: float) -> None:
        self._model = model
        trainable = model.trainable_variables
        self._decayed = [variable for variable in trainable if variable.name not in UNDECAYED]
        self._undecayed = [variable for variable in trainable if variable.name in UNDECAYED]
        self._averages = [variable for variable in model.non_trainable_variables if not _is_seed(variable)]
        kernels = _joined(self._decayed)
        self.kernels = [
            tf.Variable(kernels[first : first + PIECE], name="kernels")
            for first in range(0, max(len(kernels), 1), PIECE)
        ]
        self.offsets = tf.Variable(_joined(self._undecayed), name="offsets")
        self.statistics = tf.Variable(_joined(self._averages), name="statistics", trainable=False)
        self.optimizer = keras.optimizers.AdamW(learning_rate, weight_decay=WEIGHT_DECAY)
        self.optimizer.exclude_from_weight_decay(var_names=["offsets"])
        self.optimizer.build(self.trainable)

    @property
    def trainable(self) -> list[tf.Variable]:
        """What gradients are computed for."""
        return [*self.kernels, self.offsets]

    @property
    def variables(self) -> list[tf.Variable]:
        """All there is, the optimizer's included, in an order that is the same for the same model."""
        return [*self.trainable, self.statistics, *(each.value for each in self.optimizer.variables)]

    def call(
        self, trainable: Sequence[tf.Tensor], statistics: tf.Tensor, images: tf.Tensor, seed: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Call the model with weights that are tensors, as a training step does.

        Args:
            trainable: The values of `trainable`.
            statistics: The value of `statistics`.
            images: float32 [N, height, width] in 0..1.
            seed: int32 [2], what random layers such as Dropout draw from.

        Returns:
            Logits float32 [N, classes], and the new statistics, float32 [S].
        """
        values = self._values(tf.concat(trainable[:-1], 0), trainable[-1], statistics)
        untrained = self._model.non_trainable_variables
        logits, changed = self._model.stateless_call(
            [values[id(variable)] for variable in self._model.trainable_variables],
            [
                _drawn_from(variable, seed) if _is_seed(variable) else values[id(variable)]
                for variable in untrained
            ],
            images,
            training=True,
        )
        averages = [new for new, old in zip(changed, untrained, strict=True) if not _is_seed(old)]
        return logits, tf.concat([tf.reshape(new, [-1]) for new in averages], 0) if averages else statistics

    def write_to(self, model: keras.Model) -> None:
        """Assign the weights to a model of the same architecture."""
        values = self._values(tf.concat(self.kernels, 0), self.offsets, self.statistics)
        for mine, theirs in zip(self._model.variables, model.variables, strict=True):
            if id(mine) in values:
                theirs.assign(values[id(mine)])

    def _values(self, kernels: tf.Tensor, offsets: tf.Tensor, statistics: tf.Tensor) -> dict[int, tf.Tensor]:
        """Return the value of each variable of the model, by its identity."""
        values = _cut(self._decayed, kernels)
        return values | _cut(self._undecayed, offsets) | _cut(self._averages, statistics)


def _is_seed(variable: keras.Variable) -> bool:
    """Tell the state of a random layer from what else is not trained, the averages."""
    return bool("int" in variable.dtype)


def _drawn_from(variable: keras.Variable, seed: tf.Tensor) -> tf.Tensor:
    """Return the state of a random layer that makes its draws a function of the step."""
    return tf.cast(seed, variable.dtype)


def _joined(variables: Iterable[keras.Variable]) -> np.ndarray:
    values = [np.asarray(variable, np.float32).reshape(-1) for variable in variables]
    return np.concatenate([np.empty(0, np.float32), *values])


def _cut(variables: list[keras.Variable], vector: tf.Tensor) -> dict[int, tf.Tensor]:
    if not variables:
        return {}
    pieces = tf.split(vector, [int(np.prod(variable.shape)) for variable in variables])
    return {
        id(variable): tf.reshape(piece, variable.shape)
        for variable, piece in zip(variables, pieces, strict=True)
    }
