"""Publishing, fetching and deleting versions, against every kind of store."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from fairway.errors import StorageError
from fairway.storage import publish
from fairway.storage.exports import CLAIMS, Version, find_version, list_versions, next_version
from fairway.storage.manifest import MANIFEST, SAVED_MODEL, describe_files
from fairway.storage.publish import (
    TakenError,
    fetch_version,
    keep_newest,
    publish_version,
    remove_version,
)
from fairway.storage.stores.uri import local_path, open_store
from tests.manifests import make_version
from tests.servers.fixtures import use
from tests.servers.moto import Moto
from tests.servers.process import StoreServer
from tests.servers.proxy import FaultProxy


def numbers(uri: str) -> list[int]:
    return [version.number for version in list_versions(uri) if not version.problem]


def test_what_is_published_can_be_fetched(server: StoreServer, tmp_path: Path) -> None:
    uri = f"{server.new_bucket()}/models"
    version = make_version(tmp_path / "a", 5, files=20)
    assert publish_version(version, uri).manifest == version.manifest
    (found,) = list_versions(uri)
    assert (found.number, found.problem, found.manifest) == (5, "", version.manifest)
    fetched = fetch_version(found, tmp_path / "b")
    assert describe_files(fetched.path) == describe_files(version.path)
    assert (fetched.path / MANIFEST).read_bytes() == (version.path / MANIFEST).read_bytes()
    assert [path.name for path in (tmp_path / "b").iterdir()] == ["5"]
    with pytest.raises(StorageError, match="exists already"):
        fetch_version(found, tmp_path / "b")


def test_second_writer_touches_nothing(conditional_server: StoreServer, tmp_path: Path) -> None:
    uri = f"{conditional_server.new_bucket()}/models"
    publish_version(make_version(tmp_path / "a", 5), uri)
    before = open_store(uri).list()
    with pytest.raises(TakenError, match="version 5 in .* belongs to another writer"):
        publish_version(make_version(tmp_path / "b", 5, seed=1), uri)
    assert open_store(uri).list() == before
    fetch_version(find_version(uri), tmp_path / "c")


def test_of_two_writers_at_once_one_wins(conditional_server: StoreServer, tmp_path: Path) -> None:
    uri = f"{conditional_server.new_bucket()}/models"
    for number in range(1, 6):
        versions = [make_version(tmp_path / str(seed), number, seed=seed) for seed in range(4)]
        with ThreadPoolExecutor(len(versions)) as executor:
            results = list(executor.map(partial(publish_unless_taken, uri), versions))
        assert sorted(results) == [False, False, False, True]
        fetch_version(find_version(uri, number), tmp_path / "fetched")


def publish_unless_taken(uri: str, version: Version) -> bool:
    try:
        publish_version(version, uri)
    except TakenError:
        return False
    return True


def test_the_same_again_completes_what_a_kill_left(moto: Moto, tmp_path: Path, via_proxy: FaultProxy) -> None:
    uri = f"{moto.new_bucket()}/models"
    version = make_version(tmp_path / "a", 5, files=6)
    publish_version(version, uri)
    keys = [f"5/{MANIFEST}", f"5/{SAVED_MODEL}", "5/variables/part-03"]
    open_store(uri).delete(keys)
    via_proxy.requests.clear()
    publish_version(version, uri)
    sent = [each.path.partition("/models/")[2] for each in via_proxy.requests if each.method == "PUT"]
    assert sent == [f"{CLAIMS}/5", *reversed(keys)]
    via_proxy.requests.clear()
    publish_version(version, uri)
    assert [each.method for each in via_proxy.requests if each.method == "PUT"] == ["PUT"], "the claim alone"
    assert not list_versions(uri)[0].problem


def test_order_of_writing_and_deleting(moto: Moto, tmp_path: Path, via_proxy: FaultProxy) -> None:
    uri = f"{moto.new_bucket()}/models"
    publish_version(make_version(tmp_path / "a", 5, files=6), uri)
    written = [each.path.partition("/models/")[2] for each in via_proxy.requests if each.method == "PUT"]
    assert written[0] == f"{CLAIMS}/5"
    assert written[-2:] == [f"5/{SAVED_MODEL}", f"5/{MANIFEST}"]
    via_proxy.requests.clear()
    remove_version(uri, 5)
    assert len([each for each in via_proxy.requests if each.method in ("POST", "DELETE")]) == 2
    assert [entry.key for entry in open_store(uri).list()] == [f"{CLAIMS}/5"]


def test_numbers_are_never_used_again(server: StoreServer, tmp_path: Path) -> None:
    uri = f"{server.new_bucket()}/models"
    highest = 100_000_000_000
    for number in (3, 4, highest):
        publish_version(make_version(tmp_path / "a", number), uri)
    assert next_version(uri) == highest + 1
    if local_path(uri) is not None:
        return  # a disk keeps no claims: the number is the time, which does not come again
    for number in (3, 4, highest):
        remove_version(uri, number)
    assert not numbers(uri)
    assert next_version(uri) == highest + 1


def test_keep_newest(server: StoreServer, tmp_path: Path) -> None:
    uri = f"{server.new_bucket()}/models"
    for number in (1, 2, 9, 10):
        publish_version(make_version(tmp_path / "a", number), uri)
    assert keep_newest(uri, 2) == [1, 2]
    assert numbers(uri) == [9, 10]
    assert keep_newest(uri, 2) == []
    assert keep_newest(uri, 1) == [9]
    left = {entry.key.partition("/")[0] for entry in open_store(uri).list()}
    assert left <= {"10", CLAIMS}
    if local_path(uri) is None:
        assert [entry.key for entry in open_store(uri).list(CLAIMS)] == [f"{CLAIMS}/10"]


def test_keeping_spares_what_is_being_written(
    server: StoreServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = f"{server.new_bucket()}/models"
    if local_path(uri) is not None:
        pytest.skip("on a disk a version is written under another name")
    for number in (1, 2, 3):
        publish_version(make_version(tmp_path / "a", number), uri)
    store = open_store(uri)
    store.delete([f"1/{MANIFEST}", f"3/{MANIFEST}"])  # as if being written still
    assert keep_newest(uri, 1) == []
    assert [version.number for version in list_versions(uri)] == [1, 2, 3]
    monkeypatch.setattr(publish, "ABANDONED_S", -60)
    assert keep_newest(uri, 1) == []
    assert [version.number for version in list_versions(uri)] == [2, 3], "1 was abandoned, 3 is the newest"


def test_keeping_spares_what_others_have_written(
    moto: Moto, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A version without manifest and claim, what is no claim, and a claim before its first file."""
    uri = f"{use(moto, monkeypatch).new_bucket()}/models"
    others = [f"{CLAIMS}/1", f"{CLAIMS}/notes", f"2/{SAVED_MODEL}"]
    for key in others:
        open_store(uri).write(key, b"x")
    publish_version(make_version(tmp_path / "a", 3), uri)
    keep_newest(uri, 1)
    assert [entry.key for entry in open_store(uri).list()][:4] == sorted([*others, f"{CLAIMS}/3"])
    monkeypatch.setattr(publish, "ABANDONED_S", -60)
    keep_newest(uri, 1)
    kept = sorted([*others[1:], f"{CLAIMS}/3"])
    assert [entry.key for entry in open_store(uri).list()][:3] == kept, "the claim was abandoned"


