"""What of an object store lies on this machine to be served; the store is a directory here."""

from __future__ import annotations

import resource
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fairway.errors import FairwayError
from fairway.serve.versions import cache as module
from fairway.serve.versions.cache import Cache
from fairway.storage.exports import version_paths
from fairway.storage.manifest import SAVED_MODEL
from fairway.tfs.configs import All, Latest, ModelConfig, Specific
from fairway.tfs.versions import State
from tests.manifests import make_version
from tests.unit.serve.fakes import FakeBackend, OneModel


@pytest.fixture
def store(tmp_path: Path) -> Path:
    path = tmp_path / "store"
    path.mkdir()
    return path


Open = Callable[..., Cache]


@pytest.fixture
def open_cache(tmp_path: Path, store: Path, monkeypatch: pytest.MonkeyPatch) -> Open:
    monkeypatch.setattr(module, "cache_path", lambda *words: tmp_path / "-".join((words[0], *words[2:])))

    def open_cache(policy: Latest | All | Specific = Latest(), name: str = "m") -> Cache:  # noqa: B008
        return Cache(ModelConfig(name, str(store), policy, {}))

    return open_cache


@pytest.fixture
def cache(open_cache: Open) -> Iterator[Cache]:
    with open_cache() as cache:
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
    """A server with a backend that refuses some versions."""

    def __init__(self, cache: Cache, policy: Latest | All | Specific = Latest()) -> None:  # noqa: B008
        self.backend = FakeBackend()
        self.path = cache.path
        self.model = OneModel(self.backend, cache.path, policy, cache=cache)

    @property
    def bad(self) -> set[int]:
        """The versions that it refuses."""
        return set(self.backend.broken)

    @bad.setter
    def bad(self, numbers: set[int]) -> None:
        self.backend.broken = {number: FairwayError("it is corrupt") for number in numbers}

    def poll(self, times: int = 10) -> int | None:
        """Look so many times and return the newest version that serves."""
        return next(iter(self.poll_all(times)), None)

    def poll_all(self, times: int = 10) -> tuple[int, ...]:
        """Look so many times and return the versions that serve."""
        for _ in range(times):
            self.backend.now += 1
            serving = self.model.poll()
        return serving


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
    assert server.model.table.problem == f"no version in {store} yet"
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
    assert (server.model.table.statuses[0].number, server.model.table.statuses[0].state) == (5, State.END)

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
    status = server.model.table.statuses[0]
    assert (status.number, status.state) == (2, State.END)
    assert "is damaged" in status.error


def test_a_full_disk_is_in_the_status_and_takes_nothing_down(store: Path, server: Server) -> None:
    make_version(store, 1, size=1000)
    assert server.poll() == 1
    make_version(store, 2, size=200_000)
    with files_limited_to(100_000):
        assert server.poll() == 1
    assert "cannot write" in server.model.table.statuses[0].error
    assert not list(server.path.glob(".new-*"))


def test_a_damaged_copy_is_fetched_anew(store: Path, cache: Cache, server: Server) -> None:
    make_version(store, 1)
    cache.refresh(())
    (cache.path / "1" / SAVED_MODEL).write_bytes(b"damaged")
    assert server.poll() == 1
    assert (cache.path / "1" / SAVED_MODEL).read_bytes() == (store / "1" / SAVED_MODEL).read_bytes()


def test_a_restart_during_an_outage_serves_what_was_kept(
    store: Path, open_cache: Open, caplog: pytest.LogCaptureFixture
) -> None:
    make_version(store, 1)
    with open_cache() as cache:
        assert Server(cache).poll() == 1
    shutil.rmtree(store)
    store.write_text("no directory")
    with open_cache() as cache:
        server = Server(cache)
        assert server.poll(1) == 1
        assert "serving what is in" in caplog.text
        assert cache.problem


