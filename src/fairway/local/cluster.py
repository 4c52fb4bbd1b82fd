"""A distributed training as processes of this machine, each with the TF_CONFIG that a TFJob would inject."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import signal
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from typing import Any

from fairway.config import ClusterSettings, TrainSettings, as_flags, environment_without
from fairway.errors import FairwayError, StoppedError
from fairway.local.supervisor import Part, Supervisor, until_any, until_set
from fairway.net.cluster import Cluster, Task, tf_config
from fairway.net.control.client import observe
from fairway.progress import Progress

log = logging.getLogger(__name__)

END_TIMEOUT_S = 15.0
"""How long the other tasks may take to end after the lead has."""
TRAINING = "training"
"""What the lead's progress is called: in its own lines, and beside the bar."""
HOST = "127.0.0.1"
PORTS = range(20000, 30000)
"""Below those that systems give to outgoing connections: of these, one to a port where nobody listens yet can
be given that very port, and then it is connected to itself."""


class Watch:
    """Follows a training over its lead's control channel: shows how far it is, and kills what hangs.

    Args:
        supervisor: Runs the tasks.
        lead: The lead's name there.

    Attributes:
        version: URI of the exported version; empty before it is there.
    """

    def __init__(self, supervisor: Supervisor, lead: str) -> None:
        self._supervisor, self._lead = supervisor, lead
        self._step = self._total = 0
        self._bar: Progress | None = None
        self._screen = ExitStack()
        self.version = ""

    async def follow(self, control: tuple[str, int] | None) -> None:
        """Follow until the training has ended; there is nothing to follow without a control channel."""
        if control is None:
            return
        with self._screen:
            async for message in observe(*control):
                self._take(message)

    def _take(self, message: Mapping[str, Any]) -> None:
        match message:
            case {"type": "event", "kind": "progress", "step": step, "total": total, "note": note}:
                self._show(step, total, note)
            case {"type": "waiting"}:
                self._total = 0  # the lead was started anew, and where it goes on is not known yet
            case {"type": "lost", "task": task, "silent": True}:
                self._kill(task)
            case {"type": "silent"}:
                self._kill(self._lead)
            case {"type": "done", "version": version}:
                self.version = version

    def where(self) -> str:
        """Return how far a training is that was stopped, for `StoppedError`."""
        return f" at step {self._step} of {self._total}" if self._total else ""

    def _show(self, step: int, total: int, note: str) -> None:
        self._step, self._total = step, total
        if self._bar is None and step < total and sys.stderr.isatty():
            self._bar = self._screen.enter_context(Progress(TRAINING, total, done=step))
        if self._bar:
            self._bar.update(step, note)
        if step >= total:
            self._screen.close()
            self._bar = None

    def _kill(self, task: str) -> None:
        log.warning("%s hangs; killing it", task)
        self._supervisor.kill(task)


def run(settings: TrainSettings, cluster: ClusterSettings) -> str:
    """Train in several processes until the chief has exported a version, and end them all.

    Returns:
        The version's directory, a path or a URI.

    Raises:
        FairwayError: a task ended with an error, or crashed again and again.
        StoppedError: SIGINT, SIGTERM or SIGHUP came.
    """
    addresses = free_addresses(list_tasks(cluster))
    lead = Cluster(addresses, next(iter(addresses)))
    control = None if lead.mode == "single" else lead.control_address
    drawn = control is not None and sys.stderr.isatty()
    environment = environment_without(ClusterSettings)
    parts = build_parts(
        settings, addresses, environment, _cores(), hidden=(f"{TRAINING}: ",) if drawn else ()
    )
    log.info("starting %s on this machine", ", ".join(part.name for part in parts))
    return asyncio.run(run_parts(parts, control))


def list_tasks(cluster: ClusterSettings) -> list[Task]:
    """Return the tasks of a training, the lead first."""
    return [
        Task("chief", 0),
        *(Task("worker", index) for index in range(cluster.workers)),
        *(Task("ps", index) for index in range(cluster.ps)),
        *(Task("evaluator", index) for index in range(cluster.evaluator)),
    ]


def free_addresses(tasks: Sequence[Task]) -> dict[Task, str]:
    """Return a free address for each task; the port after it is free as well, for the lead's control channel.

    Raises:
        FairwayError: there are not as many.
    """
    with ExitStack() as held:
        return {task: f"{HOST}:{_hold_two_ports(held)}" for task in tasks}


