"""The other tasks of a distributed training, as its lead sees them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from types import TracebackType
from typing import Any, Self

from fairway.errors import FairwayError, StoppedError
from fairway.net.cluster import Cluster, Task
from fairway.net.control.messages import FailedPeerError
from fairway.net.control.server import Control
from fairway.train.guard import Guard

STOP_S = 10.0
"""How long the steps under way may take after SIGTERM: Kubernetes kills after 30 s, the launcher after 27."""
RETURN_S = 30.0
"""How long a hung worker may take to be killed and come back, before an asynchronous job starts again."""
ALL_WORKERS = "all workers"

log = logging.getLogger(__name__)


class Peers:
    """Finds them, notices when one is lost, and tells them how it ends; a context manager.

    Args:
        cluster: `None` or of one task: there is nobody else.
        wait_s: How long to wait for a task, at the start and for the return of the last worker.
    """

    def __init__(self, cluster: Cluster | None, wait_s: float) -> None:
        self._cluster, self._wait_s = cluster, wait_s
        self._guard, self._stack = Guard(), ExitStack()
        self._control: Control | None = None
        self._record: Callable[[str, str, str], None] = _record_nowhere

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # A retryable end is not told: the others see the connection end, and wait for the next lead.
        if self._control and isinstance(error, FairwayError) and not error.is_retryable:
            self._control.fail(error)
        self._stack.close()

    def invite(self, offer: dict[str, Any]) -> None:
        """Let the others join, who get ready while this task does.

        Args:
            offer: What they are told first, see `agreement`.

        Raises:
            FairwayError: the port for it is taken.
        """
        if self._cluster is None or not self._cluster.followers:
            return
        control = Control(
            self._cluster,
            offer,
            accepts_late=self._cluster.mode == "asynchronous",
            on_lost=self._lose,
            on_back=self._welcome,
            on_failed=self._give_up,
        )
        self._control = self._stack.enter_context(control)

    def assemble(self, check_stop: Callable[[], None]) -> dict[Task, dict[str, Any]]:
        """Wait until all are ready, and return what each says of itself.

        Args:
            check_stop: Raises when this task is told to stop.

        Raises:
            FairwayError: a task did not come, or cannot take part; the message names it.
        """
        return self._control.wait_for_all(self._wait_s, check_stop) if self._control else {}

    def watch(self) -> AbstractContextManager[None]:
        """Watch over a block that needs the peers, see `Guard.watch`; alone there is nobody to lose."""
        return self._guard.watch() if self._control else nullcontext()

    def pause(self) -> AbstractContextManager[None]:
        """Leave a block of the watched one alone, see `Guard.pause`."""
        return self._guard.pause()

    def record_with(self, record: Callable[[str, str, str], None]) -> None:
        """From now on record what happens with a function of event, task and reason."""
        self._record = record

    def limit_stop(self, signum: int) -> None:
        """End the process in a while if it was told to stop, and waits for a task that is lost."""
        if self._control:
            self._guard.fail(StoppedError(signum, " before the steps under way were done"), STOP_S)

    def publish(self, event: dict[str, Any]) -> None:
        """Tell whoever watches the job."""
        if self._control:
            self._control.publish(event)

    def finish(self, **result: Any) -> None:
        """Tell all that the training is done, and wait until they have heard."""
        if self._control:
            self._control.finish(**result)

    def _lose(self, task: Task, reason: str, is_silent: bool) -> None:
        goes_on = self._goes_on_without(task)
        log.warning("lost %s (%s)%s", task, reason, "; the others go on" if goes_on and not is_silent else "")
        if not goes_on:
            self._guard.lose(f"{task} ({reason})")
        elif is_silent:
            self._guard.miss(str(task), f"{task} ({reason})", RETURN_S)
        elif not self._workers_present():
            self._guard.miss(ALL_WORKERS, f"{ALL_WORKERS}, the last one {task} ({reason})", self._wait_s)
        self._record("lost", str(task), reason)  # last: a full disk must not hide the loss

    def _welcome(self, task: Task) -> None:
        log.info("%s is back", task)
        for peer in (str(task), ALL_WORKERS):
            self._guard.welcome(peer)
        self._record("back", str(task), "")

    def _give_up(self, task: Task, err: FailedPeerError) -> None:
        self._guard.fail(err)
        self._record("failed", str(task), err.message)

    def _goes_on_without(self, task: Task) -> bool:
        return self._cluster is not None and self._cluster.mode == "asynchronous" and task.role == "worker"

    def _workers_present(self) -> bool:
        return self._control is not None and any(task.role == "worker" for task in self._control.present)


def _record_nowhere(event: str, task: str, reason: str) -> None:
    """Before the model directory has records."""
