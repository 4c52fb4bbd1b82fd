"""Distributed training: how it scales with cores, its accuracy against one process, and how it recovers."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median
from typing import Any

import psutil

from bench import lockstep
from bench.report import Figure
from bench.runs import environment, mnist_dir, train
from fairway.local.cluster import free_addresses
from fairway.net.cluster import Task, tf_config
from tests.integration.jobs import Job, read_metrics, running

SETTLED_STEP = 100
"""Until here functions are compiled and caches are cold."""
CHIEF, WORKER_0, WORKER_1, PS = Task("chief", 0), Task("worker", 0), Task("worker", 1), Task("ps", 0)
Placed = Sequence[tuple[Task | None, int]]
"""Tasks and the core of each, the lead first; without a task it is a training of its own."""
CASES: dict[str, Placed] = {
    "one worker": [(None, 0)],
    "two trainings": [(None, 0), (None, 1)],
    "synchronous": [(WORKER_0, 0), (WORKER_1, 1)],
    "asynchronous": [(CHIEF, 1), (WORKER_0, 0), (WORKER_1, 1), (PS, 0)],
}
MODES = {"synchronous": ("--workers", "1"), "asynchronous": ("--workers", "2", "--ps", "1")}
"""Two workers each: the chief of a synchronous training is one of them."""
RECOVERY_STEPS = 100
"""Steps between two checkpoints, in `recovery`."""


@dataclass(frozen=True)
class Rate:
    """What was measured over the settled part of a training.

    Attributes:
        images_per_s: Of all tasks.
        cpu_ms: Processor time per 1,000 images, in milliseconds, of each task.
    """

    images_per_s: float
    cpu_ms: dict[str, float]

    def parts(self) -> str:
        """Say where the processor time of 1,000 images goes, and how much of both cores waits."""
        parts = [f"{name} {cpu_ms:.0f}" for name, cpu_ms in self.cpu_ms.items()]
        waiting = 2 * 1e6 / self.images_per_s - sum(self.cpu_ms.values())
        return f"CPU ms per 1,000 images: {', '.join(parts)}, both cores idle or used by others {waiting:.0f}"


def scaling(rounds: int = 3, steps: int = 400) -> list[Figure]:
    """Images per second of two workers, a core each, against one worker on one core, in alternation."""
    rates: dict[str, list[Rate]] = {case: [] for case in CASES}
    in_step = []
    for _ in range(rounds):
        in_step.append(lockstep.ceiling())
        for case, placed in CASES.items():
            rates[case].append(_rate(placed, steps))
    middle = {
        case: sorted(found, key=lambda rate: rate.images_per_s)[rounds // 2] for case, found in rates.items()
    }
    one = middle["one worker"]
    alone = f"one worker: {one.images_per_s:,.0f} images/s, {sum(one.cpu_ms.values()):.0f} CPU ms per 1,000"
    figures = [
        Figure(
            "the same work in two processes that meet every step, without TensorFlow",
            median(in_step),
            "×",
            None,
            "higher",
            f"{_listed(in_step)}; what this machine leaves of 2",
        )
    ]
    for case, goal in (("two trainings", None), ("synchronous", 1.7), ("asynchronous", 1.5)):
        times = [
            each.images_per_s / single.images_per_s
            for each, single in zip(rates[case], rates["one worker"], strict=True)
        ]
        note = f"{_listed(times)}; {alone}; {middle[case].parts()}"
        figures.append(
            Figure(f"two workers on a core each, {case}", median(times), "×", goal, "higher", note)
        )
    return figures


def accuracy(seeds: int = 3) -> list[Figure]:
    """Test accuracy of two workers against one process, the same number of images."""
    kinds = {"single": (), **MODES}
    found: dict[str, list[float]] = {kind: [] for kind in kinds}
    for seed in range(seeds):
        for kind, words in kinds.items():
            with tempfile.TemporaryDirectory() as home:
                wanted = ("--dataset", "mnist", "--data-dir", str(mnist_dir()), "--seed", str(seed), *words)
                found[kind].append(100 * train(Path(home), *wanted)[0].metrics["test_accuracy"])
    single = mean(found["single"])
    return [
        Figure(
            f"accuracy of two workers, {kind}, beyond one process",
            mean(found[kind]) - single,
            "points",
            -0.2,
            "higher",
            f"{_listed(found[kind])}; one process: {_listed(found['single'])}",
        )
        for kind in MODES
    ]


def recovery() -> list[Figure]:
    """Time from SIGKILL of each task to the next step beyond the start of a process, and the steps lost."""
    start_s = median(_start_seconds() for _ in range(5))
    figures = []
    for mode, words in MODES.items():
        with tempfile.TemporaryDirectory() as home:
            seconds, lost = _recover(Path(home), mode, words)
        note = ", ".join(f"{task} {each:.1f}" for task, each in seconds.items())
        figures += [
            Figure(
                f"recovery from SIGKILL, {mode}, slowest task",
                max(seconds.values()) - start_s,
                "s",
                15,
                note=f"with start-up: {note}; importing TensorFlow and Keras alone: {start_s:.1f} s",
            ),
            Figure(
                f"steps lost by SIGKILL late between two checkpoints, {mode}, worst",
                max(lost.values()),
                "steps",
                RECOVERY_STEPS,
                note=", ".join(f"{task} {each}" for task, each in lost.items())
                + ", of those recorded before",
            ),
        ]
    return figures


def _rate(placed: Placed, steps: int) -> Rate:
    with tempfile.TemporaryDirectory() as home, _started(placed, Path(home)) as (processes, leads):

        def reach(step: int) -> tuple[list[dict[str, Any]], dict[str, float]]:
            lines = _wait_for_lines(leads, step, processes)
            used = {name: psutil.Process(process.pid).cpu_times() for name, process in processes.items()}
            return lines, {name: times.user + times.system for name, times in used.items()}

        before, cpu_before = reach(SETTLED_STEP)
        after, cpu_after = reach(SETTLED_STEP + steps)
    images = images_per_s = 0.0
    for first, last in zip(before, after, strict=True):
        trained = (last["step"] - first["step"]) * round(first["samples_per_s"] / first["steps_per_s"])
        images += trained
        images_per_s += trained / (last["time"] - first["time"])
    cpu_ms = {name: (cpu_after[name] - cpu_before[name]) * 1e6 / images for name in processes}
    return Rate(images_per_s, cpu_ms)


@contextmanager
def _started(placed: Placed, home: Path) -> Iterator[tuple[dict[str, subprocess.Popen[bytes]], list[Path]]]:
    """Start tasks, each on its core; yield their processes by name, and the leads' model directories."""
    addresses = free_addresses([task for task, _ in placed if task])
    computing = len([task for task in addresses if task.role == "worker"])
    processes: dict[str, subprocess.Popen[bytes]] = {}
    leads = []
    try:
        for index, (task, core) in enumerate(placed):
            directory = home if task else home / str(index)
            directory.mkdir(exist_ok=True)
            if task is None or index == 0:
                leads.append(directory / "mnist" / "model")
            threads = {"TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": str(computing + 1)}
            place = {"TF_CONFIG": tf_config(addresses, task)} if task else {}
            command = ["taskset", "-c", str(core), sys.executable, "-m", "fairway", "train"]
            command += ["--dataset", "mnist", "--data-dir", str(mnist_dir()), "--train-steps", "100000"]
            env = environment(directory / "cache") | threads | place
            with (home / f"{index}.log").open("wb") as log:
                process = subprocess.Popen(command, cwd=directory, env=env, stdout=log, stderr=log)
            processes[str(task or f"training {index}")] = process
        yield processes, leads
    finally:
        for process in processes.values():
            process.kill()
            process.wait()


