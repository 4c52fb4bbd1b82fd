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

from fairway.errors import START_AGAIN
from fairway.storage.checkpoints import list_checkpoints
from fairway.storage.exports import Version, list_versions
from fairway.storage.model_dir import METRICS
from fairway.storage.stores.uri import open_store
from tests.conftest import Fairway
from tests.integration.serving.conftest import Server
from tests.integration.test_tensorboard import tensorboard
from tests.servers.fixtures import use
from tests.servers.moto import Moto
from tests.servers.proxy import Answer, FaultProxy, Request

QUICK = ("train", "--dataset", "embedded", "--model-type", "linear", "--checkpoint-steps", "50")
SECRET = "nobody-may-see-this"


class Training:
    """Trainings of one model in an object store, behind a proxy that only they go through.

    Attributes:
        uri: Below it are `model` and `export`.
        home: Where they run; `cache` in it is their machine's cache.
        environment: Theirs.
    """

    def __init__(self, uri: str, home: Path, environment: dict[str, str]) -> None:
        self.uri, self.home, self.environment = uri, home, environment
        self.words = (*QUICK, "--model-dir", f"{uri}/model", "--export-dir", f"{uri}/export")

    def start(self, steps: int, **variables: str) -> subprocess.Popen[str]:
        """Start a training."""
        return subprocess.Popen(
            [sys.executable, "-m", "fairway", *self.words, "--train-steps", str(steps)],
            cwd=self.home,
            env=self.environment | variables,
            stderr=subprocess.PIPE,
            text=True,
        )

    @property
    def published(self) -> int:
        """The step of the newest checkpoint in the store; 0 if there is none."""
        return max((each.step for each in list_checkpoints(open_store(f"{self.uri}/model"))), default=0)

    @property
    def versions(self) -> list[Version]:
        """What is exported."""
        return list_versions(f"{self.uri}/export")

    @property
    def recorded_steps(self) -> list[int]:
        """The steps of `metrics.jsonl`."""
        lines = map(json.loads, open_store(f"{self.uri}/model").read(METRICS).splitlines())
        return [line["step"] for line in lines if "loss" in line]

    def wait_until_published(self, process: subprocess.Popen[str], above: int = 0) -> None:
        """Wait until a running training has published a checkpoint beyond a step."""
        wait_for(lambda: self.published > above, process)


@pytest.fixture
def proxy(moto: Moto, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultProxy]:
    """The only way to the store for the commands; the test itself asks it directly."""
    use(moto, monkeypatch)
    with FaultProxy(moto.address) as proxy:
        yield proxy


@pytest.fixture
def variables(moto: Moto, proxy: FaultProxy) -> dict[str, str]:
    """What leads a command to the store."""
    return moto.environment | {"S3_ENDPOINT": proxy.endpoint, "AWS_SECRET_ACCESS_KEY": SECRET}


@pytest.fixture
def training(moto: Moto, tmp_path: Path, environment: dict[str, str], variables: dict[str, str]) -> Training:
    return Training(f"{moto.new_bucket()}/digits", tmp_path, environment | variables)


