"""Distributed training: how it scales with cores, and its accuracy against a single process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, median

from bench.report import Figure
from bench.runs import environment, mnist_dir, train
from fairway.local.cluster import free_addresses
from fairway.net.cluster import Task, tf_config

SETTLED_STEP = 100
CHIEF, WORKER_0, WORKER_1, PS = Task("chief", 0), Task("worker", 0), Task("worker", 1), Task("ps", 0)
Placed = Sequence[tuple[Task | None, int]]
"""Tasks and the core of each, the lead first; without a task it is a training of its own."""
CASES: dict[str, Placed] = {
    "single": [(None, 0)],
    "independent": [(None, 0), (None, 1)],
    "sync": [(WORKER_0, 0), (WORKER_1, 1)],
    "async": [(CHIEF, 1), (WORKER_0, 0), (WORKER_1, 1), (PS, 0)],
}


def scaling(rounds: int = 3, steps: int = 400) -> list[Figure]:
    """Images per second of two workers, a core each, against one worker on one core, in alternation."""
    rates: dict[str, list[float]] = {name: [] for name in CASES}
    for _ in range(rounds):
        for name, placed in CASES.items():
            rates[name].append(_rate(placed, steps))
    one = median(rates["single"])
    return [
        Figure(f"two workers on two cores, {name}", median(rates[name]) / one, "×", goal, "higher", note)
        for name, goal, note in (
            ("sync", 1.7, f"one worker: {one:.0f} images/s"),
            ("async", 1.5, f"one worker: {one:.0f} images/s"),
            ("independent", None, "two trainings of their own: the ceiling of this machine"),
        )
    ]


def accuracy(seeds: int = 3) -> list[Figure]:
    """Test accuracy of two workers against one process, the same number of images."""
    kinds = {"single": (), "synchronous": ("--workers", "1"), "asynchronous": ("--workers", "2", "--ps", "1")}
    found: dict[str, list[float]] = {kind: [] for kind in kinds}
    for seed in range(seeds):
        for kind, words in kinds.items():
            with tempfile.TemporaryDirectory() as home:
                wanted = ("--data-dir", str(mnist_dir()), "--seed", str(seed), *words)
                found[kind].append(100 * train(Path(home), *wanted)[0].metrics["test_accuracy"])
    return [
        Figure(
            f"{kind}: accuracy beyond single",
            mean(found[kind]) - mean(found["single"]),
            "points",
            -0.2,
            "higher",
            ", ".join(f"{value:.2f}" for value in found[kind]),
        )
        for kind in ("synchronous", "asynchronous")
    ]


def _rate(placed: Placed, steps: int) -> float:
    addresses = free_addresses([task for task, _ in placed if task])
    processes: list[subprocess.Popen[bytes]] = []
    with tempfile.TemporaryDirectory() as home:
        leads = [Path(home, str(index if task is None else 0)) for index, (task, _) in enumerate(placed)]
        try:
            for lead, (task, core) in zip(leads, placed, strict=True):
                lead.mkdir(exist_ok=True)
                threads = {"TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "2"}
                place = {"TF_CONFIG": tf_config(addresses, task)} if task else {}
                command = ["taskset", "-c", str(core), sys.executable, "-m", "fairway", "train"]
                command += ["--dataset", "mnist", "--data-dir", str(mnist_dir()), "--train-steps", str(steps)]
                env = environment(lead / "cache") | threads | place
                processes.append(subprocess.Popen(command, cwd=lead, env=env, start_new_session=True))
            for process, (task, _) in zip(processes, placed, strict=True):
                if (task is None or process is processes[0]) and process.wait(600):
                    raise RuntimeError(f"a training ended with exit code {process.returncode}")
            return sum(_settled(lead) for lead in set(leads))
        finally:
            for process in processes:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def _settled(home: Path) -> float:
    lines = [json.loads(line) for line in (home / "mnist/model/metrics.jsonl").read_text().splitlines()]
    return float(
        median(line["samples_per_s"] for line in lines if "loss" in line and line["step"] > SETTLED_STEP)
    )
