"""Endpoints that are dead, speak TLS, or are led to by unusable credentials."""

from __future__ import annotations

import datetime
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from fairway.errors import StorageError
from fairway.storage.stores import retry
from fairway.storage.stores.store import Store
from fairway.storage.stores.uri import open_store
from tests.dead import black_hole, refusing, silent
from tests.servers.s3 import s3_environment

LONGEST_S = 15.0
EMPTY = b'<?xml version="1.0"?><ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>'


def s3(monkeypatch: pytest.MonkeyPatch, endpoint: str) -> Store:
    for name, value in s3_environment(endpoint, "key", "secret").items():
        monkeypatch.setenv(name, value)
    return open_store("s3://bucket/a")


def gcs(monkeypatch: pytest.MonkeyPatch, endpoint: str) -> Store:
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", endpoint if "://" in endpoint else f"http://{endpoint}")
    return open_store("gs://bucket/a")


@pytest.fixture(params=[s3, gcs], ids=["s3", "gs"])
def open_at(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Store]:
    return partial(request.param, monkeypatch)


def error_of(call: Callable[[], object]) -> tuple[StorageError, float]:
    """Return the error of a call and the seconds it took."""
    started = time.monotonic()
    with pytest.raises(StorageError) as caught:
        call()
    return caught.value, time.monotonic() - started


