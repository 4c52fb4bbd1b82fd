"""Transfers to S3 that are disturbed: what goes on, what starts anew, what is cleared away."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from fairway.errors import StorageError
from fairway.storage.stores import retry
from fairway.storage.stores.s3_parts import PART_BYTES
from fairway.storage.stores.store import ExistsError, Store
from fairway.storage.stores.uri import open_store
from tests.servers.gcs import GcsEmulator
from tests.servers.moto import Moto
from tests.servers.proxy import Answer, Fault, FaultProxy, LostAnswer, Request, Reset
from tests.servers.s3 import s3_client

SIZE = 2 * PART_BYTES + 1000


@pytest.fixture
def store(moto: Moto, via_proxy: FaultProxy) -> Store:
    """A store behind the proxy."""
    return open_store(f"{moto.new_bucket()}/a")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A file of three parts."""
    path = tmp_path / "source"
    path.write_bytes(os.urandom(SIZE))
    return path


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give up soon."""
    monkeypatch.setattr(retry, "DEADLINE_S", 0.5)


def ranges(proxy: FaultProxy) -> list[tuple[int, str | None]]:
    """Return the first byte and the demanded ETag of each request for data."""
    return [
        (
            int(request.headers["Range"].removeprefix("bytes=").partition("-")[0]),
            request.headers.get("If-Match"),
        )
        for request in proxy.requests
        if request.method == "GET" and "Range" in request.headers
    ]


def test_download_goes_on_from_the_missing_byte(
    store: Store, via_proxy: FaultProxy, source: Path, tmp_path: Path
) -> None:
    store.upload(source, "file")
    cut = 3 * 2**20
    via_proxy.fault = lambda request: (
        Reset(after=cut) if request.method == "GET" and request.attempt == 0 else None
    )
    fetched: list[int] = []
    store.download("file", tmp_path / "target", fetched.append)
    assert (tmp_path / "target").read_bytes() == source.read_bytes()
    assert sum(fetched) == SIZE
    (first, no_tag), (second, tag), *_ = ranges(via_proxy)
    assert (first, no_tag) == (0, None)
    assert 0 < second <= cut
    entry = store.stat("file")
    assert entry
    assert tag == f'"{entry.tag}"'


def test_replaced_object_is_fetched_anew(
    store: Store, via_proxy: FaultProxy, source: Path, tmp_path: Path
) -> None:
    store.upload(source, "file")
    new = tmp_path / "new"
    new.write_bytes(os.urandom(PART_BYTES + 5))

    def replace_and_break(request: Request) -> Fault | None:
        if request.method == "GET" and len(ranges(via_proxy)) == 1:
            via_proxy.fault = lambda _: None
            store.upload(new, "file")
            return Reset(after=1000)
        return None

    via_proxy.fault = replace_and_break
    store.download("file", tmp_path / "target")
    assert (tmp_path / "target").read_bytes() == new.read_bytes()


def test_broken_part_is_sent_again_alone(store: Store, via_proxy: FaultProxy, source: Path) -> None:
    broken: set[str] = set()

    def break_second(request: Request) -> Fault | None:
        if request.method == "PUT" and "partNumber=2" in request.path and request.path not in broken:
            broken.add(request.path)
            return Reset(after=1000, upload=True)
        return None

    via_proxy.fault = break_second
    sent: list[int] = []
    store.upload(source, "file", sent.append)
    assert store.read("file") == source.read_bytes()
    assert sum(sent) == SIZE
    parts = sorted(
        request.path.partition("partNumber=")[2][0]
        for request in via_proxy.requests
        if request.method == "PUT"
    )
    assert parts == ["1", "2", "2", "3"]


@pytest.mark.usefixtures("hurried")
def test_parts_of_a_failed_upload_are_cleared_away(
    store: Store, via_proxy: FaultProxy, source: Path, moto: Moto
) -> None:
    via_proxy.fault = lambda request: (
        Answer(500, "InternalError") if request.method == "PUT" and "partNumber=2" in request.path else None
    )
    with pytest.raises(StorageError, match="cannot write"):
        store.upload(source, "file")
    via_proxy.fault = lambda _: None
    assert store.list() == []
    client = s3_client(moto.environment)
    bucket = store.uri.split("/")[2]
    assert not client.list_multipart_uploads(Bucket=bucket).get("Uploads")
    client.close()


@pytest.mark.parametrize("text", ["uploads", "uploadId="])
def test_lost_answers_to_an_upload_in_parts(
    store: Store, via_proxy: FaultProxy, source: Path, text: str
) -> None:
    """To its beginning, or to its end."""
    via_proxy.fault = lambda request: (
        LostAnswer() if request.method == "POST" and text in request.path and request.attempt == 0 else None
    )
    store.upload(source, "file")
    assert store.read("file") == source.read_bytes()


@pytest.mark.parametrize("done", [True, False])
def test_upload_that_is_not_known_any_more(
    store: Store, via_proxy: FaultProxy, source: Path, done: bool
) -> None:
    """It was ended by the request whose answer was lost, or it was cleared away."""

    def lose(request: Request) -> Fault | None:
        if request.method != "POST" or "uploadId=" not in request.path:
            return None
        return LostAnswer() if done and request.attempt == 0 else Answer(404, "NoSuchUpload")

    via_proxy.fault = lose
    if done:
        store.upload(source, "file")
        assert store.read("file") == source.read_bytes()
    else:
        with pytest.raises(StorageError):
            store.upload(source, "file")
        assert store.list() == []


def test_lost_answer_to_a_creation(store: Store, via_proxy: FaultProxy) -> None:
    via_proxy.fault = lambda request: (
        LostAnswer() if request.method == "PUT" and request.attempt == 0 else None
    )
    store.create("mine", b"content")
    assert store.read("mine") == b"content"


def test_creation_whose_request_was_lost_and_who_was_overtaken(store: Store, via_proxy: FaultProxy) -> None:
    def overtake(request: Request) -> Fault | None:
        if request.method == "PUT" and request.attempt == 0:
            via_proxy.fault = lambda _: None
            store.write("other", b"other's content")
            return Reset(after=0, upload=True)
        return None

    via_proxy.fault = overtake
    with pytest.raises(ExistsError):
        store.create("other", b"content")
    assert store.read("other") == b"other's content"


def test_conflict_of_conditions_passes(store: Store, via_proxy: FaultProxy) -> None:
    via_proxy.fault = lambda request: (
        Answer(409, "ConditionalRequestConflict")
        if request.method == "PUT" and request.attempt == 0
        else None
    )
    store.create("a", b"content")
    assert store.read("a") == b"content"


@pytest.mark.parametrize(("status", "code"), [(501, "NotImplemented"), (400, "MissingContentMD5")])
def test_server_that_deletes_one_by_one_only(
    store: Store, via_proxy: FaultProxy, status: int, code: str
) -> None:
    for key in ("a", "b", "c", "d"):
        store.write(key, b"1")
    via_proxy.fault = lambda request: Answer(status, code) if request.method == "POST" else None
    store.delete(["a", "b"])
    store.delete(["c", "none"])
    assert [entry.key for entry in store.list()] == ["d"]
    assert [request.method for request in via_proxy.requests].count("POST") == 1


def test_expired_credentials_are_read_anew_once(store: Store, via_proxy: FaultProxy) -> None:
    store.write("a", b"1")
    via_proxy.fault = lambda request: Answer(400, "ExpiredToken") if request.attempt == 0 else None
    assert store.read("a") == b"1"
    via_proxy.fault = lambda _: Answer(400, "ExpiredToken")
    before, started = len(via_proxy.requests), time.monotonic()
    with pytest.raises(StorageError, match="the credentials have expired"):
        store.list()
    assert len(via_proxy.requests) - before == 2
    assert time.monotonic() - started < 3


def test_gcs_goes_on_from_the_missing_byte(
    gcs_emulator: GcsEmulator, gcs_proxy: FaultProxy, source: Path, tmp_path: Path
) -> None:
    store = open_store(f"{gcs_emulator.new_bucket()}/a")
    store.upload(source, "file")
    cut = 3 * 2**20
    gcs_proxy.fault = lambda request: Reset(after=cut) if "alt=media" in request.path else None
    fetched: list[int] = []
    store.download("file", tmp_path / "target", fetched.append)
    assert (tmp_path / "target").read_bytes() == source.read_bytes()
    assert sum(fetched) == SIZE
    starts = [int(each.headers["range"][6:-1]) for each in gcs_proxy.requests if "range" in each.headers]
    assert len(starts) >= SIZE // cut
    assert starts == sorted(set(starts))


@pytest.mark.parametrize("fault", [Answer(503, ""), Reset(after=1000, upload=True)], ids=["busy", "reset"])
def test_gcs_sends_a_broken_chunk_again(
    gcs_emulator: GcsEmulator, gcs_proxy: FaultProxy, source: Path, fault: Fault
) -> None:
    store = open_store(f"{gcs_emulator.new_bucket()}/a")
    chunks = 0

    def break_every_third(request: Request) -> Fault | None:
        nonlocal chunks
        chunks += request.method == "PUT"
        return fault if request.method == "PUT" and chunks % 3 == 2 else None

    gcs_proxy.fault = break_every_third
    sent: list[int] = []
    store.upload(source, "file", sent.append)
    gcs_proxy.fault = lambda _: None
    assert store.read("file") == source.read_bytes()
    assert sum(sent) == SIZE
    assert chunks > SIZE // (2 * 2**20) + 1
