"""How far a training is, and why it does not go on. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from fairway.deploy.resources import Manifest
from fairway.deploy.state.inventory import component_of
from fairway.deploy.state.jobs import (
    CHIEF,
    ROLE_LABEL,
    JobState,
    condition,
    job_state,
    training_state,
    was_interrupted,
)
from fairway.deploy.state.pods import Cause, Problem, brief, refusal_problem, time_of
from fairway.deploy.state.record import Record, State, has_failed, with_problem, worst
from fairway.deploy.state.snapshot import Snapshot
from fairway.deploy.state.training_log import read_log
from fairway.errors import START_AGAIN

LOOP = 3
LOOP_S = 120
"""A training is in a loop if each of its tasks has ended so often, the last one just now, without a step."""
KILLED = "137"
"""Exit code of what the kernel has ended: 128 and SIGKILL."""
OPERATOR_S = 30
"""Seconds after which an operator that is there has long looked at a job."""
_OPERATORS = {"TFJob": "Kubeflow's training operator", "JobSet": "the JobSet controller"}


def diagnose_training(
    blank: Record, jobs: Sequence[Manifest], snapshot: Snapshot, environment: str
) -> Record:
    """Return the state of a training.

    Args:
        blank: Its record, with only its name.
        jobs: Its objects, one at least.
        snapshot: What the cluster has.
        environment: Name of the environment.
    """
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
    problem = _not_running(jobs, pods, snapshot)
    if not (progress and progress.step) and not (problem and problem.needs_help):
        problem = _crash_loop(jobs, wanted, snapshot) or problem
    if problem:
        return with_problem(blank, problem)
    if chief is None or (chief.get("status") or {}).get("phase") != "Running":
        reason = f"{blank.ready} of {wanted} pods run"
        return replace(blank, state=State.STARTING, cause=Cause.STARTING, reason=reason)
    text = str(progress or "")
    return replace(blank, state=State.RUNNING, reason=text or "runs, and has not taken its first steps yet")


def _failed(
    blank: Record, jobs: Sequence[Manifest], pods: Sequence[Manifest], snapshot: Snapshot, environment: str
) -> Record:
    """Return what the pod that failed said last, or else what its job says."""
    if was_interrupted(jobs, [pod for pod in snapshot.pods if component_of(pod) == blank.component]):
        return replace(
            blank,
            state=State.FAILED,
            cause=Cause.INTERRUPTED,
            reason="a pod of it was deleted, and the training operator then ends all of a TFJob",
            hint=f"It goes on from its checkpoint with: fairway apply {environment} -c {blank.component}",
        )
    problem = worst(filter(has_failed, pods), snapshot)
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
            return no_operator(job["kind"], component_of(job))
    current = _current(pods)
    problem = worst((pod for pod in current if not has_failed(pod)), snapshot)
    if problem is None:
        # The job is running, so a task that ended is one that is started again.
        problem = worst(current, snapshot)
        problem = replace(problem, needs_help=False) if problem else None
    return None if problem and problem.cause is Cause.NOT_READY else problem


def _crash_loop(jobs: Iterable[Manifest], tasks: int, snapshot: Snapshot) -> Problem | None:
    """Return that tasks end again and again. Only the events of a TFJob tell: its pods are made anew."""
    for job in jobs:
        events = snapshot.around.of(job)
        restarts = [each for each in events if each.get("reason") == "TFJobRestarting"]
        count = sum(each.get("count", 1) for each in restarts)
        if not restarts or count < LOOP * tasks or not _is_recent(restarts[0], snapshot.taken):
            continue
        said = next((each["message"] for each in events if each.get("reason") == "ExitedWithCode"), "")
        code, times = said.rpartition(" ")[2], f"{count} times; nothing is trained yet"
        if code == KILLED and any(each.get("reason") == "OOMKilled" for each in events):
            reason = f"tasks were ended for their memory and started again {times}"
            return Problem(Cause.MEMORY, reason, hint="Raise its param memoryLimit.")
        why = " (a lost task, or a store that gives no answer)" if code == str(START_AGAIN) else ""
        return Problem(Cause.CRASH, f"tasks were started again {times}; the last exit code is {code}{why}")
    return None


def _is_recent(event: Manifest, now: datetime) -> bool:
    last = str(event.get("lastTimestamp") or "")
    return bool(last) and now - datetime.fromisoformat(last) < timedelta(seconds=LOOP_S)


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
        if about.get("uid") != metadata.get("uid") and not _is_about_child(event, job):
            continue
        if event.get("reason", "").startswith("SuccessfulCreate"):
            return None
        if event.get("reason", "").startswith("FailedCreate"):
            if event.get("message", "").endswith("already exists"):
                return None  # the one that is being replaced has not gone yet
            return refusal_problem(event.get("message", ""))
    return None


def _is_about_child(event: Manifest, job: Manifest) -> bool:
    """Return whether an event is about a Job that a JobSet has made, and no earlier one of the same name."""
    about, metadata = event.get("involvedObject", {}), job["metadata"]
    if job["kind"] != "JobSet" or about.get("kind") != "Job":
        return False
    if not re.fullmatch(
        rf"{re.escape(metadata['name'])}-(chief|worker|ps|evaluator)-\d+", str(about.get("name"))
    ):
        return False
    last, created = time_of(event), metadata.get("creationTimestamp")
    return not (last and created) or datetime.fromisoformat(last) >= datetime.fromisoformat(created)


def _is_overlooked(job: Manifest, now: datetime) -> bool:
    created = job["metadata"].get("creationTimestamp")
    if (job.get("status") or {}).get("conditions") or not created:
        return False
    return now - datetime.fromisoformat(created) > timedelta(seconds=OPERATOR_S)


def no_operator(kind: str, component: str) -> Problem:
    """Return that nobody starts the tasks of a component whose jobs are of a kind."""
    return Problem(
        Cause.OPERATOR,
        f"nobody looks after a {kind} here: {_OPERATORS[kind]} is not installed, or does not run",
        hint=f"Install it, or train without it: fairway param set {component} launcher job",
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


def _role(pod: Manifest) -> str:
    return str((pod["metadata"].get("labels") or {}).get(ROLE_LABEL, ""))
