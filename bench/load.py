"""Load on a server, and what it costs the server."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from bench.servers import Server

SCRIPT = Path(__file__).with_name("post.lua")
CLIENTS = 2
"""Processes that call over gRPC: in Python, one is busy before the server is."""


@dataclass(frozen=True)
class Load:
    """What a server made of a load.

    Attributes:
        cpu_us: Processor time of the server and its children for a request, microseconds.
        per_s: Requests answered in a second.
        p50_ms: Median of the latencies, as the client sees them.
        p99_ms: What 99 of 100 latencies do not exceed.
    """

    cpu_us: float
    per_s: float
    p50_ms: float
    p99_ms: float


def rest_load(server: Server, body: bytes, connections: int, seconds: int) -> Load:
    """Have wrk send a predict request again and again, each connection as soon as it has its answer.

    The bench ends if a request is refused or gets no answer.
    """
    before = server.cpu_s()
    found = _wrk(server.predict_url, body, connections, seconds)
    cpu_s = server.cpu_s() - before
    if found["refused"] or found["broken"] or not found["requests"]:
        sys.exit(f"{server.name} did not answer all requests of {connections} connections: {found}")
    return Load(
        cpu_us=cpu_s / found["requests"] * 1e6,
        per_s=found["requests"] / found["seconds"],
        p50_ms=found["p50_us"] / 1e3,
        p99_ms=found["p99_us"] / 1e3,
    )


def grpc_load(server: Server, request: bytes, callers: int, seconds: int) -> Load:
    """Have processes of their own send a Predict message again and again; they end the bench if one fails.

    Args:
        server: What to load.
        request: The message.
        callers: In all, each with a connection.
        seconds: How long.
    """
    with tempfile.NamedTemporaryFile() as file:
        file.write(request)
        file.flush()
        words = [server.grpc_address, file.name, str(callers // CLIENTS), str(seconds)]
        command = [sys.executable, "-m", "bench.grpc_client", *words]
        before = server.cpu_s()
        clients = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(CLIENTS)]
        written = [client.communicate()[0] for client in clients]
        cpu_s = server.cpu_s() - before
    if any(client.returncode for client in clients):
        sys.exit(f"{server.name} did not answer all calls")
    latencies = sorted(each for text in written for each in json.loads(text))
    return Load(
        cpu_us=cpu_s / len(latencies) * 1e6,
        per_s=len(latencies) / seconds,
        p50_ms=latencies[len(latencies) // 2] / 1e3,
        p99_ms=latencies[len(latencies) * 99 // 100] / 1e3,
    )


def _wrk(url: str, body: bytes, connections: int, seconds: int) -> dict[str, float]:
    if not shutil.which("wrk"):
        sys.exit("wrk is not installed; it makes the load: apt-get install wrk, or brew install wrk")
    with tempfile.NamedTemporaryFile() as file:
        file.write(body)
        file.flush()
        command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "10s", "-s", str(SCRIPT)]
        done = subprocess.run([*command, url, "--", file.name], check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found
