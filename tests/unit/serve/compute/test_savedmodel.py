"""A SavedModel that cannot be loaded; TensorFlow is a fake. Real ones are run in the integration tests."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from fairway.errors import FairwayError
from fairway.serve.compute import savedmodel as module
from fairway.serve.compute.savedmodel import SavedModel

# What TensorFlow says when `variables` is gone.
GONE = """Unsuccessful TensorSliceReader constructor: Failed to find any matching files for /m/1/v
 You may be trying to load on a different device from the computational device."""


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    loads: list[str] = []

    def load(path: str) -> Any:
        loads.append(path)
        raise FileNotFoundError(GONE)

    tensorflow = SimpleNamespace(saved_model=SimpleNamespace(load=load))
    monkeypatch.setattr(module, "_tensorflow", lambda: tensorflow)
    return loads


def test_what_cannot_be_loaded_is_said_with_its_path_and_not_tried_again_at_once(
    loads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    model = SavedModel(Path("/m/1"))

    def refusal() -> str:
        with pytest.raises(FairwayError) as caught:
            model.run("serving_default", {"x": np.zeros(1)})
        return caught.value.message

    first = refusal()
    assert first == f"TensorFlow cannot load the SavedModel in /m/1: {GONE.splitlines()[0]}"
    assert refusal() == first
    assert len(loads) == 1
    now += 60
    assert refusal() == first
    assert len(loads) == 2
