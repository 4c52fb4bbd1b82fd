"""A command that runs until it is told to end, and what it has written."""

from __future__ import annotations

import re
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tests.cluster.apps import DEADLINE_S, ClusterApp

SOON_S = 60
"""For what takes a moment, on a machine where much else goes on."""

PORTS = ("--web-port", "--tensorboard-port", "--rest-api-port", "--grpc-port")
FREE_PORTS = tuple(word for flag in PORTS for word in (flag, "0"))


class Running:
    """A running command.

    Args:
        process: Its process, with a pipe at its stderr.
    """

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.output = ""
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.output += line

    def wait_for(self, pattern: str, *, after: int = 0) -> re.Match[str]:
        """Wait until the output has what a pattern finds, after so many characters."""
        deadline = time.monotonic() + DEADLINE_S
        while not (found := re.compile(pattern, re.MULTILINE).search(self.output, after)):
            assert self.process.poll() is None, self.output
            assert time.monotonic() < deadline, f"no {pattern!r} in:\n{self.output}"
            time.sleep(0.05)
        return found

    def link(self, title: str) -> str:
        """Wait for a link and return its URL."""
        return self.wait_for(rf"^{re.escape(title)} answers at (\S+)$")[1]

    def end(self, signum: signal.Signals) -> None:
        """Send a signal; the command must end with the exit code of that signal, and soon."""
        self.process.send_signal(signum)
        assert self.process.wait(timeout=SOON_S) == 128 + signum, self.output

    def wait_for_end(self, words: str) -> None:
        """Wait until all is read that it has written; that must end with some words."""
        self._reader.join(timeout=SOON_S)
        assert self.output.rstrip().endswith(words), self.output

    def close(self) -> None:
        """End it in any case."""
        self.process.kill()
        self.process.wait()
        self._reader.join()
        for stream in (self.process.stdout, self.process.stderr):
            if stream:
                stream.close()


@contextmanager
def running(app: ClusterApp, *words: str) -> Iterator[Running]:
    """Run a command in the app's folder."""
    command = Running(app.start(*words))
    try:
        yield command
    finally:
        command.close()
