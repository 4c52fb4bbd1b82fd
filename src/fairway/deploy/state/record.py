"""The state of a component, as status shows it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any

from fairway.deploy.resources import Manifest
from fairway.deploy.state.pods import Cause, Problem, find_problem
from fairway.deploy.state.snapshot import Snapshot
from fairway.deploy.state.training_log import TrainingProgress


class State(StrEnum):
    """The state of a component; the same words in JSON."""

    ABSENT = "absent"
    STARTING = "starting"
    RUNNING = "running"
    READY = "ready"
    DONE = "done"
    WAITING = "waiting"
    STUCK = "stuck"
    FAILED = "failed"
    DROPPED = "dropped"


@dataclass(frozen=True)
class Record:
    """The state of one component.

    Attributes:
        component: Its name.
        kind: Name of its kind; empty where the app no longer has it.
        state: What it is in.
        cause: Why, as a word.
        reason: Why, as a sentence; empty where all is well.
        hint: What to do; mostly empty.
        ready: Pods that are ready, or have done their work.
        pods: Pods that it is to have.
        training: How far its training is; `None` where it has none, or it does not say.
    """

    component: str
    kind: str
    state: State
    cause: Cause = Cause.NONE
    reason: str = ""
    hint: str = ""
    ready: int = 0
    pods: int = 0
    training: TrainingProgress | None = None

    @property
    def has_arrived(self) -> bool:
        """Whether it is as it should be, as far as it depends on itself."""
        return self.state in (State.READY, State.DONE, State.WAITING)

    def __str__(self) -> str:
        return f"{self.component} is {self.state}" + (f": {self.reason}" if self.reason else "")

    def to_json(self) -> dict[str, Any]:
        """Return the record with keys that stay."""
        return asdict(self)


def with_problem(blank: Record, problem: Problem) -> Record:
    """Return a record whose state is that of its problem."""
    return replace(
        blank,
        state=State.STUCK if problem.needs_help else State.STARTING,
        cause=problem.cause,
        reason=problem.reason,
        hint=problem.hint,
    )


def worst(pods: Iterable[Manifest], snapshot: Snapshot) -> Problem | None:
    """Return the problem that needs help, if one does, of the newest pod; else any."""
    problems = [found for pod in pods if (found := find_problem(pod, snapshot.around))]
    return next((each for each in problems if each.needs_help), problems[0] if problems else None)


def has_failed(pod: Manifest) -> bool:
    """Return whether a pod has ended, and not well."""
    return (pod.get("status") or {}).get("phase") == "Failed"
