"""Makes a cluster be as an environment says: all is checked first, then sent in order.

Server-side apply: https://kubernetes.io/docs/reference/using-api/server-side-apply/
"""

from __future__ import annotations

import asyncio
import logging
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from fairway.deploy.manifests import render
from fairway.deploy.resources import JOBS, RESOURCES, Manifest
from fairway.deploy.settings import ApplySettings
from fairway.deploy.state.inventory import (
    Key,
    component_of,
    key,
    labels_of,
    list_owned,
    namespace_exists,
)
from fairway.deploy.state.jobs import JobState, Presence, Training, check_replaceable, compare, is_job
from fairway.deploy.state.ownership import check_owners
from fairway.deploy.target import Target
from fairway.deploy.verbs.delete import describe, remove, wait_for_end
from fairway.deploy.verbs.diff import normalise, overlay
from fairway.deploy.verbs.prune import Leftover, find_leftovers
from fairway.deploy.verbs.sending import send, try_anew
from fairway.errors import ClusterError, UsageError

if TYPE_CHECKING:
    from fairway.deploy.kube.client import Kube

REPLACED_S = 300.0
"""How long the pods of a training that has ended may take to go."""
Action = Literal["created", "configured", "unchanged", "deleted"]

log = logging.getLogger(__name__)


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
        leftovers: What the environment no longer makes: to delete after, or to keep.
    """

    send: Sequence[Manifest]
    live: Mapping[Key, Manifest]
    keep: Mapping[Key, str] = field(default_factory=dict)
    replace: Sequence[Manifest] = ()
    leftovers: Sequence[Leftover] = ()


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
        ClusterError: another training or somebody else's object is in the way, the cluster is away or does
            not know a kind.
    """
    wanted = render(target, target.choose(settings.component))
    present = await asyncio.gather(*(_look(kube, target, each) for each in wanted))
    live = {key(each): each for each in present if each is not None}
    check_owners(wanted, live, target, force=settings.force_conflicts)
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
    leftovers: list[Leftover] = []
    if settings.prune:
        owned = await list_owned(kube, labels_of(target))
        leftovers = find_leftovers(target, map(key, (*wanted, *replaced)), owned)
    return Plan(wanted, live, keep, replaced, leftovers)


async def _look(kube: Kube, target: Target, wanted: Manifest) -> Manifest | None:
    """Return what is there of a manifest.

    Raises:
        ClusterError: the cluster is away or does not know the kind; the hint names the component.
    """
    from fairway.deploy.kube.errors import NotServedError

    try:
        return await kube.get(*key(wanted))
    except NotServedError as err:
        place = f"--env={target.environment.name} {component_of(wanted)}"
        raise NotServedError(err.message, hint=err.hint.replace("COMPONENT", place)) from err


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

    Raises:
        ClusterError: the first refusal, in the order of the objects.
    """
    replaced = set(map(key, plan.replace))
    checked = [each for each in plan.send if key(each) not in plan.keep]

    async def foresee(manifest: Manifest) -> Manifest | None:
        if key(manifest) in replaced:
            await try_anew(kube, manifest)
            return None
        live = plan.live.get(key(manifest))
        return await send(kube, manifest, live, dry_run=True, force=settings.force_conflicts)

    answers = await asyncio.gather(*map(foresee, checked), return_exceptions=True)
    foreseen = {}
    for manifest, answer in zip(checked, answers, strict=True):
        if isinstance(answer, BaseException):
            raise answer
        if answer is not None:
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
    for each in plan.leftovers:
        note = each.kept or f"{each.reason}; dry run"
        report(_change(each.manifest, "unchanged" if each.kept else "deleted", note))


async def _send(kube: Kube, target: Target, plan: Plan, settings: ApplySettings, report: Report) -> None:
    done: set[Key] = set()
    deleted: list[Manifest] = []
    try:
        await _make_way(kube, target, plan, deleted, report)
        replaced = set(map(key, plan.replace))
        for manifest in plan.send:
            place = key(manifest)
            before = None if place in replaced else plan.live.get(place)
            if place in plan.keep:
                change = _change(manifest, "unchanged", plan.keep[place])
            else:
                now = await send(kube, manifest, before, force=settings.force_conflicts)
                change = _change(manifest, "created" if before is None else _action(before, now))
            report(change)
            done.add(place)
    except asyncio.CancelledError:
        if lost := _not_started(target, plan, deleted, done, settings):
            log.warning("%s. %s", *lost)
        raise
    except ClusterError as err:
        raise _explained(err, plan.send, done, _not_started(target, plan, deleted, done, settings)) from err
    await _prune(kube, plan.leftovers, report)


async def _make_way(kube: Kube, target: Target, plan: Plan, deleted: list[Manifest], report: Report) -> None:
    """Delete the trainings that are to be replaced, and wait until their pods are gone too."""

    def note(job: Manifest) -> None:
        deleted.append(job)
        report(_change(job, "deleted", "replaced"))

    await remove(kube, plan.replace, note)
    await wait_for_end(kube, target, plan.replace, timeout_s=REPLACED_S)


async def _prune(kube: Kube, leftovers: Sequence[Leftover], report: Report) -> None:
    reasons = {key(each.manifest): each.reason for each in leftovers}
    for each in leftovers:
        if each.kept:
            report(_change(each.manifest, "unchanged", each.kept))
    dropped = [each.manifest for each in leftovers if not each.kept]
    await remove(kube, dropped, lambda gone: report(_change(gone, "deleted", reasons[key(gone)])))


def _not_started(
    target: Target, plan: Plan, deleted: Iterable[Manifest], done: set[Key], settings: ApplySettings
) -> tuple[str, str] | None:
    """Return that trainings were deleted and not made anew, and what makes them; `None` if that is not so."""
    missing = {component_of(each) for each in plan.send if is_job(each) and key(each) not in done}
    names = [name for name in dict.fromkeys(map(component_of, deleted)) if name in missing]
    if not names:
        return None
    words = [word for name in names for word in ("-c", name)]
    words += [word for each in settings.set for word in ("--set", each)]
    said = f"{', '.join(names)} {'was' if len(names) == 1 else 'were'} deleted and not started again"
    return said, f"Start it with: {shlex.join(['fairway', 'apply', target.environment.name, *words])}"


def _explained(
    err: ClusterError, manifests: Sequence[Manifest], done: set[Key], lost: tuple[str, str] | None
) -> ClusterError:
    """Return an error that also says how far it got."""
    if not (done or lost):
        return err
    message, hint = err.message, err.hint
    if done:
        missing = ", ".join(describe(each) for each in manifests if key(each) not in done)
        message += f"; {len(done)} of {len(manifests)} objects are applied, not: {missing}"
    if lost:
        return ClusterError(f"{message}; {lost[0]}", hint=f"{hint} {lost[1]}".strip())
    return ClusterError(message, hint=f"{hint} The same command then does the rest.".strip())


def _change(manifest: Manifest, action: Action, note: str = "") -> Change:
    return Change(*key(manifest), component_of(manifest), action, note)


def _action(before: Manifest, now: Manifest) -> Action:
    if before["metadata"].get("uid") != now["metadata"].get("uid"):
        return "created"  # somebody deleted it in between
    return "unchanged" if normalise(before) == normalise(now) else "configured"
