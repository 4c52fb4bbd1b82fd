"""A test server in a child process that never outlives its parent."""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import FrameType
from typing import Protocol, Self

import httpx

ROOT = Path(__file__).parents[2]
READY_S = 60.0
STOP_S = 10.0
_PR_SET_PDEATHSIG = 1


class StoreServer(Protocol):
    """What tests know of a store.

    Attributes:
        name: Its name in `docs/reference/storage.md`.
        scheme: `s3` or `gs`; empty for the local disk.
        environment: The variables with which `fairway` reaches it, and nothing else.
    """

    name: str
    scheme: str
    environment: dict[str, str]

    @property
    def address(self) -> tuple[str, int] | None:
        """Host and port, for a proxy in front of it; `None` for the local disk."""

    def new_bucket(self) -> str:
        """Make an empty bucket and return its URI."""


class ServerProcess:
    """A module that serves on an inherited socket, as a child process: `python -m MODULE DESCRIPTOR`.

    The socket listens before the child starts, so the port is free and no request is refused. The child
    ends when the thread that started it does (Linux), so start it in the main one.

    Raises:
        AssertionError: it ended, or did not answer in time; with all that it wrote.
    """

    def __init__(self, module: str, ready_path: str = "/") -> None:
        self._output = tempfile.TemporaryFile("w+")  # noqa: SIM115
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.address: tuple[str, int] = listener.getsockname()
            self.process = subprocess.Popen(
                [sys.executable, "-m", module, str(listener.fileno())],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=self._output,
                stderr=subprocess.STDOUT,
                pass_fds=[listener.fileno()],
                preexec_fn=_die_with_parent,
            )
        try:
            self._wait_until_ready(ready_path)
        except BaseException:
            self.close()
            raise

    @property
    def endpoint(self) -> str:
        """HOST:PORT."""
        return f"{self.address[0]}:{self.address[1]}"

    @property
    def output(self) -> str:
        """All that the server has written."""
        self._output.seek(0)
        return f"exit code {self.process.poll()}; output:\n{self._output.read()}"

    def close(self) -> None:
        """End the server; it removes its files itself."""
        self.process.terminate()
        try:
            self.process.wait(STOP_S)
        finally:
            self.process.kill()
            self.process.wait()
            self._output.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _wait_until_ready(self, path: str) -> None:
        """Send one request: it waits in the socket's queue until the server takes it."""
        end = time.monotonic() + READY_S
        while True:
            try:
                httpx.get(f"http://{self.endpoint}{path}", timeout=0.5)
                return
            except httpx.HTTPError:
                assert self.process.poll() is None, self.output
                assert time.monotonic() < end, self.output


def inherited_socket(scratch: Path | None = None) -> socket.socket:
    """Return, in the child, the socket that the parent made; and make the child end when it is told to.

    Args:
        scratch: Directory to remove at the end.
    """

    def end(_signal: int, _frame: FrameType | None) -> None:
        if scratch:
            shutil.rmtree(scratch, ignore_errors=True)
        os._exit(0)

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's, which ends its servers
    if os.getppid() == 1:  # the parent ended before the child could ask to be told
        os.kill(os.getpid(), signal.SIGTERM)
    return socket.socket(fileno=int(sys.argv[1]))


_LIBC = ctypes.CDLL(None)  # loaded here: nothing may be imported between fork and exec


def _die_with_parent() -> None:
    if sys.platform == "linux":
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
