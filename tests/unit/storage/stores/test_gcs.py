"""What gcp-storage-emulator cannot show of Google Cloud Storage: pages, preconditions, refusals.

A server here gives prepared answers in the words of the JSON API, https://cloud.google.com/storage/docs/json_api.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from fairway.errors import StorageError, UsageError
from fairway.storage.stores import retry
from fairway.storage.stores.gcs import CHUNK_BYTES
from fairway.storage.stores.store import ExistsError, NotThereError, Store
from fairway.storage.stores.uri import open_store

Answer = tuple[int, dict[str, Any] | bytes]


class Server(ThreadingHTTPServer):
    """Answers requests as `answer` says, with `headers`, and remembers them as method, path and query."""

    daemon_threads = True
    answer: Callable[[str, str, dict[str, str]], Answer]
    headers: dict[str, str]
    requests: list[tuple[str, str, dict[str, str]]]


class Handler(BaseHTTPRequestHandler):
    server: Server

    def handle_request(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        self.server.requests.append((self.command, parts.path, query))
        status, content = self.server.answer(self.command, parts.path, query)
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        for name, value in self.server.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = do_PUT = do_DELETE = handle_request  # noqa: N815 - http.server's names

    def log_message(self, format: str, *args: Any) -> None:
        """Be silent."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with Server(("127.0.0.1", 0), Handler) as server:
        server.headers, server.requests = {}, []
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"127.0.0.1:{server.server_address[1]}")
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def store(server: Server) -> Store:
    return open_store("gs://bucket/a")


def item(name: str, generation: int = 1) -> dict[str, Any]:
    return {"name": name, "size": "3", "updated": "2026-01-01T00:00:00.5Z", "generation": str(generation)}


def refusal(status: int) -> Answer:
    return status, {"error": {"code": status, "message": "{said}"}}


def test_list_reads_all_pages(server: Server, store: Store) -> None:
    pages: dict[str | None, dict[str, Any]] = {
        None: {"items": [item("a/c"), item("a/d/")], "nextPageToken": "2"},
        "2": {"nextPageToken": "3"},
        "3": {"items": [item("a/b/c", 7)]},
    }
    server.answer = lambda _method, _path, query: (200, pages[query.get("pageToken")])
    entries = store.list("x")
    assert [(entry.key, entry.size, entry.tag) for entry in entries] == [("b/c", 3, "7"), ("c", 3, "1")]
    assert entries[0].modified == 1767225600.5
    assert [query["prefix"] for _, _, query in server.requests] == ["a/x"] * 3


def test_a_page_that_fails_is_asked_for_again_alone(server: Server, store: Store) -> None:
    def answer(_method: str, _path: str, query: dict[str, str]) -> Answer:
        if "pageToken" not in query:
            return 200, {"items": [item("a/b")], "nextPageToken": "2"}
        return refusal(503) if len(server.requests) == 2 else (200, {"items": [item("a/c")]})

    server.answer = answer
    assert [entry.key for entry in store.list()] == ["b", "c"]
    assert [query.get("pageToken") for _, _, query in server.requests] == [None, "2", "2"]


def test_create_asks_for_generation_0(server: Server, store: Store) -> None:
    server.answer = lambda *_: (200, item("a/b"))
    store.create("b", b"123")
    assert server.requests[0][0] == "POST"
    assert server.requests[0][2]["ifGenerationMatch"] == "0"


def test_existing_file_is_not_created(server: Server, store: Store) -> None:
    server.answer = lambda *_: refusal(412)
    with pytest.raises(ExistsError, match="gs://bucket/a/b exists already"):
        store.create("b", b"123")
    assert len(server.requests) == 1


@pytest.mark.parametrize(("content", "exists"), [(b"123", False), (b"other", True)])
def test_answer_to_a_creation_that_was_lost(
    server: Server, store: Store, content: bytes, exists: bool
) -> None:
    """The second attempt finds what the first one wrote, or what somebody else did."""

    def answer(method: str, _path: str, _query: dict[str, str]) -> Answer:
        if method == "GET":
            return 200, content
        return refusal(503 if len(server.requests) == 1 else 412)

    server.answer = answer
    if exists:
        with pytest.raises(ExistsError):
            store.create("b", b"123")
    else:
        store.create("b", b"123")


@pytest.mark.parametrize(
    ("status", "message", "hint"),
    [
        (403, "access is denied", "storage.objects.create"),
        (400, "answers 400", "log"),
    ],
)
def test_refusals_fail_at_once(server: Server, store: Store, status: int, message: str, hint: str) -> None:
    server.answer = lambda *_: refusal(status)
    with pytest.raises(StorageError, match=message) as caught:
        store.write("b", b"123")
    assert "gs://bucket/a/b" in caught.value.message
    assert hint in caught.value.hint
    assert len(server.requests) == 1


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_trouble_of_the_server_is_waited_for(server: Server, store: Store, status: int) -> None:
    server.answer = lambda *_: refusal(status) if len(server.requests) < 3 else (200, b"123")
    assert store.read("b") == b"123"


def test_what_arrives_damaged_is_fetched_anew(server: Server, store: Store, tmp_path: Path) -> None:
    contents = iter([b"ABC", b"abc"])

    def answer(_method: str, _path: str, query: dict[str, str]) -> Answer:
        return (200, next(contents)) if query.get("alt") == "media" else (200, item("a/b"))

    server.answer = answer
    server.headers = {"x-goog-hash": "crc32c=Nks/tw=="}
    store.download("b", tmp_path / "fetched")
    assert (tmp_path / "fetched").read_bytes() == b"abc"


def test_chunk_of_which_only_a_part_is_kept(server: Server, store: Store, tmp_path: Path) -> None:
    """Google allows its servers that; its library cannot go on then, so the file is sent anew."""
    address, kept = os.environ["STORAGE_EMULATOR_HOST"], iter([2**18, CHUNK_BYTES])

    def answer(method: str, _path: str, query: dict[str, str]) -> Answer:
        if method == "POST":
            server.headers = {"Location": f"http://{address}/upload?upload_id=1"}
            return 200, {}
        server.headers = {"Range": f"bytes=0-{next(kept, 0) - 1}"}
        return (308, b"") if len(server.requests) < 5 else (200, item("a/b") | {"crc32c": "THxBxQ=="})

    server.answer = answer
    (tmp_path / "source").write_bytes(bytes(CHUNK_BYTES + 1))
    store.upload(tmp_path / "source", "b")
    assert [method for method, _, _ in server.requests] == ["POST", "PUT", "POST", "PUT", "PUT"]


def test_overload_that_lasts(server: Server, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "DEADLINE_S", 0.5)
    server.answer = lambda *_: refusal(503)
    with pytest.raises(StorageError, match=r"is overloaded \(503\)"):
        store.list()


def test_missing_file_or_bucket(server: Server, store: Store) -> None:
    def without_bucket(*_: object) -> Answer:
        return refusal(404)

    def with_bucket(_method: str, path: str, _query: dict[str, str]) -> Answer:
        return (200, {}) if path.endswith("/o") else refusal(404)

    server.answer = without_bucket
    with pytest.raises(StorageError, match="there is no bucket bucket at"):
        store.stat("b")
    server.answer = with_bucket
    assert store.stat("b") is None
    with pytest.raises(NotThereError):
        store.read("b")


@pytest.mark.parametrize("value", ["host:port", "ftp://host", "http://", "host:99999"])
def test_nonsense_is_named(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", value)
    with pytest.raises(UsageError, match="STORAGE_EMULATOR_HOST") as caught:
        open_store("gs://bucket")
    assert repr(value) in caught.value.message
