"""Manifests and versions for tests that need them without training a model."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

from fairway.storage.exports import Version, read_version
from fairway.storage.manifest import MANIFEST, SAVED_MODEL, DatasetRecord, Manifest, describe_files

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


def make_version(
    export_dir: Path, number: int, *, files: int = 4, size: int = 1000, seed: int | None = None
) -> Version:
    """Write a complete version of random bytes, the same for the same number and seed.

    Args:
        export_dir: Is made if need be.
        number: Of the version.
        files: How many beside the manifest; the first is `saved_model.pb`.
        size: Bytes of each.
        seed: Of the content; by default the number.
    """
    path = export_dir / str(number)
    content = random.Random(number if seed is None else seed)
    for name in [SAVED_MODEL, *(f"variables/part-{each:02d}" for each in range(files - 1))]:
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content.randbytes(size))
    (path / MANIFEST).write_bytes(make_manifest(files=describe_files(path)).to_json())
    return read_version(path)
