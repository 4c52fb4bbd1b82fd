"""The promises of `fairway.storage.stores.store`, kept by every kind of store against a real server.

What a server cannot show is marked here, and in the table of docs/reference/storage.md.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from fairway.errors import StorageError
from fairway.storage.files import sha256
from fairway.storage.stores.store import Entry, ExistsError, NotThereError, Store
from fairway.storage.stores.uri import open_store
from tests.servers.fixtures import except_on
from tests.servers.process import StoreServer
from tests.servers.swift import Swift

THREADS = 8
MANY = 1100
"""More than S3 lists on one page."""
KEYS = ["a b", "a+b", "a%2Fb", "a%b", "ü/é", "日本/数字.png", "a&b=c", "a?b", "a#b", "~x", "a'b", 'a"b']
NO_KEYS = ["", "/", "/a", "a/", "a//b", ".", "..", "../a", "a/../b", "a/./b", "a/..", "a\0"]
BYTES = b"abcdef"
QUICK_S = 3.0
CLOCK_S = 2.0
"""S3 tells times in whole seconds."""


@pytest.fixture
def store(server: StoreServer) -> Store:
    """An empty store at a prefix."""
    return open_store(f"{server.new_bucket()}/some/prefix")


def keys(entries: Iterable[Entry]) -> list[str]:
    return [entry.key for entry in entries]


def at_once(calls: Iterable[Callable[[], object]]) -> list[object]:
    """Return what calls return or raise that are made in several threads."""

    def outcome(call: Callable[[], object]) -> object:
        try:
            return call()
        except StorageError as err:
            return err

    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(outcome, calls))


def test_empty_store(store: Store) -> None:
    assert store.list() == []
    assert store.list("a/") == []
    assert store.stat("a") is None


def test_written_file_is_there_as_it_was_written(store: Store) -> None:
    content = bytes(range(256)) * 4
    before = time.time()
    store.write("a/b", content)
    entry = store.stat("a/b")
    assert entry
    assert (entry.key, entry.size) == ("a/b", 1024)
    assert before - CLOCK_S < entry.modified < time.time() + CLOCK_S
    assert entry.tag
    assert '"' not in entry.tag
    assert store.list() == [entry]
    assert store.read("a/b") == content


def test_empty_file(store: Store, tmp_path: Path) -> None:
    store.write("written", b"")
    store.create("created", b"")
    (tmp_path / "empty").touch()
    store.upload(tmp_path / "empty", "uploaded")
    for key in ("written", "created", "uploaded"):
        entry = store.stat(key)
        assert entry
        assert entry.size == 0
        assert store.read(key) == b""
        (tmp_path / "fetched").write_bytes(b"old")
        store.download(key, tmp_path / "fetched")
        assert (tmp_path / "fetched").read_bytes() == b""


@pytest.mark.parametrize(
    ("start", "expected"), [(0, b"abcdef"), (2, b"cdef"), (5, b"f"), (6, b""), (99, b"")]
)
def test_read_from_a_byte_on(store: Store, start: int, expected: bytes) -> None:
    store.write("a", b"abcdef")
    assert store.read("a", start) == expected


def test_overwritten_file_has_another_tag(store: Store) -> None:
    store.write("a", b"old")
    old = store.stat("a")
    store.write("a", b"new")
    new = store.stat("a")
    assert store.read("a") == b"new"
    assert old
    assert new
    assert old.tag != new.tag
    assert store.stat("a") == new == store.list()[0]


def test_missing_file(store: Store, tmp_path: Path) -> None:
    store.write("a/b", b"1")
    for key in ("a", "a/c", "a/b/c", "b", "a/b.part"):
        assert store.stat(key) is None
        for read in (store.read, lambda key: store.download(key, tmp_path / "fetched")):
            with pytest.raises(NotThereError, match=key):
                read(key)


def test_list_by_prefix(store: Store) -> None:
    for key in ("b", "a/bc/d", "a/b/c", "a/b/a", "a/b", "ab"):
        # A file and a directory cannot have the same name on a disk.
        store.write(key if key != "a/b" else "a/b0", key.encode())
    assert keys(store.list()) == ["a/b/a", "a/b/c", "a/b0", "a/bc/d", "ab", "b"]
    assert keys(store.list("a/")) == ["a/b/a", "a/b/c", "a/b0", "a/bc/d"]
    assert keys(store.list("a/b/")) == ["a/b/a", "a/b/c"]
    assert keys(store.list("a/b")) == ["a/b/a", "a/b/c", "a/b0", "a/bc/d"]
    assert keys(store.list("a/bc")) == ["a/bc/d"]
    assert keys(store.list("a/b/c")) == ["a/b/c"]
    assert keys(store.list("a")) == ["a/b/a", "a/b/c", "a/b0", "a/bc/d", "ab"]
    assert keys(store.list("c")) == []
    assert keys(store.list("a/b/c/d/e")) == []


def test_order_is_that_of_the_keys(store: Store) -> None:
    names = ["10", "9", "a0", "B", "é", "a-b", "a/b", "a.b", "ab", "Z/1", "Z/10", "Z/2", "ﬀ", "𐀀"]
    at_once([partial(store.write, name, b"") for name in names])
    assert keys(store.list()) == sorted(names)


@pytest.mark.parametrize(
    "server", ["local_disk", "moto", pytest.param("swift", marks=pytest.mark.slow)], indirect=True
)
def test_more_than_a_page(store: Store) -> None:
    """Not on gcp-storage-emulator, which knows no pages; see tests/unit/storage/stores/test_gcs.py."""
    names = [f"d/{number:04}" for number in range(MANY)]
    at_once([partial(store.write, name, b"") for name in [*names, "e"]])
    assert keys(store.list("d")) == names
    store.delete(names)
    assert keys(store.list()) == ["e"]


@pytest.mark.parametrize("key", KEYS)
def test_any_name(store: Store, tmp_path: Path, key: str) -> None:
    content = key.encode()
    store.create(key, content)
    assert store.read(key, 1) == content[1:]
    assert keys(store.list()) == [key]
    assert keys(store.list(key)) == [key]
    assert store.stat(key) == store.list()[0]
    store.download(key, tmp_path / "fetched")
    assert (tmp_path / "fetched").read_bytes() == content
    store.write(key, b"new")
    assert store.read(key) == b"new"
    store.delete([key])
    assert store.list() == []


def test_no_name_leads_out_of_the_store(store: Store, tmp_path: Path) -> None:
    store.write("a0", b"1")
    calls: list[Callable[[str], object]] = [
        store.stat,
        store.read,
        lambda key: store.write(key, b""),
        lambda key: store.create(key, b""),
        lambda key: store.upload(Path(__file__), key),
        lambda key: store.download(key, tmp_path / "fetched"),
        lambda key: store.delete(["a0", key]),
    ]
    for key in NO_KEYS:
        for call in calls:
            with pytest.raises(StorageError, match="is not the name of a file in a store"):
                call(key)
    assert keys(store.list()) == ["a0"]
    assert list(tmp_path.iterdir()) == []


def test_list_does_not_look_outside(server: StoreServer) -> None:
    bucket = server.new_bucket()
    for prefix in ("some/prefix", "some/prefixes", "some", "other"):
        open_store(f"{bucket}/{prefix}").write("a", b"")
    assert keys(open_store(f"{bucket}/some/prefix").list()) == ["a"]
    assert keys(open_store(f"{bucket}/some/prefix").list("../")) == []
    assert keys(open_store(f"{bucket}/some").list()) == ["a", "prefix/a", "prefixes/a"]


@pytest.mark.parametrize("end", ["", "/"])
def test_store_without_a_prefix(server: StoreServer, end: str) -> None:
    bucket = server.new_bucket()
    store = open_store(bucket + end)
    assert store.uri == bucket
    assert store.list() == []
    store.write("a/b", b"1")
    store.create("c", b"2")
    assert keys(store.list()) == ["a/b", "c"]
    assert keys(open_store(f"{bucket}/a{end}").list()) == ["b"]
    store.delete(["a/b", "c"])
    assert store.list() == []


@except_on("gcs_emulator", reason="ignores preconditions")
def test_create_leaves_what_is_there(store: Store) -> None:
    store.create("a/b", b"first")
    with pytest.raises(ExistsError, match="a/b"):
        store.create("a/b", b"second")
    assert store.read("a/b") == b"first"
    store.delete(["a/b"])
    store.create("a/b", b"third")
    assert store.read("a/b") == b"third"


@except_on("gcs_emulator", reason="ignores preconditions")
def test_one_of_many_creators_wins(store: Store) -> None:
    for key in ("a", "b", "c"):
        outcomes = at_once([partial(store.create, key, b"%d" % number) for number in range(THREADS)])
        winners = [number for number, outcome in enumerate(outcomes) if outcome is None]
        assert len(winners) == 1, outcomes
        assert sum(isinstance(outcome, ExistsError) for outcome in outcomes) == THREADS - 1, outcomes
        assert store.read(key) == b"%d" % winners[0]


@pytest.mark.parametrize("size", [1, 8 * 2**20 - 1, 8 * 2**20, 8 * 2**20 + 1, 20 * 10**6])
def test_upload_and_download(store: Store, tmp_path: Path, size: int) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(os.urandom(size))
    sent: list[int] = []
    fetched: list[int] = []
    store.upload(source, "a/b", sent.append)
    entry = store.stat("a/b")
    assert entry
    assert entry.size == size
    assert store.list() == [entry]
    store.download("a/b", target, fetched.append)
    assert sha256(target) == sha256(source)
    assert sum(sent) == sum(fetched) == size


def test_uploaded_file_can_be_replaced(store: Store, tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(b"l" * 9 * 2**20)
    (tmp_path / "small").write_bytes(b"s")
    for name in ("large", "small", "large"):
        store.upload(tmp_path / name, "a")
        store.download("a", tmp_path / "fetched")
        assert sha256(tmp_path / "fetched") == sha256(tmp_path / name)


def test_source_that_is_not_there(store: Store, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=str(tmp_path / "none")):
        store.upload(tmp_path / "none", "a")
    assert store.list() == []


def test_target_that_cannot_be_written(store: Store, tmp_path: Path) -> None:
    store.write("a", b"1")
    with pytest.raises(StorageError, match=str(tmp_path / "none")):
        store.download("a", tmp_path / "none" / "fetched")


def test_delete(store: Store) -> None:
    for key in ("a/b", "a/c", "a/d", "ab"):
        store.write(key, b"1")
    store.delete([])
    store.delete(["a/b"])
    store.delete(key for key in ("a/c", "none", "none/at/all"))
    store.delete(["a/b"])
    assert keys(store.list()) == ["a/d", "ab"]
    assert store.stat("a/b") is None


def test_many_threads_share_a_store(store: Store, tmp_path: Path) -> None:
    def use(number: int) -> None:
        key, content = f"{number}/file", os.urandom(1000 + number)
        (tmp_path / f"source{number}").write_bytes(content)
        store.upload(tmp_path / f"source{number}", key)
        assert store.read(key, number) == content[number:]
        store.download(key, tmp_path / f"target{number}")
        assert (tmp_path / f"target{number}").read_bytes() == content
        assert store.stat(key) == store.list(f"{number}/")[0]
        if number % 2:
            store.delete([key])

    assert at_once([partial(use, number) for number in range(40)]) == [None] * 40
    assert keys(store.list()) == sorted(f"{number}/file" for number in range(0, 40, 2))


@pytest.mark.parametrize("server", ["moto", "swift", "gcs_emulator"], indirect=True)
def test_unknown_bucket_is_named(server: StoreServer, tmp_path: Path) -> None:
    store = open_store(f"{server.scheme}://no-such-bucket/some/prefix")
    calls: list[Callable[[], object]] = all_calls(store)
    calls.append(partial(store.download, "a", tmp_path / "fetched"))
    assert server.address
    for call in calls:
        with pytest.raises(StorageError) as caught:
            call()
        assert not isinstance(caught.value, NotThereError)
        assert f"there is no bucket no-such-bucket at 127.0.0.1:{server.address[1]}" in caught.value.message
        assert f"{server.scheme}://no-such-bucket/some/prefix" in caught.value.message


@pytest.mark.parametrize(
    ("variable", "value"), [("AWS_SECRET_ACCESS_KEY", "wrong"), ("AWS_ACCESS_KEY_ID", "test:nobody")]
)
def test_wrong_credentials_fail_at_once(
    swift: Swift, monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    """Moto and gcp-storage-emulator let everybody in."""
    uri = swift.new_bucket()
    store = open_with(monkeypatch, swift.environment | {variable: value}, uri)
    for call in all_calls(store):
        started = time.monotonic()
        with pytest.raises(StorageError, match="do not belong together") as caught:
            call()
        assert time.monotonic() - started < QUICK_S
        assert "AWS_SECRET_ACCESS_KEY" in caught.value.hint
        assert swift.environment["AWS_SECRET_ACCESS_KEY"] not in f"{caught.value} {caught.value.hint}"


def test_who_may_read_may_not_write(swift: Swift, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = swift.new_bucket()
    store = open_with(monkeypatch, swift.environment, uri)
    store.write("a", b"1")
    swift.share(uri)
    store = open_with(monkeypatch, swift.reader_environment, uri)
    assert store.read("a") == b"1"
    assert keys(store.list()) == ["a"]
    assert store.stat("a") == store.list()[0]
    refused: list[tuple[Callable[[], object], str]] = [
        (partial(store.write, "a", b"2"), "s3:PutObject"),
        (partial(store.create, "b", b"2"), "s3:PutObject"),
        (partial(store.upload, Path(__file__), "b"), "s3:PutObject"),
        (partial(store.delete, ["a"]), "s3:DeleteObject"),
        (partial(store.delete, ["a", "b"]), "s3:DeleteObject"),
    ]
    for call, permission in refused:
        started = time.monotonic()
        with pytest.raises(StorageError, match="access is denied") as caught:
            call()
        assert time.monotonic() - started < QUICK_S
        assert permission in caught.value.hint
        assert uri.removeprefix("s3://") in caught.value.hint
    assert store.read("a") == b"1"


def test_new_credentials_are_found(swift: Swift, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A file with credentials is read anew when those in use are refused."""
    uri, file = swift.new_bucket(), tmp_path / "credentials"
    environment = swift.environment | {"AWS_SHARED_CREDENTIALS_FILE": str(file)}
    del environment["AWS_ACCESS_KEY_ID"], environment["AWS_SECRET_ACCESS_KEY"]
    file.write_text("[default]\naws_access_key_id = old\naws_secret_access_key = old\n")
    store = open_with(monkeypatch, environment, uri)
    with pytest.raises(StorageError):
        store.list()
    file.write_text(
        f"[default]\naws_access_key_id = {swift.environment['AWS_ACCESS_KEY_ID']}\n"
        f"aws_secret_access_key = {swift.environment['AWS_SECRET_ACCESS_KEY']}\n"
    )
    assert store.list() == []


def open_with(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], uri: str) -> Store:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return open_store(uri)


def all_calls(store: Store) -> list[Callable[[], object]]:
    return [
        store.list,
        partial(store.stat, "a"),
        partial(store.read, "a"),
        partial(store.write, "a", b""),
        partial(store.create, "a", b""),
        partial(store.upload, Path(__file__), "a"),
        partial(store.delete, ["a"]),
        partial(store.delete, ["a", "b"]),
    ]