def _lines_from(lead: Path, step: int) -> list[dict[str, Any]]:
    return [line for line in read_metrics(lead) if "loss" in line and line["step"] >= step]


def _wait_for_lines(
    leads: list[Path], step: int, processes: dict[str, subprocess.Popen[bytes]]
) -> list[dict[str, Any]]:
    """Return the first line of each lead's metrics from a step on."""
    deadline = time.monotonic() + 600
    while len(found := [line for lead in leads for line in _lines_from(lead, step)[:1]]) < len(leads):
        for name, process in processes.items():
            if process.poll() is not None:
                raise RuntimeError(f"{name} ended with exit code {process.returncode}")
        if time.monotonic() > deadline:
            raise TimeoutError("a training is not getting on")
        time.sleep(0.02)
    return found


def _start_seconds() -> float:
    started = time.monotonic()
    subprocess.run([sys.executable, "-c", "import tensorflow, keras"], check=True, stderr=subprocess.DEVNULL)
    return time.monotonic() - started


def _recover(home: Path, mode: str, words: Sequence[str]) -> tuple[dict[str, float], dict[str, int]]:
    """Kill each task of a training once; return the seconds to the next step, and the steps lost.

    Without an asynchronous worker the others go on, and nothing is lost that was counted: it is not listed.
    """
    wanted = ("--dataset", "mnist", "--data-dir", str(mnist_dir()), "--train-steps", "100000")
    interval = ("--checkpoint-steps", str(RECOVERY_STEPS))
    victims = ("chief", "worker 0", *(("worker 1", "ps 0") if mode == "asynchronous" else ()))
    with running(home, environment(home / "cache"), *wanted, *interval, *words) as job:
        found = {
            victim: _kill(job, victim, goes_on=mode == "asynchronous" and victim.startswith("worker"))
            for victim in victims
        }
    lost = {victim: steps for victim, (_, steps) in found.items() if steps is not None}
    return {victim: seconds for victim, (seconds, _) in found.items()}, lost


def _kill(job: Job, victim: str, *, goes_on: bool) -> tuple[float, int | None]:
    """Kill a task late between two checkpoints; return the seconds to the next step, and the steps lost.

    Args:
        job: The training.
        victim: The task's name.
        goes_on: Whether the others do; then there are no steps to lose, and the task's own next one counts.
    """
    begun, resumed = job.step() + RECOVERY_STEPS, len(job.resumed())
    job.wait_until(lambda: job.step() >= begun and job.step() % RECOVERY_STEPS >= 60)
    step, killed = job.step(), job.signal(victim)
    if goes_on:
        return job.wait_for_step_of(victim, since=killed) - killed, None
    job.wait_until(lambda: len(job.resumed()) > resumed)
    return job.wait_for_progress(since=time.time()) - killed, step - job.resumed()[-1]


def _listed(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.2f}" for value in values)