def wait_for(condition: Callable[[], object], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert process.poll() is None, process.stderr and process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_killed_and_resumed_elsewhere_then_served_and_watched_from_there(
    training: Training, fairway: Fairway, variables: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    uri, reached = training.uri, 0
    for _ in range(2):
        with training.start(100_000) as process:  # more than is trained before the kill
            training.wait_until_published(process, above=reached)
            process.kill()
        assert not training.versions
        reached = training.published
        shutil.rmtree(training.home / "cache")  # the next one runs on another machine
    total = reached + 100
    done = fairway(*training.words, "--train-steps", str(total), "--debug", **variables)
    assert done.returncode == 0, done.stderr
    store = open_store(uri)
    written = b"".join(store.read(entry.key) for entry in store.list()) + done.stderr.encode()
    assert SECRET.encode() not in written
    assert f"resuming at step {reached} of {total} from {uri}/model" in done.stderr
    (version,) = training.versions
    assert not version.problem
    assert version.manifest
    assert version.manifest.step == total
    assert done.stdout.strip() == version.uri == f"{uri}/export/{version.number}"
    assert training.recorded_steps == sorted(set(training.recorded_steps))
    assert training.published == training.recorded_steps[-1] == total
    left = [path for path in (training.home / "cache").rglob("*") if path.is_file()]
    assert [path.name for path in left] == [".train.lock"], "nothing is kept once all is in the store"

    with tensorboard(training.home, training.environment, "--logdir", f"{uri}/model") as client:
        tags = client.get("data/plugin/scalars/tags").json()
        assert tags.keys() == {"events/train", "events/test"}
    monkeypatch.setenv("XDG_CACHE_HOME", str(training.home / "elsewhere"))
    server = Server(f"{uri}/export")
    try:
        server.wait_for_version(version.number)
        answer = server.predict(instances=np.zeros((2, 28, 28)).tolist())
        assert answer.status_code == 200, answer.text
        assert len(answer.json()["predictions"]) == 2
    finally:
        assert server.stop() == 0, server.output


def test_outage_while_training_is_caught_up(training: Training, proxy: FaultProxy) -> None:
    with training.start(100_000) as process:
        training.wait_until_published(process)
        proxy.fault = lambda _: Answer(503, "ServiceUnavailable")
        asked = len(proxy.requests)
        wait_for(lambda: len(proxy.requests) > asked + 10, process)
        proxy.fault = lambda _: None
        training.wait_until_published(process, above=training.published)
        process.send_signal(signal.SIGTERM)
        _, stderr = process.communicate(timeout=60)
    assert process.returncode == 143, stderr
    assert stderr.count("the training goes on") <= 1
    stopped = int(stderr.split("stopped by SIGTERM at step ")[1].split()[0])
    assert training.published == stopped, "the last checkpoint is in the store before the process ends"


@pytest.mark.slow  # it tries for a minute before it gives up
def test_outage_at_the_end_keeps_the_results_and_tells_the_command_that_sends_them(
    training: Training, proxy: FaultProxy, fairway: Fairway, variables: dict[str, str]
) -> None:
    total = 20_000
    with training.start(total) as process:
        training.wait_until_published(process)
        proxy.fault = lambda _: Answer(503, "ServiceUnavailable")
        _, stderr = process.communicate(timeout=240)
    assert process.returncode == START_AGAIN, stderr
    assert "Traceback" not in stderr
    assert not training.versions
    proxy.fault = lambda _: None
    commands = [line.partition("fairway sync ")[2] for line in stderr.splitlines() if "fairway sync" in line]
    assert len(commands) == 2, stderr
    for command in commands:
        done = fairway("sync", *shlex.split(command), **variables)
        assert done.returncode == 0, done.stderr
    (version,) = training.versions
    assert version.manifest
    assert version.manifest.step == training.published == total
    again = fairway(*training.words, "--train-steps", str(total), **variables)
    assert f"trained already: step {total} of {total}" in again.stderr


def test_a_store_that_refuses_ends_it_before_the_training(
    training: Training, proxy: FaultProxy, fairway: Fairway, variables: dict[str, str]
) -> None:
    missing = fairway(*QUICK, "--model-dir", "s3://no-such-bucket/model", **variables)
    assert missing.returncode == 1
    assert "there is no bucket no-such-bucket" in missing.stderr
    for part in ("/model/", "/export/"):
        proxy.fault = partial(deny_writing, part)
        denied = fairway(*training.words, **variables)
        assert denied.returncode == 1
        assert "access is denied" in denied.stderr
        assert "cannot write s3://" in denied.stderr
        assert part in denied.stderr
        assert "training linear" not in denied.stderr


def deny_writing(part: str, request: Request) -> Answer | None:
    return Answer(403, "AccessDenied") if request.method == "PUT" and part in request.path else None


@pytest.mark.slow
def test_two_trainings_in_one_place_are_told_apart(
    training: Training, fairway: Fairway, variables: dict[str, str]
) -> None:
    total = 100_000
    with training.start(total) as first:
        training.wait_until_published(first)
        here = fairway(*training.words, "--train-steps", str(total), **variables)
        assert here.returncode == 1
        assert "another process is at work (train)" in here.stderr
        with training.start(total, XDG_CACHE_HOME=str(training.home / "elsewhere")) as second:
            ended = wait_for_one(first, second)
            assert "another training has written" in ended.communicate(timeout=60)[1]
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
