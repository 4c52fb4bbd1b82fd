"""What a training leaves for its watchers: `metrics.jsonl` and TensorBoard events.

A line of `metrics.jsonl` is a JSON object with `time` (Unix seconds) and `step`, and one of

    loss, accuracy, learning_rate, steps_per_s, samples_per_s
                                the steps since the line before; where workers take turns, `by_task` has the
                                steps/s of each
    checkpoint_s                seconds that a checkpoint took
    event, task, reason         `lost`, `back` or `failed`: another task of the job
    test_loss, test_accuracy    the finished model
"""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import tensorflow as tf

from fairway.storage.files import storage_errors, write_atomic
from fairway.storage.model_dir import EVENTS, METRICS
from fairway.train.checkpoints import write_errors
from fairway.train.evaluate import Evaluation
from fairway.train.pictures import draw_confusion, draw_mistakes
from fairway.train.strategies.base import Progressed
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
        self._step, self._lock, self._is_closed = step, threading.Lock(), False
        write_atomic(self._path, _lines_until(self._path, step))
        self._events = {
            name: tf.summary.create_file_writer(str(model_dir / EVENTS / name)) for name in ("train", "test")
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            self._is_closed = True
            for writer in self._events.values():
                writer.close()

    def add_training(self, progressed: Progressed, seconds: float, samples_per_s: float) -> None:
        """Record some training steps that took so many seconds."""
        self._step = progressed.step
        values = {
            "loss": progressed.loss,
            "accuracy": progressed.accuracy,
            "learning_rate": progressed.learning_rate,
            "steps_per_s": progressed.steps / seconds,
            "samples_per_s": samples_per_s,
        }
        by_task = {task: _rounded(steps / seconds) for task, steps in progressed.by_task.items()}
        self._write(_rounded_all(values) | ({"by_task": by_task} if by_task else {}))
        self._draw("train", values | {f"steps_per_s/{task}": rate for task, rate in by_task.items()})

    def add_checkpoint(self, step: int, seconds: float) -> None:
        """Record how long a checkpoint took."""
        self._step = step
        values = {"checkpoint_s": seconds}
        self._write(_rounded_all(values))
        self._draw("train", values)

    def add_event(self, event: str, task: str, reason: str) -> None:
        """Record what happened to another task: `lost`, `back` or `failed`; may be called from any thread."""
        self._write({"event": event, "task": task, "reason": reason})
        with self._lock, write_errors(self._path.parent):
            if not self._is_closed:  # by an error that the event led to
                with self._events["train"].as_default(self._step):
                    tf.summary.text("tasks", f"{task} {event} {reason}".strip())

    def add_test(self, step: int, evaluation: Evaluation, split: Split, names: tuple[str, ...]) -> None:
        """Record the evaluation of the finished model, with its pictures."""
        self._step = step
        values = {"loss": evaluation.loss, "accuracy": evaluation.accuracy}
        self._write({f"test_{name}": _rounded(value) for name, value in values.items()})
        self._draw("test", values)
        with write_errors(self._path.parent), self._events["test"].as_default(step):
            tf.summary.image("confusion matrix", draw_confusion(evaluation.confusion, names)[None])
            tf.summary.image("worst mistakes", draw_mistakes(evaluation, split, names)[None])

    def _write(self, entry: dict[str, Any]) -> None:
        line = {"time": round(time.time(), 3), "step": self._step} | entry
        with self._lock, storage_errors("write", self._path), self._path.open("a") as file:
            file.write(json.dumps(line) + "\n")

    def _draw(self, kind: str, values: dict[str, float]) -> None:
        with write_errors(self._path.parent), self._events[kind].as_default(self._step):
            for name, value in values.items():
                tf.summary.scalar(name, value)
            self._events[kind].flush()


def _rounded(value: float) -> float:
    return float(f"{value:.6g}")


def _rounded_all(values: dict[str, float]) -> dict[str, float]:
    return {name: _rounded(value) for name, value in values.items()}


def _lines_until(path: Path, step: int) -> bytes:
    """Return the whole lines up to a step, and what happened to tasks at any step."""
    kept = []
    with storage_errors("read", path):
        lines = path.read_bytes().splitlines() if path.exists() else []
    for line in lines:
        try:
            entry = json.loads(line)
        except ValueError:
            continue  # cut off by a kill
        if "event" in entry or (entry.get("step", step + 1) <= step and "test_loss" not in entry):
            kept.append(line + b"\n")
    return b"".join(kept)
