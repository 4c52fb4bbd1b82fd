"""Real models, and real servers in processes of their own."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

DEADLINE_S = 60.0
_ANNOUNCED = re.compile(r"serving \S+ at (http://\S+)/v1/models/")
_GRPC_ANNOUNCED = re.compile(r"gRPC answers at (\S+)")


class Server:
    """`fairway serve` in a process, on a free port.

    Args:
        base_path: What is served.
        launcher: Python code to run instead of the plain command.
        flags: Further flags of the command.
    """

    def __init__(
        self, base_path: Path | str, name: str = "m", launcher: str = "", flags: Sequence[str] = ()
    ) -> None:
        command = ["-c", launcher] if launcher else ["-m", "fairway"]
        self.process = subprocess.Popen(
            [
                sys.executable,
                *command,
                "serve",
                f"--model_base_path={base_path}",
                f"--model_name={name}",
                "--port=0",
                "--rest_api_port=0",
                "--file_system_poll_wait_seconds=0.02",
                *flags,
            ],
            stderr=subprocess.PIPE,
            text=True,
        )
        self.lines: list[str] = []
        self._root = ""
        self._grpc = ""
        self._listening = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.name = name
        self.exit_code = 0  # with which it is to end
        self.client = httpx.Client(timeout=DEADLINE_S)

    @property
    def root(self) -> str:
        """The address, once the server has said it."""
        assert self._listening.wait(DEADLINE_S), self.output
        assert self._root, self.output
        return self._root

    @property
    def grpc(self) -> str:
        """HOST:PORT of the gRPC API, once the server has said it."""
        self.wait_for(lambda: bool(self._grpc))
        return self._grpc

    @property
    def model(self) -> str:
        """The address of the model."""
        return f"{self.root}/v1/models/{self.name}"

    @property
    def output(self) -> str:
        """All that the server has written."""
        return f"exit code {self.process.poll()}; output:\n" + "".join(self.lines)

    def predict(self, **content: Any) -> httpx.Response:
        """Ask for a prediction."""
        return self.client.post(f"{self.model}:predict", json=content)

    def served(self) -> int | None:
        """Return the newest version that answers."""
        serving: list[int] = self.client.get(f"{self.root}/readyz").json()["models"][self.name]
        return serving[0] if serving else None

    def problem(self) -> str:
        """Return why nothing answers; empty if something does."""
        problems: dict[str, str] = self.client.get(f"{self.root}/readyz").json().get("problems", {})
        return problems.get(self.name, "")

    def wait_for(self, condition: Callable[[], bool]) -> None:
        """Wait until something is so; fail with the server's output if it never is."""
        end = time.monotonic() + DEADLINE_S
        while not condition():
            assert time.monotonic() < end, self.output
            assert self.process.poll() is None, self.output
            time.sleep(0.01)

    def wait_for_version(self, number: int | None) -> None:
        """Wait until a version serves; `None`: until nothing does."""
        self.wait_for(lambda: self.served() == number)

    def reconnect(self) -> None:
        """Give up the connections so far."""
        self.client.close()
        self.client = httpx.Client(timeout=DEADLINE_S)

    def stop(self) -> int:
        """End the server and return its exit code."""
        self.client.close()
        self._listening.wait(DEADLINE_S)  # before, a signal ends it as it ends any process
        self.process.terminate()
        try:
            return self.process.wait(DEADLINE_S)
        finally:
            self.process.kill()
            self._reader.join()
            assert self.process.stderr
            self.process.stderr.close()

    def _read(self) -> None:
        assert self.process.stderr
        for line in self.process.stderr:
            self.lines.append(line)
            if match := _ANNOUNCED.search(line):
                self._root = match[1]
                self._listening.set()
            if match := _GRPC_ANNOUNCED.search(line):
                self._grpc = match[1]
        self._listening.set()


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory that `build_models.py` fills; the first of the test processes that needs it runs it."""
    base = tmp_path_factory.getbasetemp()
    directory = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "served-models"
    directory.mkdir(exist_ok=True)
    program = Path(__file__).with_name("build_models.py")
    with (directory / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (directory / "built").exists():
            built = subprocess.run(
                [sys.executable, str(program), str(directory)], capture_output=True, text=True
            )
            assert built.returncode == 0, built.stderr
            (directory / "built").touch()
    return directory


@pytest.fixture(scope="session")
def expected(models: Path) -> dict[str, np.ndarray[Any, Any]]:
    """Images, and what TensorFlow says of them."""
    with np.load(models / "expected.npz") as content:
        return dict(content)


@pytest.fixture
def publish(models: Path, tmp_path: Path) -> Callable[[str, int], Path]:
    """Copy a model to the base path under a version number, whole at once."""

    def publish(model: str, number: int) -> Path:
        target = tmp_path / "export" / str(number)
        target.parent.mkdir(exist_ok=True)
        shutil.copytree(models / model, tmp_path / "new")
        return (tmp_path / "new").rename(target)

    return publish


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Start servers; they must end with their `exit_code`."""
    servers: list[Server] = []

    def serve(**options: Any) -> Server:
        servers.append(Server(**{"base_path": tmp_path / "export"} | options))
        return servers[-1]

    yield serve
    codes = [server.stop() for server in servers]
    assert codes == [server.exit_code for server in servers], "\n".join(server.output for server in servers)
