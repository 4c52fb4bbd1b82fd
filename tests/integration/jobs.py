"""A distributed training of real processes, whose tasks can be found and hurt.

Run as a command it is a launcher whose tasks share no disk: each has a directory and a cache of its own.
"""

from __future__ import annotations

import asyncio
import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil

from fairway.config import ClusterSettings, TrainSettings, environment_without
from fairway.local.cluster import build_parts, free_addresses, list_tasks, run_parts
from fairway.net.cluster import Cluster

POLL_S = 0.02
TOGETHER = (sys.executable, "-m", "fairway", "train")
APART = (sys.executable, "-m", "tests.integration.jobs")


class Job:
    """A running `fairway train --workers …`.

    Args:
        process: The launcher.
        home: Where its tasks work.
        log: What it and its tasks write.
    """

    def __init__(self, process: subprocess.Popen[bytes], home: Path, log: Path) -> None:
        self.process, self.home, self._log = process, home, log

    @property
    def output(self) -> str:
        return self._log.read_text()

    def task(self, name: str) -> psutil.Process | None:
        """Return the process of a task, `worker 1`; `None` while there is none."""
        for child in psutil.Process(self.process.pid).children():
            with suppress(psutil.Error):
                place = json.loads(child.environ().get("TF_CONFIG", "{}")).get("task", {})
                role, index = place.get("type"), place.get("index")
                if name in (role, f"{role} {index}") and child.status() != psutil.STATUS_ZOMBIE:
                    return child
        return None

    def signal(self, name: str, number: signal.Signals = signal.SIGKILL) -> float:
        """Send a signal to a task, as soon as there is one of this name; return the Unix time."""
        self.wait_until(lambda: self.task(name) is not None)
        task = self.task(name)
        assert task is not None
        task.send_signal(number)
        return time.time()

    def wait_until(self, is_so: Callable[[], bool], timeout_s: float = 120) -> None:
        deadline = time.monotonic() + timeout_s
        while not is_so():
            assert self.process.poll() is None, self.output
            assert time.monotonic() < deadline, self.output
            time.sleep(POLL_S)

    def wait_for_progress(self, since: float) -> float:
        """Wait for steps that were done after a Unix time, and return when they were."""
        return self._wait_for_line(since, lambda line: "loss" in line)

    def wait_for_step_of(self, worker: str, since: float) -> float:
        """Wait for the return of an asynchronous worker after a Unix time, and for a step that it does."""
        back = self._wait_for_line(since, lambda line: line.get("event") == "back" and line["task"] == worker)
        return self._wait_for_line(back, lambda line: worker in line.get("by_task", {}))

    def _wait_for_line(self, since: float, is_it: Callable[[dict[str, Any]], bool]) -> float:
        def times() -> list[float]:
            return [line["time"] for line in self.metrics() if line["time"] > since and is_it(line)]

        self.wait_until(lambda: bool(times()))
        return times()[0]

    def wait(self, timeout_s: float = 240) -> int:
        """Wait until the job has ended, and return its exit code."""
        try:
            return self.process.wait(timeout_s)
        except subprocess.TimeoutExpired as err:
            raise AssertionError(self.output) from err

    def metrics(self) -> list[dict[str, Any]]:
        """Return what is recorded, in the directory or in the chief's copy of it."""
        copies = [
            read_metrics(path.parent)
            for path in self.home.glob("chief/cache/fairway/trainings/*/*/metrics.jsonl")
        ]
        return copies[0] if copies else read_metrics(self.home / "mnist" / "model")

    def step(self) -> int:
        """Return the last step that is recorded."""
        return max((line["step"] for line in self.metrics() if "loss" in line), default=0)

    def starts(self) -> int:
        """Return how often a lead has begun to train so far."""
        return len(re.findall(r"training \w+ for \d+ steps of", self.output))

    def resumed(self) -> list[int]:
        """Return the steps at which a lead has gone on so far."""
        return [int(step) for step in re.findall(r"resuming at step (\d+) of", self.output)]


def read_metrics(model_dir: Path) -> list[dict[str, Any]]:
    with suppress(FileNotFoundError):
        lines = (model_dir / "metrics.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines if line.endswith("}")]
    return []


@contextmanager
def running(
    home: Path, environment: dict[str, str], *words: str | Path, command: Sequence[str] = TOGETHER
) -> Iterator[Job]:
    """Start a training; in the end nothing of it is left."""
    log = home / "output.log"
    with log.open("ab") as file:
        process = subprocess.Popen(
            [*command, *map(str, words)], cwd=home, env=environment, stdout=file, stderr=file
        )
    try:
        yield Job(process, home, log)
    finally:
        if process.poll() is None:
            tasks = psutil.Process(process.pid).children(recursive=True)
            process.kill()
            process.wait()
            for task in tasks:
                with suppress(psutil.NoSuchProcess):
                    task.kill()


def main(
    settings: TrainSettings = TrainSettings(),  # noqa: B008 - frozen
    cluster: ClusterSettings = ClusterSettings(),  # noqa: B008 - frozen
) -> None:
    """Run the tasks as `fairway train` does, but each in a directory and with a cache of its own."""
    addresses = free_addresses(list_tasks(cluster))
    parts = []
    for part in build_parts(settings, addresses, environment_without(ClusterSettings), cores=2):
        home = Path.cwd() / part.name
        home.mkdir(exist_ok=True)
        variables = {**(part.env or {}), "XDG_CACHE_HOME": str(home / "cache")}
        command = ("env", "-C", str(home), *part.command)  # which becomes the command
        parts.append(replace(part, env=variables, command=command))
    control = Cluster(addresses, next(iter(addresses))).control_address
    print(asyncio.run(run_parts(parts, control)))  # noqa: T201


if __name__ == "__main__":
    from cyclopts import run

    from fairway.errors import FairwayError

    try:
        run(main)
    except FairwayError as err:
        sys.exit(f"error: {err.message}\n  {err.hint}")
