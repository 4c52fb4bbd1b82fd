"""`fairway init`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.unit.cli.conftest import Run


def test_an_app_is_made(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert run("init", "mnist") == (0, "mnist/fairway.yaml\n", "")
    text = (tmp_path / "mnist" / "fairway.yaml").read_text()
    assert "name: mnist\n" in text
    assert "pvcName: mnist-model\n" in text
    assert (tmp_path / "mnist" / "environments").is_dir()
    monkeypatch.chdir(tmp_path / "mnist")
    part = {line.split()[0] for line in run("component", "list").out.splitlines() if line.endswith("yes")}
    assert part == {"storage", "train", "mnist-deploy-pvc", "mnist-service", "tensorboard", "web-ui"}


def test_a_name_of_its_own(run: Run, tmp_path: Path) -> None:
    assert run("init", str(tmp_path / "a"), "--name", "digits").code == 0
    assert "name: digits\n" in (tmp_path / "a" / "fairway.yaml").read_text()
    bad = run("init", str(tmp_path / "b"), "--name", "My App")
    assert (bad.code, bad.out) == (2, "")
    assert "an app cannot have that name: 'My App' is not a name of small letters" in bad.err
    assert not (tmp_path / "b").exists()


def test_what_was_made_is_printed_for_programs(run: Run, tmp_path: Path) -> None:
    made = run("init", str(tmp_path / "a"), "--name", "digits", "-o", "json")
    assert json.loads(made.out) == {"name": "digits", "path": str(tmp_path / "a" / "fairway.yaml")}


def test_an_app_is_not_written_over(run: Run, root: Path) -> None:
    again = run("init", str(root))
    assert again.code == 1
    assert "there is an app already" in again.err


def test_here(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "digits").mkdir()
    monkeypatch.chdir(tmp_path / "digits")
    assert run("init", ".") == (0, "fairway.yaml\n", "")
    assert "name: digits\n" in Path("fairway.yaml").read_text()
