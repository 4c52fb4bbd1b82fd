"""`fairway train` into an object store: kills, outages, refusals; then serving and watching from there."""

from __future__ import annotations

import json
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from fairway.storage.checkpoints import list_checkpoints
from fairway.storage.exports import Version, list_versions
from fairway.storage.model_dir import METRICS
from fairway.storage.stores.uri import open_store
from tests.conftest import Fairway
from tests.integration.serving.conftest import Server
from tests.integration.test_tensorboard import tensorboard
from tests.servers.fixtures import use
from tests.servers.moto import Moto
from tests.servers.proxy import Answer, FaultProxy

QUICK = ("train", "--dataset", "embedded", "--model-type", "linear", "--checkpoint-steps", "50")

SECRET = "nobody-may-see-this"


@pytest.fixture
def proxy(moto: Moto, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultProxy]:
    """The only way to the store for the commands; the test itself asks it directly."""
    use(moto, monkeypatch)
    with FaultProxy(moto.address) as proxy:
        yield proxy


@pytest.fixture
def uri(moto: Moto) -> str:
    return f"{moto.new_bucket()}/digits"


@pytest.fixture
def words(uri: str) -> tuple[str, ...]:
    return (*QUICK, "--model-dir", f"{uri}/model", "--export-dir", f"{uri}/export")


@pytest.fixture
def variables(moto: Moto, proxy: FaultProxy) -> dict[str, str]:
    return moto.environment | {"S3_ENDPOINT": proxy.endpoint, "AWS_SECRET_ACCESS_KEY": SECRET}


def start(home: Path, environment: dict[str, str], *words: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "fairway", *words]
    return subprocess.Popen(command, cwd=home, env=environment, stderr=subprocess.PIPE, text=True)


def wait_for(condition: Callable[[], object], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert process.poll() is None, process.stderr and process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.02)


def published(uri: str) -> int:
    """Return the step of the newest checkpoint in the store; 0 if there is none."""
    return max((each.step for each in list_checkpoints(open_store(f"{uri}/model"))), default=0)


def is_further(uri: str, step: int) -> bool:
    return published(uri) > step


def versions(uri: str) -> list[Version]:
    return list_versions(f"{uri}/export")


def recorded_steps(uri: str) -> list[int]:
    lines = map(json.loads, open_store(f"{uri}/model").read(METRICS).splitlines())
    return [line["step"] for line in lines if "loss" in line]


def test_killed_and_resumed_elsewhere_then_served_and_watched_from_there(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    uri: str,
    words: tuple[str, ...],
    fairway: Fairway,
    environment: dict[str, str],
    variables: dict[str, str],
) -> None:
    total = 100_000  # more than is trained before the kills
    reached = 0
    for _ in range(2):
        with start(tmp_path, environment | variables, *words, "--train-steps", str(total)) as process:
            wait_for(partial(is_further, uri, reached), process)
            process.kill()
        assert not versions(uri)
        reached = published(uri)
        shutil.rmtree(tmp_path / "cache")  # the next one runs on another machine
    done = fairway(*words, "--train-steps", str(reached + 100), "--debug", **variables)
    assert done.returncode == 0, done.stderr
    store = open_store(uri)
    written = b"".join(store.read(entry.key) for entry in store.list()) + done.stderr.encode()
    assert SECRET.encode() not in written
    assert f"resuming at step {reached} of {reached + 100} from {uri}/model" in done.stderr
    (version,) = versions(uri)
    assert not version.problem
    assert version.manifest
    assert version.manifest.step == reached + 100
    assert done.stdout.strip() == version.uri == f"{uri}/export/{version.number}"
    assert recorded_steps(uri) == sorted(set(recorded_steps(uri)))
    assert published(uri) == recorded_steps(uri)[-1] == reached + 100
    left = [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    assert [path.name for path in left] == [".train.lock"], "nothing is kept once all is in the store"

    with tensorboard(tmp_path, environment | variables, "--logdir", f"{uri}/model") as client:
        tags = client.get("data/plugin/scalars/tags").json()
        assert tags.keys() == {"events/train", "events/test"}
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "elsewhere"))
    server = Server(f"{uri}/export")
    try:
        server.wait_for_version(version.number)
        answer = server.predict(instances=np.zeros((2, 28, 28)).tolist())
        assert answer.status_code == 200, answer.text
        assert len(answer.json()["predictions"]) == 2
    finally:
        assert server.stop() == 0, server.output


