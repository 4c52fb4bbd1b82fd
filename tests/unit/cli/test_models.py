"""`fairway models` on exports of a few bytes."""

import json
from pathlib import Path

import pytest

from fairway.cli.models import list_, show
from fairway.config import ModelsSettings
from fairway.errors import StorageError
from fairway.storage.manifest import MANIFEST, SAVED_MODEL, describe_files
from tests.manifests import make_manifest


def export(directory: Path, number: int) -> Path:
    path = directory / str(number)
    path.mkdir(parents=True)
    (path / SAVED_MODEL).write_bytes(b"x" * 1500)
    (path / MANIFEST).write_bytes(make_manifest(files=describe_files(path)).to_json())
    return path


def settings(directory: Path, output: str = "table") -> ModelsSettings:
    return ModelsSettings(export_dir=str(directory), output="json" if output == "json" else "table")


def test_the_list_says_what_each_version_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    export(tmp_path, 1)
    (export(tmp_path, 2) / SAVED_MODEL).unlink()
    (tmp_path / "3").mkdir()
    (tmp_path / "3" / SAVED_MODEL).touch()

    list_(settings(tmp_path))

    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == [
        "VERSION",
        "CREATED",
        "MODEL",
        "TYPE",
        "DATASET",
        "TEST",
        "ACCURACY",
        "STEP",
        "SIZE",
        "STATE",
    ]
    assert lines[1][:6] == ["1", "2026-01-01T00:00:00+00:00", "cnn", "mnist", "99.12%", "468"]
    assert lines[1][-1] == "complete"
    assert lines[2][-3:] == [SAVED_MODEL, "is", "missing"]
    assert lines[3][:3] == ["3", "-", "-"]


def test_the_list_for_programs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    export(tmp_path, 1)

    list_(settings(tmp_path, "json"))

    (row,) = json.loads(capsys.readouterr().out)
    assert row["version"] == 1
    assert row["test_accuracy"] == 0.9912
    assert row["size_bytes"] > 1500


def test_an_export_directory_that_is_not_there_has_no_versions(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    list_(settings(tmp_path / "none", "json"))

    assert json.loads(capsys.readouterr().out) == []


def test_show_takes_the_newest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    export(tmp_path, 1)
    export(tmp_path, 2)

    show(settings=settings(tmp_path, "json"))
    record = json.loads(capsys.readouterr().out)
    assert (record["version"], record["damaged"], record["dataset"]["train_images"]) == (2, [], 60000)

    show(1, settings=settings(tmp_path))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "version: 1"
    assert "  train_images: 60000" in lines


def test_show_compares_the_checksums(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = export(tmp_path, 1)
    (path / SAVED_MODEL).write_bytes(b"y" * 1500)

    with pytest.raises(StorageError, match=f"version 1 is damaged: wrong checksum of {SAVED_MODEL}"):
        show(settings=settings(tmp_path))

    assert f'damaged: ["{SAVED_MODEL}"]' in capsys.readouterr().out


def test_show_of_a_version_that_is_not_there(tmp_path: Path) -> None:
    export(tmp_path, 1)

    with pytest.raises(StorageError, match="version 7 not found in .*; have: 1"):
        show(7, settings=settings(tmp_path))
