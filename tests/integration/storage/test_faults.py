"""Bad days between fairway and a store: each ends well, or in an error that says what to do."""

from __future__ import annotations

import datetime
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import botocore.auth
import pytest

from fairway.errors import StorageError, StoreAwayError
from fairway.storage.checkpoints import list_checkpoints
from fairway.storage.exports import find_version, list_versions
from fairway.storage.manifest import MANIFEST, describe_files
from fairway.storage.mirror import Mirror
from fairway.storage.publish import fetch_version, publish_version
from fairway.storage.stores import retry
from fairway.storage.stores.uri import open_store
from tests.integration.storage.test_mirror import make_model_dir, wait_for
from tests.integration.storage.writers import write_checkpoint
from tests.manifests import make_version
from tests.servers.fixtures import use
from tests.servers.moto import Moto
from tests.servers.proxy import Answer, Delay, Fault, FaultProxy, LostAnswer, Request, Reset, Truncate
from tests.servers.swift import Swift

FaultOf = Callable[[Request], Fault | None]


def first_time(fault: Fault) -> FaultOf:
    """Let every request suffer once."""
    return lambda request: fault if request.attempt == 0 else None


def on(fault: Fault, method: str, text: str = "") -> FaultOf:
    return lambda request: fault if request.method == method and text in request.path else None


@pytest.mark.parametrize(
    "fault",
    [
        first_time(Delay(0.2)),
        first_time(Answer(500, "InternalError")),
        first_time(Answer(503, "SlowDown")),
        first_time(Answer(503, "")),
        first_time(Reset(after=0)),
        first_time(Reset(after=300)),
        first_time(Reset(after=0, upload=True)),
        first_time(Reset(after=300, upload=True)),
        first_time(LostAnswer()),
    ],
    ids=lambda fault: repr(fault(Request("", "", {}))),
)
def test_what_passes_is_survived(moto: Moto, tmp_path: Path, via_proxy: FaultProxy, fault: FaultOf) -> None:
    uri = f"{moto.new_bucket()}/models"
    version = make_version(tmp_path / "a", 5, files=4)
    via_proxy.fault = fault
    publish_version(version, uri)
    fetched = fetch_version(find_version(uri), tmp_path / "b")
    assert describe_files(fetched.path) == describe_files(version.path)
    assert max(request.attempt for request in via_proxy.requests) >= 1 or isinstance(
        fault(Request("", "", {})), Delay
    )


