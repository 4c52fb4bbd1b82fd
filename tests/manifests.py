"""A manifest for tests that need one without training a model."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from fairway.storage.exports import DatasetRecord, Manifest

_MANIFEST = Manifest(
    workload="mnist",
    model_type="cnn",
    run="r1",
    step=468,
    created="2026-01-01T00:00:00+00:00",
    settings={"seed": 0},
    dataset=DatasetRecord(
        name="mnist",
        source="/data",
        train_images=60000,
        test_images=10000,
        test_name="the test set",
        sha256={},
    ),
    metrics={"test_accuracy": 0.9912},
    software={},
    signatures={},
    tflite={},
)


def make_manifest(*, source: str = "/data", **changes: Any) -> Manifest:
    """Return a manifest with the data's source and any fields changed."""
    return replace(_MANIFEST, dataset=replace(_MANIFEST.dataset, source=source), **changes)
