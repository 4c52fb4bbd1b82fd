"""What every command has in common."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import fairway.cli


@pytest.mark.parametrize(("pid", "handled"), [(1, True), (7, False)])
def test_the_first_process_of_a_container_ends_on_sigterm_from_its_start(
    pid: int, handled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[object] = []

    def command(*_: object, **__: object) -> None:
        found.append(signal.getsignal(signal.SIGTERM))

    monkeypatch.setattr(os, "getpid", lambda: pid)
    monkeypatch.setattr(sys, "argv", ["fairway", "serve"])
    monkeypatch.setattr(fairway.cli, "build_app", lambda: command)
    monkeypatch.delitem(sys.modules, "tensorflow", raising=False)  # with it the process ends at once
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        with pytest.raises(SystemExit):
            fairway.cli.main()
    finally:
        signal.signal(signal.SIGTERM, before)
    assert (found[0] is not signal.SIG_DFL) is handled


@pytest.mark.parametrize(("words", "code"), [(["models", "list"], 0), (["models", "show"], 1)])
def test_a_training_ends_though_threads_wait_for_lost_tasks(
    words: list[str], code: int, tmp_path: Path
) -> None:
    script = f"""
import sys, threading, types
sys.modules["tensorflow"] = types.ModuleType("tensorflow")
threading.Thread(target=threading.Event().wait).start()
sys.argv = ["fairway", *{words}, "--export-dir", "."]
from fairway.cli import main
main()
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == code, done.stderr
    assert ("VERSION" in done.stdout) is (code == 0)
    assert ("error: " in done.stderr) is (code == 1)
