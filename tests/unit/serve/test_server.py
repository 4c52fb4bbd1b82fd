"""What can be wrong before the first request."""

import re
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fairway.config import ServeSettings
from fairway.errors import FairwayError, UsageError
from fairway.net.ports import reserve
from fairway.serve.server import run


def settings(**values: Any) -> ServeSettings:
    return ServeSettings(**{"port": 0, "rest_api_port": 0} | values)


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.mark.parametrize("workers", [1, 2])
def test_a_taken_port(taken_port: int, tmp_path: Path, workers: int) -> None:
    with pytest.raises(FairwayError, match=f"port {taken_port} on 127.0.0.1 is taken") as caught:
        run(settings(rest_api_port=taken_port, model_base_path=str(tmp_path), workers=workers))

    assert "--rest_api_port" in caught.value.hint


@pytest.mark.parametrize("workers", [1, 2])
def test_a_taken_port_for_grpc(taken_port: int, tmp_path: Path, workers: int) -> None:
    with pytest.raises(FairwayError, match=f"port {taken_port} on 127.0.0.1 is taken") as caught:
        run(settings(port=taken_port, model_base_path=str(tmp_path), workers=workers))

    assert "--port" in caught.value.hint


def test_a_port_that_another_server_has_reserved_for_its_workers(tmp_path: Path) -> None:
    with reserve("127.0.0.1", 0, "--port") as holder:
        port = holder.getsockname()[1]
        for workers in (1, 2):
            with pytest.raises(FairwayError, match=f"port {port} on 127.0.0.1 is taken"):
                run(settings(rest_api_port=port, model_base_path=str(tmp_path), workers=workers))


@pytest.mark.parametrize(
    "flag", ["model_config_file", "batching_parameters_file", "monitoring_config_file", "ssl_config_file"]
)
def test_files_that_cannot_be_used(tmp_path: Path, flag: str) -> None:
    wrong = tmp_path / "wrong"
    wrong.write_text("no such { thing")
    for path, reason in ((tmp_path / "nothing", "cannot be read"), (wrong, "not a ")):
        with pytest.raises(UsageError, match=re.escape(f"--{flag} {path}")) as caught:
            run(settings(enable_batching=True, **{flag: str(path)}))
        assert reason in caught.value.message


def test_batching_parameters_without_batching() -> None:
    with pytest.raises(UsageError, match="not --enable_batching"):
        run(settings(batching_parameters_file="batching.config"))


def test_labels_of_versions_that_do_not_serve_yet(tmp_path: Path) -> None:
    path = tmp_path / "models.config"
    path.write_text(
        'model_config_list { config { name: "m" base_path: "/m" version_labels { key: "a" value: 1 } } }'
    )
    with pytest.raises(UsageError, match="assign label to version 1 of model m") as caught:
        run(settings(model_config_file=str(path)))
    assert "--allow_version_labels_for_unavailable_models" in caught.value.hint


def test_a_host_that_is_not_this_one(tmp_path: Path) -> None:
    with pytest.raises(FairwayError, match=r"cannot listen on 192\.0\.2\.1:0: "):
        run(settings(host="192.0.2.1", model_base_path=str(tmp_path)))


def test_a_base_path_that_is_a_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.touch()

    for base_path in (str(path), f"file://{path}"):
        with pytest.raises(FairwayError, match="is a file, but must be a directory of versions"):
            run(settings(model_base_path=base_path))
    config = tmp_path / "models.config"
    config.write_text(f'model_config_list {{ config {{ name: "m" base_path: "{path}" }} }}')
    with pytest.raises(
        FairwayError, match=f"--model_config_file {config}: the base path {path} of model 'm'"
    ):
        run(settings(model_config_file=str(config)))


@pytest.mark.parametrize("uri", ["s3://", "http://bucket/models", "file://host/models"])
def test_a_uri_that_is_none(uri: str) -> None:
    with pytest.raises(UsageError, match=uri):
        run(settings(model_base_path=uri))


def test_a_store_whose_extra_is_not_installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for name in [name for name in sys.modules if name.startswith("fairway.storage.stores.s3")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "boto3", None)

    with pytest.raises(FairwayError, match="boto3, which is not installed") as caught:
        run(settings(model_base_path="s3://bucket/models"))

    assert "fairway[s3]" in caught.value.hint
