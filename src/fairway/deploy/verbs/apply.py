"""Makes a cluster be as an environment says: all is checked first, then sent in order.

Server-side apply: https://kubernetes.io/docs/reference/using-api/server-side-apply/
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from fairway.deploy.manifests import render
from fairway.deploy.resources import JOBS, RESOURCES, Manifest
from fairway.deploy.settings import ApplySettings
from fairway.deploy.state.inventory import (
    CLAIM,
    Key,
    component_of,
    key,
    labels_of,
    list_owned,
    namespace_exists,
)
from fairway.deploy.state.jobs import JobState, Presence, Training, check_replaceable, compare, is_job
from fairway.deploy.target import Target
from fairway.deploy.verbs.delete import describe, remove, wait_for_end
from fairway.deploy.verbs.diff import normalise, overlay
from fairway.errors import ClusterError, UsageError

if TYPE_CHECKING:
    from fairway.deploy.kube.client import Kube

REPLACED_S = 300.0
"""How long the pods of a training that has ended may take to go."""
Action = Literal["created", "configured", "unchanged", "deleted"]


@dataclass(frozen=True)
class Change:
    """What became of an object.

    Attributes:
        kind: Of the object.
        name: Of the object.
        component: Whose it is; empty for the namespace.
        action: What was done.
        note: What there is to know of it; mostly empty.
    """

    kind: str
    name: str
    component: str
    action: Action
    note: str = ""

    def __str__(self) -> str:
        return f"{self.kind} {self.name} {self.action}" + (f" ({self.note})" if self.note else "")


Report = Callable[[Change], None]


@dataclass(frozen=True)
class Plan:
    """What is to be done.

    Attributes:
        send: The objects to apply, in order.
        live: What is there of them.
        keep: Those that are left as they are, and why.
        replace: Trainings to delete before.
        prune: Objects to delete after.
    """

    send: Sequence[Manifest]
    live: Mapping[Key, Manifest]
    keep: Mapping[Key, str] = field(default_factory=dict)
    replace: Sequence[Manifest] = ()
    prune: Sequence[Manifest] = ()


async def run(kube: Kube, target: Target, settings: ApplySettings, report: Report) -> None:
    """Apply an environment, or some components of it.

    Args:
        kube: The cluster.
        target: The environment.
        settings: What of it, and how; `wait` and `output` are not for this function.
        report: Is told of each object as soon as it is done.

    Raises:
        UsageError: settings or params do not fit together.
        ConflictError: others have set fields to other values. Nothing was sent.
        ClusterError: the cluster is away or refuses. The message says what was applied until then.
    """
    if settings.prune and settings.component:
        raise UsageError(
            "--prune looks at all that the app has, so it goes without --component",
            hint="Leave one of them out.",
        )
    plan = await make_plan(kube, target, settings)
    if settings.dry_run == "client":
        _report_plan(plan, {key(each): overlay(plan.live.get(key(each)), each) for each in plan.send}, report)
        return
    if settings.create_namespace:
        await _create_namespace(kube, target, settings, report)
    foreseen = await _check(kube, plan, settings)
    if settings.dry_run == "server":
        _report_plan(plan, foreseen, report)
    else:
        await _send(kube, target, plan, settings, report)


async def make_plan(kube: Kube, target: Target, settings: ApplySettings) -> Plan:
    """Return what is to be done, as far as it can be told from what is there.

    Raises:
        UsageError: params do not fit together.
        ClusterError: another training is in the way, the cluster is away or does not know a kind.
    """
    wanted = render(target, target.choose(settings.component))
    present = await asyncio.gather(*(kube.get(*key(each)) for each in wanted))
    live = {key(each): each for each in present if each is not None}
    trainings = await _find_trainings(kube, target, wanted)
    for component, training in trainings.items():
        check_replaceable(component, training, replace=settings.replace, environment=target.environment.name)
    keep = {
        key(job): _kept_because(training)
        for training in trainings.values()
        if training.presence is Presence.SAME and not _starts_anew(training, settings)
        for job in training.objects
    }
    replaced = [
        job
        for training in trainings.values()
        for job in training.objects
        if training.has_ended and key(job) not in keep
    ]
    prune = await _find_dropped(kube, target, wanted, replaced) if settings.prune else []
    return Plan(wanted, live, keep, replaced, prune)


async def _find_trainings(kube: Kube, target: Target, wanted: Iterable[Manifest]) -> dict[str, Training]:
    jobs: dict[str, list[Manifest]] = {}
    for each in wanted:
        if is_job(each):
            jobs.setdefault(component_of(each), []).append(each)
    return {name: await find_training(kube, target, name, objects) for name, objects in jobs.items()}


async def find_training(kube: Kube, target: Target, component: str, wanted: Sequence[Manifest]) -> Training:
    """Return what is there of a training.

    Args:
        kube: The cluster.
        target: The environment.
        component: The component's name.
        wanted: The job-like objects that it is to have.

    Raises:
        ClusterError: the cluster is away or refuses.
    """
    labels = labels_of(target, component)
    present, pods = await asyncio.gather(list_owned(kube, labels, JOBS), kube.list("Pod", labels))
    return compare(wanted, present, pods)


def _starts_anew(training: Training, settings: ApplySettings) -> bool:
    return training.was_interrupted or (training.has_ended and settings.replace)


def _kept_because(training: Training) -> str:
    if training.state is JobState.RUNNING:
        return "running"
    return f"has {training.state}; --replace trains anew"


async def _find_dropped(
    kube: Kube, target: Target, wanted: Sequence[Manifest], replaced: Sequence[Manifest]
) -> list[Manifest]:
    """Return what the app no longer has, but for claims: those are data."""
    known = {key(each) for each in (*wanted, *replaced)}
    owned = await list_owned(kube, labels_of(target))
    return [each for each in owned if key(each) not in known and each["kind"] != CLAIM]


async def _create_namespace(kube: Kube, target: Target, settings: ApplySettings, report: Report) -> None:
    name = target.environment.namespace
    if await namespace_exists(kube, name):
        return
    if settings.dry_run:
        raise ClusterError(
            f"namespace {name} does not exist yet, so the cluster cannot say what it would make in it",
            hint="Use --dry-run client.",
        )
    manifest = {"apiVersion": RESOURCES["Namespace"].api_version, "kind": "Namespace"}
    await kube.apply({**manifest, "metadata": {"name": name}})
    report(Change("Namespace", name, "", "created"))


async def _check(kube: Kube, plan: Plan, settings: ApplySettings) -> dict[Key, Manifest]:
    """Have the cluster check all that is to be sent, and return what it would make of it.

    What depends on the deletion of an object that is there cannot be checked before.

    Raises:
        ClusterError: the first refusal, in the order of the objects.
    """
    unchecked = {*plan.keep, *map(key, plan.replace)}
    checked = [each for each in plan.send if key(each) not in unchecked]
    requests = (kube.apply(each, dry_run=True, force=settings.force_conflicts) for each in checked)
    answers = await asyncio.gather(*requests, return_exceptions=True)
    foreseen = {}
    for manifest, answer in zip(checked, answers, strict=True):
        if isinstance(answer, BaseException):
            raise answer
        foreseen[key(manifest)] = answer
    return foreseen


def _report_plan(plan: Plan, foreseen: Mapping[Key, Manifest], report: Report) -> None:
    """Report what would be done."""
    for job in plan.replace:
        report(_change(job, "deleted", "dry run"))
    replaced = set(map(key, plan.replace))
    for manifest in plan.send:
        place = key(manifest)
        if place in plan.keep:
            report(_change(manifest, "unchanged", plan.keep[place]))
        elif place not in plan.live or place in replaced:
            report(_change(manifest, "created", "dry run"))
        else:
            report(_change(manifest, _action(plan.live[place], foreseen[place]), "dry run"))
    for each in plan.prune:
        report(_change(each, "deleted", "dry run"))


async def _send(kube: Kube, target: Target, plan: Plan, settings: ApplySettings, report: Report) -> None:
    applied = 0
    try:
        await _make_way(kube, target, plan, report)
        replaced = set(map(key, plan.replace))
        for manifest in plan.send:
            place = key(manifest)
            before = None if place in replaced else plan.live.get(place)
            if place in plan.keep:
                change = _change(manifest, "unchanged", plan.keep[place])
            else:
                now = await kube.apply(manifest, force=settings.force_conflicts)
                change = _change(manifest, "created" if before is None else _action(before, now))
            report(change)
            applied += 1
    except ClusterError as err:
        if applied:
            raise _partly_applied(err, plan.send, applied) from err
        raise
    for each in await remove(kube, plan.prune):
        report(_change(each, "deleted", "the app no longer has it"))


async def _make_way(kube: Kube, target: Target, plan: Plan, report: Report) -> None:
    """Delete the trainings that are to be replaced, and wait until their pods are gone too."""
    for job in await remove(kube, plan.replace):
        report(_change(job, "deleted", "replaced"))
    await wait_for_end(kube, target, plan.replace, timeout_s=REPLACED_S)


def _partly_applied(err: ClusterError, manifests: Sequence[Manifest], applied: int) -> ClusterError:
    missing = ", ".join(describe(each) for each in manifests[applied:])
    return ClusterError(
        f"{err.message}; {applied} of {len(manifests)} objects are applied, not: {missing}",
        hint=f"{err.hint} The same command then does the rest.".strip(),
    )


def _change(manifest: Manifest, action: Action, note: str = "") -> Change:
    return Change(*key(manifest), component_of(manifest), action, note)


def _action(before: Manifest, now: Manifest) -> Action:
    if before["metadata"].get("uid") != now["metadata"].get("uid"):
        return "created"  # somebody deleted it in between
    return "unchanged" if normalise(before) == normalise(now) else "configured"
