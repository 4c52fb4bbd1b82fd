"""The layout of an export directory: which versions are there, and which can be used."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from fairway.errors import StorageError
from fairway.storage.exports import (
    Catalog,
    damaged_files,
    find_version,
    list_versions,
    next_version,
    version_paths,
)
from fairway.storage.manifest import MANIFEST, SAVED_MODEL, describe_files
from fairway.storage.stores.uri import open_store
from tests.manifests import make_manifest


def make_version(export_dir: Path, number: int) -> Path:
    path = export_dir / str(number)
    (path / "variables").mkdir(parents=True)
    (path / SAVED_MODEL).write_bytes(b"model")
    (path / "variables" / "data").write_bytes(b"weights")
    (path / MANIFEST).write_bytes(make_manifest(files=describe_files(path)).to_json())
    return path


def test_versions_are_sorted_by_number_and_strangers_ignored(tmp_path: Path) -> None:
    for number in (10, 9, 100):
        make_version(tmp_path, number)
    (tmp_path / ".new-x").mkdir()
    (tmp_path / "notes").touch()
    (tmp_path / "15").touch()
    assert [version.number for version in list_versions(tmp_path)] == [9, 10, 100]
    assert find_version(tmp_path).number == 100
    assert find_version(tmp_path, 9).manifest == make_manifest(files=describe_files(tmp_path / "9"))


def test_file_named_as_the_manifest_below_it_belongs_to_the_version(tmp_path: Path) -> None:
    (make_version(tmp_path, 1) / "assets").mkdir()
    (tmp_path / "1" / "assets" / MANIFEST).write_bytes(b"x")
    assert f"assets/{MANIFEST}" in describe_files(tmp_path / "1")
    assert MANIFEST not in describe_files(tmp_path / "1")


def test_manifest_that_is_listed_before_it_can_be_read(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    listed = Catalog(store).from_entries
    path = make_version(tmp_path, 1) / MANIFEST
    entries = store.list()
    hidden = path.rename(tmp_path / "hidden")
    assert [version.problem for version in listed(entries)] == [f"no {MANIFEST}"]
    hidden.rename(path)
    assert [version.problem for version in listed(entries)] == [""]


def test_missing_directory_has_no_versions(tmp_path: Path) -> None:
    assert list_versions(tmp_path / "none") == []
    with pytest.raises(StorageError, match="no model in"):
        find_version(tmp_path / "none")


def test_a_directory_that_must_exist(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="none: it does not exist"):
        version_paths(tmp_path / "none", must_exist=True)
    assert version_paths(tmp_path, must_exist=True) == []


@pytest.mark.parametrize("name", ["tflite", "signatures", "files"])
def test_a_part_of_the_manifest_that_is_of_another_kind(tmp_path: Path, name: str) -> None:
    path = make_version(tmp_path, 1) / MANIFEST
    path.write_text(json.dumps(json.loads(path.read_text()) | {name: "x"}))
    (version,) = list_versions(tmp_path)
    assert version.problem == f"{MANIFEST} cannot be read: not a manifest: {name} is no object"


def test_missing_short_and_changed_files_are_found(tmp_path: Path) -> None:
    path = make_version(tmp_path, 1)
    (path / "variables" / "data").write_bytes(b"WEIGHTS")
    version = find_version(tmp_path)
    assert damaged_files(version) == ["variables/data"]
    (path / "variables" / "data").write_bytes(b"w")
    assert list_versions(tmp_path)[0].problem == "variables/data has 1 bytes instead of 7"
    (path / "variables" / "data").unlink()
    assert list_versions(tmp_path)[0].problem == "variables/data is missing"
    with pytest.raises(StorageError, match="version 1 in .* is damaged"):
        find_version(tmp_path, 1)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"workload": 1}', b"null", b"\xff"])
def test_damaged_manifest_is_a_problem_not_a_crash(tmp_path: Path, content: bytes) -> None:
    (make_version(tmp_path, 1) / MANIFEST).write_bytes(content)
    assert "cannot be read" in list_versions(tmp_path)[0].problem


def test_model_of_another_program_needs_its_saved_model(tmp_path: Path) -> None:
    (tmp_path / "1").mkdir()
    assert list_versions(tmp_path)[0].problem == "no saved_model.pb"
    (tmp_path / "1" / SAVED_MODEL).touch()
    assert list_versions(tmp_path)[0].problem == ""


def test_unknown_keys_of_a_newer_manifest_are_ignored(tmp_path: Path) -> None:
    path = make_version(tmp_path, 1) / MANIFEST
    content = json.loads(path.read_bytes()) | {"colour": "red"}
    path.write_text(json.dumps(content))
    assert find_version(tmp_path).problem == ""


def test_next_version_is_the_time_and_always_rises(tmp_path: Path) -> None:
    assert abs(next_version(tmp_path) - time.time()) < 5
    make_version(tmp_path, 99_999_999_999)
    assert next_version(tmp_path) == 100_000_000_000
    with pytest.raises(StorageError, match="version 7 not found in .*; have: 99999999999"):
        find_version(tmp_path, 7)
