"""What it costs on this machine that two processes wait for one another every step, without TensorFlow.

Run as a command with a core for each of one or two processes, it prints the steps per second.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time

STEPS = 150


def ceiling() -> float:
    """Return how many times the steps of one process two do in step, a core each: 2 if waiting were free."""
    alone, together = (_steps_per_s(*cores) for cores in (("0",), ("0", "1")))
    return 2 * together / alone


def _steps_per_s(*cores: str) -> float:
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "bench.lockstep", *cores]
    return float(subprocess.run(command, env=environment, check=True, capture_output=True).stdout)


def _run(cores: list[int]) -> None:
    import numpy as np  # here, once the number of threads is set

    here, there = socket.socketpair()
    is_alone = len(cores) == 1
    child = 0 if is_alone else os.fork()
    os.sched_setaffinity(0, {cores[bool(child)]})
    channel = there if child else here
    matrix = np.random.default_rng(0).standard_normal((900, 900), np.float32) / 30
    for step in range(-5, STEPS):
        if step == 0:
            started = time.perf_counter()
        values = matrix
        for _ in range(3):
            values = np.tanh(matrix @ values)
        if not is_alone:
            channel.sendall(b".")
            channel.recv(1)
    if is_alone or child:
        print(STEPS / (time.perf_counter() - started))
    if child:
        os.waitpid(child, 0)


if __name__ == "__main__":
    _run([int(core) for core in sys.argv[1:]])
