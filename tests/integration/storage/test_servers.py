"""The test servers leave nothing behind, however the tests end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.conftest import ROOT
from tests.servers.process import ServerProcess

DEADLINE_S = 30.0


def has_ended(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a child does not learn that its parent ended")
@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM], ids=lambda end: end.name)
def test_killed_parent(tmp_path: Path, end: signal.Signals) -> None:
    code = """
import time
from tests.servers.gcs import GcsEmulator
from tests.servers.moto import Moto
from tests.servers.swift import Swift
servers = [GcsEmulator(), Moto(), Swift()]
servers[2].new_bucket()
print(*[server.process.pid for server in servers], flush=True)
time.sleep(600)
"""
    parent = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=os.environ | {"TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        text=True,
    )
    with parent:
        assert parent.stdout
        children = [int(word) for word in parent.stdout.readline().split()]
        assert len(children) == 3
        assert list(tmp_path.glob("fairway-swift-*"))
        parent.send_signal(end)
    deadline = time.monotonic() + DEADLINE_S
    while not all(map(has_ended, children)):
        assert time.monotonic() < deadline, children
        time.sleep(0.02)
    assert list(tmp_path.iterdir()) == []


def test_server_that_does_not_start_is_shown() -> None:
    with pytest.raises(AssertionError, match="No module named tests.servers.none"):
        ServerProcess("tests.servers.none")
