"""How soon somebody sees something: `--help`, and `up` from an empty directory to the first prediction."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import httpx

from bench.report import Figure
from bench.runs import environment, fill_cache
from fairway.net.ports import claim_port

HELP_RUNS = 15
UP_RUNS = 3
UP_TIMEOUT_S = 300


def help_time() -> list[Figure]:
    """The installed command, as typed."""
    command = [str(Path(sys.executable).parent / "fairway"), "--help"]
    walls = []
    for _ in range(HELP_RUNS):
        started = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        walls.append(time.perf_counter() - started)
    note = f"median of {HELP_RUNS}; fastest {min(walls):.2f}"
    return [Figure("fairway --help", median(walls), "s", 0.2, "lower", note)]


def first_prediction() -> list[Figure]:
    """`fairway up` in an empty directory, data in the cache, until the web UI gives a prediction."""
    times = [_first_prediction() for _ in range(UP_RUNS)]
    note = f"median of {', '.join(f'{seconds:.1f}' for seconds in times)}"
    return [Figure("fairway up: empty directory to first prediction", median(times), "s", 25, "lower", note)]


def _first_prediction() -> float:
    port = claim_port("127.0.0.1", 0, "")
    words = ("up", "--web-port", str(port), "--rest-api-port", "0", "--tensorboard-port", "0")
    with tempfile.TemporaryDirectory() as home:
        fill_cache(Path(home, "cache"))
        started = time.perf_counter()
        with subprocess.Popen(
            [sys.executable, "-m", "fairway", *words],
            cwd=home,
            env=environment(Path(home, "cache")),
            stderr=subprocess.DEVNULL,
        ) as process:
            try:
                _wait_for_prediction(f"http://127.0.0.1:{port}/api/random", process, started + UP_TIMEOUT_S)
                return time.perf_counter() - started
            finally:
                process.send_signal(signal.SIGINT)


def _wait_for_prediction(url: str, process: subprocess.Popen[bytes], deadline: float) -> None:
    while True:
        if process.poll() is not None or time.perf_counter() > deadline:
            sys.exit("fairway up did not come to a prediction")
        try:
            if httpx.post(url, timeout=10, trust_env=False).status_code == 200:
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.05)
