"""From a snapshot to one sentence for each component."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from fairway.deploy.resources import Manifest
from fairway.deploy.state.diagnosis import diagnose
from fairway.deploy.state.inventory import labels_of
from fairway.deploy.state.pods import Cause, Surroundings
from fairway.deploy.state.record import Record, State
from fairway.deploy.state.snapshot import Snapshot
from fairway.deploy.target import Target
from tests.unit.deploy.fake import make_target

CREATED = "2026-01-01T00:00:00Z"
NOW = datetime(2026, 1, 1, tzinfo=UTC)
READY: dict[str, Any] = {"conditions": [{"type": "Ready", "status": "True"}]}
STEPS = "training: 120 of 468 steps · loss 0.123 · accuracy 97.5 % · 50 steps/s · 7 s left"


@pytest.fixture
def target(tmp_path: Path) -> Target:
    return make_target(tmp_path)


def thing(
    target: Target, component: str, kind: str, name: str, labels: dict[str, str] | None = None, **rest: Any
) -> Manifest:
    """Return an object of a component."""
    metadata = {"name": name, "uid": f"uid-{name}", "creationTimestamp": CREATED}
    return {
        "kind": kind,
        "metadata": metadata | {"labels": labels_of(target, component) | (labels or {})},
        **rest,
    }


def deployment(target: Target, component: str, ready: int = 0, wanted: int = 1, **status: Any) -> Manifest:
    counts = {"replicas": wanted, "updatedReplicas": wanted, "availableReplicas": ready}
    spec = {"replicas": wanted}
    return thing(target, component, "Deployment", component, spec=spec, status=counts | status)


def pod(
    target: Target, component: str, name: str = "p", labels: dict[str, str] | None = None, **status: Any
) -> Manifest:
    return thing(target, component, "Pod", name, labels, spec={}, status={"phase": "Running"} | status)


def chief(target: Target, **status: Any) -> Manifest:
    return pod(target, "train", "t-chief-0", {"fairway/role": "chief"}, **status)


def tfjob(target: Target, condition: str = "Running", **more: Any) -> Manifest:
    spec = {"tfReplicaSpecs": {"Chief": {"replicas": 1}}}
    conditions = [{"type": condition, "status": "True", **more}] if condition else []
    return thing(target, "train", "TFJob", "t", spec=spec, status={"conditions": conditions})


def event(about: Manifest, reason: str, message: str) -> Manifest:
    involved = {"kind": about["kind"], "name": about["metadata"]["name"], "uid": about["metadata"]["uid"]}
    return {"kind": "Event", "reason": reason, "message": message, "involvedObject": involved}


def look(
    target: Target, name: str, *objects: Manifest, events: tuple[Manifest, ...] = (), **more: Any
) -> Record:
    pods = [each for each in objects if each["kind"] == "Pod"]
    others = [each for each in objects if each["kind"] != "Pod"]
    claims = {each["metadata"]["name"]: each for each in others if each["kind"] == "PersistentVolumeClaim"}
    around = Surroundings(list(events), claims)
    values: dict[str, Any] = {"taken": NOW, "objects": others, "pods": pods, "around": around}
    snapshot = Snapshot(**(values | more))
    (record,) = diagnose(target, snapshot, [name])
    return record


def test_nothing_is_applied(target: Target) -> None:
    records = diagnose(target, Snapshot(NOW))
    assert [record.component for record in records] == [each.name for each in target.choose()]
    assert {record.state for record in records} == {State.ABSENT}
    assert {record.cause for record in records} == {Cause.NOT_APPLIED}


def test_the_namespace_is_missing(target: Target) -> None:
    record = look(target, "train", namespace=False)
    assert (record.state, record.cause, record.reason) == (
        State.ABSENT,
        Cause.NAMESPACE,
        "namespace ns does not exist",
    )


def test_what_the_app_no_longer_has_is_shown(target: Target) -> None:
    snapshot = Snapshot(NOW, objects=[deployment(target, "old")])
    assert diagnose(target, snapshot)[-1].state is State.DROPPED
    assert "old" not in [record.component for record in diagnose(target, snapshot, ["train"])]


def test_a_component_that_takes_no_part_is_shown_where_it_runs(tmp_path: Path) -> None:
    target = make_target(tmp_path, "web-ui.enabled=false")
    assert "web-ui" not in [record.component for record in diagnose(target, Snapshot(NOW))]
    snapshot = Snapshot(NOW, objects=[deployment(target, "web-ui")])
    assert "web-ui" in [record.component for record in diagnose(target, snapshot)]


def test_deployments(target: Target) -> None:
    record = look(target, "web-ui", deployment(target, "web-ui", 1), pod(target, "web-ui", **READY))
    assert (record.state, record.reason, record.ready, record.pods) == (State.READY, "", 1, 1)
    record = look(target, "web-ui", deployment(target, "web-ui", 0))
    assert (record.state, record.reason) == (State.STARTING, "0 of 1 pods are ready")


def test_a_deployment_is_ready_with_its_newest_pods_only(target: Target) -> None:
    behind = deployment(target, "web-ui", 1)
    behind["metadata"]["generation"] = 2
    behind["status"]["observedGeneration"] = 1
    assert look(target, "web-ui", behind).state is State.STARTING
    rolling = deployment(target, "web-ui", 1, updatedReplicas=1, replicas=2)
    assert look(target, "web-ui", rolling).state is State.STARTING


CRASHED: dict[str, Any] = {
    "containerStatuses": [
        {
            "name": "web-ui",
            "restartCount": 9,
            "state": {"waiting": {"reason": "CrashLoopBackOff"}},
            "lastState": {"terminated": {"exitCode": 1, "message": "error: old"}},
        }
    ]
}


def test_the_pods_of_the_manifest_before_say_nothing(target: Target) -> None:
    old = pod(target, "web-ui", "old", {"pod-template-hash": "a"}, **CRASHED)
    mended = deployment(target, "web-ui", 0)
    assert look(target, "web-ui", mended, old).state is State.STUCK
    mended["metadata"]["generation"], mended["status"]["observedGeneration"] = 2, 1
    mended["status"]["conditions"] = [{"type": "ReplicaFailure", "status": "True", "message": "no"}]
    assert look(target, "web-ui", mended, old).state is State.STARTING
    mended["status"] |= {"observedGeneration": 2, "updatedReplicas": 0, "conditions": []}
    assert look(target, "web-ui", mended, old).state is State.STARTING
    mended["status"]["updatedReplicas"] = 1
    new = pod(target, "web-ui", "new", {"pod-template-hash": "b"}, phase="Pending")
    new["metadata"]["creationTimestamp"] = "2026-01-01T00:00:09Z"
    record = look(target, "web-ui", mended, old, new)
    assert (record.state, record.reason) == (State.STARTING, "0 of 1 pods are ready")


def test_a_claim_that_may_not_be_seen_is_not_called_absent(target: Target) -> None:
    record = look(target, "storage", around=Surroundings([], None))
    assert (record.state, record.reason) == (State.WAITING, "you may not see whether its claim is there")


def test_a_deployment_whose_pods_are_refused(target: Target) -> None:
    message = 'pods "x" is forbidden: error looking up service account ns/sa: serviceaccount "sa" not found'
    refused = [{"type": "ReplicaFailure", "status": "True", "message": message}]
    record = look(target, "web-ui", deployment(target, "web-ui", conditions=refused))
    assert (record.state, record.cause) == (State.STUCK, Cause.SERVICE_ACCOUNT)


def test_a_model_server_waits_for_a_model(target: Target) -> None:
    running = {"name": "serving", "state": {"running": {}}, "ready": False}
    waits = pod(target, "serving", containerStatuses=[running])
    record = look(target, "serving", deployment(target, "serving"), waits)
    assert (record.state, record.cause) == (State.STARTING, Cause.NOT_READY)
    assert record.reason == "runs, and waits for a model in /mnt/export"


def test_a_missing_claim_names_the_component_that_makes_it(target: Target) -> None:
    message = '0/1 nodes are available: persistentvolumeclaim "model" not found.'
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
    waits = pod(target, "web-ui", phase="Pending", conditions=[condition])
    record = look(target, "web-ui", deployment(target, "web-ui"), waits)
    assert (record.cause, record.hint) == (Cause.CLAIM, "Make it: fairway apply dev -c storage")


def test_a_service_without_pods_waits(target: Target) -> None:
    selector = {"app": "mnist", "app.kubernetes.io/name": "serving"}
    service = thing(target, "mnist-service", "Service", "mnist-service", spec={"selector": selector})
    record = look(target, "mnist-service", service)
    assert (record.state, record.reason) == (State.WAITING, "no pod behind it is ready (app=mnist)")
    behind = pod(target, "serving", labels=selector, **READY)
    assert look(target, "mnist-service", service, behind).state is State.READY


def test_a_claim(target: Target) -> None:
    claim = thing(target, "storage", "PersistentVolumeClaim", "model", status={"phase": "Pending"})
    record = look(target, "storage", claim)
    assert (record.state, record.reason) == (State.WAITING, "claim model gets its volume with its first pod")
    failing = event(claim, "ProvisioningFailed", 'storageclass.storage.k8s.io "x" not found')
    assert look(target, "storage", claim, events=(failing,)).state is State.STUCK
    claim["status"] = {"phase": "Bound"}
    assert look(target, "storage", claim).state is State.READY


def test_a_training_shows_its_progress(target: Target) -> None:
    record = look(target, "train", tfjob(target), chief(target), logs={"t-chief-0": [STEPS]})
    assert (record.state, record.reason) == (
        State.RUNNING,
        "step 120 of 468, loss 0.123, accuracy 97.5%, 7 s left",
    )
    assert record.to_json()["training"]["step"] == 120
    record = look(target, "train", tfjob(target), chief(target))
    assert record.reason == "runs, and has not taken its first steps yet"


def test_a_training_that_has_succeeded(target: Target) -> None:
    logs = {"t-chief-0": ["test accuracy 99.10 % on x", "exported version 17 to /mnt"]}
    ended = chief(target, phase="Succeeded")
    record = look(target, "train", tfjob(target, "Succeeded"), ended, logs=logs)
    assert (record.state, record.reason) == (State.DONE, "has trained: test accuracy 99.10%, version 17")
    assert look(target, "train", tfjob(target, "Succeeded")).reason == "has trained"


def test_a_training_that_has_failed_says_why(target: Target) -> None:
    terminated = {"exitCode": 1, "message": "error: no data\n  hint"}
    ended = chief(
        target,
        phase="Failed",
        containerStatuses=[{"name": "tensorflow", "state": {"terminated": terminated}}],
    )
    record = look(target, "train", tfjob(target, "Failed", message="TFJob t failed"), ended)
    assert (record.state, record.reason) == (
        State.FAILED,
        "container tensorflow ended with exit code 1: error: no data",
    )
    gone = look(target, "train", tfjob(target, "Failed", message="deadline exceeded"))
    assert (gone.state, gone.reason) == (State.FAILED, "has failed: deadline exceeded")


def test_a_task_that_is_started_again_needs_no_help(target: Target) -> None:
    terminated = {"exitCode": 138, "message": "error: lost a peer"}
    ended = chief(
        target,
        phase="Failed",
        containerStatuses=[{"name": "tensorflow", "state": {"terminated": terminated}}],
    )
    record = look(target, "train", tfjob(target), ended)
    assert (record.state, record.cause) == (State.STARTING, Cause.CRASH)
    assert record.reason == (
        "container tensorflow ended with exit code 138, to be started again: error: lost a peer"
    )
    newer = chief(target)
    newer["metadata"] |= {"name": "newer", "creationTimestamp": "2026-01-01T00:00:09Z"}
    assert look(target, "train", tfjob(target), ended, newer).state is State.RUNNING


def test_a_training_whose_pods_are_refused(target: Target) -> None:
    job = tfjob(target, "Created")
    refused = event(job, "FailedCreatePod", 'pods "p" is forbidden: exceeded quota: q, requested: pods=1')
    assert look(target, "train", job, events=(refused,)).cause is Cause.QUOTA
    made = event(job, "SuccessfulCreatePod", "Created pod: p")
    assert look(target, "train", job, events=(refused, made)).state is State.STARTING


def test_the_jobs_of_a_job_set_speak_for_it(target: Target) -> None:
    job_set = thing(target, "train", "JobSet", "t", spec={}, status={"conditions": []})
    child: Manifest = {"kind": "Job", "metadata": {"name": "t-chief-0", "uid": "child"}}
    refused = event(child, "FailedCreate", 'pods "p" is forbidden: exceeded quota: q, requested: pods=1')
    assert look(target, "train", job_set, events=(refused,)).cause is Cause.QUOTA
    before = refused | {"lastTimestamp": "2025-12-31T23:59:59Z"}
    assert look(target, "train", job_set, events=(before,)).cause is not Cause.QUOTA
    child["metadata"]["name"] = "t-other-chief-0"
    other = event(child, "FailedCreate", refused["message"])
    assert look(target, "train", job_set, events=(other,)).cause is not Cause.QUOTA


@pytest.mark.parametrize(("seconds", "state"), [(5, State.STARTING), (31, State.STUCK)])
def test_a_job_that_nobody_looks_after(seconds: int, state: State, target: Target) -> None:
    record = look(target, "train", tfjob(target, ""), taken=NOW + timedelta(seconds=seconds))
    assert record.state is state
    if state is State.STUCK:
        assert record.cause is Cause.OPERATOR


def test_a_kind_that_is_not_served(target: Target) -> None:
    record = look(target, "train", unserved=frozenset({"TFJob"}))
    assert (record.state, record.cause) == (State.STUCK, Cause.OPERATOR)
    assert "launcher job" in record.hint
    assert look(target, "train", unserved=frozenset({"JobSet"})).cause is Cause.NOT_APPLIED


def test_a_suspended_training(target: Target) -> None:
    record = look(target, "train", tfjob(target, "Suspended"))
    assert (record.state, record.cause, record.reason) == (
        State.STARTING,
        Cause.SUSPENDED,
        "TFJob t is suspended",
    )


def test_a_pod_that_was_replaced_says_nothing(target: Target) -> None:
    lost = pod(target, "web-ui", "lost", phase="Failed", reason="Evicted", message="low on memory")
    record = look(target, "web-ui", deployment(target, "web-ui"), lost)
    assert record.cause is Cause.EVICTED
    starting = pod(target, "web-ui", "new", phase="Pending")
    assert look(target, "web-ui", deployment(target, "web-ui"), lost, starting).cause is Cause.STARTING


@pytest.mark.parametrize(
    ("count", "age_s", "said", "cause"),
    [
        (3, 10, ("ExitedWithCode", "Pod: n.t-chief-0 exited with code 139"), Cause.CRASH),
        (3, 10, ("ExitedWithCode", "Pod: n.t-chief-0 exited with code 137"), Cause.MEMORY),
        (2, 10, ("ExitedWithCode", "Pod: n.t-chief-0 exited with code 139"), Cause.NONE),
        (3, 600, ("ExitedWithCode", "Pod: n.t-chief-0 exited with code 139"), Cause.NONE),
    ],
)
def test_a_tfjob_whose_tasks_end_again_and_again(
    count: int, age_s: int, said: tuple[str, str], cause: Cause, target: Target
) -> None:
    job = tfjob(target)
    last = (NOW - timedelta(seconds=age_s)).isoformat()
    restarting = event(job, "TFJobRestarting", "job t is restarting because Chief replica(s) failed.")
    killed = event(job, "OOMKilled", "Error pod t-chief-0 container tensorflow exitCode: 137")
    events = (killed, event(job, *said), restarting | {"count": count, "lastTimestamp": last})
    record = look(target, "train", job, chief(target), events=events)
    assert record.cause is cause
    assert record.state is (State.STUCK if cause else State.RUNNING)
    steps = {"t-chief-0": [STEPS]}
    assert look(target, "train", job, chief(target), events=events, logs=steps).state is State.RUNNING


def test_a_loop_of_tasks_that_are_to_be_started_again_names_the_likely_reasons(target: Target) -> None:
    job = tfjob(target)
    restarting = event(job, "TFJobRestarting", "job t is restarting because Chief replica(s) failed.")
    restarting |= {"count": 3, "lastTimestamp": NOW.isoformat()}
    ended = event(job, "ExitedWithCode", "Pod: n.t-chief-0 exited with code 138")
    record = look(target, "train", job, chief(target), events=(ended, restarting))
    assert record.reason.endswith("the last exit code is 138 (a lost task, or a store that gives no answer)")


def test_a_pod_that_is_about_to_be_replaced_is_no_refusal(target: Target) -> None:
    job = tfjob(target)
    refused = event(job, "FailedCreatePod", 'Error creating: pods "t-chief-0" already exists')
    assert look(target, "train", job, chief(target), events=(refused,)).state is State.RUNNING
