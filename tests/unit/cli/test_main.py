"""What every command has in common."""

from __future__ import annotations

import os
import signal
import sys

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
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        with pytest.raises(SystemExit):
            fairway.cli.main()
    finally:
        signal.signal(signal.SIGTERM, before)
    assert (found[0] is not signal.SIG_DFL) is handled
