"""What of an object store lies on this machine to be served; the store is a directory here."""

from __future__ import annotations

import resource
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fairway.errors import FairwayError
from fairway.serve import cache as module
from fairway.serve.cache import Cache
from fairway.serve.savedmodel import SavedModel
from fairway.serve.servable import Servable
from fairway.serve.versions import State, Versions
from fairway.storage.exports import Version, version_paths
from fairway.storage.manifest import SAVED_MODEL
from tests.manifests import make_version


@pytest.fixture
def store(tmp_path: Path) -> Path:
    path = tmp_path / "store"
    path.mkdir()
    return path


@pytest.fixture
def open_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> type[Cache]:
    monkeypatch.setattr(module, "cache_path", lambda kind, uri: tmp_path / kind)
    return Cache


@pytest.fixture
def cache(store: Path, open_cache: type[Cache]) -> Iterator[Cache]:
    with open_cache(str(store)) as cache:
        yield cache


@contextmanager
def files_limited_to(size: int) -> Iterator[None]:
    """Let longer files fail as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


class Server:
    """A server with a loader that refuses some versions."""

    def __init__(self, cache: Cache) -> None:
        self.bad: set[int] = set()
        self.now = 0.0
        self.path = cache.path
        self.versions = Versions(cache.path, 1, self.load, lambda: self.now, cache)

    def load(self, version: Version) -> Servable:
        if version.number in self.bad:
            raise FairwayError("it is corrupt")
        return Servable(version.number, {}, SavedModel(version.path))

    def poll(self, times: int = 10) -> int | None:
        for _ in range(times):
            self.now += 1
            self.versions.poll()
        return self.versions.current.number if self.versions.current else None


@pytest.fixture
def server(cache: Cache) -> Server:
    return Server(cache)


def kept(cache: Cache) -> list[int]:
    return [int(path.name) for path in version_paths(cache.path)]


def test_the_newest_serves_first_and_the_one_before_is_kept(
    store: Path, cache: Cache, server: Server
) -> None:
    for number in range(1, 5):
        make_version(store, number)
    assert server.poll(1) == 4
    assert server.poll() == 4
    assert kept(cache) == [3, 4]

    make_version(store, 5)
    assert server.poll() == 5
    assert kept(cache) == [4, 5]


def test_a_rollback_in_the_store_rolls_back(store: Path, cache: Cache, server: Server) -> None:
    for number in (1, 2, 3):
        make_version(store, number)
    server.poll()
    shutil.rmtree(store / "3")
    assert server.poll() == 2
    assert kept(cache) == [1, 2]


def test_an_empty_store_is_waited_for(store: Path, server: Server) -> None:
    assert server.poll() is None
    assert server.versions.problem == f"no version in {store} yet"
    make_version(store, 1)
    assert server.poll(1) == 1


def test_an_outage_takes_nothing_down(store: Path, server: Server, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "fairway")
    make_version(store, 1)
    server.poll()
    store.rename(store.with_name("away"))
    store.write_text("no directory")
    assert server.poll() == 1
    store.unlink()
    store.with_name("away").rename(store)
    make_version(store, 2)
    assert server.poll() == 2
    assert len([message for message in caplog.messages if "cannot read" in message]) == 1
    assert len([message for message in caplog.messages if "answers again" in message]) == 1


def test_an_emptied_store_takes_nothing_down(store: Path, server: Server) -> None:
    make_version(store, 1)
    server.poll()
    shutil.rmtree(store)
    assert server.poll() == 1


def test_bad_new_versions_do_not_push_the_good_one_out(store: Path, cache: Cache, server: Server) -> None:
    for number in (1, 2):
        make_version(store, number)
    server.poll()
    server.bad = {3, 4, 5}
    for number in (3, 4, 5):
        make_version(store, number)
        assert server.poll() == 2
    assert kept(cache) == [1, 2, 4, 5]
    assert (server.versions.statuses[0].number, server.versions.statuses[0].state) == (5, State.END)

    make_version(store, 6)
    assert server.poll() == 6


def test_a_new_server_goes_back_until_one_version_serves(store: Path, cache: Cache, server: Server) -> None:
    for number in range(1, 8):
        make_version(store, number)
    server.bad = {4, 5, 6, 7}
    assert server.poll() == 3
    assert kept(cache) == [2, 3, 6, 7]


def test_a_version_that_could_not_be_fetched_is_in_the_status(store: Path, server: Server) -> None:
    make_version(store, 1)
    content = bytearray((make_version(store, 2).path / SAVED_MODEL).read_bytes())
    content[0] ^= 255
    (store / "2" / SAVED_MODEL).write_bytes(content)
    assert server.poll() == 1
    status = server.versions.statuses[0]
    assert (status.number, status.state) == (2, State.END)
    assert "is damaged" in status.error


def test_a_full_disk_is_in_the_status_and_takes_nothing_down(store: Path, server: Server) -> None:
    make_version(store, 1, size=1000)
    assert server.poll() == 1
    make_version(store, 2, size=200_000)
    with files_limited_to(100_000):
        assert server.poll() == 1
    assert "cannot write" in server.versions.statuses[0].error
    assert not list(server.path.glob(".new-*"))


def test_a_damaged_copy_is_fetched_anew(store: Path, cache: Cache, server: Server) -> None:
    make_version(store, 1)
    cache.refresh(None)
    (cache.path / "1" / SAVED_MODEL).write_bytes(b"damaged")
    assert server.poll() == 1
    assert (cache.path / "1" / SAVED_MODEL).read_bytes() == (store / "1" / SAVED_MODEL).read_bytes()


def test_a_restart_during_an_outage_serves_what_was_kept(
    store: Path, open_cache: type[Cache], caplog: pytest.LogCaptureFixture
) -> None:
    make_version(store, 1)
    with open_cache(str(store)) as cache:
        assert Server(cache).poll() == 1
    shutil.rmtree(store)
    store.write_text("no directory")
    with open_cache(str(store)) as cache:
        server = Server(cache)
        assert server.poll(1) == 1
        assert "serving what is in" in caplog.text
        assert cache.problem


def test_a_restart_serves_what_was_kept_before_it_fetches(store: Path, open_cache: type[Cache]) -> None:
    for number in (1, 2, 3):
        make_version(store, number)
    with open_cache(str(store)) as cache:
        assert Server(cache).poll() == 3
    shutil.rmtree(store / "3")
    make_version(store, 4)
    make_version(store, 5)
    with open_cache(str(store)) as cache:
        server = Server(cache)
        assert [server.poll(1), server.poll(1)] == [3, 5]


def test_a_restart_does_not_serve_what_was_withdrawn(store: Path, open_cache: type[Cache]) -> None:
    make_version(store, 1)
    make_version(store, 2)
    with open_cache(str(store)) as cache:
        assert Server(cache).poll() == 2
    shutil.rmtree(store / "2")
    with open_cache(str(store)) as cache:
        assert Server(cache).poll(1) == 1


def test_a_restart_keeps_older_versions_until_one_serves(store: Path, open_cache: type[Cache]) -> None:
    for number in (1, 2):
        make_version(store, number)
    with open_cache(str(store)) as cache:
        assert Server(cache).poll() == 2
        make_version(store, 3)
        make_version(store, 4)
    with open_cache(str(store)) as cache:
        server = Server(cache)
        server.bad = {3, 4}
        server.poll(1)
        assert kept(cache) == [1, 2]
        assert server.poll() == 2


def test_what_a_killed_server_left_is_removed_unless_another_one_is_at_work(
    store: Path, open_cache: type[Cache]
) -> None:
    with open_cache(str(store)) as first:
        (first.path / ".new-x").mkdir()
        with open_cache(str(store)):
            assert (first.path / ".new-x").is_dir()
    with open_cache(str(store)):
        assert not (first.path / ".new-x").exists()


def test_two_servers_share_the_directory(store: Path, open_cache: type[Cache]) -> None:
    for number in (1, 2):
        make_version(store, number)
    with open_cache(str(store)) as first, open_cache(str(store)) as second:
        one, two = Server(first), Server(second)
        assert (one.poll(1), two.poll(1)) == (2, 2)
        make_version(store, 3)
        assert (two.poll(), one.poll()) == (3, 3)
        assert kept(first) == [2, 3]
