"""`python -m fairway.serve.processes.worker FD`: one of several processes that answer; see `workers`."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import threading
from concurrent.futures import Future
from multiprocessing.connection import Connection
from typing import Any

from fairway.errors import FairwayError
from fairway.net.ports import listen
from fairway.serve.answering import Answering
from fairway.serve.metrics import Metrics
from fairway.serve.plan import Plan
from fairway.serve.processes.channel import Channel
from fairway.serve.versions.backend import InProcess
from fairway.serve.versions.models import Models
from fairway.tfs.configs import ModelConfig

_MARGIN_S = 2.0


class Worker:
    """One process that answers, led by the one that decides.

    Args:
        plan: What to do.
        index: Which of the workers it is, from 0.
        connection: The way to the process that decides.
    """

    def __init__(self, plan: Plan, index: int, connection: Connection[Any, Any]) -> None:
        self._plan = plan
        self._index = index
        self._metrics = Metrics()
        self._models = Models()
        backend = InProcess(self._models, plan.settings)
        self._lock = threading.Lock()
        self._ending = False
        self._listen = threading.Event()
        self._listening: Future[None] = Future()
        self._channel = Channel(
            connection,
            {
                "load": backend.load,
                "publish": backend.publish,
                "drop": backend.drop,
                "held": backend.held,
                "snapshot": self._metrics.snapshot,
                "listen": self._begin,
                "stop": self._end,
            },
        )

    def run(self) -> None:
        """Do what the other process says until it says stop, or is gone."""
        threading.Thread(target=self._follow, name="channel", daemon=True).start()
        self._listen.wait()
        settings = self._plan.settings
        answering = Answering(self._plan, self._models, self._metrics, self._reload, self._snapshots)
        try:
            answering.run(
                lambda: listen(settings.host, settings.rest_api_port, "--rest_api_port", shared=True),
                lambda _rest, _grpc: self._listening.set_result(None),
                share_ports=True,
                # A path belongs to one process; the others answer on the ports alone.
                socket_path=settings.grpc_socket_path if self._index == 0 else "",
            )
        except FairwayError as err:
            self._listening.set_exception(err)
            threading.Event().wait(_MARGIN_S)  # until it is told, and this process ended
            raise

    def _follow(self) -> None:
        self._channel.run()
        self._end()  # the process that decides is gone: nobody would ever tell this one to end

    def _begin(self) -> None:
        self._listen.set()
        self._listening.result()

    def _end(self) -> None:
        with self._lock:
            if self._ending:
                return
            self._ending = True
        limit = threading.Timer(self._plan.settings.drain_seconds + _MARGIN_S, os._exit, (1,))
        limit.daemon = True
        limit.start()
        os.kill(os.getpid(), signal.SIGTERM)

    def _reload(self, configs: tuple[ModelConfig, ...]) -> None:
        self._channel.call("reload", configs)

    def _snapshots(self) -> list[dict[str, Any]]:
        snapshots: list[dict[str, Any]] = self._channel.call("snapshots")
        return snapshots


def main() -> None:
    """Run a worker: the argument is the file descriptor of the socket to the process that decides."""
    connection: Connection[Any, Any] = Connection(socket.socket(fileno=int(sys.argv[1])).detach())
    plan, index, level = connection.recv()
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    # What one says of a version, all would.
    logging.getLogger("fairway").setLevel(level if index == 0 else max(level, logging.WARNING))
    Worker(plan, index, connection).run()


if __name__ == "__main__":
    main()
