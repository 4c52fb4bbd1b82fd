"""A cluster in memory that also answers what only a doctor asks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

from fairway.deploy.manifests import render
from fairway.deploy.resources import Manifest
from fairway.deploy.verbs.checks.check import Check, Outcome, Patient
from fairway.errors import ClusterError
from tests.unit.deploy.fake import APP, Cluster, make_target


class Clinic(Cluster):
    """What a cluster has, and lets us do.

    Attributes:
        denied: Verbs with kinds, such as `get Secret` or `get Pod/log`.
        git_version: Of the API server.
        served: Group versions that it knows, with their kinds.
        makes_pod: What a controller makes of an object that is applied; `None`: nothing.
    """

    def __init__(self) -> None:
        super().__init__()
        self.denied: set[str] = set()
        self.git_version = "v1.32.13"
        self.served: dict[str, list[str] | ClusterError] = {"kubeflow.org/v1": ["TFJob"]}
        self.makes_pod: Callable[[Manifest], Manifest] | None = None
        self.connection = SimpleNamespace(context="kind", server="https://kind:6443")

    async def may(self, verb: str, kind: str, subresource: str = "") -> bool:
        return f"{verb} {kind}{'/' if subresource else ''}{subresource}" not in self.denied

    async def version(self) -> str:
        return self.git_version

    async def resources(self, group_version: str) -> list[str] | None:
        found = self.served.get(group_version)
        if isinstance(found, ClusterError):
            raise found
        return found

    async def apply(
        self, manifest: Manifest, *, dry_run: bool = False, force: bool = False, manager: str = "fairway"
    ) -> Manifest:
        applied = await super().apply(manifest, dry_run=dry_run, force=force, manager=manager)
        if self.makes_pod and not dry_run:
            self.put(self.makes_pod(applied))
        return applied


def make_patient(clinic: Clinic, directory: Path, *overrides: str, app: str = APP) -> Patient:
    """Return an environment in the cluster."""
    target = make_target(directory, *overrides, app=app)
    return Patient(clinic.kube, target, render(target, target.choose()))


def lines(checks: list[Check]) -> list[str]:
    """Return what was found, without the hints."""
    return [f"{check.outcome} {check.title}: {check.sentence}" for check in checks]


def only(checks: list[Check], outcome: Outcome) -> Check:
    """Return the one thing that was found."""
    assert [check.outcome for check in checks] == [outcome], lines(checks)
    return checks[0]
