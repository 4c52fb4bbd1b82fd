"""What state each component is in, and why: from what a cluster says to one sentence. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from fairway.deploy.components.base import PodParams
from fairway.deploy.components.claim import ClaimParams
from fairway.deploy.components.serving import ServingParams
from fairway.deploy.components.train import TrainParams
from fairway.deploy.resources import JOBS, Manifest
from fairway.deploy.state.inventory import CLAIM, component_of
from fairway.deploy.state.jobs import condition
from fairway.deploy.state.pods import Cause, Problem, claim_problem, is_ready, refusal_problem
from fairway.deploy.state.record import Record, State, has_failed, with_problem, worst
from fairway.deploy.state.snapshot import Snapshot
from fairway.deploy.state.trainings import diagnose_training, no_operator
from fairway.deploy.target import Component, Target

_LAUNCHES = {"tfjob": "TFJob", "jobset": "JobSet"}


def diagnose(target: Target, snapshot: Snapshot, names: Iterable[str] = ()) -> list[Record]:
    """Return the state of components.

    Args:
        target: The environment.
        snapshot: What its cluster has.
        names: Of the components; none: those that take part, and what the cluster has besides.

    Raises:
        UsageError: no component has one of the names.
    """
    names = tuple(names)
    chosen = target.choose(names)
    if not names:
        known = {component.name for component in chosen}
        there = {component_of(each) for each in snapshot.objects} - known
        chosen = [each for each in target.components if each.name in known | there]
        dropped = sorted(there - set(target.app.components))
    else:
        dropped = []
    records = [_with_maker(_diagnose(target, each, snapshot), target) for each in chosen]
    return [*records, *(_dropped(target, name) for name in dropped)]


def _diagnose(target: Target, component: Component, snapshot: Snapshot) -> Record:
    blank = Record(component.name, component.kind.name, State.ABSENT)
    if not snapshot.namespace:
        namespace = target.environment.namespace
        return replace(
            blank,
            cause=Cause.NAMESPACE,
            reason=f"namespace {namespace} does not exist",
            hint=f"Make it: kubectl create namespace {namespace}, or apply with --create-namespace",
        )
    if jobs := snapshot.of(component.name, *JOBS):
        return diagnose_training(blank, jobs, snapshot, target.environment.name)
    if deployments := snapshot.of(component.name, "Deployment"):
        return _deployed(blank, component, deployments, snapshot)
    if isinstance(component.params, TrainParams):
        kind = _LAUNCHES.get(component.params.launcher, "")
        if kind in snapshot.unserved:
            return with_problem(blank, no_operator(kind, component.name))
    objects = snapshot.of(component.name)
    if isinstance(component.params, ClaimParams) and snapshot.around.claims is None:
        return replace(blank, state=State.WAITING, reason="you may not see whether its claim is there")
    if isinstance(component.params, PodParams) or not objects:
        return replace(
            blank,
            cause=Cause.NOT_APPLIED,
            reason="is not applied yet",
            hint=f"Apply it: fairway apply {target.environment.name}",
        )
    return _passive(blank, objects, snapshot)


def _with_maker(record: Record, target: Target) -> Record:
    """Return a record that lacks a claim with the hint which component makes it, if one does."""
    storage = target.first("storage")
    if (
        record.cause is Cause.CLAIM
        and storage
        and f"claim {storage.params.name} does not exist" in record.reason
    ):
        return replace(record, hint=f"Make it: fairway apply {target.environment.name} -c {storage.name}")
    return record


def _dropped(target: Target, name: str) -> Record:
    return Record(
        name,
        "",
        State.DROPPED,
        reason="the app no longer has it",
        hint=f"Delete it: fairway apply {target.environment.name} --prune",
    )


# Deployments


def _deployed(
    blank: Record, component: Component, deployments: Sequence[Manifest], snapshot: Snapshot
) -> Record:
    wanted = sum(int(each.get("spec", {}).get("replicas", 1)) for each in deployments)
    pods = [pod for each in deployments for pod in _newest(each, snapshot.pods_of(component.name))]
    blank = replace(blank, pods=wanted, ready=sum(map(is_ready, pods)))
    if all(map(_is_available, deployments)):
        return replace(blank, state=State.READY)
    starting = replace(
        blank, state=State.STARTING, cause=Cause.STARTING, reason=f"{blank.ready} of {wanted} pods are ready"
    )
    if not all(map(_is_observed, deployments)):
        return starting  # what else it says is about the manifest before
    # A pod that has failed is replaced by another one.
    problem = _refused(deployments) or worst([pod for pod in pods if not has_failed(pod)] or pods, snapshot)
    if problem is None:
        return starting
    if problem.cause is Cause.NOT_READY and isinstance(component.params, ServingParams):
        where = component.params.model_base_path
        reason = f"runs, and waits for a model{f' in {where}' if where else ''}"
        problem = replace(problem, reason=reason)
    return with_problem(blank, problem)


def _is_available(deployment: Manifest) -> bool:
    """Return whether all pods of the newest manifest are available, and those of older ones gone."""
    status: dict[str, Any] = deployment.get("status") or {}
    wanted = int(deployment.get("spec", {}).get("replicas", 1))
    return bool(
        _is_observed(deployment)
        and status.get("updatedReplicas", 0) >= wanted
        and status.get("replicas", 0) <= status.get("updatedReplicas", 0)
        and status.get("availableReplicas", 0) >= wanted
    )


def _is_observed(deployment: Manifest) -> bool:
    """Return whether the status is about the newest manifest."""
    observed = (deployment.get("status") or {}).get("observedGeneration", 0)
    return bool(observed >= deployment["metadata"].get("generation", 0))


def _newest(deployment: Manifest, pods: Sequence[Manifest]) -> list[Manifest]:
    """Return the pods of a Deployment's newest manifest, the newest first; none while there are only others.

    Args:
        deployment: The Deployment.
        pods: Of its component, the newest first.
    """
    status: dict[str, Any] = deployment.get("status") or {}
    if not _is_observed(deployment) or not status.get("updatedReplicas"):
        return []
    selector = (deployment.get("spec", {}).get("selector") or {}).get("matchLabels") or {}
    own = [pod for pod in pods if selector.items() <= (pod["metadata"].get("labels") or {}).items()]
    return [pod for pod in own if _template_hash(pod) == _template_hash(own[0])]


def _template_hash(pod: Manifest) -> str:
    return str((pod["metadata"].get("labels") or {}).get("pod-template-hash", ""))


def _refused(deployments: Iterable[Manifest]) -> Problem | None:
    for each in deployments:
        if found := condition(each, "ReplicaFailure"):
            return refusal_problem(found.get("message", ""))
    return None


# What has no pods of its own


def _passive(blank: Record, objects: Sequence[Manifest], snapshot: Snapshot) -> Record:
    for each in objects:
        name = each["metadata"]["name"]
        if each["kind"] == CLAIM:
            if problem := claim_problem(name, snapshot.around):
                return with_problem(blank, problem)
            if (each.get("status") or {}).get("phase") != "Bound":
                return replace(
                    blank, state=State.WAITING, reason=f"claim {name} gets its volume with its first pod"
                )
        if each["kind"] == "Service" and not _has_ready_pod(each, snapshot):
            labels = _selector(each)
            short = {name: value for name, value in labels.items() if "/" not in name} or labels
            selector = ",".join(f"{name}={value}" for name, value in short.items())
            return replace(
                blank,
                state=State.WAITING,
                cause=Cause.NOT_READY,
                reason=f"no pod behind it is ready ({selector})",
            )
    return replace(blank, state=State.READY)


def _has_ready_pod(service: Manifest, snapshot: Snapshot) -> bool:
    selector = _selector(service).items()
    return any(
        selector <= (pod["metadata"].get("labels") or {}).items() and is_ready(pod) for pod in snapshot.pods
    )


def _selector(service: Manifest) -> dict[str, str]:
    return dict(service.get("spec", {}).get("selector") or {})
