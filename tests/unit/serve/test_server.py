"""What can be wrong before the first request, and after the last."""

import os
import re
import signal
import socket
import subprocess
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


# A thread that the interpreter waits for, as a load does that was asked for over gRPC.
STUCK = """
import sys, threading
from fairway.config import ServeSettings
from fairway.serve import answering, server
import logging
logging.basicConfig(level=logging.INFO, stream=sys.stderr)
answering._END_S = 0.1
threading.Thread(target=threading.Event().wait).start()
server.run(ServeSettings(port=0, rest_api_port=0, model_base_path=sys.argv[1], drain_seconds=0.1))
"""


def test_a_load_that_never_ends_does_not_keep_the_server(tmp_path: Path) -> None:
    command = [sys.executable, "-c", STUCK, str(tmp_path)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr
        try:
            for line in process.stderr:
                if "gRPC answers" in line:
                    process.send_signal(signal.SIGTERM)
                    break
            assert process.wait(30) == 0
            assert "ending without waiting for it" in process.stderr.read()
        finally:
            process.kill()


@pytest.mark.parametrize("closed", ["", "<&-", ">&-", "<&- >&- 2>&-"])
def test_a_server_without_stdin_stdout_and_stderr(tmp_path: Path, closed: str) -> None:
    program = (
        "import os, sys\n"
        "from fairway.serve.server import _open_missing_descriptors\n"
        "_open_missing_descriptors()\n"
        "new = os.open(sys.argv[1], os.O_CREAT | os.O_WRONLY)\n"
        "os.write(new, repr((new > 2, [os.get_inheritable(number) for number in range(3)])).encode())\n"
    )
    found = tmp_path / "found"
    command = ["sh", "-c", f'exec "$@" {closed}', "sh", sys.executable, "-c", program, str(found)]
    subprocess.run(command, check=True, timeout=60, env=os.environ)
    assert found.read_text() == repr((True, [True] * 3))


def test_grpc_is_told_to_be_quiet_before_it_is_loaded(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("GRPC_VERBOSITY", "")
    monkeypatch.delenv("GRPC_VERBOSITY")
    with pytest.raises(UsageError):
        run(settings(ssl_config_file=str(tmp_path / "none")))
    assert os.environ["GRPC_VERBOSITY"] == "NONE"
