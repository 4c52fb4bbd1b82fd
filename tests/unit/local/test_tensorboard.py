"""What `fairway tensorboard` hands to TensorBoard."""

from __future__ import annotations

import signal
import socket
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fairway.config import TensorBoardSettings
from fairway.local.tensorboard import run


class Board:
    """Stands for TensorBoard: notes the words it is started with, and is ended by SIGTERM at once."""

    words: tuple[str, ...] = ()

    def configure(self, argv: list[str]) -> None:
        Board.words = tuple(argv)

    def launch(self) -> str:
        signal.raise_signal(signal.SIGTERM)
        return "http://somewhere/"


@pytest.fixture(autouse=True)
def board(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    package: Any = types.ModuleType("tensorboard")
    package.program = types.SimpleNamespace(TensorBoard=Board)
    monkeypatch.setitem(sys.modules, "tensorboard", package)
    monkeypatch.setitem(sys.modules, "tensorboard.compat.notf", package)  # `run` sets it: is set back after
    handlers = {signum: signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM)}
    yield
    for signum, handler in handlers.items():
        signal.signal(signum, handler)


def test_every_interface_is_that_of_ipv4_where_there_is_no_ipv6(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "has_ipv6", False)
    run(TensorBoardSettings(logdir=str(tmp_path), host="::", port=0))
    assert "--host=0.0.0.0" in Board.words


def test_a_host_is_taken_as_it_is(tmp_path: Path) -> None:
    run(TensorBoardSettings(logdir=str(tmp_path), host="127.0.0.1", port=0))
    assert "--host=127.0.0.1" in Board.words
