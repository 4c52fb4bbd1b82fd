"""Flags of `fairway up`: some are for this machine, some for a cluster."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fairway.cli import build_app
from fairway.config import DataSettings, TrainSettings, flags_given
from fairway.deploy.settings import ClusterUpSettings
from fairway.deploy.target import Target
from fairway.errors import UsageError
from tests.unit.deploy.fake import APP


def call(*words: str) -> Any:
    return build_app()(["up", *words], exit_on_error=False, result_action="return_value")


@pytest.mark.parametrize(
    "words",
    [("--replace",), ("--create-namespace",), ("--set", "train.trainSteps=1")],
    ids="".join,
)
def test_flags_for_a_cluster_need_an_environment(words: tuple[str, ...]) -> None:
    with pytest.raises(UsageError, match=f"^{words[0]} is for a cluster") as refused:
        call(*words)
    assert refused.value.hint == f"Write: fairway up ENV {words[0]} …"


def test_settings_of_a_training_are_params_on_a_cluster() -> None:
    with pytest.raises(UsageError, match="^--train-steps is for a training on this machine") as refused:
        call("dev", "--train-steps", "3")
    assert "fairway param set --env=dev train trainSteps 3" in refused.value.hint


def test_the_environment_variables_of_this_machine_do_not_count_on_a_cluster(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "environments").mkdir()
    (tmp_path / "environments" / "dev.yaml").touch()
    (tmp_path / "fairway.yaml").write_text(APP)
    called: list[tuple[Target, ClusterUpSettings]] = []

    def run(target: Target, settings: ClusterUpSettings) -> int:
        called.append((target, settings))
        return 130

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TF_TRAIN_STEPS", "5")
    monkeypatch.setenv("FAIRWAY_DATA_URL", "http://127.0.0.1:9")
    monkeypatch.setattr("fairway.deploy.verbs.up.run", run)
    assert call("dev", "--set", "train.trainSteps=7", "--web-port", "0") == 130
    ((target, settings),) = called
    assert settings.web_port == 0
    train = target.first("train")
    assert train is not None
    assert train.values["trainSteps"].read == 7


def test_flags_are_told_from_defaults_and_environment_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    assert flags_given(TrainSettings()) == []
    assert flags_given(TrainSettings(train_steps=3, seed=1)) == ["train_steps", "seed"]
    monkeypatch.setenv("TF_TRAIN_STEPS", "3")
    assert flags_given(TrainSettings(train_steps=3, seed=1)) == ["seed"]
    monkeypatch.setenv("FAIRWAY_DATA_URL", "http://x")
    assert flags_given(DataSettings(data_url="http://x")) == []
