"""Operators, CRDs, gateways, metrics, and whether a cluster takes the manifests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from fairway.deploy.verbs.checks.check import Outcome
from fairway.deploy.verbs.checks.kinds import (
    METRICS,
    check_gateways,
    check_kinds,
    check_manifests,
    check_metrics,
    check_operator,
)
from fairway.errors import ClusterError
from tests.unit.deploy.verbs.checks.clinic import Clinic, lines, make_patient, only

GATEWAY = ("mnist-service.gateway=edge/public",)


def test_what_the_launcher_makes_has_to_be_known(tmp_path: Path) -> None:
    clinic = Clinic()
    patient = make_patient(clinic, tmp_path)
    assert lines(asyncio.run(check_kinds(patient))) == ["ok TFJob: the cluster knows it, as kubeflow.org/v1"]
    clinic.served, clinic._unserved = {}, ["TFJob"]
    assert lines(asyncio.run(check_kinds(patient))) == ["fail TFJob: the cluster has no TFJob"]
    assert asyncio.run(check_kinds(make_patient(clinic, tmp_path, "train.launcher=job"))) == []


def test_a_training_that_nobody_looks_after_is_told(tmp_path: Path) -> None:
    clinic = Clinic()
    patient = make_patient(clinic, tmp_path)
    assert asyncio.run(check_operator(patient)) == []
    clinic.put(next(each for each in patient.manifests if each["kind"] == "TFJob"))
    found = only(asyncio.run(check_operator(patient)), Outcome.FAIL)
    assert "nobody looks after a TFJob" in found.sentence


def test_metrics_are_needed_only_to_scale(tmp_path: Path) -> None:
    clinic = Clinic()
    assert asyncio.run(check_metrics(make_patient(clinic, tmp_path))) == []
    patient = make_patient(clinic, tmp_path, "serving.maxReplicas=3")
    assert METRICS in only(asyncio.run(check_metrics(patient)), Outcome.FAIL).sentence
    clinic.served[METRICS] = ["PodMetrics"]
    only(asyncio.run(check_metrics(patient)), Outcome.OK)
    clinic.served[METRICS] = ClusterError("HTTP 503")
    assert "does not work: HTTP 503" in only(asyncio.run(check_metrics(patient)), Outcome.FAIL).sentence


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        ({"conditions": [{"type": "Programmed", "status": "True"}]}, Outcome.OK),
        ({}, Outcome.WARN),
        (None, Outcome.FAIL),
    ],
)
def test_a_gateway_is_looked_for_in_its_namespace(
    status: dict[str, object] | None, outcome: Outcome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clinic = Clinic()
    if status is not None:
        clinic.put({"kind": "Gateway", "metadata": {"name": "public"}, "status": status})

    @asynccontextmanager
    async def in_namespace(_connection: object, namespace: str) -> AsyncIterator[Clinic]:
        assert namespace == "edge"
        yield clinic

    monkeypatch.setattr("fairway.deploy.kube.client.Kube", in_namespace)
    found = only(asyncio.run(check_gateways(make_patient(clinic, tmp_path, *GATEWAY))), outcome)
    assert found.title == "gateway edge/public"


def test_each_manifest_that_is_refused_is_told(tmp_path: Path) -> None:
    clinic = Clinic()
    patient = make_patient(clinic, tmp_path)
    found = only(asyncio.run(check_manifests(patient)), Outcome.OK)
    assert found.sentence == f"the cluster takes all {len(patient.manifests)}"
    assert clinic.changes("apply") == []

    clinic.refused["Deployment", "web-ui"] = ClusterError("no more than 0 Deployments")
    clinic.refused["TFJob", "mnist-train"] = ClusterError("failed calling webhook: connection refused")
    checks = asyncio.run(check_manifests(patient))
    assert lines(checks) == [
        "fail TFJob mnist-train: failed calling webhook: connection refused",
        "fail Deployment web-ui: no more than 0 Deployments",
    ]
    assert "does not run" in checks[0].hint


def test_a_training_that_is_there_is_not_checked_again(tmp_path: Path) -> None:
    clinic = Clinic()
    patient = make_patient(clinic, tmp_path)
    clinic.put(next(each for each in patient.manifests if each["kind"] == "TFJob"))
    clinic.refused["TFJob", "mnist-train"] = ClusterError("immutable")
    only(asyncio.run(check_manifests(patient)), Outcome.OK)


def test_what_belongs_to_others_is_told(tmp_path: Path) -> None:
    clinic = Clinic()
    clinic.put({"kind": "Service", "metadata": {"name": "mnist-service"}})
    found = only(asyncio.run(check_manifests(make_patient(clinic, tmp_path))), Outcome.FAIL)
    assert found.sentence == "Service mnist-service is there, and was not made by fairway"
