"""Distributed trainings of real processes that are killed, stopped, starved of disk, and set up wrongly."""

from __future__ import annotations

import os
import random
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path

import numpy as np
import psutil
import pytest

from fairway.local.cluster import free_addresses
from fairway.net.cluster import Task, tf_config
from fairway.storage.exports import Version, list_versions
from fairway.storage.model_dir import CHECKPOINTS, checkpoint_name
from tests.conftest import ROOT, Fairway
from tests.integration.jobs import APART, TOGETHER, Job, read_metrics, running
from tests.integration.serving.conftest import Server
from tests.servers.fixtures import use
from tests.servers.moto import Moto
from tests.servers.proxy import Answer, FaultProxy

LINEAR = ("--dataset", "embedded", "--model-type", "linear", "--seed", "1")
BATCH = ("--batch-size", "32")
INTERVAL = 100
TOTAL = 2000
MODES = {"synchronous": ("--workers", "2"), "asynchronous": ("--workers", "2", "--ps", "1")}
ONE_WORKER = ("--workers", "1")
TASKS = {
    "synchronous": ("chief", "worker 0", "worker 1"),
    "asynchronous": ("chief", "worker 0", "worker 1", "ps 0"),
}


def words(flags: tuple[str, ...], *more: str, total: int = TOTAL) -> tuple[str, ...]:
    return (*LINEAR, *BATCH, "--train-steps", str(total), "--checkpoint-steps", str(INTERVAL), *flags, *more)


def kill_each(job: Job, mode: str, rng: random.Random) -> None:
    """Kill every task once, in any order and each at a random moment, and see the training go on."""
    for victim in rng.sample(TASKS[mode], len(TASKS[mode])):
        step = min(job.step() + rng.randrange(20, 200), TOTAL - 300)
        job.wait_until(lambda step=step: job.step() >= step)  # type: ignore[misc]
        time.sleep(rng.random() / 5)
        starts = job.starts()
        killed = job.signal(victim)
        if mode == "asynchronous" and victim.startswith("worker"):
            job.wait_for_progress(since=killed)  # the others go on, and may be done before it is back
        else:
            job.wait_until(lambda starts=starts: job.starts() > starts)  # type: ignore[misc]
            job.wait_for_progress(since=time.time())


def check(job: Job, mode: str, export_dir: str | Path) -> Version:
    """Check that a job has ended as if nothing had happened."""
    assert job.wait() == 0, job.output
    assert not working_in(job.home), job.output
    (version,) = list_versions(export_dir)
    assert version.manifest is not None
    assert version.manifest.step == TOTAL
    assert version.manifest.metrics["test_accuracy"] > 0.85
    assert not version.problem
    for name in TASKS[mode][1:]:
        assert f"{name:<8} │ the training is done" in job.output, job.output
    return version