def test_a_restart_serves_what_was_kept_before_it_fetches(store: Path, open_cache: Open) -> None:
    for number in (1, 2, 3):
        make_version(store, number)
    with open_cache() as cache:
        assert Server(cache).poll() == 3
    shutil.rmtree(store / "3")
    make_version(store, 4)
    make_version(store, 5)
    with open_cache() as cache:
        server = Server(cache)
        assert [server.poll(1), server.poll(1)] == [3, 5]


def test_a_restart_does_not_serve_what_was_withdrawn(store: Path, open_cache: Open) -> None:
    make_version(store, 1)
    make_version(store, 2)
    with open_cache() as cache:
        assert Server(cache).poll() == 2
    shutil.rmtree(store / "2")
    with open_cache() as cache:
        assert Server(cache).poll(1) == 1


def test_a_restart_keeps_older_versions_until_one_serves(store: Path, open_cache: Open) -> None:
    for number in (1, 2):
        make_version(store, number)
    with open_cache() as cache:
        assert Server(cache).poll() == 2
        make_version(store, 3)
        make_version(store, 4)
    with open_cache() as cache:
        server = Server(cache)
        server.bad = {3, 4}
        server.poll(1)
        assert kept(cache) == [1, 2]
        assert server.poll() == 2


def test_what_a_killed_server_left_is_removed_unless_another_one_is_at_work(
    store: Path, open_cache: Open
) -> None:
    with open_cache() as first:
        (first.path / ".new-x").mkdir()
        with open_cache():
            assert (first.path / ".new-x").is_dir()
    with open_cache():
        assert not (first.path / ".new-x").exists()


def test_two_servers_share_the_directory(store: Path, open_cache: Open) -> None:
    for number in (1, 2):
        make_version(store, number)
    with open_cache() as first, open_cache() as second:
        one, two = Server(first), Server(second)
        assert (one.poll(1), two.poll(1)) == (2, 2)
        make_version(store, 3)
        assert (two.poll(), one.poll()) == (3, 3)
        assert kept(first) == [2, 3]


def test_as_many_are_kept_as_serve_and_one_more(store: Path, open_cache: Open) -> None:
    for number in range(1, 6):
        make_version(store, number)
    with open_cache(Latest(2)) as cache:
        assert Server(cache, Latest(2)).poll_all() == (5, 4)
        assert kept(cache) == [3, 4, 5]


def test_all_are_kept_where_all_serve(store: Path, open_cache: Open) -> None:
    for number in range(1, 4):
        make_version(store, number)
    with open_cache(All()) as cache:
        server = Server(cache, All())
        assert server.poll_all() == (3, 2, 1)
        shutil.rmtree(store / "2")
        assert server.poll_all() == (3, 1)
        assert kept(cache) == [1, 3]


def test_only_the_specific_versions_are_fetched(store: Path, open_cache: Open) -> None:
    for number in range(1, 6):
        make_version(store, number)
    with open_cache(Specific((2, 4))) as cache:
        assert Server(cache, Specific((2, 4))).poll_all() == (4, 2)
        assert kept(cache) == [2, 4]


def test_what_serves_is_kept_until_another_specific_version_serves(store: Path, open_cache: Open) -> None:
    for number in (1, 2):
        make_version(store, number)
    with open_cache(Specific((1,))) as cache, open_cache(Specific((2,))) as later:
        server = Server(cache, Specific((1,)))
        assert server.poll() == 1
        server.bad = {2}
        server.model.versions.configure(ModelConfig("m", str(store), Specific((2,)), {}), later)
        assert server.poll() == 1
        server.bad = set()
        server.backend.now += 60
        assert server.poll() == 2
        assert kept(cache) == [2]


def test_models_with_different_policies_do_not_share_the_directory(store: Path, open_cache: Open) -> None:
    for number in (1, 2, 3):
        make_version(store, number)
    with open_cache() as newest, open_cache(Specific((1,)), "canary") as specific:
        servers = Server(newest), Server(specific, Specific((1,)))
        assert [server.poll() for server in servers] == [3, 1]
        assert [server.poll() for server in servers] == [3, 1]
