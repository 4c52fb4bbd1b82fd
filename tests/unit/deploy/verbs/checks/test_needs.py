"""Claims, Secrets, service accounts and quota."""

from __future__ import annotations

import asyncio
from pathlib import Path

from fairway.deploy.resources import Manifest
from fairway.deploy.verbs.checks.check import Outcome
from fairway.deploy.verbs.checks.quota import check_quotas, is_nearly_used_up
from fairway.deploy.verbs.checks.secrets import check_accounts, check_secrets
from fairway.deploy.verbs.checks.storage import check_claims
from tests.unit.deploy.verbs.checks.clinic import Clinic, lines, make_patient, only

DEFAULT = {"storageclass.kubernetes.io/is-default-class": "true"}
KEYS = "train.secretKeyRefs=AWS_ACCESS_KEY_ID=s3.id,AWS_SECRET_ACCESS_KEY=s3.key"


def storage_class(name: str, annotations: dict[str, str] | None = None) -> Manifest:
    return {"kind": "StorageClass", "metadata": {"name": name, "annotations": annotations or {}}}


def test_a_claim_that_apply_makes_needs_a_storage_class(tmp_path: Path) -> None:
    clinic = Clinic()
    patient = make_patient(clinic, tmp_path)
    found = only(asyncio.run(check_claims(patient)), Outcome.FAIL)
    assert found.sentence == "apply makes it without a storage class, and the cluster has no default one"
    clinic.put(storage_class("slow"))
    assert "has: slow." in only(asyncio.run(check_claims(patient)), Outcome.FAIL).hint
    clinic.put(storage_class("standard", DEFAULT))
    assert "class standard" in only(asyncio.run(check_claims(patient)), Outcome.OK).sentence
    fast = make_patient(clinic, tmp_path, "storage.storageClass=fast")
    assert "class fast, which does not" in only(asyncio.run(check_claims(fast)), Outcome.FAIL).sentence


def test_a_claim_that_is_there_is_bound_or_waits_for_a_pod(tmp_path: Path) -> None:
    clinic = Clinic()
    patient = make_patient(clinic, tmp_path)
    spec = {"accessModes": ["ReadWriteOnce"]}
    clinic.put({"kind": "PersistentVolumeClaim", "metadata": {"name": "model"}, "spec": spec})
    clinic.set_status("PersistentVolumeClaim", "model", phase="Pending")
    assert "first pod" in only(asyncio.run(check_claims(patient)), Outcome.OK).sentence
    clinic.set_status("PersistentVolumeClaim", "model", phase="Bound", capacity={"storage": "1Gi"})
    assert lines(asyncio.run(check_claims(patient))) == [
        "ok claim model: it is bound: 1Gi, ReadWriteOnce, for train, serving, web-ui"
    ]
    clinic.set_status("PersistentVolumeClaim", "model", phase="Lost")
    assert "has lost its volume" in only(asyncio.run(check_claims(patient)), Outcome.FAIL).sentence


def test_a_claim_that_nobody_makes_is_missing(tmp_path: Path) -> None:
    patient = make_patient(Clinic(), tmp_path, "train.pvcName=other")
    found = only(asyncio.run(check_claims(patient)), Outcome.FAIL)
    assert found.sentence == "claim other does not exist, and train, serving, web-ui mount it"


def test_secrets_need_the_keys_that_are_named(tmp_path: Path) -> None:
    clinic = Clinic()
    patient = make_patient(clinic, tmp_path, KEYS)
    found = only(asyncio.run(check_secrets(patient)), Outcome.FAIL)
    assert "it does not exist, and serving, train, web-ui need it" in found.sentence
    assert found.hint.endswith("create secret generic s3 --from-literal=id=… --from-literal=key=…")
    clinic.put({"kind": "Secret", "metadata": {"name": "s3"}, "data": {"id": "eA=="}})
    found = only(asyncio.run(check_secrets(patient)), Outcome.FAIL)
    assert "it has no key, and" in found.sentence
    assert found.hint == "Its keys are: id."
    clinic.put({"kind": "Secret", "metadata": {"name": "s3"}, "data": {"id": "eA==", "key": "eA=="}})
    only(asyncio.run(check_secrets(patient)), Outcome.OK)
    clinic.denied = {"get Secret"}
    only(asyncio.run(check_secrets(patient)), Outcome.WARN)


def test_mounted_secrets_and_those_of_registries_count_too(tmp_path: Path) -> None:
    patient = make_patient(Clinic(), tmp_path, "train.secret=gcp=/secret", "web-ui.imagePullSecret=registry")
    assert [check.title for check in asyncio.run(check_secrets(patient))] == ["secret gcp", "secret registry"]


def test_service_accounts_have_to_be_there(tmp_path: Path) -> None:
    clinic = Clinic()
    patient = make_patient(clinic, tmp_path, "train.serviceAccount=trainer")
    assert "create serviceaccount trainer" in only(asyncio.run(check_accounts(patient)), Outcome.FAIL).hint
    clinic.put({"kind": "ServiceAccount", "metadata": {"name": "trainer"}})
    only(asyncio.run(check_accounts(patient)), Outcome.OK)


def test_a_quota_is_warned_of_when_nine_tenths_are_used(tmp_path: Path) -> None:
    clinic = Clinic()
    patient = make_patient(clinic, tmp_path)
    assert asyncio.run(check_quotas(patient)) == []
    status = {"hard": {"cpu": "2", "pods": "10"}, "used": {"cpu": "1900m", "pods": "1"}}
    clinic.put({"kind": "ResourceQuota", "metadata": {"name": "team"}, "status": status})
    assert lines(asyncio.run(check_quotas(patient))) == [
        "warn quota team: it is nearly used up: 1900m of 2 cpu"
    ]


def test_near_is_nine_tenths() -> None:
    assert is_nearly_used_up("9", "10")
    assert not is_nearly_used_up("8999m", "10")
    assert is_nearly_used_up("0", "0")
