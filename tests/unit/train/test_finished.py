"""Whether a task that finds nobody there has nothing left to do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fairway.config import TrainSettings
from fairway.errors import DataError, StorageError, StoreAwayError
from fairway.net.cluster import Cluster, Task
from fairway.storage.manifest import MANIFEST
from fairway.storage.model_dir import write_config
from fairway.train.finished import Finished
from fairway.workloads.base import Dataset, Split
from fairway.workloads.mnist.workload import Mnist
from tests.manifests import make_version

WORKER = Task("worker", 0)
CLUSTER = Cluster({Task("chief", 0): "10.0.0.1:2000", WORKER: "10.0.0.1:2002"}, WORKER)
RECIPE = 234
"""Steps of two tasks in step on 60,000 images, batches of 128."""


class Workload(Mnist):
    """With as many images as MNIST, all of them black."""

    def load(self, settings: TrainSettings) -> Dataset:
        if settings.data_dir == "damaged":
            raise DataError("damaged")
        split = Split(np.zeros((60_000, 1, 1), np.uint8), np.zeros(60_000, np.int64), "black")
        return Dataset("mnist", "made for this", {}, split, split)


@pytest.mark.parametrize(
    ("exported", "given", "finished"),
    [
        (RECIPE, {}, True),
        (RECIPE, {"train_steps": RECIPE}, True),
        (RECIPE, {"train_steps": RECIPE + 1}, False),
        (50, {}, False),
        (50, {"train_steps": 50}, True),
        (RECIPE, {"data_dir": "damaged"}, False),
        (None, {}, False),
    ],
)
def test_an_export_counts_that_has_all_the_steps_of_this_job(
    tmp_path: Path, exported: int | None, given: dict[str, Any], finished: bool
) -> None:
    model_dir, export_dir = tmp_path / "model", tmp_path / "export"
    settings = TrainSettings(model_dir=str(model_dir), export_dir=str(export_dir), **given)
    assert not Finished(Workload(), settings, CLUSTER)(True)
    model_dir.mkdir()
    write_config(model_dir, {"run": "r1", "train_steps": exported or RECIPE})
    if exported:
        manifest = make_version(export_dir, 1).path / MANIFEST
        manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"step": exported}))
    is_finished = Finished(Workload(), settings, CLUSTER)
    assert is_finished(False) == finished
    assert is_finished(True) == (exported is not None and exported >= given.get("train_steps", 0))


@pytest.mark.parametrize("is_last_question", [False, True])
def test_a_store_that_is_away_is_told_and_one_that_refuses_is_not(
    monkeypatch: pytest.MonkeyPatch, is_last_question: bool
) -> None:
    def fail(uri: str) -> Any:
        raise errors.pop()

    errors = [StorageError("not allowed"), StoreAwayError("no answer")]
    monkeypatch.setattr("fairway.train.finished.open_store", fail)
    is_finished = Finished(Workload(), TrainSettings(model_dir="s3://b/m"), CLUSTER)
    with pytest.raises(StoreAwayError):
        is_finished(is_last_question)
    assert not is_finished(is_last_question)
