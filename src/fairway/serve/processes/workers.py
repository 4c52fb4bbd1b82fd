"""Several processes that answer on the same ports, all with the same versions.

This is the side of the process that decides. It starts the others, tells all of them what to load and what
to answer with, and starts again what has died or does not answer any more: with the versions of the others,
before it listens. So all that listen have the same versions; one that cannot load what others still serve
does not listen, and a version that none has any more is given up.
"""

from __future__ import annotations

import logging
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import Future, wait
from contextlib import contextmanager, suppress
from dataclasses import replace
from multiprocessing.connection import Connection
from typing import Any

from fairway.errors import FairwayError
from fairway.serve.metrics import Metrics, add_up
from fairway.serve.plan import Plan
from fairway.serve.processes.channel import Channel, ClosedError
from fairway.serve.versions.backend import Keys
from fairway.serve.versions.table import ModelTable
from fairway.storage.exports import Version
from fairway.tfs.configs import ModelConfig
from fairway.tfs.versions import State, VersionStatus

_FIRST_DELAY_S = 0.2
_MAX_DELAY_S = 30.0
_STABLE_S = 30.0
"""A worker that lived longer is started again at once."""
_MARGIN_S = 3.0
"""How long a worker may take to end beyond the time for its requests."""
_ANSWER_S = 10.0
"""How long a worker may take to take on a table, or to tell what it has counted."""
_START_S = 60.0
"""How long a new worker may take before it answers for the first time."""
_PING_S = 2.0
"""Between two looks whether a worker answers."""
_MAX_LOADS = 3
"""So often is a version loaded by a worker that stops answering then; a third time it is not by chance."""
_SNAPSHOT_S = 2.0
"""How long the metrics wait for those of one worker."""

_COMMAND = ("-m", "fairway.serve.processes.worker")

logger = logging.getLogger(__name__)

Reload = Callable[[tuple[ModelConfig, ...]], None]


