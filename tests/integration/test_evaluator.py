"""The evaluator of a distributed training: beside the training, before it, on a disk and on a store."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fairway.net.cluster import Task, tf_config
from fairway.storage.checkpoints import fetch_model_dir
from fairway.storage.exports import list_versions
from fairway.storage.mirror import Mirror
from fairway.storage.model_dir import CHECKPOINTS, read_config, write_config
from fairway.storage.stores.uri import open_store
from tests.conftest import Fairway, clean_environment
from tests.integration.test_tensorboard import tensorboard
from tests.servers.fixtures import use
from tests.servers.moto import Moto

QUICK = ("train", "--dataset", "embedded", "--model-type", "linear")
EVALUATOR = {"TF_CONFIG": tf_config({Task("chief", 0): "127.0.0.1:20000"}, Task("evaluator", 0))}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a short training has ended, at step 110 with checkpoints of 50 and 100 too."""
    home = tmp_path_factory.mktemp("trained")
    words = (*QUICK, "--train-steps", "110", "--checkpoint-steps", "50")
    command = [sys.executable, "-m", "fairway", *words]
    subprocess.run(command, cwd=home, env=clean_environment(home / "cache"), check=True, timeout=120)
    return home


@pytest.fixture
def home(trained: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    shutil.copytree(trained / "mnist", tmp_path / "mnist")
    return tmp_path


@contextmanager
def evaluator(home: Path, environment: dict[str, str], *words: str) -> Iterator[subprocess.Popen[str]]:
    """Start an evaluator, which is killed at the end if it has not ended before."""
    with subprocess.Popen(
        [sys.executable, "-m", "fairway", "train", *words],
        cwd=home,
        env=environment | EVALUATOR,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def next_line(process: subprocess.Popen[str]) -> str:
    assert process.stderr
    return process.stderr.readline()


def evaluated(output: str) -> list[int]:
    """Return the steps that an evaluator says to have evaluated."""
    return [
        int(step) for step in re.findall(r"step (\d+) of \d+: test accuracy [\d.]+ %, loss [\d.]+", output)
    ]


def curves(home: Path, environment: dict[str, str], logdir: str) -> dict[str, dict[int, float]]:
    """Return the evaluator's curves as TensorBoard shows them: tag -> step -> value."""
    with tensorboard(home, environment, "--logdir", logdir) as client:
        tags = client.get("data/plugin/scalars/tags").json()
        assert {"events/train", "events/test", "events/evaluator"} <= tags.keys()
        assert tags["events/evaluator"].keys() == tags["events/test"].keys()
        points = {
            tag: client.get(
                "data/plugin/scalars/scalars", params={"run": "events/evaluator", "tag": tag}
            ).json()
            for tag in tags["events/evaluator"]
        }
    return {tag: {step: value for _, step, value in each} for tag, each in points.items()}


def check_last(found: dict[str, dict[int, float]], export_dir: str, step: int) -> None:
    """Check that the last point of each curve is what the exported version was measured to have."""
    (version,) = list_versions(export_dir)
    assert version.manifest
    assert version.manifest.step == step
    for tag in ("accuracy", "loss"):
        assert max(found[tag]) == step
        assert found[tag][step] == pytest.approx(version.manifest.metrics[f"test_{tag}"], rel=1e-5)


def test_beside_a_training_on_this_machine(
    tmp_path: Path, fairway: Fairway, environment: dict[str, str]
) -> None:
    words = (*QUICK, "--train-steps", "600", "--checkpoint-steps", "100")
    done = fairway(*words, "--evaluator")
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("evaluator 0")]
    steps = evaluated("\n".join(lines))
    assert steps == sorted(set(steps))
    assert steps[-1] == 600
    assert "the training is done" in lines[-1]
    found = curves(tmp_path, environment, "mnist/model")
    assert list(found["accuracy"]) == steps
    check_last(found, str(tmp_path / "mnist" / "export"), 600)


def test_started_before_a_training_in_a_store(
    tmp_path: Path,
    environment: dict[str, str],
    fairway: Fairway,
    moto: Moto,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    use(moto, monkeypatch)
    uri = f"{moto.new_bucket()}/digits"
    words = ("--model-dir", f"{uri}/model", "--export-dir", f"{uri}/export")
    variables = environment | moto.environment
    with evaluator(tmp_path, variables | {"XDG_CACHE_HOME": str(tmp_path / "elsewhere")}, *words) as process:
        assert next_line(process) == f"waiting for the chief to start the training in {uri}/model\n"
        chief = fairway(
            *(*QUICK, *words, "--train-steps", "200", "--checkpoint-steps", "100"), **moto.environment
        )
        assert chief.returncode == 0, chief.stderr
        _, output = process.communicate(timeout=60)
    assert process.returncode == 0, output
    assert evaluated(output)[-1] == 200
    check_last(curves(tmp_path, variables, f"{uri}/model"), f"{uri}/export", 200)
    assert not list((tmp_path / "elsewhere" / "fairway" / "evaluations").iterdir())


def test_a_lead_leaves_the_evaluators_events_in_the_store(
    home: Path, moto: Moto, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(moto, monkeypatch)
    store = open_store(f"{moto.new_bucket()}/model")
    key = "events/evaluator/events.out.tfevents.1"
    store.write(key, b"events")
    for name in ("first", "another machine"):
        directory = home / name
        fetch_model_dir(store, directory)
        mirror = Mirror(directory, store)
        if name == "first":
            shutil.copytree(home / "mnist" / "model", directory, dirs_exist_ok=True)
        else:
            write_config(directory, (read_config(directory) or {}) | {"train_steps": 120})
        assert mirror.look()
        assert store.read(key) == b"events"
        assert not (directory / key).exists()


@pytest.mark.slow
def test_damaged_and_later_trained_on(home: Path, environment: dict[str, str], fairway: Fairway) -> None:
    damage(home / "mnist" / "model" / CHECKPOINTS, 110)
    with evaluator(home, environment, "--train-steps", "150") as process:
        lines = [next_line(process) for _ in range(3)]
        assert "evaluating the checkpoints in mnist/model on" in lines[0]
        assert "ckpt-00000110 is damaged and passed over" in lines[1]
        assert evaluated(lines[2]) == [100]
        more = fairway(*QUICK, "--train-steps", "150")
        assert more.returncode == 0, more.stderr
        _, output = process.communicate(timeout=60)
    assert process.returncode == 0, output
    assert evaluated(output)[-1] == 150


@pytest.mark.slow
def test_another_run_in_the_same_place_is_followed(
    home: Path, environment: dict[str, str], fairway: Fairway
) -> None:
    with evaluator(home, environment, "--train-steps", "150") as process:
        assert [evaluated(next_line(process)) for _ in range(2)] == [[], [110]]
        shutil.rmtree(home / "mnist")
        afresh = fairway(*QUICK, "--train-steps", "60")
        assert afresh.returncode == 0, afresh.stderr
        assert "evaluating the checkpoints" in next_line(process)
        assert evaluated(next_line(process)) == [60]
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=20) == 143
    assert list((home / "mnist" / "model" / "events" / "evaluator").iterdir())


def test_ends_where_the_last_checkpoint_of_a_finished_training_cannot_be_read(
    home: Path, fairway: Fairway
) -> None:
    damage(home / "mnist" / "model" / CHECKPOINTS, 110)
    done = fairway("train", "--peer-wait-seconds", "4", **EVALUATOR)
    assert done.returncode == 0, done.stderr
    assert evaluated(done.stderr) == [100]
    assert "unrestored" not in done.stderr, "what TensorFlow says of a damaged checkpoint helps nobody"


def damage(checkpoints: Path, step: int) -> None:
    path = checkpoints / f"ckpt-{step:08d}.data-00000-of-00001"
    content = bytearray(path.read_bytes())
    content[: len(content) // 2] = bytes(len(content) // 2)
    path.write_bytes(content)


def test_other_data_than_the_leads_is_refused(home: Path, fairway: Fairway) -> None:
    path = home / "mnist" / "model" / "config.json"
    config = json.loads(path.read_text())
    config["dataset"]["sha256"] = dict.fromkeys(config["dataset"]["sha256"], "0" * 64)
    path.write_text(json.dumps(config))
    done = fairway("train", **EVALUATOR)
    assert done.returncode == 1
    assert "is not the lead's" in done.stderr
    assert not evaluated(done.stderr)


def test_nothing_happens(tmp_path: Path, fairway: Fairway) -> None:
    done = fairway("train", "--peer-wait-seconds", "2", **EVALUATOR)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-2:] == [
        "error: nothing has happened in mnist/model for 2 s",
        "  Check that the chief runs and shares this disk (else use an object store), or raise"
        " --peer-wait-seconds.",
    ]
    assert not list(tmp_path.iterdir()), "it makes no directories: the chief does"


@pytest.mark.slow  # a look takes as long as a store may go without an answer
def test_a_store_that_is_away_is_waited_for(tmp_path: Path, environment: dict[str, str]) -> None:
    variables = {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x", "S3_ENDPOINT": "127.0.0.1:9"}
    words = ("--model-dir", "s3://bucket/model", "--peer-wait-seconds", "1")
    with evaluator(tmp_path, environment | variables, *words) as process:
        warning = next_line(process)
        assert "127.0.0.1:9" in warning
        assert warning.endswith("; trying again\n")
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(5)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=20) == 143


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_it_at_once(
    tmp_path: Path, environment: dict[str, str], signum: signal.Signals, code: int
) -> None:
    with evaluator(tmp_path, environment) as process:
        assert next_line(process).startswith("waiting for the chief")
        told = time.monotonic()
        process.send_signal(signum)
        _, output = process.communicate(timeout=20)
        assert time.monotonic() - told < 3
    assert process.returncode == code, output
    assert f"stopped by {signum.name}" in output
    assert "Traceback" not in output
