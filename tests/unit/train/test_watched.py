"""What an evaluator understands of a model directory."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import pytest

from fairway.config import TrainSettings
from fairway.errors import StorageError
from fairway.storage.stores.store import Entry
from fairway.train.watched import Checkpoint, find_checkpoints, read_training

LEADS = TrainSettings(
    dataset="embedded",
    model_type="linear",
    train_steps=300,
    learning_rate=0.01,
    augment=False,
    precision="float32",
    data_dir="lead/data",
    model_dir="lead/model",
    export_dir="lead/export",
    peer_wait_seconds=7,
)


def config(**changes: Any) -> bytes:
    content: dict[str, Any] = {"run": "abc", "train_steps": 300, "settings": asdict(LEADS)}
    content["dataset"] = {"name": "embedded", "sha256": {"file": "00"}}
    return json.dumps(content | changes).encode()


def test_checkpoints_are_complete_with_their_last_file() -> None:
    keys = [
        "checkpoints/ckpt-00000100.index",
        "checkpoints/ckpt-00000100.data-00000-of-00001",
        "checkpoints/ckpt-00000200.data-00000-of-00001",
        "checkpoints/ckpt-00000300_temp/part-00000-of-00001.index",
        "checkpoints/ckpt-00000400.json",
        "checkpoints/1a2b3c4d/ckpt-00000500.index",
        "checkpoints/ckpt-.index",
        "checkpoints/ckpt-00000600.index.tmp",
    ]
    found = find_checkpoints(Entry(key, 1, 0.0, f"tag {number}") for number, key in enumerate(keys))
    assert found == {Checkpoint(100, "tag 0"), Checkpoint(400, "tag 4")}


def test_the_training_is_the_leads_and_the_directories_are_ones_own() -> None:
    mine = TrainSettings(data_dir="mine/data", model_dir="mine/model", export_dir="mine/export")
    training = read_training(config(), mine)
    assert (training.run, training.total, training.dataset["sha256"]) == ("abc", 300, {"file": "00"})
    settings = training.settings
    assert (settings.dataset, settings.model_type, settings.precision) == ("embedded", "linear", "float32")
    assert (settings.data_dir, settings.model_dir, settings.export_dir, settings.peer_wait_seconds) == (
        *("mine/data", "mine/model", "mine/export"),
        300,
    )


@pytest.mark.parametrize(("mine", "total"), [(None, 300), (200, 300), (400, 400)])
def test_the_larger_number_of_steps_counts(mine: int | None, total: int) -> None:
    """The lead may yet be about to write that it trains on."""
    assert read_training(config(), TrainSettings(train_steps=mine)).total == total


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b'{"run": "ab',
        b"[]",
        b"null",
        b"{}",
        config(settings={}),
        config(settings=[]),
        config(train_steps=None),
        config(dataset=None),
        config(dataset=3),
    ],
)
def test_a_damaged_config_is_explained(content: bytes) -> None:
    with pytest.raises(StorageError, match=r"config\.json in mnist/model is damaged"):
        read_training(content, TrainSettings())