def test_damage_is_noticed_and_nothing_left(server: StoreServer, tmp_path: Path) -> None:
    uri = f"{server.new_bucket()}/models"
    publish_version(make_version(tmp_path / "a", 5), uri)
    open_store(uri).write(f"5/{SAVED_MODEL}", b"x" * 1000)
    (version,) = list_versions(uri)
    assert not version.problem, "the size is right"
    with pytest.raises(StorageError, match=r"5/saved_model.pb is damaged"):
        fetch_version(version, tmp_path / "b")
    assert not list((tmp_path / "b").iterdir())
    open_store(uri).write(f"5/{SAVED_MODEL}", b"x" * 999)
    assert list_versions(uri)[0].problem == "saved_model.pb has 999 bytes instead of 1000"
    open_store(uri).delete([f"5/{SAVED_MODEL}"])
    assert list_versions(uri)[0].problem == "saved_model.pb is missing"


def test_a_manifest_cannot_name_files_elsewhere(server: StoreServer, tmp_path: Path) -> None:
    uri = f"{server.new_bucket()}/models"
    version = make_version(tmp_path / "a", 5)
    content = (version.path / MANIFEST).read_bytes()
    for name in ("../../x", "/x", "a/../../x", "a//x", "./x", "a\\\\x", MANIFEST):
        open_store(uri).write(
            f"5/{MANIFEST}", content.replace(b'"saved_model.pb": {', f'"{name}": {{'.encode())
        )
        (found,) = list_versions(uri)
        assert "not the name of a file" in found.problem


def test_version_without_a_manifest_is_not_complete_in_a_store(server: StoreServer, tmp_path: Path) -> None:
    uri = f"{server.new_bucket()}/models"
    open_store(uri).write(f"5/{SAVED_MODEL}", b"x")
    (found,) = list_versions(uri)
    assert found.problem == ("" if local_path(uri) is not None else f"no {MANIFEST}")
    for _ in range(2):
        with pytest.raises(TakenError):
            publish_version(make_version(tmp_path / "a", 5), uri)
    assert [entry.key for entry in open_store(uri).list()] == [f"5/{SAVED_MODEL}"]
    assert open_store(uri).read(f"5/{SAVED_MODEL}") == b"x"
