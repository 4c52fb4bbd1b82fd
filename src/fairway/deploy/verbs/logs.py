"""The logs of an environment's pods, merged into one."""

from __future__ import annotations

import asyncio
import heapq
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fairway.deploy.resources import JOBS, Manifest
from fairway.deploy.settings import LogsSettings
from fairway.deploy.state.inventory import component_of, labels_of, list_owned
from fairway.deploy.state.jobs import ROLE_LABEL, JobState, is_job, training_state
from fairway.deploy.target import Target
from fairway.errors import ClusterError

if TYPE_CHECKING:
    from fairway.deploy.kube.client import Kube

log = logging.getLogger(__name__)

POLL_S = 1.0


@dataclass(frozen=True)
class Source:
    """One run of a container.

    Attributes:
        title: What its lines are prefixed with.
        pod: Name of its pod.
        container: Its name.
        run: Tells it from the container's other runs, and from those of a pod of the same name.
    """

    title: str
    pod: str
    container: str
    run: tuple[str, int]


Emit = Callable[[Source, str], None]


async def run(kube: Kube, target: Target, settings: LogsSettings, emit: Emit) -> None:
    """Pass on what is in the logs, in the order in which it was written.

    Args:
        kube: The cluster.
        target: The environment.
        settings: Whose logs, and how much; `follow` is that of `follow`.
        emit: Is given each line.

    Raises:
        UsageError: no component has one of the names.
        ClusterError: there are no such pods or logs, or the cluster is away or refuses.
    """
    pods = await _find_pods(kube, target, settings)
    where = f"in namespace {target.environment.namespace}"
    hint = f"See: fairway status {target.environment.name}"
    if not pods:
        raise ClusterError(f"there are no pods of {_wanted(target, settings)} {where}", hint=hint)
    training = _only_training(target, settings)
    sources = [each for pod in pods for each in sources_of(pod, training, previous=settings.previous)]
    if not sources:
        what = "has been restarted" if settings.previous else "has started yet"
        raise ClusterError(f"no container of {_wanted(target, settings)} {what} {where}", hint=hint)
    texts = await asyncio.gather(*(_read(kube, each, settings) for each in sources))
    for (_, index), text in heapq.merge(*_numbered(texts), key=lambda line: line[0]):
        emit(sources[index], text)


async def follow(kube: Kube, target: Target, settings: LogsSettings, emit: Emit) -> None:
    """Pass on what is written, also in pods that come later, until the pods of trainings have ended.

    Where there are other pods than those of trainings, there is no end.

    Args:
        kube: The cluster.
        target: The environment.
        settings: Whose logs; `tail` is for what is there at first.
        emit: Is given each line.

    Raises:
        UsageError: no component has one of the names.
        ClusterError: the cluster refuses, or is away for long.
    """
    training = _only_training(target, settings)
    streams: dict[Source, asyncio.Task[None]] = {}
    is_first = True
    were_trainings = False
    try:
        while True:
            # Looked at before the pods: what they still wrote then, is in what follows.
            objects = await _find_objects(kube, target, settings)
            # Gone since: they may do so by themselves after their end (ttlSecondsAfterFinished).
            has_ended = _have_ended(objects) if objects else were_trainings
            if objects:
                were_trainings = _are_trainings(objects)
            pods = await _find_pods(kube, target, settings)
            if is_first and not pods and not has_ended:
                log.info("there are no pods of %s yet; waiting for them", _wanted(target, settings))
            for source in (each for pod in pods for each in sources_of(pod, training)):
                if source not in streams:
                    tail = settings.tail if is_first else None
                    streams[source] = asyncio.create_task(_stream(kube, source, tail, emit))
            running = [task for task in streams.values() if not task.done()]
            for task in streams.values():
                if task.done():
                    task.result()  # raises what ended it
            if has_ended and all(map(_is_over, pods)) and not running:
                return
            is_first = False
            await asyncio.sleep(POLL_S)
    finally:
        for task in streams.values():
            task.cancel()
        await asyncio.gather(*streams.values(), return_exceptions=True)


def sources_of(pod: Manifest, training: str | None = None, *, previous: bool = False) -> list[Source]:
    """Return the containers of a pod that have a log, those for its start first.

    Args:
        pod: The pod.
        training: As `short_name` has it.
        previous: Only those that have been restarted, as they were before.
    """
    spec, status = pod["spec"], pod.get("status") or {}
    names = [each["name"] for each in (*(spec.get("initContainers") or ()), *spec["containers"])]
    runs = {
        each["name"]: each
        for each in (*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ()))
    }
    title = short_name(pod, training)
    return [
        Source(
            f"{title}/{name}" if len(names) > 1 else title,
            pod["metadata"]["name"],
            name,
            (str(pod["metadata"].get("uid")), int(runs[name].get("restartCount", 0))),
        )
        for name in names
        if name in runs and _has_log(runs[name], previous=previous)
    ]


