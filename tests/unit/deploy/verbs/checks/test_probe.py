"""The Job that tries to write, and what is made of it."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from fairway.deploy.resources import Manifest
from fairway.deploy.state.pods import Cause
from fairway.deploy.verbs.checks import probe
from fairway.deploy.verbs.checks.check import Check, Outcome, Patient
from fairway.deploy.verbs.checks.probe import check_writing, chief_template, probe_job
from fairway.deploy.verbs.wait import GRACES_S
from fairway.errors import ClusterError
from tests.unit.deploy.verbs.checks.clinic import Clinic, lines, make_patient, only

CLAIM = {"kind": "PersistentVolumeClaim", "metadata": {"name": "model"}, "status": {"phase": "Bound"}}
GOOD = [
    {"directory": "/mnt", "versions": 0, "problem": "", "hint": ""},
    {"directory": "/mnt/export", "versions": 2, "problem": "", "hint": ""},
]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "POLL_S", 0.01)


@pytest.fixture
def clinic() -> Clinic:
    found = Clinic()
    found.put(CLAIM)
    return found


def pod_of(job: Manifest, phase: str, *, code: int = 0, waiting: dict[str, str] | None = None) -> Manifest:
    """Return the pod that a Job controller and a kubelet make of a Job."""
    state = {"waiting": waiting} if waiting else {"terminated": {"exitCode": code, "message": "error: no"}}
    statuses = [{"name": "tensorflow", "image": "x:1", "state": state}]
    return {
        "kind": "Pod",
        "metadata": {"name": "pod", "labels": {"batch.kubernetes.io/job-name": job["metadata"]["name"]}},
        "spec": job["spec"]["template"]["spec"],
        "status": {
            "phase": phase,
            "containerStatuses": statuses,
        },
    }


def answer(clinic: Clinic, words: str, *, phase: str = "Succeeded", code: int = 0) -> None:
    """Have the pod of every Job end with some words."""
    clinic.makes_pod = lambda job: pod_of(job, phase, code=code)
    clinic.texts["pod", ""] = [f"2026-01-01T00:00:00.000000000Z {line}" for line in words.splitlines()]


def run(patient: Patient, timeout_s: float = 10) -> list[Check]:
    return asyncio.run(check_writing(patient, timeout_s))


def changed(clinic: Clinic) -> list[str]:
    """Return what was applied and deleted, without the random ends of names."""
    return [f"{verb} {kind} {name[:14]}" for verb, kind, name in clinic.requests]


@pytest.mark.parametrize("launcher", ["tfjob", "job", "jobset"])
def test_the_job_is_the_chiefs_pod_with_another_command(launcher: str, tmp_path: Path) -> None:
    settings = ("train.numWorkers=2", "train.numGpus=1", "train.envVariables=A=B", "train.secret=s=/secret")
    patient = make_patient(Clinic(), tmp_path, f"train.launcher={launcher}", *settings)
    template = chief_template(patient)
    assert template is not None
    job = probe_job(patient, template, 100)
    spec = job["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    original = template["spec"]["containers"][0]
    assert container["args"] == ["models", "probe", "-o", "json"]
    assert {"A": "B"}.items() <= {each["name"]: each.get("value") for each in container["env"]}.items()
    assert "TF_CONFIG" not in {each["name"] for each in container["env"]}
    assert "nvidia.com/gpu" not in container["resources"]["limits"]
    for field in ("image", "securityContext", "volumeMounts"):
        assert container[field] == original[field]
    assert spec["volumes"] == template["spec"]["volumes"]
    assert spec["restartPolicy"] == "Never"
    assert "subdomain" not in spec
    labels = job["spec"]["template"]["metadata"]["labels"]
    assert labels["app.kubernetes.io/managed-by"] != "fairway"
    assert "fairway/role" not in labels


def test_what_the_pod_says_is_what_was_found(clinic: Clinic, tmp_path: Path) -> None:
    answer(clinic, json.dumps(GOOD, indent=2))
    assert lines(run(make_patient(clinic, tmp_path))) == [
        "ok image: fairway-train:0.1.0 runs",
        "ok write probe: a pod has created, read and deleted a file in /mnt",
        "ok write probe: a pod has created, read and deleted a file in /mnt/export",
        "ok versions: /mnt/export has 2",
    ]
    assert changed(clinic) == ["apply Job fairway-doctor", "delete Job fairway-doctor"]


def test_an_export_directory_without_a_version_is_warned_of(clinic: Clinic, tmp_path: Path) -> None:
    answer(clinic, json.dumps([GOOD[0], GOOD[1] | {"versions": 0}]))
    found = run(make_patient(clinic, tmp_path))[-1]
    assert found.outcome is Outcome.WARN
    assert "no version in /mnt/export yet" in found.sentence
    assert "fairway up dev" in found.hint


def test_what_the_pod_cannot_write_fails(clinic: Clinic, tmp_path: Path) -> None:
    bad: dict[str, Any] = {"directory": "s3://m", "versions": None, "problem": "no answer", "hint": "Ask."}
    answer(clinic, json.dumps([bad, bad]), phase="Failed", code=1)
    checks = run(make_patient(clinic, tmp_path))
    assert [check.outcome for check in checks] == [Outcome.OK, Outcome.FAIL, Outcome.FAIL]
    assert checks[1].sentence == "s3://m: no answer"
    assert checks[1].hint.startswith("Ask. If only pods cannot reach it, see the namespace's NetworkPolicies")


def test_an_image_of_another_fairway_is_told(clinic: Clinic, tmp_path: Path) -> None:
    answer(clinic, 'error: Unknown command "probe".', phase="Failed", code=2)
    found = only(run(make_patient(clinic, tmp_path)), Outcome.FAIL)
    assert "does not know: fairway models probe -o json" in found.sentence
    assert "fairway image build" in found.hint


def test_what_ends_without_an_answer_is_told(clinic: Clinic, tmp_path: Path) -> None:
    answer(clinic, "boom", phase="Failed", code=1)
    found = only(run(make_patient(clinic, tmp_path)), Outcome.FAIL)
    assert found.sentence == "container tensorflow ended with exit code 1: error: no"


def test_a_pod_that_cannot_run_is_told_and_not_left(
    clinic: Clinic, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(GRACES_S, Cause.IMAGE, 0.0)
    waiting = {"reason": "ImagePullBackOff", "message": "not found"}
    clinic.makes_pod = lambda job: pod_of(job, "Pending", waiting=waiting)
    found = only(run(make_patient(clinic, tmp_path)), Outcome.FAIL)
    assert found.sentence == "the pod cannot run: image x:1 cannot be pulled: not found"
    assert changed(clinic)[-1] == "delete Job fairway-doctor"


def test_a_pod_that_may_not_be_made_is_told(
    clinic: Clinic, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(GRACES_S, Cause.QUOTA, 0.0)

    def refuse(job: Manifest) -> Manifest:
        about = {"uid": job["metadata"]["uid"]}
        text = 'pods "x" is forbidden: exceeded quota: team, requested: pods=1, used: pods=0, limited: pods=0'
        event = {"reason": "FailedCreate", "message": text, "involvedObject": about}
        return {"kind": "Event", "metadata": {"name": "e"}, **event}

    clinic.makes_pod = refuse
    found = only(run(make_patient(clinic, tmp_path)), Outcome.FAIL)
    assert "no pod may be made: exceeded quota: team" in found.sentence
    assert changed(clinic)[-1] == "delete Job fairway-doctor"


def test_a_pod_has_only_so_long(clinic: Clinic, tmp_path: Path) -> None:
    found = only(run(make_patient(clinic, tmp_path), timeout_s=0.05), Outcome.FAIL)
    assert found.sentence == "the pod has not ended after 0.05 s"
    assert "--timeout" in found.hint
    assert changed(clinic)[-1] == "delete Job fairway-doctor"


def test_the_job_is_deleted_also_when_it_is_broken_off(clinic: Clinic, tmp_path: Path) -> None:
    async def break_off() -> None:
        probing = asyncio.create_task(check_writing(make_patient(clinic, tmp_path), 10))
        await asyncio.sleep(0.05)
        probing.cancel()
        await asyncio.gather(probing, return_exceptions=True)

    asyncio.run(break_off())
    assert changed(clinic) == ["apply Job fairway-doctor", "delete Job fairway-doctor"]


def test_without_its_claim_nothing_is_tried(tmp_path: Path) -> None:
    clinic = Clinic()
    found = only(run(make_patient(clinic, tmp_path)), Outcome.WARN)
    assert "the claim model is not there yet" in found.sentence
    assert found.hint == "Make it, and ask again: fairway apply dev -c storage"
    assert clinic.requests == []


def test_without_a_training_nothing_is_tried(tmp_path: Path) -> None:
    assert run(make_patient(Clinic(), tmp_path, "train.enabled=false")) == []


def test_who_may_not_make_a_job_is_told(clinic: Clinic, tmp_path: Path) -> None:
    clinic.denied = {"create Job"}
    only(run(make_patient(clinic, tmp_path)), Outcome.WARN)
    assert clinic.requests == []


def test_a_job_that_cannot_be_deleted_is_no_finding(
    clinic: Clinic, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def refuse(_kind: str, _name: str) -> bool:
        raise ClusterError("away")

    answer(clinic, json.dumps(GOOD))
    monkeypatch.setattr(clinic, "delete", refuse)
    assert run(make_patient(clinic, tmp_path))[0].outcome is Outcome.OK
    assert "goes away by itself: away" in caplog.text
