"""What a directory may be named by, and what opens it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from fairway.errors import UsageError
from fairway.storage.stores.uri import join_uri, local_path, open_store, split_uri


@pytest.mark.parametrize(
    ("uri", "path"),
    [
        ("mnist/model", "mnist/model"),
        ("/srv/models", "/srv/models"),
        ("file:///srv/models", "/srv/models"),
        ("FILE:///srv/models", "/srv/models"),
        ("file://localhost/srv/models", "/srv/models"),
        ("file:///srv/my%20models", "/srv/my models"),
        ("a:b/c", "a:b/c"),
    ],
)
def test_directory_of_this_machine(uri: str, path: str) -> None:
    assert local_path(uri) == Path(path)


def test_home_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    assert local_path("~/models") == Path("/home/somebody/models")


def test_home_of_nobody() -> None:
    with pytest.raises(
        UsageError, match="~no-such-user/models lies in the home of a user who does not exist"
    ):
        local_path("~no-such-user/models")


@pytest.mark.parametrize("uri", ["s3://bucket", "s3://bucket/a/b", "gs://bucket/a", "S3://bucket"])
def test_object_store_is_no_path(uri: str) -> None:
    assert local_path(uri) is None


@pytest.mark.parametrize(
    ("uri", "parts"),
    [
        ("s3://bucket", ("s3", "bucket", "")),
        ("s3://bucket/", ("s3", "bucket", "")),
        ("s3://bucket/a", ("s3", "bucket", "a/")),
        ("s3://bucket/a/b/", ("s3", "bucket", "a/b/")),
        ("GS://bucket//a//", ("gs", "bucket", "a/")),
    ],
)
def test_parts(uri: str, parts: tuple[str, str, str]) -> None:
    assert split_uri(uri) == parts


@pytest.mark.parametrize(
    "uri", ["ftp://host/a", "http://host/a", "hdfs://a/b", "s3:///a", "gs://", "file://host/a"]
)
def test_what_is_no_directory_is_named(uri: str) -> None:
    with pytest.raises(UsageError) as caught:
        open_store(uri)
    assert uri in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize("uri", ["s3://bucket", "s3://bucket/", "/srv", "."])
def test_join(uri: str) -> None:
    assert join_uri(uri, "a/b") == f"{uri.rstrip('/')}/a/b"


@pytest.mark.parametrize(
    ("uri", "absent", "package"),
    [
        ("s3://b/p", "boto3", "boto3"),
        ("s3://b/p", "botocore", "boto3"),
        ("gs://b/p", "google", "google-cloud-storage"),
    ],
)
def test_missing_extra_is_named(uri: str, absent: str, package: str) -> None:
    code = f"""
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == {absent!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Absent())
from fairway.errors import FairwayError
from fairway.storage.stores.uri import open_store
try:
    open_store({uri!r})
except FairwayError as err:
    print(err.message, err.hint, sep="\\n")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    extra = "s3" if uri.startswith("s3") else "gcs"
    assert done.stdout.splitlines() == [
        f"{uri[:5]}… needs {package}, which is not installed",
        f"Install it with: pip install 'fairway[{extra}]'",
    ]
