"""Files of an object store for the page: few requests, no waiting, no errors."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from fairway.errors import StorageError, UsageError
from fairway.storage.stores.local import LocalStore
from fairway.storage.stores.store import Entry
from fairway.web import files as module
from fairway.web.files import FRESH_S, Files


class Store(LocalStore):
    """A directory that counts what is asked of it, and can be away or slow."""

    def __init__(self, path: Path) -> None:
        super().__init__("s3://bucket/model", path)
        self.stats = self.reads = 0
        self.error = ""
        self.open = threading.Event()
        self.open.set()

    def stat(self, key: str) -> Entry | None:
        self.stats += 1
        assert self.open.wait(30)
        if self.error:
            raise StorageError(self.error)
        return super().stat(key)

    def read(self, key: str, start: int = 0) -> bytes:
        self.reads += 1
        return super().read(key, start)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    store = Store(tmp_path)
    monkeypatch.setattr(module, "open_store", lambda uri: store)
    return store


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def files(store: Store, clock: Clock) -> Files:
    return Files("s3://bucket/model", clock)


def content(files: Files) -> bytes | None:
    file = files.read("key")
    return file.content if file else None


def test_a_disk_is_read_each_time(tmp_path: Path) -> None:
    files = Files(str(tmp_path))
    assert content(files) is None
    (tmp_path / "key").write_bytes(b"1")
    assert content(files) == b"1"
    (tmp_path / "key").write_bytes(b"2")
    assert content(files) == b"2"
    file = files.read("key")
    assert file is not None
    assert file.entry.modified == (tmp_path / "key").stat().st_mtime


def test_polls_of_visitors_are_not_requests(store: Store, files: Files, clock: Clock) -> None:
    store.write("key", b"1")
    assert {content(files) for _ in range(20)} == {b"1"}
    assert (store.stats, store.reads) == (1, 1)
    clock.now += FRESH_S + 1
    assert content(files) == b"1"
    assert (store.stats, store.reads) == (2, 1)
    store.write("key", b"22")
    clock.now += FRESH_S + 1
    assert content(files) == b"22"
    assert (store.stats, store.reads) == (3, 2)


def test_what_is_not_there_may_come_and_go(store: Store, files: Files, clock: Clock) -> None:
    assert content(files) is None
    store.write("key", b"1")
    clock.now += FRESH_S + 1
    assert content(files) == b"1"
    store.delete(["key"])
    clock.now += FRESH_S + 1
    assert content(files) is None


def test_an_outage_is_logged_once_and_what_was_known_is_shown(
    store: Store, files: Files, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    store.write("key", b"1")
    content(files)
    store.error = "it is away"
    for _ in range(3):
        clock.now += FRESH_S + 1
        assert content(files) == b"1"
    assert caplog.text.count("it is away") == 1
    store.error = ""
    store.write("key", b"22")
    clock.now += FRESH_S + 1
    assert content(files) == b"22"


def test_a_slow_store_keeps_a_visitor_waiting_once(
    store: Store, files: Files, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PATIENCE_S", 0.01)
    store.write("key", b"1")
    store.open.clear()
    for _ in range(3):
        assert content(files) is None
        clock.now += FRESH_S + 1
    assert store.stats == 1
    store.open.set()
    assert files._known["key"].answered.wait(30)
    assert content(files) == b"1"


def test_nonsense_is_refused_at_the_start() -> None:
    with pytest.raises(UsageError, match="unknown scheme"):
        Files("http://bucket/model")