class Workers:
    """A `Backend` of several processes.

    Args:
        plan: What they are to do, with the ports that this process has reserved.
        metrics: What this process counts.
    """

    def __init__(self, plan: Plan, metrics: Metrics) -> None:
        self._plan = plan
        self._metrics = metrics
        self._workers: dict[int, _Worker] = {}
        """Those that answer."""
        self._starting: dict[int, _Worker] = {}
        self._loads: dict[int, tuple[str, Version]] = {}
        """What all have."""
        self._lost: dict[int, str] = {}
        """What none has any more, and why."""
        self._last_deadly: int | None = None
        """What a new worker was loading when it ended, while no other one answered."""
        self._published: tuple[Mapping[str, ModelTable], Keys] = ({}, {})
        self._reload: Reload | None = None
        # Held while something is loaded, which may take minutes, and while a new worker catches up with the
        # others, so that it misses nothing. It is taken before the other lock.
        self._loading = threading.Lock()
        # Held while all are told something else, and for what is above.
        self._lock = threading.Condition()
        self._stopping = threading.Event()
        self._signalled = threading.Event()
        # Held while counts move from a worker that has ended to those of the past. It is taken last.
        self._counting = threading.Lock()
        self._past = add_up([])

    @contextmanager
    def running(self, reload: Reload) -> Iterator[None]:
        """Keep the workers running during the block; at its end have them answer what has been asked.

        Args:
            reload: Is called when a worker is asked to serve other models.

        Raises:
            FairwayError: a worker cannot start, as when a port cannot be had.
        """
        self._reload = reload
        handlers = {number: signal.signal(number, self._end) for number in (signal.SIGINT, signal.SIGTERM)}
        keepers: list[threading.Thread] = []
        try:
            for index, worker in enumerate(self._start_first()):
                keeper = threading.Thread(target=self._keep, args=(index, worker), name=f"worker {index}")
                keeper.start()
                keepers.append(keeper)
            yield
        finally:
            self._stop()
            for keeper in keepers:
                keeper.join()
            for number, handler in handlers.items():
                signal.signal(number, handler)

    def wait(self) -> None:
        """Return when SIGTERM or Ctrl-C has come."""
        self._signalled.wait()

    def load(self, key: int, model: str, version: Version) -> str:
        """Load a version in every worker; see `Backend`.

        The first one loads it alone: should that kill the process, the others go on serving.
        """
        for _ in range(_MAX_LOADS):
            self._wait_for_a_worker()
            with self._loading:
                runtime = self._load_in(self._answering(), key, model, version)
            if runtime is not None:
                return runtime
        raise FairwayError("the processes that were to load it stopped answering")

    def publish(self, tables: Mapping[str, ModelTable], keys: Keys) -> None:
        """Have every worker answer as these tables say; see `Backend`."""
        with self._lock:
            self._published = _without(self._lost, tables, keys)
            self._ask_all("publish", *self._published)

    def drop(self, key: int) -> None:
        """Free a version in every worker; see `Backend`."""
        with self._lock:
            self._loads.pop(key, None)
            self._lost.pop(key, None)
            self._ask_all("drop", key)

    def held(self, keys: Collection[int]) -> set[int]:
        """Return which of the dropped versions are held in any worker; see `Backend`."""
        with self._lock:
            answers = self._ask_all("held", set(keys))
        return set().union(*answers)

    def lost(self, keys: Collection[int]) -> dict[int, str]:
        """Return which versions no worker has any more, and why; see `Backend`."""
        with self._lock:
            return {key: self._lost[key] for key in keys if key in self._lost}

    def snapshots(self) -> list[dict[str, Any]]:
        """Return the counts of this process, of the workers that have ended, and of each that has not.

        Those of one that is stuck are the last it has told of.
        """
        asked = {worker.channel.ask("snapshot"): worker for worker in list(self._workers.values())}
        done, _ = wait(asked, _SNAPSHOT_S)
        for each in done:
            if not each.exception():
                asked[each].counts = each.result()
        with self._counting:
            workers = [worker.counts for worker in list(self._workers.values()) if worker.counts]
            return [self._metrics.snapshot(), self._past, *workers]

    def _load_in(self, workers: list[_Worker], key: int, model: str, version: Version) -> str | None:
        """Return what computes a version; `None` where the first one has stopped answering meanwhile."""
        runtime: str | None = None
        for group in (workers[:1], workers[1:]):
            asked = {worker.channel.ask("load", key, model, version): worker for worker in group}
            wait(asked)  # also after a failure: what still loads could not be dropped
            if error := next(filter(None, map(_failure, asked, asked.values())), None):
                with self._lock:
                    self._ask_all("drop", key)
                raise error
            runtime = runtime or next((each.result() for each in asked if not each.exception()), None)
            if runtime is None:
                return None
        with self._lock:
            self._loads[key] = (model, version)
        return runtime

    def _answering(self) -> list[_Worker]:
        return [worker for worker in list(self._workers.values()) if not worker.is_stuck]

    def _wait_for_a_worker(self) -> None:
        with self._lock:
            while not self._answering():
                if self._stopping.is_set():
                    raise FairwayError("the server ends")
                self._lock.wait(_FIRST_DELAY_S)

    def _ask_all(self, name: str, *args: Any) -> list[Any]:
        """Return the answers of all workers; one that does not answer is killed, to start anew."""
        asked = {worker.channel.ask(name, *args): worker for worker in self._workers.values()}
        done, stuck = wait(asked, _ANSWER_S)
        for each in stuck:
            asked[each].give_up()
        return [each.result() for each in done if not isinstance(each.exception(), ClosedError)]

    def _start_first(self) -> list[_Worker]:
        """Start all workers side by side; before they listen they know what there is to be served.

        Raises:
            FairwayError: one of them cannot start, with its reason.
        """
        workers = [self._spawn(index) for index in range(self._plan.settings.workers)]
        try:
            for step in (("publish", *self._published), ("listen",)):
                for started in [worker.channel.ask(*step) for worker in workers]:
                    started.result()
        except (FairwayError, ClosedError) as err:
            for worker in workers:
                worker.process.kill()
                worker.process.wait()
            if isinstance(err, ClosedError):
                raise FairwayError("a worker ended while it started") from err
            raise
        self._workers = dict(enumerate(workers))
        return workers

    def _keep(self, index: int, worker: _Worker) -> None:
        """Wait until a worker ends, and start another one in its place, until all are to end."""
        delay_s = _FIRST_DELAY_S
        while True:
            code = worker.process.wait()
            with self._lock, self._counting:
                if self._workers.pop(index, None) and worker.counts:
                    self._past = add_up([self._past, worker.counts])
            if self._stopping.is_set():
                return
            delay_s = _FIRST_DELAY_S if worker.age_s > _STABLE_S else delay_s
            logger.warning("worker %d ended (%s); starting another one", index, _cause(code))
            if self._stopping.wait(delay_s):
                return
            delay_s = min(2 * delay_s, _MAX_DELAY_S)
            worker = self._starting[index] = self._spawn(index)
            try:
                self._catch_up(index, worker)
            except (FairwayError, ClosedError) as err:
                if not self._stopping.is_set():
                    logger.warning("worker %d cannot start: %s", index, str(err) or "it ended")
                worker.process.kill()
            del self._starting[index]

    def _catch_up(self, index: int, worker: _Worker) -> None:
        with self._loading:
            loads = self._loads.copy()
            failed = self._load_again(worker, loads)
            with self._lock:
                for key, error in failed.items():
                    self._lose(key, error)
                for key in loads.keys() - self._loads.keys():
                    worker.channel.call("drop", key)
                worker.channel.call("publish", *self._published)
                self._workers[index] = worker
                self._lock.notify_all()
        worker.channel.call("listen")
        if self._stopping.is_set():
            worker.channel.ask("stop")

    def _load_again(self, worker: _Worker, loads: Mapping[int, tuple[str, Version]]) -> dict[int, str]:
        """Load what there is in a new worker.

        Returns:
            What it could not load, and why, while no other one has it.

        Raises:
            FairwayError: it cannot load what others serve.
            ClosedError: it ends meanwhile.
        """
        failed: dict[int, str] = {}
        for key, (model, version) in loads.items():
            try:
                worker.channel.call("load", key, model, version)
            except FairwayError as err:
                if self._workers:
                    text = f"version {version.number} of {model} cannot be loaded again: {err.message}"
                    raise FairwayError(text, hint=err.hint) from err
                failed[key] = err.message
            except ClosedError:
                with self._lock:
                    self._suspect(key)
                raise
        return failed

    def _suspect(self, key: int) -> None:
        """Give up a version that two new workers have ended with; once may be by chance."""
        if self._workers or self._stopping.is_set():
            return
        if self._last_deadly == key:
            self._lose(key, "the process that was to load it again ended meanwhile")
        self._last_deadly = key

    def _lose(self, key: int, error: str) -> None:
        if load := self._loads.pop(key, None):
            model, version = load
            logger.warning("version %d of %s cannot be loaded again: %s", version.number, model, error)
            self._lost[key] = error
            self._published = _without(self._lost, *self._published)

    def _spawn(self, index: int) -> _Worker:
        answers: dict[str, Callable[..., Any]] = {"reload": self._reload_for, "snapshots": self.snapshots}
        return _Worker(index, self._plan, answers)

    def _reload_for(self, configs: tuple[ModelConfig, ...]) -> None:
        if self._reload:
            self._reload(configs)

    def _end(self, _signum: int, _frame: object) -> None:
        if self._signalled.is_set():  # asked twice: the requests in flight are not waited for
            for worker in list(self._workers.values()):
                worker.process.kill()
        self._signalled.set()

    def _stop(self) -> None:
        self._stopping.set()
        for worker in list(self._starting.values()):
            worker.process.kill()
        workers = list(self._workers.values())
        for worker in workers:
            worker.channel.ask("stop")
        end = time.monotonic() + self._plan.settings.drain_seconds + _MARGIN_S
        for worker in workers:
            with suppress(subprocess.TimeoutExpired):
                worker.process.wait(max(0.0, end - time.monotonic()))
        for worker in list(self._workers.values()):
            if worker.process.poll() is None:
                logger.warning("worker %d does not end; killing it", worker.index)
                worker.process.kill()