def test_a_large_file_arrives_over_a_line_that_breaks_again_and_again(
    moto: Moto, tmp_path: Path, via_proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retry, "FIRST_DELAY_S", 0.01)
    store = open_store(moto.new_bucket())
    content = bytes(range(256)) * 4 * 10_000  # 10 MB, more than one part
    (tmp_path / "file").write_bytes(content)
    via_proxy.fault = lambda request: Reset(after=1_000_000) if request.method == "GET" else None
    store.upload(tmp_path / "file", "file")
    store.download("file", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == content
    assert len(via_proxy.requests) > 10


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (on(Answer(503, "SlowDown"), "PUT"), "is overloaded"),
        (on(Answer(500, "InternalError"), "PUT"), "500"),
        (on(LostAnswer(), "PUT"), "the connection to 127.0.0.1:.* breaks off"),
        (on(Reset(after=0, upload=True), "PUT"), "the connection to 127.0.0.1:.* breaks off"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_does_not_pass_is_an_error_in_time(
    moto: Moto,
    tmp_path: Path,
    via_proxy: FaultProxy,
    monkeypatch: pytest.MonkeyPatch,
    fault: FaultOf,
    words: str,
) -> None:
    monkeypatch.setattr(retry, "DEADLINE_S", 2.0)
    uri = f"{moto.new_bucket()}/models"
    via_proxy.fault = fault
    started = time.monotonic()
    with pytest.raises(StoreAwayError, match=words) as caught:
        publish_version(make_version(tmp_path / "a", 5, files=4), uri)
    assert time.monotonic() - started < 5
    assert caught.value.is_retryable
    assert caught.value.hint
    via_proxy.fault = lambda _: None
    assert not [version for version in list_versions(uri) if not version.problem]
    publish_version(make_version(tmp_path / "a", 5, files=4), uri)
    assert not find_version(uri).problem


@pytest.mark.parametrize(
    ("code", "status", "words"),
    [
        ("AccessDenied", 403, "cannot write .*: access is denied"),
        ("ExpiredToken", 400, "the credentials have expired"),
        ("RequestTimeTooSkewed", 403, "the clock of this machine differs"),
        ("SignatureDoesNotMatch", 403, "do not belong together"),
    ],
)
def test_a_refusal_is_an_error_at_once(
    moto: Moto, tmp_path: Path, via_proxy: FaultProxy, code: str, status: int, words: str
) -> None:
    uri = f"{moto.new_bucket()}/models"
    via_proxy.fault = on(Answer(status, code), "PUT")
    started = time.monotonic()
    with pytest.raises(StorageError, match=words) as caught:
        publish_version(make_version(tmp_path / "a", 5, files=4), uri)
    assert time.monotonic() - started < 3
    assert not caught.value.is_retryable
    assert list_versions(uri) == []


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_server_that_sends_everything_elsewhere(
    moto: Moto, tmp_path: Path, via_proxy: FaultProxy, status: int
) -> None:
    """As many do with requests without TLS."""
    store = open_store(moto.new_bucket())
    via_proxy.fault = lambda _: Answer(status, "Moved")
    calls = (store.list, partial(store.stat, "a"), partial(store.download, "a", tmp_path / "a"))
    for call in calls:
        via_proxy.requests.clear()
        with pytest.raises(
            StorageError, match=rf"127.0.0.1:\d+ sends requests elsewhere \({status}\)"
        ) as caught:
            call()
        assert "S3_USE_HTTPS=1" in caught.value.hint
        assert len(via_proxy.requests) <= 4


def test_truncated_files_are_noticed(moto: Moto, tmp_path: Path, via_proxy: FaultProxy) -> None:
    uri = f"{moto.new_bucket()}/models"
    publish_version(make_version(tmp_path / "a", 5), uri)
    version = find_version(uri)
    via_proxy.fault = on(Truncate(100), "GET", "variables/part-01")
    with pytest.raises(StorageError, match="part-01"):
        fetch_version(version, tmp_path / "b")
    assert not list((tmp_path / "b").iterdir())
    via_proxy.fault = on(Truncate(100), "GET", MANIFEST)
    assert "cannot be read" in list_versions(uri)[0].problem
    with pytest.raises(StorageError):
        fetch_version(version, tmp_path / "b")
    assert not list((tmp_path / "b").iterdir())


def test_a_missing_bucket_is_named(moto: Moto, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use(moto, monkeypatch)
    started = time.monotonic()
    with pytest.raises(StorageError, match="there is no bucket no-such-bucket"):
        publish_version(make_version(tmp_path / "a", 5), "s3://no-such-bucket/models")
    with pytest.raises(StorageError, match="there is no bucket no-such-bucket"):
        list_versions("s3://no-such-bucket/models")
    assert time.monotonic() - started < 3


def test_a_clock_that_is_an_hour_off(swift: Swift, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use(swift, monkeypatch)
    store = open_store(swift.new_bucket())
    store.write("a", b"1")
    now = datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=1)
    monkeypatch.setattr(botocore.auth, "get_current_datetime", lambda: now)
    with pytest.raises(StorageError, match="the clock of this machine differs"):
        store.write("a", b"2")


def test_a_mirror_takes_up_credentials_that_were_renewed(
    moto: Moto, tmp_path: Path, via_proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    credentials = tmp_path / "credentials"

    def set_key(key: str) -> None:
        credentials.write_text(f"[default]\naws_access_key_id = {key}\naws_secret_access_key = secret\n")

    set_key("OLD")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(credentials))
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    store = open_store(f"{moto.new_bucket()}/run")
    source = make_model_dir(tmp_path / "a", 10)
    mirror = Mirror(source, store, interval_s=0.02)
    mirror.start()

    def expire(request: Request) -> Fault | None:
        old = "Credential=OLD/" in request.headers["Authorization"]
        return Answer(400, "ExpiredToken") if old else None

    via_proxy.fault = expire
    write_checkpoint(source, 20)
    refused = len(via_proxy.requests)
    wait_for(lambda: len(via_proxy.requests) > refused + 2)
    mirror.check()
    set_key("NEW")
    wait_for(lambda: [each.step for each in list_checkpoints(store)] == [10, 20])
    mirror.close()


def test_credentials_that_stay_expired_are_told_at_the_end(
    moto: Moto, tmp_path: Path, via_proxy: FaultProxy
) -> None:
    mirror = Mirror(make_model_dir(tmp_path / "a", 10), open_store(f"{moto.new_bucket()}/run"))
    mirror.start()
    write_checkpoint(tmp_path / "a", 20)
    via_proxy.fault = lambda _: Answer(400, "ExpiredToken")
    with pytest.raises(StorageError, match="the credentials have expired"):
        mirror.close(patience_s=0.5)


def test_a_full_disk_ends_a_fetch_in_a_sentence(
    moto: Moto, tmp_path: Path, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    use(moto, monkeypatch)
    uri = f"{moto.new_bucket()}/models"
    publish_version(make_version(tmp_path / "a", 5, size=50_000), uri)
    limit = 20_000  # bytes a file
    done = subprocess.run(
        [sys.executable, "-m", "fairway", "sync", uri, "here"],
        cwd=tmp_path,
        env=environment | moto.environment,
        capture_output=True,
        text=True,
        timeout=60,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
        check=False,
    )
    assert done.returncode == 1
    assert "a file would grow beyond the limit" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list((tmp_path / "here").iterdir())
