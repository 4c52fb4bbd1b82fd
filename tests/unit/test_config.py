"""Settings: one definition gives flag, environment variable, default and bounds."""

from __future__ import annotations

import math
import subprocess
import sys
from dataclasses import fields
from typing import Any

import pytest

from fairway.config import Range, ServeSettings, TrainSettings, as_flags, cache_dir
from fairway.errors import UsageError


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"train_steps": 0}, "train_steps is 0, but must be at least 1"),
        ({"train_steps": -5}, "train_steps is -5, but must be at least 1"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"learning_rate": math.nan}, "learning_rate is nan, but must be above 0 and at most 10"),
        ({"learning_rate": math.inf}, "learning_rate is inf"),
        ({"learning_rate": 0.0}, "learning_rate is 0.0"),
        ({"seed": -1}, "seed is -1"),
        ({"checkpoint_steps": 0}, "checkpoint_steps is 0"),
    ],
)
def test_value_outside_its_range_is_named(settings: dict[str, float], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        TrainSettings(**settings)  # type: ignore[arg-type]
    assert message in caught.value.message
    assert "TF_" in caught.value.hint


def test_bounds_themselves_are_allowed() -> None:
    assert TrainSettings(train_steps=1, learning_rate=10, seed=0).train_steps == 1
    assert ServeSettings(rest_api_port=65535).rest_api_port == 65535
    with pytest.raises(UsageError, match="65536"):
        ServeSettings(rest_api_port=65536)


@pytest.mark.parametrize("name", ["model_name", "model_base_path"])
def test_the_served_model_has_a_name_and_a_place(name: str) -> None:
    empty: dict[str, Any] = {name: ""}
    with pytest.raises(UsageError, match=f"{name} is empty") as caught:
        ServeSettings(**empty)
    assert f"--{name} or TF_{name.upper()}" in caught.value.hint
    ServeSettings(model_config_file="models.config", **empty)


def test_range_reads_as_a_sentence() -> None:
    assert str(Range(minimum=1)) == "at least 1"
    assert str(Range(above=0, maximum=10)) == "above 0 and at most 10"


def test_flags_of_settings_give_the_same_settings() -> None:
    settings = TrainSettings(train_steps=7, augment=False, data_dir="a b")
    assert as_flags(settings, "train_steps", "augment", "data_dir", "learning_rate") == [
        *("--train-steps", "7", "--no-augment", "--data-dir", "a b"),
    ]


def test_without_names_every_setting_becomes_a_flag() -> None:
    settings = TrainSettings()
    given = {field.name: getattr(settings, field.name) for field in fields(settings)}
    words = iter(as_flags(settings))
    for name, value in given.items():
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            assert next(words) == (f"--{flag}" if value else f"--no-{flag}")
        elif value is not None:
            assert [next(words), next(words)] == [f"--{flag}", str(value)]
    assert not list(words)


def test_cache_follows_xdg(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert str(cache_dir()) == "/somewhere/fairway"
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    assert cache_dir().parts[-2:] == (".cache", "fairway")


def test_package_and_help_load_nothing_heavy() -> None:
    code = """
import sys
import fairway
sys.argv = ["fairway", "--help"]
try:
    from fairway.cli import main
    main()
except SystemExit as end:
    assert end.code == 0, end.code
heavy = {"tensorflow", "keras", "tensorboard", "numpy", "PIL", "httpx", "starlette", "uvicorn", "lightkube"}
heavy |= {"boto3", "botocore", "google", "httpx2", "rjsonnet"}
print("loaded:", sorted(heavy & set(sys.modules)))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert "loaded: []" in done.stdout