class _Worker:
    """One process that answers, and the way to it.

    Args:
        index: From 0; the same for the one that takes its place.
        plan: What it is to do.
        answers: What it may call.

    Attributes:
        counts: What it had counted when it was asked last.
        is_stuck: Whether it was killed as it did not answer.
    """

    def __init__(self, index: int, plan: Plan, answers: Mapping[str, Callable[..., Any]]) -> None:
        self.index = index
        self.counts: dict[str, Any] | None = None
        self.is_stuck = False
        self._started = time.monotonic()
        self._ended = threading.Event()
        ours, theirs = socket.socketpair()
        # Else one that does not read would hold up whoever tells it something.
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", int(_ANSWER_S), 0))
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, *_COMMAND, str(theirs.fileno())],
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                # A signal to our group is for us to pass on: all are to end together.
                start_new_session=True,
            )
        connection: Connection[Any, Any] = Connection(ours.detach())
        connection.send((plan, index, logging.getLogger("fairway").level))
        self.channel = Channel(connection, answers)
        for target, name in ((self._follow, "channel"), (self._watch, "watch")):
            threading.Thread(target=target, name=f"{name} {index}", daemon=True).start()

    @property
    def age_s(self) -> float:
        """Seconds since it was started."""
        return time.monotonic() - self._started

    def give_up(self) -> None:
        """Kill it, as it does not answer."""
        if not self.is_stuck:
            self.is_stuck = True
            logger.warning("worker %d does not answer; killing it", self.index)
            self.process.kill()

    def _follow(self) -> None:
        self.channel.run()
        self._ended.set()

    def _watch(self) -> None:
        """Ask it again and again what it has counted, until it ends; give it up if it does not answer."""
        limit_s = _START_S
        while not self._ended.is_set():
            asked = self.channel.ask("snapshot")
            wait([asked], limit_s)
            if not asked.done():
                self.give_up()
            elif not asked.exception():
                self.counts = asked.result()
            limit_s = _ANSWER_S
            self._ended.wait(_PING_S)


