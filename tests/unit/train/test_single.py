"""Real steps on eight images, in this process. Loads TensorFlow."""

from __future__ import annotations

import signal

import numpy as np
import pytest

from fairway.config import TrainSettings
from fairway.errors import FairwayError
from fairway.train.session import check_finite
from fairway.train.stop import StopSignal
from fairway.train.strategies.base import pauses
from fairway.train.strategies.single import Single
from fairway.workloads.base import Split
from fairway.workloads.mnist.workload import Mnist


@pytest.fixture
def split() -> Split:
    images = np.random.default_rng(0).integers(0, 256, (8, 28, 28), np.uint8)
    return Split(images, np.arange(8), "noise")


def single(split: Split, stop: StopSignal | None = None, **settings: object) -> Single:
    given: dict[str, object] = {"train_steps": 10, "learning_rate": 0.01, "batch_size": 8, "augment": True}
    given |= {"precision": "float32"}
    return Single(Mnist(), TrainSettings(**(given | settings)), split, stop or StopSignal())  # type: ignore[arg-type]


@pytest.mark.parametrize("model_type", ["cnn", "linear"])
def test_one_step_moves_every_weight_and_the_counter(split: Split, model_type: str) -> None:
    one = single(split, model_type=model_type)
    model = Mnist().build_model(model_type)
    one.state.weights.write_to(model)
    before = model.get_weights()
    (progressed,) = one.steps(0, 1)
    assert int(one.state.step) == progressed.step == progressed.steps == 1
    assert progressed.loss > 0
    assert 0 <= progressed.accuracy <= 1
    assert progressed.learning_rate == pytest.approx(0.04 * 0.01)
    assert not progressed.is_stopping
    one.state.weights.write_to(model)
    for old, new in zip(before, model.weights, strict=True):
        assert (old != new.numpy()).any(), new.path


def test_learning_rate_rises_to_its_peak_and_falls_to_nothing(split: Split) -> None:
    one = single(split, model_type="linear")
    rates = [progressed.learning_rate for step in range(10) for progressed in one.steps(step, step + 1)]
    assert max(rates) == rates[3] == pytest.approx(0.01)
    assert rates == sorted(rates[:4]) + sorted(rates[4:], reverse=True)
    assert 0 < rates[-1] < 0.002


def test_eight_images_are_learnt_by_heart(split: Split) -> None:
    one = single(split, train_steps=61, augment=False)
    reports = list(one.steps(0, 60))
    assert [report.step for report in reports] == [20, 40, 60]
    assert reports[-1].loss < reports[0].loss
    assert next(one.steps(60, 61)).accuracy == 1


def test_a_stop_is_reported_after_the_steps_under_way(split: Split) -> None:
    with StopSignal() as stop:
        one = single(split, stop, model_type="linear", train_steps=100)
        signal.raise_signal(signal.SIGTERM)
        report = next(one.steps(0, 100))
    assert stop.signum == signal.SIGTERM
    assert (report.step, report.is_stopping) == (20, True)
    assert int(one.state.step) == 20


def test_training_that_diverges_is_stopped_with_a_reason(split: Split) -> None:
    one = single(split, model_type="linear")
    one.state.weights.kernels[0].assign(np.full(7840, np.nan))
    loss = next(one.steps(0, 1)).loss
    with pytest.raises(FairwayError, match="the loss is nan at step 1: the training has diverged"):
        check_finite(loss, step=1)


def test_same_seed_same_weights_and_other_seed_others(split: Split) -> None:
    first, same, other = (single(split, seed=seed).state.weights.kernels[0].numpy() for seed in (3, 3, 4))
    assert (first == same).all()
    assert (first != other).any()


@pytest.mark.parametrize(
    ("first", "total", "expected"),
    [
        (0, 468, [(0, 200), (200, 400), (400, 468)]),
        (220, 400, [(220, 400)]),
        (400, 400, []),
        (7, 8, [(7, 8)]),
    ],
)
def test_pauses_lie_at_multiples_of_the_interval(
    first: int, total: int, expected: list[tuple[int, int]]
) -> None:
    assert list(pauses(first, total, 200)) == expected
