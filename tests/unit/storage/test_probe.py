"""Whether a training could write to a directory."""

from __future__ import annotations

from pathlib import Path

import pytest

from fairway.storage import probe as module
from fairway.storage.probe import probe
from fairway.storage.stores.local import LocalStore
from tests.manifests import make_version


def test_a_directory_is_made_and_left_empty(tmp_path: Path) -> None:
    found = probe(str(tmp_path / "new" / "export"))
    assert (found.problem, found.versions) == ("", 0)
    assert list((tmp_path / "new" / "export").iterdir()) == []


def test_complete_versions_are_counted(tmp_path: Path) -> None:
    make_version(tmp_path, 1)
    make_version(tmp_path, 2)
    (tmp_path / "2" / "saved_model.pb").unlink()
    assert probe(str(tmp_path)).versions == 1


def test_a_directory_that_cannot_be_written_to_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    found = probe(str(tmp_path / "file" / "export"))
    assert found.problem.startswith(f"cannot write to {tmp_path}/file/export: ")
    assert found.hint == "Choose another directory."
    assert found.versions is None


def test_a_uri_of_another_kind_is_told() -> None:
    assert "unknown scheme 'ftp'" in probe("ftp://models").problem


def test_a_store_that_writes_over_what_is_there_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Careless(LocalStore):
        def create(self, key: str, data: bytes) -> None:
            self.write(key, data)

    monkeypatch.setattr(module, "open_store", lambda uri: Careless(uri, Path(uri)))
    found = probe(str(tmp_path))
    assert "writes over what is there" in found.problem
    assert "conditional writes" in found.hint
    assert list(tmp_path.iterdir()) == []


def test_a_store_that_gives_something_else_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Forgetful(LocalStore):
        def read(self, _key: str, _start: int = 0) -> bytes:
            return b""

    monkeypatch.setattr(module, "open_store", lambda uri: Forgetful(uri, Path(uri)))
    assert "gives b''" in probe(str(tmp_path)).problem
    assert list(tmp_path.iterdir()) == []
