"""A distributed training of real processes, whose tasks can be found and hurt."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

POLL_S = 0.02


class Job:
    """A running `fairway train --workers …`.

    Args:
        process: The launcher.
        home: Its working directory.
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
            try:
                place = json.loads(child.environ().get("TF_CONFIG", "{}")).get("task", {})
                role, index = place.get("type"), place.get("index")
                if name in (role, f"{role} {index}") and child.status() != psutil.STATUS_ZOMBIE:
                    return child
            except (psutil.Error, ProcessLookupError):
                continue
        return None

    def signal(self, name: str, number: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal to a task, as soon as there is one of this name."""
        self.wait_until(lambda: self.task(name) is not None)
        task = self.task(name)
        assert task is not None
        task.send_signal(number)

    def wait_until(self, is_so: Callable[[], bool], timeout_s: float = 90) -> None:
        deadline = time.monotonic() + timeout_s
        while not is_so():
            assert self.process.poll() is None, self.output
            assert time.monotonic() < deadline, self.output
            time.sleep(POLL_S)

    def wait(self, timeout_s: float = 240) -> int:
        """Wait until the job has ended, and return its exit code."""
        try:
            return self.process.wait(timeout_s)
        except subprocess.TimeoutExpired as err:
            raise AssertionError(self.output) from err

    def step(self) -> int:
        """Return the last step that is recorded in the model directory."""
        return max((line["step"] for line in read_metrics(self.home)), default=0)


def read_metrics(home: Path) -> list[dict[str, Any]]:
    path = home / "mnist" / "model" / "metrics.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("}")]


@contextmanager
def running(home: Path, environment: dict[str, str], *words: str | Path) -> Iterator[Job]:
    """Start a training; in the end nothing of it is left."""
    log = home / "output.log"
    command = [sys.executable, "-m", "fairway", "train", *map(str, words)]
    with log.open("ab") as file:
        process = subprocess.Popen(
            command, cwd=home, env=environment, stdout=file, stderr=file, start_new_session=True
        )
    tasks: list[psutil.Process] = []
    try:
        yield Job(process, home, log)
        tasks = []
    finally:
        if process.poll() is None:
            tasks = psutil.Process(process.pid).children(recursive=True)
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        for task in tasks:
            with __import__("contextlib").suppress(psutil.NoSuchProcess):
                task.kill()
