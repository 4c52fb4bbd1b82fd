"""Reasons, from what real API servers said."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from fairway.deploy.resources import Manifest
from fairway.deploy.state.pods import (
    Cause,
    Problem,
    Surroundings,
    claim_problem,
    find_problem,
    last_words,
    refusal_problem,
)

NOTHING = Surroundings([], {})
CLAIM = {"kind": "PersistentVolumeClaim", "metadata": {"name": "model", "uid": "c"}}


def pod(*containers: Manifest, phase: str = "Pending", **status: Any) -> Manifest:
    volumes = [{"name": "model", "persistentVolumeClaim": {"claimName": "model"}}]
    return {
        "kind": "Pod",
        "metadata": {"name": "p", "uid": "u"},
        "spec": {"volumes": volumes},
        "status": {"phase": phase, "containerStatuses": list(containers), **status},
    }


def waiting(reason: str, message: str = "", **status: Any) -> Manifest:
    state = {"waiting": {"reason": reason, "message": message}}
    return {"name": "main", "image": "x:1", "state": state, "restartCount": 0, **status}


def ended(code: int, message: str = "", reason: str = "Error") -> Manifest:
    return {"terminated": {"exitCode": code, "message": message, "reason": reason}}


def unscheduled(message: str, reason: str = "Unschedulable") -> Manifest:
    condition = {"type": "PodScheduled", "status": "False", "reason": reason, "message": message}
    return pod(conditions=[condition])


def event(reason: str, message: str, uid: str = "u") -> Manifest:
    return {"kind": "Event", "reason": reason, "message": message, "involvedObject": {"uid": uid}}


def around(*events: Manifest, claim: Manifest | None = None) -> Surroundings:
    return Surroundings(list(events), {"model": claim} if claim else {})


def found(each: Manifest, surroundings: Surroundings = NOTHING) -> Problem:
    problem = find_problem(each, surroundings)
    assert problem is not None
    return problem


PULL = (
    'failed to pull and unpack image "x:1": failed to resolve reference "x:1": '
    "docker.io/library/x:1: not found"
)


@pytest.mark.parametrize(
    ("status", "cause", "reason"),
    [
        (
            waiting("ImagePullBackOff", f'Back-off pulling image "x:1": ErrImagePull: {PULL}'),
            Cause.IMAGE,
            "image x:1 cannot be pulled: docker.io/library/x:1: not found",
        ),
        (
            waiting("ErrImagePull", f"rpc error: code = NotFound desc = {PULL}"),
            Cause.IMAGE,
            "image x:1 cannot be pulled: docker.io/library/x:1: not found",
        ),
        (waiting("InvalidImageName"), Cause.IMAGE, "image x:1 cannot be pulled: InvalidImageName"),
        (
            waiting("CreateContainerConfigError", 'secret "keys" not found'),
            Cause.SECRET,
            "secret keys does not exist",
        ),
        (
            waiting("CreateContainerConfigError", "couldn't find key id in Secret ns/keys"),
            Cause.SECRET,
            "secret keys has no key id",
        ),
        (
            waiting("CreateContainerConfigError", "container has runAsNonRoot and image will run as root"),
            Cause.CONTAINER,
            "its container cannot be made: container has runAsNonRoot and image will run as root",
        ),
        (
            waiting("RunContainerError", 'exec: "x": not found'),
            Cause.CONTAINER,
            'container main does not start: exec: "x": not found',
        ),
        (
            waiting("CrashLoopBackOff", lastState=ended(1, "a\nerror: b\n  hint\n"), restartCount=4),
            Cause.CRASH,
            "container main ended with exit code 1, 4 times: error: b",
        ),
        (
            waiting("CrashLoopBackOff", lastState=ended(137, "", "OOMKilled"), restartCount=3),
            Cause.MEMORY,
            "container main was ended for its memory, 3 times",
        ),
    ],
)
def test_containers(status: Manifest, cause: Cause, reason: str) -> None:
    problem = found(pod(status))
    assert (problem.cause, problem.reason, problem.needs_help) == (cause, reason, True)


def test_a_pod_that_failed_needs_help() -> None:
    problem = found(pod({"name": "main", "state": ended(139), "restartCount": 0}, phase="Failed"))
    assert (problem.reason, problem.needs_help) == ("container main ended with exit code 139 (SIGSEGV)", True)


def test_a_first_crash_may_heal() -> None:
    assert not found(pod({"name": "main", "state": ended(1), "restartCount": 0}, phase="Running")).needs_help
    first = waiting("CrashLoopBackOff", lastState=ended(1, "bad"), restartCount=1)
    assert not found(pod(first)).needs_help
    again = {
        "name": "main",
        "state": {"running": {}},
        "ready": False,
        "lastState": ended(1),
        "restartCount": 1,
    }
    assert found(pod(again, phase="Running")).cause is Cause.CRASH


def test_an_init_container_counts_too() -> None:
    status = waiting("ErrImagePull", PULL)
    assert found(pod(initContainerStatuses=[status])).cause is Cause.IMAGE


@pytest.mark.parametrize(
    ("message", "cause", "reason", "needs_help"),
    [
        (
            "0/3 nodes are available: 3 Insufficient cpu. preemption: 0/3 nodes are available: 3 No.",
            Cause.UNSCHEDULABLE,
            "no node takes it: 3 Insufficient cpu",
            True,
        ),
        (
            '0/1 nodes are available: persistentvolumeclaim "model" not found. preemption: none',
            Cause.CLAIM,
            "claim model does not exist",
            True,
        ),
        (
            "0/3 nodes are available: 1 node(s) had volume node affinity conflict, 2 Insufficient cpu.",
            Cause.SHARED_CLAIM,
            "claim model cannot be mounted here, as several pods share it: "
            "its volume is on another node, or held by another pod",
            True,
        ),
    ],
)
def test_scheduling(message: str, cause: Cause, reason: str, needs_help: bool) -> None:
    problem = found(unscheduled(message))
    assert (problem.cause, problem.reason, problem.needs_help) == (cause, reason, needs_help)


@pytest.mark.parametrize(
    ("events", "needs_help"),
    [
        ((event("TriggeredScaleUp", "pod triggered scale-up"),), False),
        ((event("Nominated", "Pod should schedule on: nodeclaim/x"),), False),
        ((event("TriggeredScaleUp", "") | {"lastTimestamp": "2025-12-31T23:00:00Z"},), True),
        ((event("TriggeredScaleUp", ""), event("NotTriggerScaleUp", "")), True),
        ((event("FailedScheduling", ""),), True),
    ],
)
def test_a_node_that_is_on_its_way_is_waited_for(events: tuple[Manifest, ...], needs_help: bool) -> None:
    waits = unscheduled("0/1 nodes are available: 1 Insufficient cpu.")
    problem = found(waits, Surroundings(events, {}, datetime(2026, 1, 1, tzinfo=UTC)))
    assert (problem.cause, problem.needs_help) == (Cause.UNSCHEDULABLE, needs_help)


def test_a_missing_claim_is_believed_to_the_scheduler_where_claims_may_not_be_seen() -> None:
    waits = unscheduled('0/1 nodes are available: persistentvolumeclaim "model" not found.')
    assert found(waits, Surroundings([], None)).reason == "claim model does not exist"


def test_a_claim_that_is_being_bound_is_no_error() -> None:
    message = "0/1 nodes are available: pod has unbound immediate PersistentVolumeClaims."
    problem = found(unscheduled(message), around(claim=CLAIM))
    assert (problem.cause, problem.reason, problem.needs_help) == (
        Cause.CLAIM,
        "waits for claim model",
        False,
    )
    assert not found(unscheduled("running PreFilter plugin", "SchedulerError")).needs_help


@pytest.mark.parametrize(
    ("reason", "message", "cause", "said"),
    [
        (
            "FailedMount",
            'MountVolume.SetUp failed for volume "secret" : secret "keys" not found',
            Cause.SECRET,
            "secret keys does not exist",
        ),
        (
            "FailedMount",
            'MountVolume.SetUp failed for volume "s" : references non-existent secret key: id',
            Cause.SECRET,
            "a mounted secret has no key id",
        ),
        (
            "FailedAttachVolume",
            'Multi-Attach error for volume "pvc-1" Volume is already used by pod(s) other',
            Cause.SHARED_CLAIM,
            "claim model cannot be mounted here, as several pods share it: "
            "Volume is already used by pod(s) other",
        ),
        ("FailedMount", "timed out", Cause.VOLUME, "timed out"),
    ],
)
def test_volumes(reason: str, message: str, cause: Cause, said: str) -> None:
    older = event("FailedMount", "something else")
    problem = found(pod(waiting("ContainerCreating")), around(older, event(reason, message)))
    assert (problem.cause, problem.reason) == (cause, said)


def test_pods_without_a_problem() -> None:
    ready = [{"type": "Ready", "status": "True"}]
    running = {"name": "main", "state": {"running": {}}, "ready": True}
    assert find_problem(pod(running, phase="Running", conditions=ready), NOTHING) is None
    assert find_problem(pod(waiting("ContainerCreating")), NOTHING) is None
    assert find_problem(pod({"name": "main", "state": ended(0)}, phase="Succeeded"), NOTHING) is None


def test_not_ready_yet_says_what_the_probe_saw() -> None:
    running = {"name": "main", "state": {"running": {}}, "ready": False}
    probe = event("Unhealthy", "Readiness probe failed: HTTP probe failed with statuscode: 503")
    problem = found(pod(running, phase="Running"), around(probe))
    assert (problem.cause, problem.needs_help) == (Cause.NOT_READY, False)
    assert problem.reason == (
        "container main is not ready yet: Readiness probe failed: HTTP probe failed with statuscode: 503"
    )
    refused = event(
        "Unhealthy", 'Get "http://10.0.0.1:80/": dial tcp 10.0.0.1:80: connect: connection refused'
    )
    assert found(pod(running, phase="Running"), around(refused)).reason.endswith(": it does not listen yet")


def test_evicted() -> None:
    problem = found(pod(phase="Failed", reason="Evicted", message="The node was low on memory."))
    assert (problem.cause, problem.reason) == (Cause.EVICTED, "was evicted: The node was low on memory.")


@pytest.mark.parametrize(
    ("reason", "message", "said"),
    [
        (
            "ProvisioningFailed",
            'storageclass.storage.k8s.io "fast" not found',
            'claim model is not bound: storageclass.storage.k8s.io "fast" not found',
        ),
        (
            "FailedBinding",
            "no persistent volumes available for this claim and no storage class is set",
            "claim model is not bound: "
            "no persistent volumes available for this claim and no storage class is set",
        ),
        ("WaitForFirstConsumer", "waiting for first consumer to be created before binding", None),
        ("ExternalProvisioning", "Waiting for a volume to be created", None),
    ],
)
def test_claims(reason: str, message: str, said: str | None) -> None:
    claim = {**CLAIM, "status": {"phase": "Pending"}}
    problem = claim_problem("model", around(event(reason, message, uid="c"), claim=claim))
    assert (problem.reason if problem else None) == said


def test_a_bound_claim_is_fine_whatever_was_before() -> None:
    claim = {**CLAIM, "status": {"phase": "Bound"}}
    assert claim_problem("model", around(event("ProvisioningFailed", "x", uid="c"), claim=claim)) is None


@pytest.mark.parametrize(
    ("message", "cause", "reason"),
    [
        (
            'Error creating: pods "p" is forbidden: error looking up service account ns/sa: '
            'serviceaccount "sa" not found',
            Cause.SERVICE_ACCOUNT,
            "service account sa does not exist",
        ),
        (
            'Error creating: pods "p" is forbidden: exceeded quota: q, requested: pods=1, used: pods=0, '
            "limited: pods=0",
            Cause.QUOTA,
            "no pod may be made: exceeded quota: q, requested: pods=1, used: pods=0, limited: pods=0",
        ),
        (
            'pods "p" is forbidden: violates PodSecurity "restricted:latest"',
            Cause.REFUSED,
            'no pod may be made: violates PodSecurity "restricted:latest"',
        ),
    ],
)
def test_refusals(message: str, cause: Cause, reason: str) -> None:
    problem = refusal_problem(message)
    assert (problem.cause, problem.reason) == (cause, reason)


@pytest.mark.parametrize(
    ("output", "words"),
    [
        ("", ""),
        ("a\nb\n\n", "b"),
        ("starting\nerror: no such bucket\n  Make it.\n", "error: no such bucket"),
        ("x" * 500, "x" * 198 + " …"),
    ],
)
def test_last_words(output: str, words: str) -> None:
    assert last_words(output) == words
