"""Several processes that answer on the same ports, all with the same versions.

This is the side of the process that decides. It starts the others, tells all of them what to load and what
to answer with, and starts again what has died: with the versions of the others, before it listens.
"""

from __future__ import annotations

import logging
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import wait
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from typing import Any

from fairway.errors import FairwayError
from fairway.serve.metrics import Metrics
from fairway.serve.plan import Plan
from fairway.serve.processes.channel import Channel, ClosedError
from fairway.serve.versions.backend import Keys
from fairway.serve.versions.table import ModelTable
from fairway.storage.exports import Version
from fairway.tfs.configs import ModelConfig

_FIRST_DELAY_S = 0.2
_MAX_DELAY_S = 30.0
_STABLE_S = 30.0
"""A worker that lived longer is started again at once."""
_MARGIN_S = 3.0
"""How long a worker may take to end beyond the time for its requests."""
_ANSWER_S = 10.0
"""How long a worker may take to take on a table."""
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
        self._published: tuple[Mapping[str, ModelTable], Keys] = ({}, {})
        self._reload: Reload | None = None
        # Held while something is loaded, which may take minutes, and while a new worker catches up with the
        # others, so that it misses nothing. It is taken before the other lock.
        self._loading = threading.Lock()
        # Held while all are told something else, and for the three above.
        self._lock = threading.Condition()
        self._stopping = threading.Event()
        self._signalled = threading.Event()

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
        while True:
            with self._loading:
                if workers := list(self._workers.values()):
                    return self._load_in(workers, key, model, version)
            self._wait_for_a_worker()

    def publish(self, tables: Mapping[str, ModelTable], keys: Keys) -> None:
        """Have every worker answer as these tables say; see `Backend`."""
        with self._lock:
            self._published = tables, keys
            self._ask_all("publish", tables, keys)

    def drop(self, key: int) -> None:
        """Free a version in every worker; see `Backend`."""
        with self._lock:
            self._loads.pop(key, None)
            self._ask_all("drop", key)

    def held(self, keys: Collection[int]) -> set[int]:
        """Return which of the dropped versions are held in any worker; see `Backend`."""
        with self._lock:
            answers = self._ask_all("held", set(keys))
        return set().union(*answers)

    def snapshots(self) -> list[dict[str, Any]]:
        """Return the counts of this process and of all workers; one that is stuck is left out."""
        asked = [worker.channel.ask("snapshot") for worker in list(self._workers.values())]
        done, _ = wait(asked, _SNAPSHOT_S)
        return [self._metrics.snapshot(), *(each.result() for each in done if not each.exception())]

    def _load_in(self, workers: list[_Worker], key: int, model: str, version: Version) -> str:
        first, *others = workers
        try:
            runtime: str = first.channel.call("load", key, model, version)
            for loaded in [worker.channel.ask("load", key, model, version) for worker in others]:
                loaded.result()
        except (FairwayError, ClosedError) as err:
            with self._lock:
                self._ask_all("drop", key)
            if isinstance(err, FairwayError):
                raise
            raise FairwayError("the process that was to load it ended meanwhile") from err
        with self._lock:
            self._loads[key] = (model, version)
        return runtime

    def _wait_for_a_worker(self) -> None:
        with self._lock:
            while not self._workers:
                if self._stopping.is_set():
                    raise FairwayError("the server ends")
                self._lock.wait(_FIRST_DELAY_S)

    def _ask_all(self, name: str, *args: Any) -> list[Any]:
        """Return the answers of all workers; one that does not answer is killed, to start anew."""
        asked = {worker.channel.ask(name, *args): worker for worker in self._workers.values()}
        done, stuck = wait(asked, _ANSWER_S)
        for each in stuck:
            logger.warning("worker %d does not answer; killing it", asked[each].index)
            asked[each].process.kill()
        return [each.result() for each in done if not isinstance(each.exception(), ClosedError)]

    def _start_first(self) -> list[_Worker]:
        """Start all workers side by side.

        Raises:
            FairwayError: one of them cannot start, with its reason.
        """
        workers = [self._spawn(index) for index in range(self._plan.settings.workers)]
        try:
            for started in [worker.channel.ask("listen") for worker in workers]:
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
            with self._lock:
                self._workers.pop(index, None)
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
            for key, (model, version) in loads.items():
                worker.channel.call("load", key, model, version)
            with self._lock:
                for key in loads.keys() - self._loads.keys():
                    worker.channel.call("drop", key)
                worker.channel.call("publish", *self._published)
                self._workers[index] = worker
                self._lock.notify_all()
        worker.channel.call("listen")
        if self._stopping.is_set():
            worker.channel.ask("stop")

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
    """

    def __init__(self, index: int, plan: Plan, answers: Mapping[str, Callable[..., Any]]) -> None:
        self.index = index
        self._started = time.monotonic()
        ours, theirs = socket.socketpair()
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
        threading.Thread(target=self.channel.run, name=f"channel {index}", daemon=True).start()

    @property
    def age_s(self) -> float:
        """Seconds since it was started."""
        return time.monotonic() - self._started


def _cause(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"
