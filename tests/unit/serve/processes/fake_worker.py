"""A worker without models, run as a program.

Version 666 kills it as it loads, version 13 is refused by the second worker, and version 100 takes until it
is told to go on. Versions 14 and 667 are refused and kill only when their file is gone. The argument is the
file descriptor of the socket to the process that decides. What the worker was told is in its snapshot.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from fairway.errors import FairwayError
from fairway.serve.processes.channel import Channel
from fairway.storage.exports import Version

DEADLY, REFUSED, SLOW = 666, 13, 100
REFUSED_WITHOUT_FILE, DEADLY_WITHOUT_FILE = 14, 667


def main() -> None:
    """Follow the process that decides until it is gone."""
    connection: Connection[Any, Any] = Connection(int(sys.argv[1]))
    plan, index, _ = connection.recv()
    loaded: dict[int, int] = {}
    state: dict[str, Any] = {
        "pid": os.getpid(),
        "index": index,
        "loaded": loaded,
        "serving": {},
        "at_start": None,
        "slow": False,
        "counters": {("answered",): 1},
        "histograms": {},
    }
    go_on = threading.Event()

    def load(key: int, _model: str, version: Version) -> str:
        is_there = Path(version.path).exists()
        if version.number == DEADLY or (version.number == DEADLY_WITHOUT_FILE and not is_there):
            os.kill(os.getpid(), signal.SIGKILL)
        if version.number == REFUSED and index == 1:
            raise FairwayError("it is unlucky")
        if version.number == REFUSED_WITHOUT_FILE and not is_there:
            raise FairwayError("its file is gone")
        if version.number == SLOW:
            state["slow"] = True
            go_on.wait()
        loaded[key] = version.number
        return "nothing"

    def publish(tables: dict[str, Any], _keys: object) -> None:
        state["published"] = True
        state["serving"] = {name: table.serving for name, table in tables.items()}

    def listen() -> None:
        if plan.settings.model_name == "nobody":
            raise FairwayError("the port is taken")
        assert "published" in state, "it listens before it knows what there is to be served"
        state["at_start"] = sorted(loaded.values()), state["serving"]

    def ask(name: str, *args: Any) -> Any:
        return channel.call(name, *args)

    answers: dict[str, Callable[..., Any]] = {
        "load": load,
        "publish": publish,
        "drop": lambda key: loaded.pop(key, None),
        "held": lambda keys: {key for key in keys if key % 2},
        "snapshot": lambda: state,
        "listen": listen,
        "stop": lambda: os._exit(0),
        "ask": ask,
        "go_on": go_on.set,
    }
    channel = Channel(connection, answers)
    channel.run()


if __name__ == "__main__":
    main()
