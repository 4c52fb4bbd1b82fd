"""The models: their size, one real step, and how images are varied. Loads TensorFlow."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from fairway.config import TrainSettings
from fairway.errors import FairwayError
from fairway.train.loop import Trainer
from fairway.train.session import check_finite
from fairway.workloads.base import Split
from fairway.workloads.mnist.model import augment, build_cnn, build_linear
from fairway.workloads.mnist.workload import Mnist


@pytest.fixture
def split() -> Split:
    images = np.random.default_rng(0).integers(0, 256, (8, 28, 28), np.uint8)
    return Split(images, np.arange(8), "noise")


def trainer(split: Split, **settings: object) -> Trainer:
    given: dict[str, object] = {"train_steps": 10, "learning_rate": 0.01, "batch_size": 8, "augment": True}
    given |= {"precision": "float32"}
    return Trainer(Mnist(), TrainSettings(**(given | settings)), split)  # type: ignore[arg-type]


def test_sizes_are_known() -> None:
    assert build_cnn().count_params() == 99_338
    assert build_linear().count_params() == 7_850


@pytest.mark.parametrize("model_type", ["cnn", "linear"])
def test_one_step_moves_every_weight_and_the_counter(split: Split, model_type: str) -> None:
    one = trainer(split, model_type=model_type)
    before = [weight.numpy().copy() for weight in one.model.trainable_weights]
    progressed = one.advance(np.arange(8, dtype=np.int32)[None])
    assert int(one.step) == 1
    assert progressed.loss > 0
    assert 0 <= progressed.accuracy <= 1
    assert progressed.learning_rate == pytest.approx(0.04 * 0.01)
    for old, new in zip(before, one.model.trainable_weights, strict=True):
        assert (old != new.numpy()).any(), new.path


def test_learning_rate_rises_to_its_peak_and_falls_to_nothing(split: Split) -> None:
    one = trainer(split, model_type="linear")
    rates = [one.advance(np.arange(8, dtype=np.int32)[None]).learning_rate for _ in range(10)]
    assert max(rates) == rates[3] == pytest.approx(0.01)
    assert rates == sorted(rates[:4]) + sorted(rates[4:], reverse=True)
    assert 0 < rates[-1] < 0.002


def test_eight_images_are_learnt_by_heart(split: Split) -> None:
    one = trainer(split, train_steps=60, augment=False)
    first = one.advance(np.tile(np.arange(8, dtype=np.int32), (5, 1)))
    last = one.advance(np.tile(np.arange(8, dtype=np.int32), (55, 1)))
    assert last.loss < first.loss
    assert one.advance(np.arange(8, dtype=np.int32)[None]).accuracy == 1


def test_training_that_diverges_is_stopped_with_a_reason(split: Split) -> None:
    one = trainer(split, model_type="linear")
    one.model.trainable_weights[0].assign(np.full((784, 10), np.nan))
    loss = one.advance(np.arange(8, dtype=np.int32)[None]).loss
    with pytest.raises(FairwayError, match="the loss is nan at step 1: the training has diverged"):
        check_finite(loss, step=1)


def test_same_seed_same_weights_and_other_seed_others(split: Split) -> None:
    first, same, other = (trainer(split, seed=seed).model.get_weights() for seed in (3, 3, 4))
    assert all((a == b).all() for a, b in zip(first, same, strict=True))
    assert any((a != b).any() for a, b in zip(first, other, strict=True))


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
