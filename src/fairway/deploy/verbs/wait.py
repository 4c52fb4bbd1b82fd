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
    Cause.UNSCHEDULABLE: 60.0,  # pods that are ending; other words begin anew
    Cause.CRASH: 0.0,  # it had its chances
    Cause.MEMORY: 0.0,
}
MAX_INTERRUPTIONS = 20
"""How often a training that was cut short is started again: as often as a TFJob starts its tasks anew."""
MAX_IN_VAIN = 3
"""So often in a row it may be cut short without a step that it had not taken before; then it is let be."""
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


class Arrivals:
    """Remembers trainings that are done: they may go away by themselves (ttlSecondsAfterFinished).

    Args:
        done: Those that are known to be.
    """

    def __init__(self, done: Iterable[Record] = ()) -> None:
        self._done = {record.component: record for record in done}

    def among(self, records: Iterable[Record]) -> list[Record]:
        """Return the records; in the place of one that went away after its end the one of its end."""
        found = []
        for record in records:
            if record.state is State.DONE:
                self._done[record.component] = record
            gone = record.state is State.ABSENT
            found.append(self._done.get(record.component, record) if gone else record)
        return found


class Patience:
    """Tells which components are beyond hope: failed, or stuck for longer than such things take to heal."""

    def __init__(self) -> None:
        self._stuck: dict[str, tuple[tuple[Cause, str], float]] = {}
        self._interruptions: dict[str, int] = {}
        self._in_vain: dict[str, int] = {}
        self._steps: dict[str, int] = {}
        self._before: dict[str, int] = {}

    def interrupted(self, records: Iterable[Record]) -> list[str]:
        """Return the trainings that are to be started again, as nothing is wrong with them."""
        found = []
        for record in records:
            name = record.component
            if record.training and record.training.step:
                self._steps[name] = max(self._steps.get(name, 0), record.training.step)
            if record.cause is Cause.INTERRUPTED:
                self._note_interruption(name)
                found.append(name)
        return [name for name in found if self._may_go_on(name)]

    def _note_interruption(self, name: str) -> None:
        step = self._steps.get(name, 0)
        self._in_vain[name] = 0 if step > self._before.get(name, 0) else self._in_vain.get(name, 0) + 1
        self._before[name] = step
        self._interruptions[name] = self._interruptions.get(name, 0) + 1

    def _may_go_on(self, name: str) -> bool:
        return (
            self._interruptions.get(name, 0) <= MAX_INTERRUPTIONS and self._in_vain.get(name, 0) < MAX_IN_VAIN
        )

    def check(self, records: Iterable[Record], now: float) -> None:
        """Give up if one of them cannot go on.

        Args:
            records: Of all components.
            now: Seconds, from any beginning.

        Raises:
            ClusterError: it names the component and why.
        """
        for record in records:
            if record.cause is Cause.INTERRUPTED and self._may_go_on(record.component):
                continue
            if record.state is State.FAILED:
                raise ClusterError(f"{record.component} has failed: {record.reason}", hint=record.hint)
            if record.state not in (State.STUCK, State.ABSENT):
                self._stuck.pop(record.component, None)
                continue
            # The scheduler's words change while nodes come and pods end.
            what = record.cause, record.reason if record.cause is Cause.UNSCHEDULABLE else ""
            known, since = self._stuck.get(record.component, (None, now))
            if known != what:
                since = now
            self._stuck[record.component] = what, since
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
    changes, patience, arrivals = Changes(), Patience(), Arrivals()
    async for snapshot in snapshots(kube, target):
        records = arrivals.among(diagnose(target, snapshot, chosen))
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
