"""Event files that come, grow, are replaced and go, as TensorBoard is to find them on a disk."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import BinaryIO

import pytest

from fairway.errors import StorageError
from fairway.storage.files import ABANDONED_S
from fairway.storage.follow import Follower, follow
from fairway.storage.stores.local import LocalStore
from fairway.storage.stores.store import Count, Entry

NAME = "run/events.out.tfevents.1.host"


class Store(LocalStore):
    """A directory that remembers what was read of it, and lists what it is told to."""

    def __init__(self, path: Path) -> None:
        super().__init__(str(path), path)
        self.read_from: list[int] = []
        self.downloads = 0
        self.more: list[Entry] = []
        self.away = False

    def list(self, prefix: str = "") -> list[Entry]:
        if self.away:
            raise StorageError("it is away")
        return super().list(prefix) + self.more

    def read(self, key: str, start: int = 0) -> bytes:
        self.read_from.append(start)
        return super().read(key, start)

    def download(self, key: str, target: Path, *rest: object) -> None:
        self.downloads += 1
        super().download(key, target)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def local(tmp_path: Path) -> Path:
    path = tmp_path / "local"
    path.mkdir()
    return path


@pytest.fixture
def follower(store: Store, local: Path) -> Follower:
    return Follower(store, local)


def look(follower: Follower) -> int:
    """Look once; return how many files have changed."""
    changed = follower.look()
    follower.bring(changed)
    return len(changed)


def files(local: Path) -> dict[str, bytes]:
    return {
        path.relative_to(local).as_posix(): path.read_bytes() for path in local.rglob("*") if path.is_file()
    }


def opened(local: Path) -> BinaryIO:
    return (local / NAME).open("rb")


def test_event_files_come_under_their_own_names_and_nothing_else_does(
    store: Store, follower: Follower, local: Path
) -> None:
    for key in (NAME, "a/b/c/x.tfevents.y", "metrics.jsonl", "tfevents/checkpoint", "run/notes"):
        store.write(key, key.encode())
    assert look(follower) == 2
    assert files(local) == {key: key.encode() for key in (NAME, "a/b/c/x.tfevents.y")}
    assert look(follower) == 0
    assert store.downloads == 2


def test_a_growing_file_is_appended_to_where_it_is(store: Store, follower: Follower, local: Path) -> None:
    store.write(NAME, b"one ")
    look(follower)
    with opened(local) as reader:
        assert reader.read() == b"one "
        store.write(NAME, b"one two ")
        look(follower)
        assert reader.read() == b"two "
        store.write(NAME, b"one two three")
        look(follower)
        assert reader.read() == b"three"
    assert store.read_from == [4, 8]
    assert store.downloads == 1


def test_a_replaced_file_is_written_anew(store: Store, follower: Follower, local: Path) -> None:
    for content in (b"first", b"2nd", b"3rd"):
        store.write(NAME, content)
        look(follower)
        assert files(local) == {NAME: content}


def test_new_runs_appear_and_deleted_ones_go(store: Store, follower: Follower, local: Path) -> None:
    store.write(NAME, b"1")
    look(follower)
    store.write("other/deep/tfevents", b"2")
    look(follower)
    assert files(local).keys() == {NAME, "other/deep/tfevents"}
    store.delete(["other/deep/tfevents"])
    look(follower)
    assert [path.name for path in local.iterdir()] == ["run"]


@pytest.mark.parametrize(
    "key",
    ["../tfevents", "/tfevents", "a/../../tfevents", "a//tfevents", "./tfevents", "x" * 300 + "tfevents"],
)
def test_a_key_that_is_no_name_here_is_refused(
    store: Store, follower: Follower, local: Path, tmp_path: Path, key: str
) -> None:
    store.write(NAME, b"1")
    store.more = [Entry(key, 3, 0.0, "tag")]
    assert look(follower) == 1
    assert files(local).keys() == {NAME}
    assert {path.name for path in tmp_path.iterdir()} == {"store", "local"}


def test_a_file_deleted_since_it_was_listed_is_passed_over(
    store: Store, follower: Follower, local: Path
) -> None:
    store.more = [Entry("gone/tfevents", 3, 0.0, "tag")]
    look(follower)
    assert files(local) == {}


def test_a_file_that_another_one_takes_for_a_directory_hinders_no_other(
    store: Store, follower: Follower, local: Path
) -> None:
    store.write(NAME, b"1")
    store.more = [Entry(f"{NAME}/tfevents", 1, 0.0, "tag")]
    look(follower)
    assert files(local) == {NAME: b"1"}


def test_an_outage_is_said_once_and_shows_what_there_is(
    store: Store, local: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "fairway")
    store.write(NAME, b"1")
    follower = Follower(store, local, interval_s=0.001)
    look(follower)
    store.away = True
    follower.start()
    wait_for(lambda: "it is away" in caplog.text)
    store.write(NAME, b"12")
    store.away = False
    wait_for(lambda: files(local) == {NAME: b"12"})
    wait_for(lambda: "answers again" in caplog.text)
    follower.stop()
    assert caplog.text.count("it is away") == 1


def test_a_stop_ends_what_is_being_fetched(
    store: Store, follower: Follower, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, ended = threading.Event(), threading.Semaphore(0)

    def download(key: str, target: Path, count: Count) -> None:
        begun.set()
        try:
            for _ in range(1000):
                count(1)
                time.sleep(0.01)
        finally:
            ended.release()

    monkeypatch.setattr(store, "download", download)
    monkeypatch.setattr(follower, "_interval_s", 0.001)
    for key in (NAME, "other/tfevents"):
        store.write(key, b"1")
    follower.start()
    assert begun.wait(10)
    follower.stop()
    assert all(ended.acquire(timeout=2) for _ in range(2))


def test_the_directory_is_temporary(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    store.write(NAME, b"1")
    with follow(store) as directory:
        assert files(directory) == {NAME: b"1"}
    assert not directory.exists()
    store.away = True
    with pytest.raises(StorageError, match="it is away"), follow(store):
        pass
    assert not list(directory.parent.iterdir())


def test_a_directory_in_use_never_seems_abandoned(store: Store, follower: Follower, local: Path) -> None:
    then = time.time() - 2 * ABANDONED_S
    os.utime(local, (then, then))
    look(follower)
    assert time.time() - local.stat().st_mtime < ABANDONED_S / 2


def wait_for(condition: object) -> None:
    assert callable(condition)
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)
