"""What trainings leave for the page: curves, progress, the record of a version.

A reader beside a writer: files may be missing, half-written, or of another program; then there is less
to show, never an error.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from fairway.storage.manifest import CURVES, MANIFEST, Manifest
from fairway.storage.model_dir import CONFIG, METRICS
from fairway.web.files import Files

# More points than a chart is wide would only slow the page down.
MAX_POINTS = 240
# A training counts as running while its files change. Before the first step it loads, and may download.
STARTING_S = 90.0
QUIET_S = 15.0


@dataclass(frozen=True)
class Curve:
    """How a training went, and how it ended where it has.

    Attributes:
        steps: Rising; `loss` and `accuracy` (0..1) have the same length.
        test: `step`, `loss` and `accuracy` on the test set; `None` before the end.
        last_s: Unix time of the last line.
        gap_s: Time between the last two of steps.
    """

    steps: list[int]
    loss: list[float]
    accuracy: list[float]
    test: dict[str, float] | None
    last_s: float
    gap_s: float

    def as_json(self) -> dict[str, Any]:
        """Return what the page draws, in no more points than it can show."""
        stride = math.ceil(len(self.steps) / MAX_POINTS) or 1
        kept = [*range(0, len(self.steps) - 1, stride), len(self.steps) - 1] if self.steps else []
        return {
            "steps": [self.steps[i] for i in kept],
            "loss": [self.loss[i] for i in kept],
            "accuracy": [self.accuracy[i] for i in kept],
            "test": self.test,
        }


@dataclass(frozen=True)
class Training:
    """The training in a model directory.

    Attributes:
        run: Its id, which the version it exports carries too.
        step: Steps done.
        total: Steps to do; `None` if unknown.
        accuracy: Of the last steps, on training images; `None` before the first.
    """

    state: Literal["starting", "running", "stopped", "finished"]
    run: str
    model_type: str
    step: int
    total: int | None
    accuracy: float | None
    curve: Curve | None


def read_training(model_dir: Files, now_s: float | None = None) -> Training | None:
    """Return how far the training in a model directory is; `None` if there is none to be seen."""
    file = model_dir.read(CONFIG)
    if file is None:
        return None
    try:
        config, started_s = json.loads(file.content), file.entry.modified
        run, total = str(config["run"]), config.get("train_steps")
        model_type = str(config.get("model_type", ""))
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    curve = read_curve(model_dir, METRICS)
    step = curve.steps[-1] if curve and curve.steps else 0
    now = time.time() if now_s is None else now_s
    return Training(
        state=_state(curve, started_s, total, now),
        run=run,
        model_type=model_type,
        step=step,
        total=total if isinstance(total, int) else None,
        accuracy=curve.accuracy[-1] if curve and curve.steps else None,
        curve=curve,
    )


def read_curve(directory: Files, key: str) -> Curve | None:
    """Return the curves in a `metrics.jsonl`; `None` if it cannot be read or holds none.

    A step that was trained again after an interruption counts as it was the last time.
    """
    file = directory.read(key)
    lines = list(_lines(file.content)) if file else []
    points = {line["step"]: line for line in lines if {"loss", "accuracy"} <= line.keys()}
    tests = [line for line in lines if {"test_loss", "test_accuracy"} <= line.keys()]
    if not points and not tests:
        return None
    steps = sorted(points)
    times = [line["time"] for line in lines if "loss" in line or "test_loss" in line]
    last = tests[-1] if tests else None
    return Curve(
        steps=[int(step) for step in steps],
        loss=[points[step]["loss"] for step in steps],
        accuracy=[points[step]["accuracy"] for step in steps],
        test=last and {"step": last["step"], "loss": last["test_loss"], "accuracy": last["test_accuracy"]},
        last_s=lines[-1]["time"],
        gap_s=times[-1] - times[-2] if len(times) > 1 else 0.0,
    )


def read_record(export_dir: Files, version: int) -> dict[str, Any] | None:
    """Return what `fairway.json` and the curves beside it say of a version; `None` if they are not here."""
    file = export_dir.read(f"{version}/{MANIFEST}")
    if file is None:
        return None
    curve = read_curve(export_dir, f"{version}/{CURVES}")
    try:
        manifest = Manifest.from_json(file.content)
        return _describe(manifest) | {"version": version, "curve": curve.as_json() if curve else None}
    except (ValueError, AttributeError):  # a manifest, or parts of one, that are not what they should be
        return None


def _describe(manifest: Manifest) -> dict[str, Any]:
    dataset = manifest.dataset
    return {
        "run": manifest.run,
        "model_type": manifest.model_type,
        "steps": manifest.step,
        "created": manifest.created,
        "dataset": {
            "name": dataset.name,
            "source": _source_words(dataset.source),
            "train_images": dataset.train_images,
            "test_images": dataset.test_images,
            "test_name": dataset.test_name,
        },
        "test_accuracy": manifest.metrics.get("test_accuracy"),
        "test_loss": manifest.metrics.get("test_loss"),
        "train_seconds": manifest.metrics.get("train_seconds"),
        "parameters": manifest.metrics.get("parameters"),
    }


def _source_words(source: str) -> str:
    """Return where data was read from, without telling visitors how a disk or a bucket is laid out."""
    is_directory = "://" in source or source.startswith("/")
    return f"directory {directory_name(source)}".rstrip() if is_directory else source


def directory_name(uri: str) -> str:
    """Return the last part of a path or a URI; none of a URI that names a bucket alone."""
    _, has_scheme, rest = uri.rstrip("/").rpartition("://")
    return (rest.partition("/")[2] if has_scheme else rest).rpartition("/")[2]


def _state(
    curve: Curve | None, started_s: float, total: Any, now_s: float
) -> Literal["starting", "running", "stopped", "finished"]:
    if curve and curve.test and curve.test["step"] >= (total or 0):
        return "finished"
    if curve and now_s - curve.last_s < max(QUIET_S, 5 * curve.gap_s):
        return "running"
    return "starting" if now_s - started_s < STARTING_S else "stopped"


def _lines(data: bytes) -> Iterator[dict[str, float]]:
    """Yield the numbers of whole lines: the last one may still be being written."""
    for text in data.splitlines():
        try:
            values = json.loads(text).items()
        except (ValueError, AttributeError):
            continue
        line = {str(name): float(value) for name, value in values if isinstance(value, int | float)}
        if {"time", "step"} <= line.keys() and all(map(math.isfinite, line.values())):
            yield line
