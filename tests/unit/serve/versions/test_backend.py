"""Versions in this process: answered from once published, and freed once no request holds them."""

from __future__ import annotations

import gc
from pathlib import Path

import pytest

from fairway.config import ServeSettings
from fairway.serve.compute import savedmodel, servable
from fairway.serve.compute.savedmodel import SavedModel
from fairway.serve.compute.servable import Servable
from fairway.serve.versions.backend import InProcess
from fairway.serve.versions.models import Models
from fairway.serve.versions.table import ModelTable
from fairway.storage.exports import Version
from fairway.tfs.request import ModelSpec


@pytest.fixture
def models(monkeypatch: pytest.MonkeyPatch) -> Models:
    def load(version: Version, model: str, *, warmup: bool) -> Servable:
        assert not warmup
        return Servable(model, version.number, {}, SavedModel(Path(version.uri)))

    monkeypatch.setattr(servable, "load_servable", load)
    monkeypatch.setattr(savedmodel, "_threads", (0, 0))
    return Models()


@pytest.fixture
def backend(models: Models) -> InProcess:
    return InProcess(models, ServeSettings(enable_model_warmup=False, tensorflow_intra_op_parallelism=3))


def table(*serving: int) -> ModelTable:
    return ModelTable(serving, {}, (), "")


def test_the_same_number_of_two_base_paths(backend: InProcess, models: Models) -> None:
    assert backend.load(1, "m", Version(7, "/old/7", None)) == "TensorFlow"
    backend.publish({"m": table(7)}, {"m": {7: 1}})
    old = models.find(ModelSpec("m"))
    backend.load(2, "m", Version(7, "/new/7", None))
    assert models.find(ModelSpec("m")) is old
    backend.publish({"m": table(7)}, {"m": {7: 2}})
    assert models.find(ModelSpec("m", 7)) is not old


def test_what_is_dropped_is_held_until_the_last_request_is_done(backend: InProcess, models: Models) -> None:
    backend.load(1, "m", Version(7, "/models/7", None))
    backend.publish({"m": table(7)}, {"m": {7: 1}})
    in_flight = models.find(ModelSpec("m"))
    backend.publish({"m": table()}, {"m": {}})
    backend.drop(1)
    assert backend.held([1, 2]) == {1}
    assert in_flight.number == 7
    del in_flight
    gc.collect()
    assert backend.held([1, 2]) == set()


def test_tensorflow_is_told_its_threads(backend: InProcess) -> None:
    backend.load(1, "m", Version(7, "/models/7", None))
    assert savedmodel._threads == (3, 0)
