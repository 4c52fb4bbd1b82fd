"""What can be wrong before the first request."""

import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fairway.config import ServeSettings
from fairway.errors import FairwayError, UsageError
from fairway.serve.server import run


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_a_taken_port(taken_port: int, tmp_path: Path) -> None:
    with pytest.raises(FairwayError, match=f"port {taken_port} on 127.0.0.1 is taken") as caught:
        run(ServeSettings(rest_api_port=taken_port, model_base_path=str(tmp_path)))

    assert "--rest_api_port" in caught.value.hint


def test_a_host_that_is_not_this_one(tmp_path: Path) -> None:
    with pytest.raises(FairwayError, match=r"cannot listen on 192\.0\.2\.1:0: "):
        run(ServeSettings(host="192.0.2.1", rest_api_port=0, model_base_path=str(tmp_path)))


def test_a_base_path_that_is_a_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.touch()

    for base_path in (str(path), f"file://{path}"):
        with pytest.raises(FairwayError, match="is a file, but must be a directory of versions"):
            run(ServeSettings(rest_api_port=0, model_base_path=base_path))


@pytest.mark.parametrize("uri", ["s3://", "http://bucket/models", "file://host/models"])
def test_a_uri_that_is_none(uri: str) -> None:
    with pytest.raises(UsageError, match=uri):
        run(ServeSettings(rest_api_port=0, model_base_path=uri))


def test_a_store_whose_extra_is_not_installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for name in [name for name in sys.modules if name.startswith("fairway.storage.stores.s3")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "boto3", None)

    with pytest.raises(FairwayError, match="boto3, which is not installed") as caught:
        run(ServeSettings(rest_api_port=0, model_base_path="s3://bucket/models"))

    assert "fairway[s3]" in caught.value.hint