def short_name(pod: Manifest, training: str | None = None) -> str:
    """Return a pod's name for prefixes: `chief-0` or `train-chief-0`, else its component and last letters.

    Args:
        pod: The pod.
        training: Name of the component whose tasks need not be told from those of others, if there is one.
    """
    labels, name = pod["metadata"].get("labels") or {}, str(pod["metadata"]["name"])
    index = labels.get("training.kubeflow.org/replica-index") or labels.get(
        "batch.kubernetes.io/job-completion-index"
    )
    if role := labels.get(ROLE_LABEL):
        task = f"{role}-{index or 0}"
        return task if component_of(pod) == training else f"{component_of(pod)}-{task}"
    return f"{component_of(pod)}-{name.rpartition('-')[2]}"


def _named(target: Target, settings: LogsSettings) -> set[str]:
    """Return the names of the components whose logs are wanted; none: all."""
    return {target.app.component(name).name for name in settings.component}


def _only_training(target: Target, settings: LogsSettings) -> str | None:
    """Return the name of the training whose logs are shown, if there is just one."""
    wanted = _named(target, settings)
    names = [each.name for each in target.components if each.kind.name == "train"]
    shown = [name for name in names if not wanted or name in wanted]
    return shown[0] if len(shown) == 1 else None


async def _find_pods(kube: Kube, target: Target, settings: LogsSettings) -> list[Manifest]:
    wanted = _named(target, settings)
    role = {ROLE_LABEL: settings.role} if settings.role else {}
    pods = await kube.list("Pod", labels_of(target) | role)
    found = [each for each in pods if not wanted or component_of(each) in wanted]
    return sorted(found, key=lambda pod: str(pod["metadata"]["name"]))


def _has_log(status: dict[str, Any], *, previous: bool) -> bool:
    if previous:
        return bool((status.get("lastState") or {}).get("terminated"))
    state = status.get("state") or {}
    # A container that crashed and waits for its next start has the log of its last run.
    return "waiting" not in state or bool((status.get("lastState") or {}).get("terminated"))


def _wanted(target: Target, settings: LogsSettings) -> str:
    names = ", ".join(settings.component) or f"environment {target.environment.name}"
    return f"{names} with role {settings.role}" if settings.role else names


async def _read(kube: Kube, source: Source, settings: LogsSettings) -> list[str]:
    lines = kube.logs(
        source.pod,
        container=source.container,
        tail=settings.tail,
        previous=settings.previous,
        timestamps=True,
    )
    try:
        return [line async for line in lines]
    except ClusterError as err:  # its pod has just been deleted, or its node is away
        log.warning("%s: %s", source.title, err.message)
        return []


def _numbered(texts: Sequence[Sequence[str]]) -> list[list[tuple[tuple[str, int], str]]]:
    """Return lines as ((time, number of the source), text)."""
    return [
        [((line.partition(" ")[0], index), line.partition(" ")[2]) for line in lines]
        for index, lines in enumerate(texts)
    ]


async def _stream(kube: Kube, source: Source, tail: int | None, emit: Emit) -> None:
    try:
        async for text in kube.logs(source.pod, container=source.container, follow=True, tail=tail):
            emit(source, text)
    except ClusterError as err:  # its pod has just been deleted, or its node is away
        log.warning("%s: %s", source.title, err.message)


async def _find_objects(kube: Kube, target: Target, settings: LogsSettings) -> list[Manifest]:
    """Return what makes the pods that are followed."""
    wanted = _named(target, settings)
    kinds = JOBS if settings.role else (*JOBS, "Deployment")
    found = await list_owned(kube, labels_of(target), kinds)
    return [each for each in found if not wanted or component_of(each) in wanted]


def _are_trainings(objects: Sequence[Manifest]) -> bool:
    return all(map(is_job, objects))


def _have_ended(objects: Sequence[Manifest]) -> bool:
    """Return whether all that is followed are trainings, and these have ended."""
    if not _are_trainings(objects):
        return False
    components = {component_of(each) for each in objects}
    states = [training_state([each for each in objects if component_of(each) == name]) for name in components]
    return JobState.RUNNING not in states


def _is_over(pod: Manifest) -> bool:
    return (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")