def test_refusal_is_waited_for_and_named(
    open_at: Callable[[str], Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retry, "DEADLINE_S", 0.5)
    with refusing() as port:
        error, took = error_of(open_at(f"127.0.0.1:{port}").list)
    assert f"127.0.0.1:{port} cannot be reached: it refuses connections" in error.message
    assert error.hint
    assert took < 5


def test_unknown_host_is_named_at_once(open_at: Callable[[str], Store]) -> None:
    error, took = error_of(open_at("no-such-host.invalid:9000").list)
    assert "no-such-host.invalid:9000 cannot be reached" in error.message
    assert took < LONGEST_S


@pytest.mark.slow
def test_dead_endpoints_fail_in_time(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """All at once, as each takes nearly the deadline."""
    (tmp_path / "large").write_bytes(bytes(9 * 2**20))
    works: list[Callable[[Store], object]] = [
        lambda store: store.list(),
        lambda store: store.write("a", b""),
        lambda store: store.create("a", b""),
        lambda store: store.upload(tmp_path / "large", "a"),
        lambda store: store.download("a", tmp_path / "fetched"),
        lambda store: store.delete(["a", "b"]),
    ]
    calls: list[Callable[[], object]] = []
    endpoints: list[str] = []
    with ExitStack() as stack:
        for dead in (refusing, black_hole, silent):
            endpoint = f"127.0.0.1:{stack.enter_context(dead())}"
            for kind in (s3, gcs):
                for scheme, work in [("http", work) for work in works] + [("https", works[0])]:
                    calls.append(partial(work, kind(monkeypatch, f"{scheme}://{endpoint}")))
                    endpoints.append(endpoint)
        with ThreadPoolExecutor(len(calls)) as pool:
            outcomes = list(pool.map(error_of, calls))
    for endpoint, (error, took) in zip(endpoints, outcomes, strict=True):
        assert endpoint in error.message
        assert took < LONGEST_S, error.message


class Empty(BaseHTTPRequestHandler):
    """A bucket without objects."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(EMPTY)))
        self.end_headers()
        self.wfile.write(EMPTY)

    def log_message(self, format: str, *args: Any) -> None:
        """Be silent."""


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Be silent: that clients hang up is what this is about."""


def certificate(directory: Path) -> Path:
    """Write a certificate for 127.0.0.1 that nobody vouches for, with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = directory / "server.pem"
    path.write_bytes(
        signed.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return path


@pytest.fixture
def tls(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """HOST:PORT of a server that speaks TLS, and its certificate."""
    path = certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    with Server(("127.0.0.1", 0), Empty) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield f"localhost:{server.server_address[1]}", path
        server.shutdown()
        thread.join()


def test_unknown_certificate_fails_at_once(monkeypatch: pytest.MonkeyPatch, tls: tuple[str, Path]) -> None:
    error, took = error_of(s3(monkeypatch, f"https://{tls[0]}").list)
    assert f"the TLS certificate of {tls[0]} is not trusted" in error.message
    assert "AWS_CA_BUNDLE" in error.hint
    assert "S3_VERIFY_SSL=0" in error.hint
    assert took < 5


@pytest.mark.parametrize("size", [1, 3 * 2**20], ids=["whole", "in chunks"])
def test_unknown_certificate_is_no_fault_of_the_file(
    monkeypatch: pytest.MonkeyPatch, tls: tuple[str, Path], tmp_path: Path, size: int
) -> None:
    """Google's library raises it as an `OSError`, as a file does that cannot be read."""
    (tmp_path / "source").write_bytes(bytes(size))
    store = gcs(monkeypatch, f"https://{tls[0]}")
    error, took = error_of(partial(store.upload, tmp_path / "source", "b"))
    assert f"cannot write gs://bucket/a/b: the TLS connection to {tls[0]} fails" in error.message
    assert took < 5


def test_known_certificate(monkeypatch: pytest.MonkeyPatch, tls: tuple[str, Path]) -> None:
    monkeypatch.setenv("AWS_CA_BUNDLE", str(tls[1]))
    assert s3(monkeypatch, f"https://{tls[0]}").list() == []


def test_certificate_that_need_not_be_known(
    monkeypatch: pytest.MonkeyPatch, tls: tuple[str, Path], caplog: pytest.LogCaptureFixture
) -> None:
    """One line says so; urllib3's warning at every request, which would be an error here, is not given."""
    monkeypatch.setenv("S3_VERIFY_SSL", "0")
    assert s3(monkeypatch, f"https://{tls[0]}").list() == []
    assert [record.levelname for record in caplog.records if record.name.startswith("fairway")].count(
        "WARNING"
    ) == 1


def test_plain_http_where_tls_is_expected(open_at: Callable[[str], Store]) -> None:
    with Server(("127.0.0.1", 0), Empty) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        store = open_at(f"https://127.0.0.1:{server.server_address[1]}")
        error, took = error_of(store.list)
        server.shutdown()
        thread.join()
    assert "TLS" in error.message
    if store.uri.startswith("s3"):
        assert "does not speak TLS" in error.message
        assert "S3_USE_HTTPS=0" in error.hint
    assert not error.is_retryable
    assert took < 5


def test_no_credentials_for_s3(monkeypatch: pytest.MonkeyPatch, tls: tuple[str, Path]) -> None:
    store_environment = s3_environment(tls[0], "", "")
    for name, value in store_environment.items():
        monkeypatch.setenv(name, value)
    error, took = error_of(open_store("s3://bucket/a").list)
    assert "there are no complete credentials for S3" in error.message
    assert "AWS_ACCESS_KEY_ID" in error.hint
    assert took < 5


def test_token_file_that_is_not_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    environment = s3_environment("127.0.0.1:9", "", "") | {
        "AWS_ROLE_ARN": "arn:aws:iam::123456789012:role/trainer",
        "AWS_WEB_IDENTITY_TOKEN_FILE": str(tmp_path / "token"),
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    error, took = error_of(open_store("s3://bucket/a").list)
    assert str(tmp_path / "token") in error.message
    assert "AWS_WEB_IDENTITY_TOKEN_FILE" in error.hint
    assert took < 5


@pytest.mark.parametrize("content", [None, "{nonsense", '{"type": "odd"}', '{"type": "service_account"}'])
def test_unusable_credentials_for_gcs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: str | None
) -> None:
    file = tmp_path / "account.json"
    if content is not None:
        file.write_text(content)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(file))
    error, took = error_of(open_store("gs://bucket/a").list)
    assert "there are no usable Google credentials" in error.message
    assert str(file) in error.message
    assert "GOOGLE_APPLICATION_CREDENTIALS" in error.hint
    assert took < 5


def test_directory_in_place_of_credentials_for_gcs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As a volume is that is mounted where its file was meant."""
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path))
    for call in (open_store("gs://b/a").list, partial(open_store("gs://b/a").download, "a", tmp_path / "b")):
        error, _ = error_of(call)
        assert f"there are no usable Google credentials: {tmp_path}: Is a directory" in error.message


@pytest.mark.slow
def test_metadata_server_is_not_waited_for_long(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("NO_GCE_CHECK", raising=False)
    with black_hole() as port:
        monkeypatch.setenv("GCE_METADATA_IP", f"127.0.0.1:{port}")
        error, took = error_of(open_store("gs://bucket/a").list)
    assert "there are no usable Google credentials" in error.message
    assert took < LONGEST_S