def test_outage_while_training_is_caught_up(
    tmp_path: Path,
    uri: str,
    words: tuple[str, ...],
    environment: dict[str, str],
    variables: dict[str, str],
    proxy: FaultProxy,
) -> None:
    with start(tmp_path, environment | variables, *words, "--train-steps", "100000") as process:
        wait_for(lambda: published(uri), process)
        proxy.fault = lambda _: Answer(503, "ServiceUnavailable")
        asked = len(proxy.requests)
        wait_for(lambda: len(proxy.requests) > asked + 10, process)
        proxy.fault = lambda _: None
        before = published(uri)
        wait_for(lambda: published(uri) > before, process)
        process.send_signal(signal.SIGTERM)
        _, stderr = process.communicate(timeout=60)
    assert process.returncode == 143, stderr
    assert stderr.count("the training goes on") <= 1
    stopped = int(stderr.split("stopped by SIGTERM at step ")[1].split()[0])
    assert published(uri) == stopped, "the last checkpoint is in the store before the process ends"


@pytest.mark.slow  # it tries for a minute before it gives up
def test_outage_at_the_end_keeps_the_results_and_tells_the_command_that_sends_them(
    tmp_path: Path,
    uri: str,
    words: tuple[str, ...],
    fairway: Fairway,
    environment: dict[str, str],
    variables: dict[str, str],
    proxy: FaultProxy,
) -> None:
    with start(tmp_path, environment | variables, *words, "--train-steps", "20000") as process:
        wait_for(lambda: published(uri), process)
        proxy.fault = lambda _: Answer(503, "ServiceUnavailable")
        _, stderr = process.communicate(timeout=240)
    assert process.returncode == 1, stderr
    assert "Traceback" not in stderr
    assert not versions(uri)
    proxy.fault = lambda _: None
    commands = [line.partition("fairway sync ")[2] for line in stderr.splitlines() if "fairway sync" in line]
    assert len(commands) == 2, stderr
    for command in commands:
        done = fairway("sync", *shlex.split(command), **variables)
        assert done.returncode == 0, done.stderr
    (version,) = versions(uri)
    assert version.manifest
    assert version.manifest.step == published(uri) == 20000
    again = fairway(*words, "--train-steps", "20000", **variables)
    assert "trained already: step 20000 of 20000" in again.stderr


def test_a_store_that_refuses_ends_it_before_the_training(
    tmp_path: Path, words: tuple[str, ...], fairway: Fairway, variables: dict[str, str], proxy: FaultProxy
) -> None:
    missing = fairway(*QUICK, "--model-dir", "s3://no-such-bucket/model", **variables)
    assert missing.returncode == 1
    assert "there is no bucket no-such-bucket" in missing.stderr
    for part in ("/model/", "/export/"):
        proxy.fault = lambda request, part=part: (  # type: ignore[misc]
            Answer(403, "AccessDenied") if request.method == "PUT" and part in request.path else None
        )
        denied = fairway(*words, **variables)
        assert denied.returncode == 1
        assert "access is denied" in denied.stderr
        assert "cannot write s3://" in denied.stderr
        assert part in denied.stderr
        assert "training linear" not in denied.stderr


def test_two_trainings_in_one_place_are_told_apart(
    tmp_path: Path,
    uri: str,
    words: tuple[str, ...],
    fairway: Fairway,
    environment: dict[str, str],
    variables: dict[str, str],
) -> None:
    endless = (*words, "--train-steps", "100000")
    with start(tmp_path, environment | variables, *endless) as first:
        wait_for(lambda: published(uri), first)
        here = fairway(*endless, **variables)
        assert here.returncode == 1
        assert "another process is at work (train)" in here.stderr
        elsewhere = environment | variables | {"XDG_CACHE_HOME": str(tmp_path / "elsewhere")}
        with start(tmp_path, elsewhere, *endless) as second:
            ended = wait_for_one(first, second)
            assert "another training has written" in (ended.communicate(timeout=60)[1])
            assert ended.returncode == 1
            (first if ended is second else second).terminate()


def wait_for_one(*processes: subprocess.Popen[str]) -> subprocess.Popen[str]:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        for process in processes:
            if process.poll() is not None:
                return process
        time.sleep(0.05)
    raise AssertionError("both go on")