def _failure(loaded: Future[Any], worker: _Worker) -> FairwayError | None:
    """Return what says against a version after a worker was to load it."""
    error = loaded.exception()
    if isinstance(error, ClosedError):
        # One that was stuck says nothing: the worker in its place will load it.
        return None if worker.is_stuck else FairwayError("the process that was to load it ended meanwhile")
    return error if isinstance(error, FairwayError) else None


def _without(
    lost: Mapping[int, str], tables: Mapping[str, ModelTable], keys: Keys
) -> tuple[dict[str, ModelTable], Keys]:
    """Return tables and keys without versions that no process has any more."""
    left = dict(tables)
    for model, numbers in keys.items():
        for number in [number for number, key in numbers.items() if key in lost]:
            left[model] = _take_out(left[model], number, lost[numbers[number]])
    stay = {
        model: {number: key for number, key in numbers.items() if key not in lost}
        for model, numbers in keys.items()
    }
    return left, stay


def _take_out(table: ModelTable, number: int, error: str) -> ModelTable:
    serving = tuple(each for each in table.serving if each != number)
    ended = VersionStatus(number, State.END, error)
    return replace(
        table,
        serving=serving,
        statuses=tuple(ended if status.number == number else status for status in table.statuses),
        problem=table.problem if serving else f"version {number} cannot be served: {error}",
    )


def _cause(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"
