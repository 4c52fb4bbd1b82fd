"""The order of checks, and what ends them early."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from fairway.deploy.apps.app import Environment
from fairway.deploy.kube.errors import AwayError
from fairway.deploy.settings import DoctorSettings
from fairway.deploy.verbs import doctor
from fairway.deploy.verbs.checks.check import Check
from fairway.errors import ClusterError
from tests.unit.deploy.fake import make_target
from tests.unit.deploy.verbs.checks.clinic import Clinic, lines


@pytest.fixture
def clinic(monkeypatch: pytest.MonkeyPatch) -> Clinic:
    found = Clinic()

    @asynccontextmanager
    async def connect(_environment: Environment) -> AsyncIterator[Clinic]:
        yield found

    monkeypatch.setattr(doctor, "connect", connect)
    return found


def examine(directory: Path, *overrides: str, probe: bool = False) -> list[str]:
    checks: list[Check] = []
    target = make_target(directory, *overrides)
    asyncio.run(doctor.run(target, DoctorSettings(probe=probe), checks.append))
    return lines(checks)


def test_what_is_well_and_what_is_not_is_told_in_order(clinic: Clinic, tmp_path: Path) -> None:
    found = examine(tmp_path, probe=True)
    assert [line.partition(":")[0] for line in found] == [
        "ok cluster",
        "ok Kubernetes",
        "ok TFJob",
        "ok namespace",
        "ok rights",
        "fail claim model",
        "ok manifests",
        "warn write probe",
    ]


def test_without_the_namespace_nothing_in_it_is_looked_at(clinic: Clinic, tmp_path: Path) -> None:
    del clinic.objects["Namespace", "ns"]
    assert examine(tmp_path)[-1].startswith("fail namespace: ns does not exist")


def test_params_that_do_not_fit_are_a_finding(tmp_path: Path) -> None:
    (found,) = examine(tmp_path, "train.pvcName=")
    assert found.startswith("fail params: ")


def test_a_cluster_that_is_away_ends_it(
    clinic: Clinic, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away() -> str:
        raise AwayError("the cluster does not answer")

    monkeypatch.setattr(clinic, "version", away)
    assert examine(tmp_path)[1:] == ["fail cluster: the cluster does not answer"]


def test_what_may_not_be_looked_at_is_a_finding(
    clinic: Clinic, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = clinic.list

    async def refuse(kind: str, *labels: object) -> list[object]:
        if kind == "Event":
            raise ClusterError("you may not list events")
        return list(await real(kind, *labels))  # type: ignore[arg-type]

    monkeypatch.setattr(clinic, "list", refuse)
    found = examine(tmp_path)
    assert "fail operator: you may not list events" in found
    assert found[-1].startswith("ok manifests")


def test_without_rights_the_cluster_is_not_asked_for_each_manifest(clinic: Clinic, tmp_path: Path) -> None:
    clinic.denied = {"patch TFJob"}
    titles = [line.partition(":")[0] for line in examine(tmp_path)]
    assert "fail rights" in titles
    assert "ok manifests" not in titles
    assert clinic.requests == []
