"""How long an evaluator waits for something to happen."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path

import pytest

from fairway.config import TrainSettings
from fairway.errors import FairwayError, StorageError, StoreAwayError
from fairway.net.cluster import Cluster, Task
from fairway.train import evaluator
from fairway.train.evaluator import evaluate_checkpoints
from fairway.train.watched import Sight
from fairway.workloads.mnist.workload import Mnist

WAIT_S = 0.3
"""How long it waits for others; many times what it needs for a look."""
CLUSTER = Cluster({Task("chief", 0): "10.0.0.1:2000"}, Task("evaluator", 0))


class Dir:
    """A model directory, looked into by a function of the seconds since it was opened."""

    uri = "s3://bucket/model"
    events = Path("events")
    poll_s = 0.02
    settle_s = 60.0

    def __init__(self, look: Callable[[float], Sight]) -> None:
        self._look, self._opened = look, time.monotonic()

    def look(self) -> Sight:
        return self._look(time.monotonic() - self._opened)

    def send_events(self) -> None:
        pass


def wait(monkeypatch: pytest.MonkeyPatch, look: Callable[[float], Sight]) -> tuple[float, FairwayError]:
    """Evaluate until it fails; return after how many seconds, and why."""
    monkeypatch.setattr(evaluator, "open_watched", lambda uri: nullcontext(Dir(look)))
    monkeypatch.setattr(evaluator, "CHECK_S", 0.01)
    monkeypatch.setattr(evaluator, "_Meter", lambda workload, training, events: Ready())
    settings = TrainSettings(model_dir=Dir.uri, export_dir="nowhere", peer_wait_seconds=WAIT_S)
    began = time.monotonic()
    with pytest.raises(FairwayError) as caught:
        evaluate_checkpoints(Mnist(), settings, CLUSTER)
    return time.monotonic() - began, caught.value


class Ready:
    """In the place of what has TensorFlow loaded."""

    def is_for(self, training: object) -> bool:
        return True


def test_the_time_for_which_the_store_is_away_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    def look(second: float) -> Sight:
        if 0.1 < second < 1:
            raise StoreAwayError("s3://bucket gave no answer")
        return Sight()

    seconds, error = wait(monkeypatch, look)
    assert seconds > 1 + 0.8 * WAIT_S
    assert error.message == f"nothing has happened in s3://bucket/model for {WAIT_S:g} s"
    assert error.exit_code == 1


def test_a_store_that_refuses_is_no_outage(monkeypatch: pytest.MonkeyPatch) -> None:
    def look(second: float) -> Sight:
        raise StorageError("no access to s3://bucket")

    seconds, error = wait(monkeypatch, look)
    assert WAIT_S < seconds < 3 * WAIT_S
    assert error.message.endswith("s: no access to s3://bucket")


def test_a_lead_may_wait_as_long_itself_before_its_first_step(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = asdict(TrainSettings(model_type="linear"))
    config = json.dumps({"run": "r1", "train_steps": 10, "settings": settings, "dataset": {}}).encode()
    seconds, error = wait(monkeypatch, lambda second: Sight(config))
    assert seconds > 2 * WAIT_S
    assert error.message == f"nothing has happened in s3://bucket/model for {2 * WAIT_S:g} s"
