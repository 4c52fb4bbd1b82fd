"""A cluster in memory with the methods of `Kube`, and an app to apply to it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any, cast

from fairway.deploy.apps.app import load_app, load_environment
from fairway.deploy.kube.client import Kube
from fairway.deploy.kube.errors import NamespaceMissingError, NotServedError
from fairway.deploy.resources import Manifest
from fairway.deploy.target import Target, parse_overrides, resolve
from fairway.deploy.verbs.diff import overlay
from fairway.errors import ClusterError

APP = """
version: 1
name: digits
components:
  storage: {kind: storage, params: {name: model}}
  train: {kind: train, params: {pvcName: model}}
  serving: {kind: serving, params: {name: server}}
  mnist-service: {kind: mnist-service}
  web-ui: {kind: web-ui}
"""


def make_target(directory: Path, *overrides: str, app: str = APP) -> Target:
    """Return an environment `dev` of an app."""
    (directory / "environments").mkdir(exist_ok=True)
    (directory / "fairway.yaml").write_text(app)
    (directory / "environments" / "dev.yaml").write_text("namespace: ns\n")
    found = load_app(directory)
    return resolve(found, load_environment(found, "dev"), parse_overrides(found, overrides))


class Cluster:
    """What a namespace has.

    Args:
        unserved: Kinds that it does not know.

    Attributes:
        objects: By kind and name.
        requests: What changed something, or would have: "apply", "dry run" or "delete", with kind and name.
        refused: The error for what is applied, by kind and name.
        warnings: What was warned of.
        texts: The logs, by pod and container, as the API server gives them with timestamps.
    """

    def __init__(self, unserved: Sequence[str] = ()) -> None:
        self.objects: dict[tuple[str, str], Manifest] = {}
        self.requests: list[tuple[str, str, str]] = []
        self.refused: dict[tuple[str, str], ClusterError] = {}
        self.texts: dict[tuple[str, str], list[str]] = {}
        self.warnings: list[str] = []
        self._unserved = unserved
        self.put({"kind": "Namespace", "metadata": {"name": "ns"}})

    @property
    def kube(self) -> Kube:
        """The cluster in the place of a real one."""
        return cast(Kube, self)

    def put(self, manifest: Manifest) -> Manifest:
        """Have an object there, with what a server adds to it."""
        found = deepcopy(manifest)
        found["metadata"].setdefault("uid", f"uid-{len(self.objects)}-{found['metadata']['name']}")
        found["metadata"].setdefault("creationTimestamp", "2026-01-01T00:00:00Z")
        self.objects[found["kind"], found["metadata"]["name"]] = found
        return found

    def set_status(self, kind: str, name: str, **status: Any) -> None:
        """Have a controller write the status of an object."""
        self.objects[kind, name]["status"] = status

    def changes(self, verb: str) -> list[str]:
        """Return what was applied or deleted, in order."""
        return [f"{kind} {name}" for done, kind, name in self.requests if done == verb]

    async def get(self, kind: str, name: str) -> Manifest | None:
        self._check(kind)
        return deepcopy(self.objects.get((kind, name)))

    async def list(self, kind: str, labels: Mapping[str, str] | None = None) -> list[Manifest]:
        self._check(kind)
        wanted = (labels or {}).items()
        return [
            deepcopy(each)
            for (its_kind, _), each in self.objects.items()
            if its_kind == kind and wanted <= (each["metadata"].get("labels") or {}).items()
        ]

    async def apply(
        self, manifest: Manifest, *, dry_run: bool = False, force: bool = False, manager: str = "fairway"
    ) -> Manifest:
        place = manifest["kind"], manifest["metadata"]["name"]
        self._check(place[0])
        if ("Namespace", "ns") not in self.objects and place[0] != "Namespace":
            raise NamespaceMissingError("namespace ns does not exist", hint="Make it.")
        if place in self.refused and not force:
            raise self.refused[place]
        self.requests.append(("dry run" if dry_run else "apply", *place))
        merged: Manifest = overlay(self.objects.get(place, {}), manifest)
        return merged if dry_run else deepcopy(self.put(merged))

    async def delete(self, kind: str, name: str, uid: str | None = None) -> bool:
        there = self.objects.get((kind, name))
        if there is None or uid not in (None, there["metadata"]["uid"]):
            return False
        self.requests.append(("delete", kind, name))
        del self.objects[kind, name]
        return True

    def warn_once(self, text: str, about: str = "") -> None:
        if text not in self.warnings:
            self.warnings.append(text)

    async def logs(
        self,
        pod: str,
        *,
        container: str | None = None,
        follow: bool = False,
        tail: int | None = None,
        previous: bool = False,
        timestamps: bool = False,
    ) -> AsyncIterator[str]:
        lines = self.texts.get((pod, container or ""), [])
        for line in lines if tail is None else lines[len(lines) - tail :]:
            yield line if timestamps else line.partition(" ")[2]

    def _check(self, kind: str) -> None:
        if kind in self._unserved:
            raise NotServedError(
                f"the cluster has no {kind}", hint="Or: fairway param set COMPONENT launcher job"
            )
