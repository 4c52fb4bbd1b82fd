"""What state each component is in, and why: from what a cluster says to one sentence. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from fairway.deploy.components.base import PodParams
from fairway.deploy.components.serving import ServingParams
from fairway.deploy.components.train import TrainParams
from fairway.deploy.resources import JOBS, Manifest
from fairway.deploy.state.inventory import CLAIM, component_of
from fairway.deploy.state.jobs import (
    CHIEF,
    ROLE_LABEL,
    JobState,
    condition,
    job_state,
    training_state,
    was_interrupted,
)
from fairway.deploy.state.pods import (
    Cause,
    Problem,
    brief,
    claim_problem,
    find_problem,
    is_ready,
    refusal_problem,
)
from fairway.deploy.state.snapshot import Snapshot
from fairway.deploy.state.training_log import TrainingProgress, read_log
from fairway.deploy.target import Component, Target

OPERATOR_S = 30
"""Seconds after which an operator that is there has long looked at a job."""
_LAUNCHES = {"tfjob": "TFJob", "jobset": "JobSet"}
_OPERATORS = {"TFJob": "Kubeflow's training operator", "JobSet": "the JobSet controller"}


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
        return _training(blank, jobs, snapshot, target.environment.name)
    if deployments := snapshot.of(component.name, "Deployment"):
        return _deployed(blank, component, deployments, snapshot)
    if isinstance(component.params, TrainParams):
        kind = _LAUNCHES.get(component.params.launcher, "")
        if kind in snapshot.unserved:
            return _with(blank, _no_operator(kind))
    objects = snapshot.of(component.name)
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


def _with(blank: Record, problem: Problem) -> Record:
    """Return a record whose state is that of its problem."""
    return replace(
        blank,
        state=State.STUCK if problem.needs_help else State.STARTING,
        cause=problem.cause,
        reason=problem.reason,
        hint=problem.hint,
    )


# Deployments


def _deployed(
    blank: Record, component: Component, deployments: Sequence[Manifest], snapshot: Snapshot
) -> Record:
    wanted = sum(int(each.get("spec", {}).get("replicas", 1)) for each in deployments)
    pods = snapshot.pods_of(component.name)
    blank = replace(blank, pods=wanted, ready=sum(map(is_ready, pods)))
    if all(map(_is_available, deployments)):
        return replace(blank, state=State.READY)
    # A pod that has failed is replaced by another one.
    problem = _refused(deployments) or _worst([pod for pod in pods if not _has_failed(pod)] or pods, snapshot)
    if problem is None:
        return replace(
            blank,
            state=State.STARTING,
            cause=Cause.STARTING,
            reason=f"{blank.ready} of {wanted} pods are ready",
        )
    if problem.cause is Cause.NOT_READY and isinstance(component.params, ServingParams):
        where = component.params.model_base_path
        reason = f"runs, and waits for a model{f' in {where}' if where else ''}"
        problem = replace(problem, reason=reason)
    return _with(blank, problem)


def _is_available(deployment: Manifest) -> bool:
    """Return whether all pods of the newest manifest are available, and those of older ones gone."""
    status: dict[str, Any] = deployment.get("status") or {}
    wanted = int(deployment.get("spec", {}).get("replicas", 1))
    return bool(
        status.get("observedGeneration", 0) >= deployment["metadata"].get("generation", 0)
        and status.get("updatedReplicas", 0) >= wanted
        and status.get("replicas", 0) <= status.get("updatedReplicas", 0)
        and status.get("availableReplicas", 0) >= wanted
    )


def _refused(deployments: Iterable[Manifest]) -> Problem | None:
    for each in deployments:
        if found := condition(each, "ReplicaFailure"):
            return refusal_problem(found.get("message", ""))
    return None


def _worst(pods: Iterable[Manifest], snapshot: Snapshot) -> Problem | None:
    """Return the problem that needs help, if one does, of the newest pod; else any."""
    problems = [found for pod in pods if (found := find_problem(pod, snapshot.around))]
    return next((each for each in problems if each.needs_help), problems[0] if problems else None)


# Trainings


def _training(blank: Record, jobs: Sequence[Manifest], snapshot: Snapshot, environment: str) -> Record:
    pods = snapshot.pods_of(blank.component)
    chief = next((pod for pod in pods if _role(pod) == CHIEF), None)
    progress = read_log(snapshot.logs.get(chief["metadata"]["name"], ())) if chief else None
    alive = [pod for pod in pods if (pod.get("status") or {}).get("phase") in ("Running", "Succeeded")]
    wanted = sum(map(_pods_wanted, jobs))
    blank = replace(blank, training=progress, pods=wanted, ready=min(len(alive), wanted))
    match training_state(jobs):
        case JobState.SUCCEEDED:
            reason = "has trained" + (f": {progress}" if progress and str(progress) else "")
            return replace(blank, state=State.DONE, reason=reason)
        case JobState.FAILED:
            return _failed(blank, jobs, pods, snapshot, environment)
    if problem := _not_running(jobs, pods, snapshot):
        return _with(blank, problem)
    if chief is None or (chief.get("status") or {}).get("phase") != "Running":
        reason = f"{blank.ready} of {wanted} pods run"
        return replace(blank, state=State.STARTING, cause=Cause.STARTING, reason=reason)
    text = str(progress or "")
    return replace(blank, state=State.RUNNING, reason=text or "runs, and has not taken its first steps yet")


def _failed(
    blank: Record, jobs: Sequence[Manifest], pods: Sequence[Manifest], snapshot: Snapshot, environment: str
) -> Record:
    """Return what the pod that failed said last, or else what its job says."""
    if was_interrupted(jobs, pods):
        return replace(
            blank,
            state=State.FAILED,
            cause=Cause.INTERRUPTED,
            reason="a pod of it was deleted, and the training operator then ends all of a TFJob",
            hint=f"It goes on from its checkpoint with: fairway apply {environment} -c {blank.component}",
        )
    problem = _worst(filter(_has_failed, pods), snapshot)
    if problem is None:
        failed = next(job for job in jobs if job_state(job) is JobState.FAILED)
        said = brief((condition(failed, "Failed") or {}).get("message", ""))
        problem = Problem(Cause.FAILED, f"has failed: {said}" if said else "has failed")
    logs = f"fairway logs {environment} -c {blank.component}"
    return replace(
        blank,
        state=State.FAILED,
        cause=problem.cause,
        reason=problem.reason,
        hint=problem.hint or f"See {logs}; once mended, train anew with apply --replace.",
    )


def _not_running(jobs: Sequence[Manifest], pods: Sequence[Manifest], snapshot: Snapshot) -> Problem | None:
    for job in jobs:
        if condition(job, "Suspended") or job.get("spec", {}).get("suspend"):
            return Problem(
                Cause.SUSPENDED, f"{job['kind']} {job['metadata']['name']} is suspended", needs_help=False
            )
        if problem := _creation_refused(job, snapshot):
            return problem
        if not pods and job["kind"] in _OPERATORS and _is_overlooked(job, snapshot.taken):
            return _no_operator(job["kind"])
    current = _current(pods)
    problem = _worst((pod for pod in current if not _has_failed(pod)), snapshot)
    if problem is None:
        # The job is running, so a task that ended is one that is started again.
        problem = _worst(current, snapshot)
        problem = replace(problem, needs_help=False) if problem else None
    return None if problem and problem.cause is Cause.NOT_READY else problem


def _current(pods: Sequence[Manifest]) -> list[Manifest]:
    """Return the pods, newest first, without those of a task that has a newer one."""
    found: dict[str, Manifest] = {}
    for pod in pods:
        found.setdefault(_task(pod), pod)
    return list(found.values())


def _task(pod: Manifest) -> str:
    """Return role and index, which a restarted task shares with its earlier pods."""
    labels = pod["metadata"].get("labels") or {}
    index = labels.get("training.kubeflow.org/replica-index") or labels.get(
        "batch.kubernetes.io/job-completion-index"
    )
    return f"{_role(pod)} {index or 0}"


def _creation_refused(job: Manifest, snapshot: Snapshot) -> Problem | None:
    """Return why no pod could be made, if that is the newest word on it."""
    metadata = job["metadata"]
    for event in reversed(snapshot.around.events):
        about = event.get("involvedObject", {})
        is_child = (
            job["kind"] == "JobSet"
            and about.get("kind") == "Job"
            and str(about.get("name")).startswith(f"{metadata['name']}-")
        )
        if about.get("uid") != metadata.get("uid") and not is_child:
            continue
        if event.get("reason", "").startswith("SuccessfulCreate"):
            return None
        if event.get("reason", "").startswith("FailedCreate"):
            return refusal_problem(event.get("message", ""))
    return None


def _is_overlooked(job: Manifest, now: datetime) -> bool:
    created = job["metadata"].get("creationTimestamp")
    if (job.get("status") or {}).get("conditions") or not created:
        return False
    return now - datetime.fromisoformat(created) > timedelta(seconds=OPERATOR_S)


def _no_operator(kind: str) -> Problem:
    return Problem(
        Cause.OPERATOR,
        f"nobody looks after a {kind} here: {_OPERATORS[kind]} is not installed, or does not run",
        hint="Install it, or train without it: fairway param set train launcher job",
    )


def _pods_wanted(job: Manifest) -> int:
    spec = job.get("spec", {})
    if job["kind"] == "TFJob":
        return sum(int(each.get("replicas", 1)) for each in (spec.get("tfReplicaSpecs") or {}).values())
    if job["kind"] == "JobSet":
        return sum(
            int(each.get("replicas", 1)) * int(each.get("template", {}).get("spec", {}).get("parallelism", 1))
            for each in spec.get("replicatedJobs") or ()
        )
    return int(spec.get("parallelism", 1))


def _has_failed(pod: Manifest) -> bool:
    return (pod.get("status") or {}).get("phase") == "Failed"


def _role(pod: Manifest) -> str:
    return str((pod["metadata"].get("labels") or {}).get(ROLE_LABEL, ""))


# What has no pods of its own


def _passive(blank: Record, objects: Sequence[Manifest], snapshot: Snapshot) -> Record:
    for each in objects:
        name = each["metadata"]["name"]
        if each["kind"] == CLAIM:
            if problem := claim_problem(name, snapshot.around):
                return _with(blank, problem)
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
