"""Copies of files of a store; the store is a directory here."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

import pytest

from fairway.errors import StorageError
from fairway.storage import cache as module
from fairway.storage.cache import cache_path, local_copy
from fairway.storage.stores.local import LocalStore
from fairway.storage.stores.store import Entry

URI = "s3://bucket/some/data"


class Store(LocalStore):
    """A directory that can be away, and remembers what was fetched."""

    def __init__(self, path: Path) -> None:
        super().__init__(URI, path)
        self.fetched: list[str] = []
        self.away = self.broken = False

    def list(self, prefix: str = "") -> list[Entry]:
        if self.away:
            raise StorageError("it is away")
        return super().list(prefix)

    def download(self, key: str, target: Path, *rest: object) -> None:
        self.fetched.append(key)
        super().download(key, target)
        if self.broken:
            target.write_bytes(b"half")
            raise StorageError("it breaks off")


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    store = Store(tmp_path / "store")
    monkeypatch.setattr(module, "open_store", lambda uri: store)
    return store


def choose(names: Collection[str]) -> list[str]:
    return sorted(name for name in names if name in ("a", "b"))


def copies() -> dict[str, bytes]:
    directory = local_copy(URI, choose)
    return {path.name: path.read_bytes() for path in directory.iterdir() if not path.name.startswith(".")}


def test_a_directory_of_this_machine_is_itself(tmp_path: Path) -> None:
    assert local_copy(str(tmp_path), choose) == tmp_path
    assert local_copy(f"file://{tmp_path}", choose) == tmp_path


def test_only_what_is_needed_and_has_changed_is_fetched(store: Store) -> None:
    for name in ("a", "b", "c"):
        store.write(name, b"1")
    assert copies() == {"a": b"1", "b": b"1"}
    assert copies() == {"a": b"1", "b": b"1"}
    assert sorted(store.fetched) == ["a", "b"]

    store.write("b", b"2")
    assert copies() == {"a": b"1", "b": b"2"}
    assert sorted(store.fetched) == ["a", "b", "b"]


def test_what_is_needed_no_more_goes(store: Store) -> None:
    store.write("a", b"1")
    store.write("b", b"1")
    copies()
    store.delete(["a"])
    assert copies() == {"b": b"1"}
    store.delete(["b"])
    assert copies() == {}


def test_a_short_or_missing_copy_is_fetched_again(store: Store) -> None:
    store.write("a", b"12")
    directory = local_copy(URI, choose)
    (directory / "a").write_bytes(b"1")
    assert copies() == {"a": b"12"}
    (directory / "a").unlink()
    assert copies() == {"a": b"12"}


@pytest.mark.parametrize("index", [b"", b"[]", b'{"a": 1}', b"\xff"])
def test_a_damaged_index_costs_a_fetch(store: Store, index: bytes) -> None:
    store.write("a", b"1")
    (local_copy(URI, choose) / ".copied.json").write_bytes(index)
    assert copies() == {"a": b"1"}
    assert store.fetched == ["a", "a"]


def test_during_an_outage_complete_copies_serve(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    store.write("a", b"1")
    store.away = True
    with pytest.raises(StorageError, match="it is away"):
        copies()
    store.away = False
    directory = local_copy(URI, choose)
    store.away = True
    assert copies() == {"a": b"1"}
    assert "it is away; going on with the copies" in caplog.text
    (directory / "a").unlink()
    with pytest.raises(StorageError, match="it is away"):
        copies()


def test_a_fetch_that_breaks_off_leaves_what_was_there(store: Store) -> None:
    store.write("a", b"1")
    copies()
    store.write("a", b"22")
    store.broken = True
    assert copies() == {"a": b"1"}
    store.broken = False
    assert copies() == {"a": b"22"}


def test_a_fetch_that_breaks_off_leaves_what_the_new_files_replace(store: Store) -> None:
    def either(names: Collection[str]) -> list[str]:
        return [name for name in ("b", "a") if name in names][:1]

    store.write("a", b"1")
    directory = local_copy(URI, either)
    store.delete(["a"])
    store.write("b", b"2")
    store.broken = True
    local_copy(URI, either)
    assert (directory / "a").read_bytes() == b"1"
    store.broken = False
    local_copy(URI, either)
    assert not (directory / "a").exists()
    assert (directory / "b").read_bytes() == b"2"


def test_half_replaced_copies_serve_in_no_outage(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "b"):
        store.write(name, b"1")
    copies()
    for name in ("a", "b"):
        store.write(name, b"2")
    real = Path.replace

    def killed(path: Path, target: Path) -> Path:
        if target.name == "b":
            raise KeyboardInterrupt
        return real(path, target)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Path, "replace", killed)
        copies()
    store.away = True
    with pytest.raises(StorageError, match="it is away"):
        copies()
    store.away = False
    assert copies() == {"a": b"2", "b": b"2"}


def test_each_uri_at_each_server_has_its_own_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    first = cache_path("served", URI)
    assert first.parent == tmp_path / "fairway" / "served"
    assert first.name.startswith("bucket-some-data-")
    assert cache_path("served", f"{URI}/") == first
    others = {cache_path("served", "s3://bucket/some-data"), cache_path("served", "gs://bucket/some/data")}
    monkeypatch.setenv("S3_ENDPOINT", "localhost:9000")
    others.add(cache_path("served", URI))
    assert len({first, *others}) == 4
    assert os.sep not in first.name
