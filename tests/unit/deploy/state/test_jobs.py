"""How far trainings are, and which may be replaced."""

from __future__ import annotations

import pytest

from fairway.deploy.resources import MANIFEST_HASH, Manifest
from fairway.deploy.state.jobs import (
    JobState,
    Presence,
    check_replaceable,
    compare,
    job_state,
    training_state,
    was_interrupted,
)
from fairway.errors import ClusterError


def job(name: str = "t", kind: str = "Job", *, hash_: str = "a", role: str = "", state: str = "") -> Manifest:
    labels = {"fairway/role": role} if role else {}
    return {
        "kind": kind,
        "metadata": {"name": name, "annotations": {MANIFEST_HASH: hash_}},
        "spec": {"template": {"metadata": {"labels": labels}}},
        "status": {"conditions": [{"type": state, "status": "True"}] if state else []},
    }


@pytest.mark.parametrize(
    ("condition", "state"),
    [
        ("", JobState.RUNNING),
        ("Created", JobState.RUNNING),
        ("Restarting", JobState.RUNNING),
        ("Succeeded", JobState.SUCCEEDED),
        ("Complete", JobState.SUCCEEDED),
        ("Completed", JobState.SUCCEEDED),
        ("Failed", JobState.FAILED),
    ],
)
def test_one_job(condition: str, state: JobState) -> None:
    assert job_state(job(state=condition)) is state
    assert training_state([job(state=condition)]) is state


@pytest.mark.parametrize(
    ("chief", "worker", "state"),
    [
        ("", "", JobState.RUNNING),
        ("", "Complete", JobState.RUNNING),
        ("Complete", "", JobState.SUCCEEDED),
        ("Complete", "Failed", JobState.SUCCEEDED),
        ("", "Failed", JobState.FAILED),
        ("Failed", "Complete", JobState.FAILED),
    ],
)
def test_several_jobs_are_as_far_as_their_chief(chief: str, worker: str, state: JobState) -> None:
    jobs = [job("c", role="chief", state=chief), job("w", role="worker", state=worker)]
    assert training_state(jobs) is state


@pytest.mark.parametrize(
    ("present", "presence"),
    [
        ([], Presence.ABSENT),
        ([job()], Presence.SAME),
        ([job(hash_="b")], Presence.OTHER),
        ([job(kind="TFJob")], Presence.OTHER),
        ([job(), job("more")], Presence.OTHER),
        ([job(), job("w")], Presence.SAME),
    ],
)
def test_same_or_other(present: list[Manifest], presence: Presence) -> None:
    assert compare([job(), job("w")], present).presence is presence


@pytest.mark.parametrize("replace", [False, True])
def test_what_may_be_replaced(replace: bool) -> None:
    running = compare([job()], [job(hash_="b")])
    with pytest.raises(ClusterError, match="Job t is of other params, and still running"):
        check_replaceable("train", running, replace=replace, environment="dev")
    check_replaceable("train", compare([job()], [job()]), replace=replace, environment="dev")
    ended = compare([job()], [job(hash_="b", state="Failed"), job("w", state="Failed")])
    if replace:
        check_replaceable("train", ended, replace=True, environment="dev")
    else:
        with pytest.raises(ClusterError, match="Job t and Job w are of other params, and have failed"):
            check_replaceable("train", ended, replace=False, environment="dev")


@pytest.mark.parametrize(
    ("kind", "message", "policy", "codes", "interrupted"),
    [
        ("TFJob", "TFJob t has failed because 1 PS replica(s) failed.", "ExitCode", [], True),
        ("TFJob", "TFJob t has failed because 1 PS replica(s) failed.", "ExitCode", [143, 0, 138], True),
        ("TFJob", "TFJob t has failed because 1 PS replica(s) failed.", "ExitCode", [143, 1], False),
        ("TFJob", "TFJob t has failed because 1 PS replica(s) failed.", "Never", [], False),
        (
            "TFJob",
            "Job t has failed because it was active longer than specified deadline",
            "ExitCode",
            [],
            False,
        ),
        ("Job", "Job has reached the specified backoff limit", "ExitCode", [], False),
    ],
)
def test_a_tfjob_whose_pod_was_deleted_was_interrupted(
    kind: str, message: str, policy: str, codes: list[int], interrupted: bool
) -> None:
    failed = job(kind=kind, state="Failed")
    failed["status"]["conditions"][0]["message"] = message
    failed["spec"]["tfReplicaSpecs"] = {"PS": {"restartPolicy": policy}}
    ended = [{"state": {"terminated": {"exitCode": code}}} for code in codes]
    pods = [{"status": {"containerStatuses": [each]}} for each in ended]
    assert was_interrupted([failed], pods) is interrupted
    assert compare([job(kind=kind)], [failed], pods).was_interrupted is interrupted
    assert not was_interrupted([job(kind=kind)], pods)
    failed["spec"]["runPolicy"] = {"cleanPodPolicy": "All"}
    assert not was_interrupted([failed], pods)
