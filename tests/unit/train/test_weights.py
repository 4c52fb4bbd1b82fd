"""A model's weights as vectors: whatever layers it has, they mean the same. Loads TensorFlow."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from fairway.train import weights as module
from fairway.train.weights import Weights

SEED = tf.constant([1, 2])


def build() -> keras.Model:
    """Return a model with all kinds of variables: decayed, not decayed, averaged, random states."""
    image = keras.Input((4, 4))
    x = layers.Flatten()(image)
    x = layers.Dense(8)(x)
    x = layers.BatchNormalization()(x)
    x = layers.Dropout(0.5)(x)
    x = layers.LayerNormalization()(x)
    return keras.Model(image, layers.Dense(3)(x))


def call(weights: Weights, images: tf.Tensor, seed: tf.Tensor = SEED) -> tuple[np.ndarray, np.ndarray]:
    values = [variable.read_value() for variable in weights.trainable]
    logits, statistics = weights.call(values, weights.statistics.read_value(), images, seed)
    return logits.numpy(), statistics.numpy()


def test_every_weight_has_its_place_and_comes_back() -> None:
    model = build()
    weights = Weights(model, 0.01)
    sizes = [variable.shape[0] for variable in (*weights.trainable, weights.statistics)]
    assert sizes == [16 * 8 + 8 * 3, 8 + 8 + 8 + 8 + 8 + 3, 8 + 8]
    other = build()
    assert any((a != b).any() for a, b in zip(model.get_weights(), other.get_weights(), strict=True))
    weights.write_to(other)
    for mine, theirs in zip(model.weights, other.weights, strict=True):
        if "seed" not in mine.path:
            np.testing.assert_array_equal(mine, theirs)


def test_random_layers_draw_from_the_seed_alone() -> None:
    weights, images = Weights(build(), 0.01), tf.random.stateless_uniform([5, 4, 4], [3, 4])
    first, same, other = (call(weights, images, tf.constant(seed))[0] for seed in ([1, 2], [1, 2], [1, 3]))
    np.testing.assert_array_equal(first, same)
    assert (first != other).any()


def test_statistics_move_as_in_the_model_itself() -> None:
    model, images = build(), tf.random.stateless_uniform([5, 4, 4], [3, 4])
    _, statistics = call(Weights(model, 0.01), images)
    model(images, training=True)
    expected = [np.ravel(variable) for variable in model.non_trainable_variables if "moving" in variable.path]
    np.testing.assert_allclose(statistics, np.concatenate(expected), rtol=1e-6)


def test_pieces_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    model, images = build(), tf.random.stateless_uniform([5, 4, 4], [3, 4])
    whole = Weights(model, 0.01)
    monkeypatch.setattr(module, "PIECE", 50)
    pieces = Weights(model, 0.01)
    assert [variable.shape[0] for variable in pieces.kernels] == [50, 50, 50, 2]
    np.testing.assert_array_equal(call(whole, images)[0], call(pieces, images)[0])


def test_weight_decay_leaves_offsets_alone() -> None:
    weights = Weights(build(), 0.1)
    before = [variable.numpy().copy() for variable in weights.trainable]
    weights.optimizer.apply([tf.zeros_like(variable) for variable in weights.trainable], weights.trainable)
    kernels, offsets = (new.numpy() for new in weights.trainable)
    np.testing.assert_allclose(kernels, before[0] * (1 - 0.1 * module.WEIGHT_DECAY), rtol=1e-5)
    np.testing.assert_array_equal(offsets, before[1])