def working_in(home: Path) -> list[psutil.Process]:
    """Return the processes that work in a directory, whoever has started them and when."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):  # gone, or a zombie
            if Path(process.cwd()).is_relative_to(home):
                found.append(process)
    return found


# A round takes more than a minute: one of each mode here, the others and many more in the slow tier.
SLOW = {mode: pytest.param(mode, marks=pytest.mark.slow) for mode in MODES}


@pytest.mark.timeout(400)
@pytest.mark.parametrize("mode", ["synchronous", SLOW["asynchronous"]])
def test_every_task_may_be_killed(tmp_path: Path, environment: dict[str, str], mode: str) -> None:
    rng = random.Random(time.time_ns())
    with running(tmp_path, environment, *words(MODES[mode])) as job:
        kill_each(job, mode, rng)
        assert working_in(job.home)
        check(job, mode, tmp_path / "mnist" / "export")
        steps = [line["step"] for line in job.metrics() if "loss" in line]
        assert steps == sorted(set(steps))
        assert steps[-1] == TOTAL
        lost = {line["task"] for line in job.metrics() if line.get("event") == "lost"}
        assert lost & set(TASKS[mode][1:]), job.output


@pytest.mark.timeout(400)
@pytest.mark.parametrize("mode", ["asynchronous", SLOW["synchronous"]])
def test_every_task_may_be_killed_where_they_share_no_disk(
    tmp_path: Path, environment: dict[str, str], moto: Moto, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    use(moto, monkeypatch)
    uri = moto.new_bucket()
    rng = random.Random(time.time_ns())
    places = ("--model-dir", f"{uri}/model", "--export-dir", f"{uri}/export")
    variables = environment | moto.environment | {"PYTHONPATH": str(ROOT)}
    with running(tmp_path, variables, *words(MODES[mode], *places), command=APART) as job:
        kill_each(job, mode, rng)
        version = check(job, mode, f"{uri}/export")
    assert all((tmp_path / task).is_dir() for task in TASKS[mode])
    assert not list(tmp_path.glob("*/mnist"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "elsewhere"))
    server = Server(f"{uri}/export")
    try:
        server.wait_for_version(version.number)
        answer = server.predict(instances=np.zeros((2, 28, 28)).tolist())
        assert answer.status_code == 200, answer.text
    finally:
        assert server.stop() == 0, server.output


def test_a_store_that_is_away_at_first_is_waited_for(
    tmp_path: Path, environment: dict[str, str], moto: Moto
) -> None:
    uri = moto.new_bucket()
    places = ("--model-dir", f"{uri}/model", "--export-dir", f"{uri}/export")
    with FaultProxy(moto.address) as proxy:
        proxy.fault = lambda _: Answer(503, "ServiceUnavailable")
        variables = environment | moto.environment | {"S3_ENDPOINT": proxy.endpoint}
        with running(tmp_path, variables, *words(ONE_WORKER, *places, total=INTERVAL)) as job:
            job.wait_until(lambda: "chief crashed (it lost a peer or its store)" in job.output)
            assert f"{proxy.endpoint} is overloaded" in job.output
            proxy.fault = lambda _: None
            assert job.wait() == 0, job.output
            assert job.starts() == 1
    assert "the training is done" in job.output


@pytest.mark.slow
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("mode", MODES)
def test_ten_rounds_of_kills(tmp_path: Path, environment: dict[str, str], mode: str) -> None:
    for number in range(10):
        home = tmp_path / str(number)
        home.mkdir()
        with running(home, environment, *words(MODES[mode])) as job:
            kill_each(job, mode, random.Random(time.time_ns()))
            check(job, mode, home / "mnist" / "export")
        shutil.rmtree(home)


@pytest.mark.timeout(400)
@pytest.mark.parametrize("mode", ["synchronous", SLOW["asynchronous"]])
def test_a_worker_that_hangs_is_killed_and_comes_back(
    tmp_path: Path, environment: dict[str, str], mode: str
) -> None:
    with running(tmp_path, environment, *words(MODES[mode])) as job:
        job.wait_until(lambda: job.step() >= 60)
        stopped = job.signal("worker 1", signal.SIGSTOP)
        job.wait_until(lambda: "worker 1 hangs; killing it" in job.output)
        job.wait_for_progress(stopped + 1)
        check(job, mode, tmp_path / "mnist" / "export")


def test_a_worker_that_hangs_before_the_start_is_killed_and_comes_back(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    def has_joined() -> bool:
        worker = job.task("worker 0")
        return worker is not None and any(
            each.status == psutil.CONN_ESTABLISHED for each in worker.net_connections()
        )

    with running(tmp_path, environment, *words(ONE_WORKER, total=INTERVAL)) as job:
        job.wait_until(has_joined)
        job.signal("worker 0", signal.SIGSTOP)  # it is about to load TensorFlow
        job.wait_until(lambda: "worker 0 hangs; killing it" in job.output)
        assert job.starts() == 0
        assert job.wait() == 0, job.output
        assert job.starts() == 1


def test_a_chief_whose_disk_is_full_ends_all_and_loses_nothing(
    tmp_path: Path, environment: dict[str, str], fairway: Fairway
) -> None:
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    with running(tmp_path, environment, *words(ONE_WORKER)) as job:
        job.wait_until(lambda: len(list((tmp_path / "mnist/model" / CHECKPOINTS).glob("*.index"))) > 0)
        chief = job.task("chief")
        assert chief is not None
        chief.rlimit(psutil.RLIMIT_FSIZE, (90_000, hard))  # a checkpoint has more; other files have less
        assert job.wait() == 1, job.output
    assert "file would grow beyond the limit" in job.output
    assert "chief ended with exit code 1" in job.output
    assert "Traceback" not in job.output
    done = fairway("train", *words(ONE_WORKER))
    assert done.returncode == 0, done.stderr
    assert "resuming at step" in done.stderr
    assert len(list_versions(tmp_path / "mnist" / "export")) == 1


def test_a_corrupt_newest_checkpoint_is_passed_over(
    tmp_path: Path, environment: dict[str, str], fairway: Fairway
) -> None:
    with running(tmp_path, environment, *words(ONE_WORKER)) as job:
        checkpoints = tmp_path / "mnist" / "model" / CHECKPOINTS
        job.wait_until(lambda: (checkpoints / f"{checkpoint_name(3 * INTERVAL)}.index").exists())
    newest = max(checkpoints.glob("*.index"))  # which is written last
    (data,) = checkpoints.glob(f"{newest.stem}.data-*")
    data.write_bytes(data.read_bytes()[:1000] + os.urandom(data.stat().st_size - 1000))
    done = fairway("train", *words(ONE_WORKER))
    assert done.returncode == 0, done.stderr
    assert "is damaged and passed over" in done.stderr
    step = int(data.name[5:13])
    assert f"resuming at step {step - INTERVAL} of {TOTAL}" in done.stderr


def test_a_second_chief_on_the_same_directory_is_refused(
    tmp_path: Path, environment: dict[str, str], fairway: Fairway
) -> None:
    with running(tmp_path, environment, *words(ONE_WORKER, total=100_000)) as job:
        job.wait_until(lambda: job.step() >= 20)
        second = fairway("train", *words(ONE_WORKER, total=100_000))
        assert job.process.poll() is None
    assert second.returncode == 1, second.stderr
    assert "another process is at work (train) in mnist/model" in second.stderr


@pytest.mark.slow
def test_more_tasks_train_on_and_export_again_what_was_lost(tmp_path: Path, fairway: Fairway) -> None:
    done = fairway("train", *LINEAR, "--train-steps", "40")
    assert done.returncode == 0, done.stderr
    exports = tmp_path / "mnist" / "export"
    for resumed, versions in ((40, 2), (None, 1)):
        done = fairway("train", *LINEAR, *ONE_WORKER)
        assert done.returncode == 0, done.stderr
        assert "worker 0 │ the training is done\n" in done.stderr
        assert ("resuming at step 40 of" in done.stderr) == (resumed == 40)
        assert len(list_versions(exports)) == versions
        shutil.rmtree(exports)  # as if the lead had been killed before it exported


def test_ctrl_c_of_an_asynchronous_job_loses_nothing(tmp_path: Path, environment: dict[str, str]) -> None:
    with running(tmp_path, environment, *words((*ONE_WORKER, "--ps", "1"), total=100_000)) as job:
        job.wait_until(lambda: job.step() >= 50)
        job.process.send_signal(signal.SIGINT)
        assert job.wait(60) == 130, job.output
    stopped = int(job.output.split("error: stopped by SIGINT at step ")[-1].split()[0])
    assert (
        f"chief    │ error: stopped by SIGTERM at step {stopped} of 100000; a checkpoint is saved"
        in job.output
    )
    assert (tmp_path / "mnist" / "model" / CHECKPOINTS / f"{checkpoint_name(stopped)}.index").is_file()
    assert job.step() == stopped


CHIEF, WORKER, PS = Task("chief", 0), Task("worker", 0), Task("ps", 0)
Start = Callable[..., AbstractContextManager[subprocess.Popen[str]]]


@pytest.fixture
def start(tmp_path: Path, environment: dict[str, str]) -> Start:
    """Start one task of a training, as an operator does; in the end it is gone."""
    addresses = free_addresses([CHIEF, WORKER, PS])

    @contextmanager
    def start(
        task: Task,
        *more: str,
        tasks: Sequence[Task] = (CHIEF, WORKER),
        home: str = "shared",
        steps: int = 60,
    ) -> Iterator[subprocess.Popen[str]]:
        (tmp_path / home).mkdir(exist_ok=True)
        process = subprocess.Popen(
            [*TOGETHER, *LINEAR, "--train-steps", str(steps), *more],
            cwd=tmp_path / home,
            env=environment | {"TF_CONFIG": tf_config({each: addresses[each] for each in tasks}, task)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        with process:
            try:
                yield process
            finally:
                process.kill()

    return start


def test_a_disk_that_is_not_shared_is_said_at_once(start: Start) -> None:
    with start(CHIEF, home="a") as chief, start(WORKER, home="b") as worker:
        output = [process.communicate(timeout=90)[0] for process in (chief, worker)]
    assert [chief.returncode, worker.returncode] == [2, 2], output
    for each in output:
        assert "model_dir mnist/model is not the lead's directory: its files are not seen from here" in each
    assert "worker 0: model_dir" in output[0]


def test_settings_that_differ_are_named(start: Start) -> None:
    with start(CHIEF, *BATCH) as chief, start(WORKER, "--batch-size", "64") as worker:
        output = [process.communicate(timeout=90)[0] for process in (chief, worker)]
    assert [chief.returncode, worker.returncode] == [2, 2], output
    assert "batch_size is 64 here, but 32 at the lead of the training" in output[1]


@pytest.mark.parametrize(("alone", "missing"), [(CHIEF, "worker 0"), (WORKER, "the chief")])
def test_a_peer_that_never_comes_is_named(start: Start, alone: Task, missing: str) -> None:
    with start(alone, "--peer-wait-seconds", "3") as process:
        output = process.communicate(timeout=90)[0]
    assert process.returncode == 1, output
    assert f"error: {missing} (127.0.0.1:" in output
    assert "did not come within 3 s" in output


@pytest.mark.parametrize("told", [WORKER, PS])
def test_a_task_told_to_stop_ends_with_143_and_the_chief_is_to_be_started_again(
    tmp_path: Path, start: Start, told: Task
) -> None:
    tasks = (CHIEF, WORKER) if told == WORKER else (CHIEF, WORKER, PS)
    with ExitStack() as stack:
        processes = {task: stack.enter_context(start(task, tasks=tasks, steps=100_000)) for task in tasks}
        deadline = time.monotonic() + 90
        while not read_metrics(tmp_path / "shared" / "mnist" / "model"):
            assert processes[CHIEF].poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        processes[told].send_signal(signal.SIGTERM)
        output = {task: processes[task].communicate(timeout=60)[0] for task in (told, CHIEF)}
        assert [processes[told].returncode, processes[CHIEF].returncode] == [143, 138], output
    assert "stopped by SIGTERM" in output[told]
    if told == WORKER:  # all stop in step
        assert "another task was told to stop at step" in output[CHIEF]
        assert "a checkpoint is saved" in output[CHIEF]
    else:  # what it held is gone
        assert "lost ps 0 (it was told to stop (SIGTERM))" in output[CHIEF]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "TF_CONFIG"),
        ("{}", "TF_CONFIG"),
        ('{"cluster": {"boss": ["a:1"]}, "task": {"type": "boss", "index": 0}}', "boss"),
        ('{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 2}}', "worker 2"),
    ],
)
def test_a_malformed_tf_config_is_explained(fairway: Fairway, text: str, message: str) -> None:
    done = fairway("train", TF_CONFIG=text)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_profile_is_written(tmp_path: Path, fairway: Fairway) -> None:
    done = fairway("train", *LINEAR, "--train-steps", "100", "--profile")
    assert done.returncode == 0, done.stderr
    assert list((tmp_path / "mnist/model/events/plugins/profile").glob("*/*.xplane.pb"))
