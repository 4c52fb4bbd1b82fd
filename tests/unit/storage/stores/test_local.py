"""What only a disk can do to a store."""

from __future__ import annotations

from pathlib import Path

import pytest

from fairway.errors import StorageError
from fairway.storage.stores.uri import open_store


def test_directory_that_cannot_be_read_is_not_an_empty_one(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(StorageError, match="cannot read .*loop"):
        open_store(str(tmp_path / "loop")).list()


def test_directory_that_is_a_file_has_no_files(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert open_store(str(tmp_path / "file")).list() == []
