"""What the log of a training's chief says: how far it is, and what came of it. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from decimal import Decimal

from fairway.progress import parse_line

TASK = "training"
"""What `fairway train` calls its progress."""
LINES = 100
"""So many of the last lines have one of progress among them: TensorFlow's own words are in between."""
_LOSS = re.compile(r"\bloss (?P<loss>[\d.]+)")
_ACCURACY = re.compile(r"\baccuracy (?P<percent>[\d.]+) %")
_TESTED = re.compile(r"test accuracy (?P<percent>[\d.]+) % on ")
_EXPORTED = re.compile(r"exported version (?P<version>\d+) to ")
_BEFORE = re.compile(r"trained already: step (?P<step>\d+) of (?P<total>\d+), version (?P<version>\d+)")


@dataclass(frozen=True)
class TrainingProgress:
    """How far a training is. `None`: the log does not say it (yet).

    Attributes:
        step: Steps done.
        total: Steps in all.
        loss: Of the last steps.
        accuracy: On the images of the last steps, 0..1.
        seconds_left: Until the last step.
        test_accuracy: On the test images, 0..1.
        version: The exported one.
    """

    step: int | None = None
    total: int | None = None
    loss: float | None = None
    accuracy: float | None = None
    seconds_left: int | None = None
    test_accuracy: float | None = None
    version: int | None = None

    def __str__(self) -> str:
        parts = []
        if self.version is None and self.step is not None:
            parts.append(f"step {self.step} of {self.total}")
            parts += [f"loss {self.loss:.3f}"] if self.loss is not None else []
            parts += [f"accuracy {self.accuracy:.1%}"] if self.accuracy is not None else []
            parts += [f"{self.seconds_left} s left"] if self.seconds_left is not None else []
        parts += [f"test accuracy {self.test_accuracy:.2%}"] if self.test_accuracy is not None else []
        parts += [f"version {self.version}"] if self.version is not None else []
        return ", ".join(parts)


def read_log(lines: Iterable[str]) -> TrainingProgress | None:
    """Return what the last lines of a chief's log say; `None` if they say nothing of the training."""
    found = TrainingProgress()
    for line in lines:
        found = _read_line(found, line)
    return found if found != TrainingProgress() else None


def _read_line(so_far: TrainingProgress, line: str) -> TrainingProgress:
    if (reading := parse_line(line)) and reading.task == TASK:
        loss, accuracy = _LOSS.search(reading.note), _ACCURACY.search(reading.note)
        return TrainingProgress(
            reading.done,
            reading.total,
            float(loss["loss"]) if loss else None,
            _share(accuracy),
            reading.seconds_left,
        )
    if tested := _TESTED.match(line):
        return replace(so_far, test_accuracy=_share(tested), seconds_left=None)
    if exported := _EXPORTED.match(line):
        return replace(so_far, version=int(exported["version"]), seconds_left=None)
    if before := _BEFORE.match(line):
        return TrainingProgress(int(before["step"]), int(before["total"]), version=int(before["version"]))
    return so_far


def _share(percent: re.Match[str] | None) -> float | None:
    """Return a percentage as a share, with no more digits than were written."""
    return float(Decimal(percent["percent"]) / 100) if percent else None
