"""`fairway up ENV`: from nothing to a prediction in a cluster, going on from wherever it stands."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Collection, Iterable, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Self

from fairway.deploy.environment import connect
from fairway.deploy.manifests import render
from fairway.deploy.settings import ApplySettings, ClusterUpSettings
from fairway.deploy.state.diagnosis import diagnose
from fairway.deploy.state.jobs import JobState, Presence, Training, check_replaceable, is_job
from fairway.deploy.state.record import Record, State
from fairway.deploy.state.snapshot import POLL_S, take_snapshot
from fairway.deploy.state.training_log import TASK, TrainingProgress
from fairway.deploy.target import Target
from fairway.deploy.verbs import apply
from fairway.deploy.verbs.ending import run_until_stopped, together
from fairway.deploy.verbs.forwards import Opened, find_forwards, open_forwards
from fairway.deploy.verbs.open import ENDING, explain
from fairway.deploy.verbs.wait import Arrivals, Changes, Patience
from fairway.progress import Progress

if TYPE_CHECKING:
    from fairway.deploy.kube.client import Kube

FIRST = ("storage", "train", "tensorboard")
"""The kinds of component that make sense while there is no model yet."""

log = logging.getLogger(__name__)


def run(target: Target, settings: ClusterUpSettings) -> int:
    """Apply what is needed, follow the training, and keep ports open until a signal comes, if there are any.

    Args:
        target: The environment.
        settings: How, and where the ports are.

    Returns:
        The exit code, that of the signal; 0 if the app has nothing to open.

    Raises:
        UsageError: params do not fit together.
        FairwayError: a port of this machine is taken.
        ClusterError: something cannot go on without help, or the cluster refuses or is away at first.
    """
    code = run_until_stopped(_up(target, settings))
    if code:
        name = target.environment.name
        log.info("the ports are closed; what runs in the cluster goes on: fairway status %s", name)
    return code


async def _up(target: Target, settings: ClusterUpSettings) -> None:
    forwards = find_forwards(target, target.choose(), settings)
    async with connect(target.environment) as kube, open_forwards(kube, forwards, settings.host) as opened:
        story = Story(kube, target, settings, opened)
        await story.begin()
        await together(opened.follow(), opened.show(ENDING), story.go_on())


class Story:
    """What `up` does besides holding the ports open.

    Args:
        kube: The cluster.
        target: The environment.
        settings: How.
        opened: The ports.
    """

    def __init__(self, kube: Kube, target: Target, settings: ClusterUpSettings, opened: Opened) -> None:
        self._kube, self._target, self._settings, self._opened = kube, target, settings, opened
        chosen = target.choose()
        self._trainings = [each.name for each in chosen if each.kind.name == "train"]
        self._first = [each.name for each in chosen if each.kind.name in FIRST]
        self._rest = [each.name for each in chosen if each.kind.name not in FIRST]
        self._changes, self._arrivals = Changes(), Arrivals()

    async def begin(self) -> None:
        """Apply what makes sense at once: without a model yet, no server.

        Raises:
            UsageError: params do not fit together, also of what is applied after the training.
            ClusterError: another training is in the way, or the cluster refuses or is away.
        """
        # A mistake in what serves the model is to be heard of before the training and not after it.
        render(self._target, self._target.choose())
        found = {name: await self._find(name) for name in self._trainings}
        left = {name for name, training in found.items() if self._is_left(name, training)}
        has_model = all(training.state is JobState.SUCCEEDED for training in found.values())
        anew = [name for name, training in found.items() if self._is_replaced(training)]
        done = (name for name, training in found.items() if training.state is JobState.SUCCEEDED)
        self._arrivals = Arrivals(Record(name, "train", State.DONE) for name in done if name not in anew)
        names = [name for name in self._first if name not in left and name not in anew]
        await self._apply(names + (self._rest if has_model else []))
        await self._apply(anew, replace=True)

    async def go_on(self) -> None:
        """Follow the training, apply what serves the model, and tell what is waited for while ports are open.

        Raises:
            ClusterError: a component cannot go on without help, or the cluster refuses.
        """
        await self._wait(self._trainings, self._first)
        await self._apply(self._rest)
        # Not for the training again: it may go away by itself (ttlSecondsAfterFinished).
        servers = [name for name in (*self._first, *self._rest) if name not in self._trainings]
        await self._wait(servers, servers)
        await explain(self._kube, self._target, self._opened)

    async def _find(self, name: str) -> Training:
        """Return what the cluster has of a training."""
        component = [each for each in self._target.choose() if each.name == name]
        wanted = [each for each in render(self._target, component) if is_job(each)]
        return await apply.find_training(self._kube, self._target, name, wanted)

    def _is_replaced(self, training: Training) -> bool:
        """Return whether to train anew: not what has succeeded with these params, else no command goes on."""
        is_wrong = training.presence is Presence.OTHER or training.state is JobState.FAILED
        return self._settings.replace and training.has_ended and is_wrong

    def _is_left(self, name: str, training: Training) -> bool:
        """Return whether a training that is not the one of the params is left as it is; say so.

        Raises:
            ClusterError: it has failed, so there is nothing to go on with.
        """
        environment, replace = self._target.environment.name, self._settings.replace
        if training.presence is not Presence.OTHER or (training.has_ended and replace):
            return False
        if training.state is JobState.FAILED:
            check_replaceable(name, training, replace=replace, environment=environment)
        if training.state is JobState.RUNNING:
            end = f"its end, or stop it: fairway delete {environment} -c {name}"
            log.warning(
                "%s runs with other params than now; following it. To train with these wait for %s", name, end
            )
        else:
            again = f"fairway up {environment} --replace"
            log.warning("%s has succeeded with other params than now. To train with these: %s", name, again)
        return True

    async def _apply(self, names: Sequence[str], *, replace: bool = False) -> None:
        if not names:
            return
        from fairway.deploy.kube.errors import ConflictError, NamespaceMissingError

        settings = ApplySettings(
            component=tuple(names),
            replace=replace,
            create_namespace=self._settings.create_namespace,
            set=self._settings.set,
        )
        try:
            await apply.run(self._kube, self._target, settings, _show_change)
        except NamespaceMissingError as err:
            command = f"fairway up {self._target.environment.name} --create-namespace"
            raise NamespaceMissingError(err.message, hint=f"Have it made: {command}") from err
        except ConflictError as err:
            command = f"fairway apply {self._target.environment.name} --force-conflicts"
            hint = f"Set the params to the same values, or take the fields over with: {command}"
            raise ConflictError(err.message, err.conflicts, hint=hint) from err

    async def _wait(self, awaited: Collection[str], shown: Collection[str]) -> None:
        """Wait until components are ready or done, and tell of them and of others meanwhile.

        Raises:
            ClusterError: one that is waited for cannot go on without help.
        """
        patience, clock = Patience(), asyncio.get_running_loop().time
        with TrainingBar() as bar:
            async for records in self._records(shown):
                bar.show(records)
                for record in self._changes.among(filter(_is_told, records), clock()):
                    log.info("%s", record)
                relevant = [record for record in records if record.component in awaited]
                if all(record.has_arrived for record in relevant):
                    return
                if cut := patience.interrupted(relevant):
                    await self._apply(cut)
                patience.check(relevant, clock())

    async def _records(self, names: Collection[str]) -> AsyncIterator[list[Record]]:
        """Yield the state of components again and again, also after the cluster was away."""
        while names:
            found = None
            with self._opened.noted():
                snapshot = await take_snapshot(self._kube, self._target)
                found = self._arrivals.among(diagnose(self._target, snapshot, names))
            if found is not None:
                yield found
            await asyncio.sleep(POLL_S)


class TrainingBar:
    """The progress of a training, once its log tells of it; a context manager."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._progress: Progress | None = None
        self._shown: TrainingProgress | None = None
        self._step = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def show(self, records: Iterable[Record]) -> None:
        """Show how far the first training is that runs, and to the end one that was shown."""
        for record in records:
            training = record.training
            if record.state is State.RUNNING and training and training.step is not None and training.total:
                self._update(training, training.step, training.total)
                return
            if record.state is State.DONE and self._shown and self._shown.total:
                self._update(self._shown, self._shown.total, self._shown.total)
                return

    def _update(self, training: TrainingProgress, step: int, total: int) -> None:
        if (training, step) == (self._shown, self._step):
            return
        if self._progress is None:
            self._progress = self._stack.enter_context(Progress(TASK, total, done=step))
        self._shown, self._step = training, step
        self._progress.update(step, _note(training))


def _note(training: TrainingProgress) -> str:
    parts = []
    if training.loss is not None:
        parts.append(f"loss {training.loss:.3f}")
    if training.accuracy is not None:
        parts.append(f"accuracy {training.accuracy:.1%}")
    return " · ".join(parts)


def _is_told(record: Record) -> bool:
    """Return whether a record is worth a line: what the bar shows is not, nor what waits for others."""
    has_bar = record.state is State.RUNNING and record.training is not None
    return not has_bar and record.state is not State.WAITING


def _show_change(change: apply.Change) -> None:
    if change.action != "unchanged":
        log.info("%s", change)