def _hold_two_ports(held: ExitStack) -> int:
    for port in random.sample(PORTS[::2], len(PORTS[::2])):
        with suppress(OSError):
            for each in (port, port + 1):
                held.enter_context(socket.socket()).bind(("", each))  # as TensorFlow's server does
            return port
    raise FairwayError(f"no free ports from {PORTS[0]} to {PORTS[-1]}", hint="Start fewer tasks.")


def build_parts(
    settings: TrainSettings,
    addresses: Mapping[Task, str],
    environment: Mapping[str, str],
    cores: int,
    *,
    hidden: tuple[str, ...] = (),
) -> list[Part]:
    """Return the process of each task.

    Args:
        settings: The training's.
        addresses: Where each task listens, the lead first.
        environment: What all of them get. Numbers of threads that are set there are kept.
        cores: Processor cores, to be divided among the tasks that compute gradients.
        hidden: Beginnings of the lead's lines that are not to be shown.
    """
    lead = next(iter(addresses))
    computing = Cluster(dict(addresses), lead).workers
    share = max(1, cores // len(computing))
    return [
        Part(
            str(task),
            (sys.executable, "-m", "fairway", "train", *as_flags(settings)),
            once=True,
            env={
                **_threads(share if task in computing else 1, len(computing)),
                **environment,
                "TF_CONFIG": tf_config(addresses, task),
            },
            hidden=hidden if task == lead else (),
            is_needed=task.role != "evaluator",  # it only watches
        )
        for task in addresses
    ]


def _threads(share: int, computing: int) -> dict[str, str]:
    """Return the variables by which TensorFlow is told how many threads to compute with."""
    return {
        "TF_NUM_INTRAOP_THREADS": str(share),
        # These wait more than they compute; with fewer than one for each peer, operations that wait for one
        # another can block them all: https://www.tensorflow.org/tutorials/distribute/parameter_server_training
        "TF_NUM_INTEROP_THREADS": str(max(share, computing + 1)),
    }


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


async def run_parts(parts: Sequence[Part], control: tuple[str, int] | None) -> str:
    """Run the tasks of a training, the lead first, until the lead is done; end the others.

    Args:
        parts: The processes; each has its work to do and ends.
        control: Address of the lead's control channel; `None` if it has none.

    Returns:
        The URI of the exported version.

    Raises:
        FairwayError: as `run`.
    """
    supervisor = Supervisor(width=max(len(part.name) for part in parts))
    watch = Watch(supervisor, parts[0].name)
    received, stop = _receive_signals(partial(supervisor.kill, *(part.name for part in parts)))
    lead, *others = [supervisor.start(part) for part in parts]
    stopping = asyncio.create_task(until_set(stop))
    watching = asyncio.create_task(watch.follow(control))
    try:
        await until_any([lead, stopping], [*others, watching])
        if lead.done():
            await _until_ended(others, stopping)
    finally:
        await supervisor.stop(first=parts[0].name)
        stopping.cancel()
        watching.cancel()
        await asyncio.gather(stopping, watching, return_exceptions=True)
    if received and supervisor.exit_codes.get(parts[0].name) != 0:
        raise StoppedError(
            received[0], watch.where(), hint="The same command goes on from the last checkpoint."
        )
    # Over the channel it tells nothing if all was trained already, or if nobody follows it.
    return watch.version or supervisor.last_words[parts[0].name]


def _receive_signals(kill: Callable[[], None]) -> tuple[list[int], asyncio.Event]:
    """Return a list that gets the signals that come, and what is set by the first; another Ctrl-C kills."""
    received: list[int] = []
    stop = asyncio.Event()

    def note(signum: int) -> None:
        if received and signum == signal.SIGINT:
            kill()
        received.append(signum)
        stop.set()

    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(signum, note, signum)
    return received, stop


async def _until_ended(others: Sequence[asyncio.Task[None]], stopping: asyncio.Task[None]) -> None:
    """Give the other tasks the time to end by themselves; the training is done, whatever becomes of them."""
    with suppress(TimeoutError):
        async with asyncio.timeout(END_TIMEOUT_S):
            while not stopping.done() and (pending := [task for task in others if not task.done()]):
                await asyncio.wait([*pending, stopping], return_when=asyncio.FIRST_COMPLETED)
    for task in others:
        if not task.done():
            log.warning("%s goes on after the end of the training; ending it", task.get_name())
        elif error := task.exception():
            log.warning("%s after the end of the training", error)
