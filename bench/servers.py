"""Model servers as processes: fairway's, and its peers in environments of their own."""

from __future__ import annotations

import hashlib
import http.client
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import psutil
from numpy.typing import NDArray

from bench.runs import environment
from fairway.config import cache_dir
from fairway.net.ports import claim_port

PEERS = Path(__file__).parent / "peers"
HOST = "127.0.0.1"
READY_S = 120
POLL_S = 0.005
_GRACE_S = 15


@dataclass(frozen=True)
class Server:
    """A model server that answers.

    Attributes:
        name: For people.
        process: Its process, which may have children.
        port: Of its REST API.
        grpc_port: Of its gRPC API; 0 for a peer, which has none.
        ready_s: Seconds from its start until it was ready.
    """

    name: str
    process: psutil.Process
    port: int
    grpc_port: int
    ready_s: float

    @property
    def predict_url(self) -> str:
        """Where it takes predict requests."""
        return f"http://{HOST}:{self.port}/v1/models/mnist:predict"

    @property
    def grpc_address(self) -> str:
        """HOST:PORT of its gRPC API."""
        return f"{HOST}:{self.grpc_port}"

    def cpu_s(self) -> float:
        """Return the processor time that it and its children have taken, seconds."""
        times = [process.cpu_times() for process in self._family()]
        return sum(each.user + each.system for each in times)

    def resident_mb(self) -> float:
        """Return the memory that it and its children hold, MB."""
        return sum(process.memory_info().rss for process in self._family()) / 1e6

    def probabilities(self, body: bytes) -> NDArray[np.float64]:
        """Return what it answers to a predict request, [n, 10]."""
        headers = {"Content-Type": "application/json"}
        reply = httpx.post(self.predict_url, content=body, headers=headers, timeout=30, trust_env=False)
        reply.raise_for_status()
        return np.array([row["predictions"] for row in reply.json()["predictions"]])

    def _family(self) -> list[psutil.Process]:
        return [self.process, *self.process.children(recursive=True)]


@contextmanager
def fairway_server(export_dir: Path, *flags: str, name: str = "fairway") -> Iterator[Server]:
    """Run `fairway serve`, as typed.

    Args:
        export_dir: The directory of versions.
        flags: More of its flags.
        name: For people.
    """
    port, grpc_port = _free_port(), _free_port()
    words = ["serve", f"--model_base_path={export_dir}", f"--rest_api_port={port}", f"--port={grpc_port}"]
    command = [str(Path(sys.executable).parent / "fairway"), *words, *flags]
    with _running(name, command, "/readyz", port, grpc_port) as server:
        yield server


@contextmanager
def kserve_server(runtime: str, version: Path) -> Iterator[Server]:
    """Run KServe's Python server on a version.

    Args:
        runtime: `litert` or `tensorflow`.
        version: The directory of the version.
    """
    port = _free_port()
    python = peer_python(f"kserve-{runtime}")
    command = [str(python), str(PEERS / "kserve_server.py"), runtime, str(version), str(port)]
    name = {"litert": "KServe on LiteRT", "tensorflow": "KServe on TensorFlow"}[runtime]
    with _running(name, command, "/v1/models/mnist", port, 0) as server:
        yield server


def peer_python(name: str) -> Path:
    """Return the interpreter of a peer's environment, which is made at the first use and kept in the cache.

    Args:
        name: Of its lock file in `bench/peers`.
    """
    lock = PEERS / f"{name}.lock"
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    digest = hashlib.sha256(lock.read_bytes()).hexdigest()[:12]
    path = cache_dir() / "bench-peers" / f"{name}-{version}-{digest}"
    made = path / "made"  # only a complete environment has it
    if not made.exists():
        print(f"   making the environment of {name} (once; some minutes)", file=sys.stderr)
        shutil.rmtree(path, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", str(path)], check=True)
        pip = [str(path / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "--quiet", "install"]
        subprocess.run([*pip, "--require-hashes", "-r", str(lock)], check=True)
        made.touch()
    return path / "bin" / "python"


def _free_port() -> int:
    return claim_port(HOST, 0, "")


@contextmanager
def _running(name: str, command: list[str], ready_path: str, port: int, grpc_port: int) -> Iterator[Server]:
    with tempfile.TemporaryDirectory() as home, Path(home, "log").open("w+") as log:
        env = environment(Path(home, "cache"))
        env.pop("PYTHONDONTWRITEBYTECODE", None)  # as where it is installed: with compiled modules
        started = time.perf_counter()
        process = subprocess.Popen(command, cwd=home, env=env, stdout=log, stderr=log)
        try:
            if not _wait_until_ready(process, port, ready_path, started + READY_S):
                log.seek(0)
                sys.exit(f"{name} was not ready in {READY_S} s:\n{log.read()}")
            ready_s = time.perf_counter() - started
            yield Server(name, psutil.Process(process.pid), port, grpc_port, ready_s)
        finally:
            _end(process)


def _wait_until_ready(process: subprocess.Popen[bytes], port: int, path: str, deadline: float) -> bool:
    while time.perf_counter() < deadline and process.poll() is None:
        connection = http.client.HTTPConnection(HOST, port, timeout=5)
        try:
            connection.request("GET", path)
            if connection.getresponse().status == 200:
                return True
        except OSError:
            pass
        finally:
            connection.close()
        time.sleep(POLL_S)
    return False


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(_GRACE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
