"""The cluster, its version, the namespace, and rights."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from fairway.deploy.verbs.checks.access import check_context, check_namespace, check_rights, check_version
from fairway.deploy.verbs.checks.check import Outcome
from tests.unit.deploy.verbs.checks.clinic import Clinic, lines, make_patient, only


def test_the_cluster_is_named(tmp_path: Path) -> None:
    found = only(asyncio.run(check_context(make_patient(Clinic(), tmp_path))), Outcome.OK)
    assert "context kind leads to https://kind:6443" in found.sentence


@pytest.mark.parametrize(
    ("version", "outcome"),
    [
        ("v1.28.15", Outcome.FAIL),
        ("v1.29.0", Outcome.OK),
        ("v1.32.1-eks-a1b2", Outcome.OK),
        ("v2.0.0", Outcome.OK),
        ("latest", Outcome.WARN),
    ],
)
def test_kubernetes_has_to_be_new_enough(version: str, outcome: Outcome, tmp_path: Path) -> None:
    clinic = Clinic()
    clinic.git_version = version
    assert version in only(asyncio.run(check_version(make_patient(clinic, tmp_path))), outcome).sentence


def test_the_namespace_is_looked_for(tmp_path: Path) -> None:
    clinic = Clinic()
    patient = make_patient(clinic, tmp_path)
    only(asyncio.run(check_namespace(patient)), Outcome.OK)
    clinic.objects["Namespace", "ns"]["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert "is being deleted" in only(asyncio.run(check_namespace(patient)), Outcome.FAIL).sentence
    del clinic.objects["Namespace", "ns"]
    assert "--create-namespace" in only(asyncio.run(check_namespace(patient)), Outcome.FAIL).hint
    clinic.denied = {"get Namespace"}
    assert "may not be asked for" in only(asyncio.run(check_namespace(patient)), Outcome.OK).sentence


def test_rights_that_lack_are_named_by_kind(tmp_path: Path) -> None:
    clinic = Clinic()
    patient = make_patient(clinic, tmp_path)
    only(asyncio.run(check_rights(patient)), Outcome.OK)
    clinic.denied = {"create TFJob", "patch TFJob", "list JobSet", "get Pod/portforward"}
    clinic.denied |= {"watch Pod", "list Event"}
    assert lines(asyncio.run(check_rights(patient))) == [
        "fail rights: apply and status need rights that you lack: create, patch TFJob; list JobSet",
        "warn rights: delete, logs, open and doctor need rights that you lack: get Pod/portforward",
        "warn rights: status cannot tell all reasons without: list Event",
    ]
