"""Objects that end: how far one is, and whether a training that is to be applied is there already. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from fairway.deploy.resources import JOBS, MANIFEST_HASH, Manifest
from fairway.deploy.state.inventory import key
from fairway.errors import RETRYABLE, ClusterError

ROLE_LABEL = "fairway/role"
CHIEF = "chief"
# The condition that says so: TFJob's, Job's and JobSet's words.
_SUCCEEDED = ("Succeeded", "Complete", "Completed")
_FAILED = ("Failed",)


class JobState(StrEnum):
    """How far something is that ends."""

    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


class Presence(StrEnum):
    """What is there of a training that is to be applied."""

    ABSENT = "absent"
    SAME = "same"
    OTHER = "other"


@dataclass(frozen=True)
class Training:
    """The job-like objects that one component has in the cluster.

    Attributes:
        presence: Whether they are those that are to be applied.
        state: How far they are together; `None` if there are none.
        objects: They.
        was_interrupted: Whether they failed, but would go on if they were made anew.
    """

    presence: Presence
    state: JobState | None
    objects: Sequence[Manifest]
    was_interrupted: bool = False

    @property
    def has_ended(self) -> bool:
        """Whether no more work is to be expected of it."""
        return self.state in (JobState.SUCCEEDED, JobState.FAILED)


def is_job(manifest: Manifest) -> bool:
    """Return whether an object has work to do and ends."""
    return manifest["kind"] in JOBS


def job_state(job: Manifest) -> JobState:
    """Return how far a TFJob, Job or JobSet is; one that was not looked at yet is running."""
    if condition(job, *_SUCCEEDED):
        return JobState.SUCCEEDED
    if condition(job, *_FAILED):
        return JobState.FAILED
    return JobState.RUNNING


def training_state(jobs: Sequence[Manifest]) -> JobState | None:
    """Return how far the job-like objects of one component are together; `None` if there are none.

    Where each role is a Job of its own, the training has succeeded with its chief, and failed with any.
    """
    if not jobs:
        return None
    states = {job_role(job): job_state(job) for job in jobs}
    if JobState.SUCCEEDED in (states.get(CHIEF), *([*states.values()] if len(jobs) == 1 else [])):
        return JobState.SUCCEEDED
    if JobState.FAILED in states.values():
        return JobState.FAILED
    return JobState.SUCCEEDED if set(states.values()) == {JobState.SUCCEEDED} else JobState.RUNNING


def was_interrupted(jobs: Sequence[Manifest], pods: Sequence[Manifest]) -> bool:
    """Return whether a training failed only because a pod of it was deleted, say by the drain of a node.

    Version 1.9 of the training operator counts a running pod that is being deleted as failed, and with it the
    whole TFJob, whatever its restartPolicy is:
    https://github.com/kubeflow/training-operator/blob/v1.9.0/pkg/core/status.go
    A task that failed by itself leaves its pod, with an exit code that says so; unless its cleanPodPolicy has
    the pods deleted, which leaves nothing to tell the two from each other.

    Args:
        jobs: Its objects.
        pods: What is left of its pods, also those that are being deleted.
    """
    failed = [job for job in jobs if job_state(job) is JobState.FAILED]
    return bool(failed) and all(
        job["kind"] == "TFJob"
        and (job["spec"].get("runPolicy") or {}).get("cleanPodPolicy") != "All"
        and "replica(s) failed" in (condition(job, *_FAILED) or {}).get("message", "")
        and not any(0 < code < RETRYABLE for pod in pods for code in _exit_codes(pod))
        and not any(spec.get("restartPolicy") == "Never" for spec in job["spec"]["tfReplicaSpecs"].values())
        for job in failed
    )


def _exit_codes(pod: Manifest) -> Iterator[int]:
    for container in (pod.get("status") or {}).get("containerStatuses") or ():
        if ended := (container.get("state") or {}).get("terminated"):
            yield int(ended.get("exitCode", 0))


def job_role(job: Manifest) -> str:
    """Return the role of a Job's pods; for an object with several roles its name."""
    template = job.get("spec", {}).get("template") or {}
    labels = template.get("metadata", {}).get("labels") or {}
    return str(labels.get(ROLE_LABEL) or job["metadata"]["name"])


def condition(manifest: Manifest, *types: str) -> Mapping[str, Any] | None:
    """Return the condition of one of these types that is true."""
    for each in (manifest.get("status") or {}).get("conditions") or ():
        if each.get("type") in types and each.get("status") == "True":
            return dict(each)
    return None


def compare(
    wanted: Sequence[Manifest], present: Sequence[Manifest], pods: Sequence[Manifest] = ()
) -> Training:
    """Return what is there of a training.

    Args:
        wanted: The job-like objects that one component is to have.
        present: Those that it has, of whatever kind and name.
        pods: Those of the component.
    """
    if not present:
        return Training(Presence.ABSENT, None, present)
    hashes = {key(job): _hash(job) for job in wanted}
    # Some may be missing, if they could not be sent the last time.
    same = all(hashes.get(key(job), "") == _hash(job) for job in present)
    presence = Presence.SAME if same else Presence.OTHER
    return Training(presence, training_state(present), present, was_interrupted(present, pods))


def check_replaceable(component: str, training: Training, *, replace: bool, environment: str) -> None:
    """Refuse to put a training in the place of one that is there.

    Raises:
        ClusterError: another one is running, or has ended and is not to be replaced.
    """
    if training.presence is not Presence.OTHER or (training.has_ended and replace):
        return
    names = " and ".join(" ".join(key(job)) for job in training.objects)
    verb, has = ("is", "has") if len(training.objects) == 1 else ("are", "have")
    if training.has_ended:
        raise ClusterError(
            f"{component}: {names} {verb} of other params, and {has} {training.state}",
            hint="To delete it and train anew add --replace; what it has exported stays.",
        )
    raise ClusterError(
        f"{component}: {names} {verb} of other params, and still running",
        hint=f"Wait for its end, or stop it with: fairway delete {environment} -c {component}",
    )


def _hash(job: Manifest) -> str | None:
    found: str | None = (job["metadata"].get("annotations") or {}).get(MANIFEST_HASH)
    return found
