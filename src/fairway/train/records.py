"""What a training leaves for its watchers: `metrics.jsonl` and TensorBoard events.

A line of `metrics.jsonl` is a JSON object with `time` (Unix seconds) and `step`, and either `loss`,
`accuracy`, `learning_rate` and `steps_per_s` of the steps since the line before, or `test_loss` and
`test_accuracy` of the finished model.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from types import TracebackType
from typing import Self

import tensorflow as tf

from fairway.storage.files import storage_errors, write_atomic
from fairway.storage.model_dir import EVENTS, METRICS
from fairway.train.checkpoints import write_errors
from fairway.train.evaluate import Evaluation
from fairway.train.loop import Progressed
from fairway.train.pictures import draw_confusion, draw_mistakes
from fairway.workloads.base import Split


class Records:
    """Writes a run's records; a context manager.

    Args:
        model_dir: The model directory; it exists.
        step: The step that was restored: what an interrupted run wrote beyond it is dropped.

    Raises:
        StorageError: the directory cannot be written to, here or in any method.
    """

    def __init__(self, model_dir: Path, step: int) -> None:
        self._path = model_dir / METRICS
        write_atomic(self._path, _lines_until(self._path, step))
        self._events = {
            name: tf.summary.create_file_writer(str(model_dir / EVENTS / name)) for name in ("train", "test")
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for writer in self._events.values():
            writer.close()

    def add_training(self, step: int, progressed: Progressed, steps_per_s: float) -> None:
        """Record some training steps, the last of which was `step`."""
        self._add("train", step, "", **progressed._asdict(), steps_per_s=steps_per_s)

    def add_test(self, step: int, evaluation: Evaluation, split: Split, names: tuple[str, ...]) -> None:
        """Record the evaluation of the finished model, with its pictures."""
        self._add("test", step, "test_", loss=evaluation.loss, accuracy=evaluation.accuracy)
        with write_errors(self._path.parent), self._events["test"].as_default(step):
            tf.summary.image("confusion matrix", draw_confusion(evaluation.confusion, names)[None])
            tf.summary.image("worst mistakes", draw_mistakes(evaluation, split, names)[None])

    def _add(self, kind: str, step: int, prefix: str, **values: float) -> None:
        line: dict[str, float] = {"time": round(time.time(), 3), "step": step}
        line |= {prefix + name: float(f"{value:.6g}") for name, value in values.items()}
        with storage_errors("write", self._path), self._path.open("a") as file:
            file.write(json.dumps(line) + "\n")
        with write_errors(self._path.parent), self._events[kind].as_default(step):
            for name, value in values.items():
                tf.summary.scalar(name, value)
            self._events[kind].flush()


def _lines_until(path: Path, step: int) -> bytes:
    """Return the whole lines up to a step."""
    kept = []
    with storage_errors("read", path):
        lines = path.read_bytes().splitlines() if path.exists() else []
    for line in lines:
        try:
            entry = json.loads(line)
        except ValueError:
            continue  # cut off by a kill
        if entry.get("step", step + 1) <= step and "test_loss" not in entry:
            kept.append(line + b"\n")
    return b"".join(kept)
