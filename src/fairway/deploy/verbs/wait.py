"""Waits until what was applied works, or cannot without help."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from fairway.deploy.state.diagnosis import diagnose
from fairway.deploy.state.pods import Cause
from fairway.deploy.state.record import Record, State
from fairway.deploy.state.snapshot import snapshots
from fairway.deploy.target import Target
from fairway.errors import ClusterError

if TYPE_CHECKING:
    from fairway.deploy.kube.client import Kube

GRACE_S = 15.0
"""How long something may be stuck that heals at times: a secret that comes a moment later."""
GRACES_S = {
    Cause.IMAGE: 30.0,  # registries fail at times, and the kubelet tries again after 10 and 20 s
    Cause.CLAIM: 30.0,
    Cause.QUOTA: 30.0,  # of pods that are ending
    Cause.UNSCHEDULABLE: 60.0,  # pods that are ending; an autoscaler's new node shows in the words
    Cause.CRASH: 0.0,  # it had its chances
    Cause.MEMORY: 0.0,
}
MAX_INTERRUPTIONS = 20
"""How often a training that was cut short is started again: as often as a TFJob starts its tasks anew."""
LINE_S = 5.0
"""Seconds between two reports of a training's progress."""


class Changes:
    """Tells which records say something new; of a training's progress only every few seconds."""

    def __init__(self) -> None:
        self._said: dict[str, tuple[float, State, str]] = {}

    def among(self, records: Iterable[Record], now: float) -> list[Record]:
        """Return the records that are to be shown.

        Args:
            records: Of all components.
            now: Seconds, from any beginning.
        """
        shown = [each for each in records if self._is_new(each, now)]
        self._said |= {each.component: (now, each.state, each.reason) for each in shown}
        return shown

    def _is_new(self, record: Record, now: float) -> bool:
        if record.component not in self._said:
            return True
        at, state, reason = self._said[record.component]
        if record.state is state is State.RUNNING and now - at < LINE_S:
            return False
        return (state, reason) != (record.state, record.reason)


class Patience:
    """Tells which components are beyond hope: failed, or stuck for longer than such things take to heal."""

    def __init__(self) -> None:
        self._stuck: dict[str, tuple[Cause, float]] = {}
        self._interruptions = 0

    def interrupted(self, records: Iterable[Record]) -> list[str]:
        """Return the trainings that are to be started again, as nothing is wrong with them."""
        found = [record.component for record in records if record.cause is Cause.INTERRUPTED]
        self._interruptions += bool(found)
        return found if self._interruptions <= MAX_INTERRUPTIONS else []

    def check(self, records: Iterable[Record], now: float) -> None:
        """Give up if one of them cannot go on.

        Args:
            records: Of all components.
            now: Seconds, from any beginning.

        Raises:
            ClusterError: it names the component and why.
        """
        for record in records:
            if record.cause is Cause.INTERRUPTED and self._interruptions <= MAX_INTERRUPTIONS:
                continue
            if record.state is State.FAILED:
                raise ClusterError(f"{record.component} has failed: {record.reason}", hint=record.hint)
            if record.state not in (State.STUCK, State.ABSENT):
                self._stuck.pop(record.component, None)
                continue
            cause, since = self._stuck.get(record.component, (None, now))
            if cause is not record.cause:
                since = now
            self._stuck[record.component] = record.cause, since
            if now - since >= GRACES_S.get(record.cause, GRACE_S):
                raise ClusterError(f"{record.component} cannot go on: {record.reason}", hint=record.hint)


async def wait_until_ready(
    kube: Kube,
    target: Target,
    names: Sequence[str],
    report: Callable[[Record], None],
    resume: Callable[[Sequence[str]], Awaitable[None]],
    *,
    timeout_s: float | None = None,
) -> list[Record]:
    """Wait until components are ready and their trainings have succeeded; return their last records.

    Args:
        kube: The cluster.
        target: The environment.
        names: Of the components; none: those that take part.
        report: Is told of each component whose state changes, and of a training's progress.
        resume: Starts trainings again that were cut short.
        timeout_s: Seconds to wait at most; `None`: as long as there is hope.

    Raises:
        UsageError: no component has one of the names.
        ClusterError: one cannot go on without help, time is up, or the cluster is away.
    """
    chosen = [component.name for component in target.choose(names)]
    clock = asyncio.get_running_loop().time
    deadline = None if timeout_s is None else clock() + timeout_s
    changes, patience = Changes(), Patience()
    async for snapshot in snapshots(kube, target):
        records = diagnose(target, snapshot, chosen)
        for record in changes.among(records, clock()):
            report(record)
        if all(record.has_arrived for record in records):
            return records
        if cut := patience.interrupted(records):
            await resume(cut)
        patience.check(records, clock())
        if deadline is not None and clock() > deadline:
            late = [str(record) for record in records if not record.has_arrived]
            raise ClusterError(
                f"after {timeout_s:g} s {'; '.join(late)}",
                hint=f"It goes on in the cluster; see: fairway status {target.environment.name} --watch",
            )
    raise AssertionError("looking has no end")
