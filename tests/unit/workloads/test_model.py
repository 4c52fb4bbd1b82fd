"""The models: their size, and how images are varied. Loads TensorFlow."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from fairway.workloads.mnist.model import augment, build_cnn, build_linear


def test_sizes_are_known() -> None:
    assert build_cnn().count_params() == 99_338
    assert build_linear().count_params() == 7_850


def test_variation_is_reproducible_small_and_different_for_each_image() -> None:
    image = np.zeros((28, 28), np.float32)
    image[8:20, 12:16] = 1
    images = tf.constant(np.repeat(image[None], 64, axis=0))
    varied = augment(images, tf.constant([1, 2])).numpy()
    np.testing.assert_array_equal(varied, augment(images, tf.constant([1, 2])).numpy())
    assert (varied != augment(images, tf.constant([1, 3])).numpy()).any()
    assert len({one.tobytes() for one in varied}) == 64
    assert varied.shape == (64, 28, 28)
    assert varied.min() >= 0
    assert varied.max() <= 1.0001
    ink = varied.sum(axis=(1, 2)) / image.sum()
    assert ink.min() > 0.7
    assert ink.max() < 1.4
    rows, columns = np.indices((28, 28))
    for axis in (rows, columns):
        centres = (varied * axis).sum(axis=(1, 2)) / varied.sum(axis=(1, 2))
        centre = (image * axis).sum() / image.sum()
        assert np.abs(centres - centre).max() < 1.5
        assert np.abs(centres - centre).max() > 0.5
