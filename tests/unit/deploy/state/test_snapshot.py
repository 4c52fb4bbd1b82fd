"""What a snapshot does without."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from fairway.deploy.kube.errors import AwayError, ForbiddenError
from fairway.deploy.resources import Manifest
from fairway.deploy.state import snapshot
from fairway.deploy.state.inventory import labels_of
from fairway.deploy.state.snapshot import take_snapshot
from fairway.deploy.target import Target
from tests.unit.deploy.fake import Cluster, make_target


def put_chief(cluster: Cluster, target: Target, name: str, **metadata: Any) -> None:
    labels = labels_of(target, "train") | {"fairway/role": "chief"}
    cluster.put(
        {
            "kind": "Pod",
            "metadata": {"name": name, "labels": labels, **metadata},
            "spec": {"containers": [{"name": "tensorflow"}]},
            "status": {"phase": "Running"},
        }
    )


def test_a_log_that_cannot_be_read_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot, "LOG_S", 0.01)
    asked: list[str] = []

    class Lossy(Cluster):
        async def logs(self, pod: str, **options: Any) -> AsyncIterator[str]:
            asked.append(pod)
            if pod == "lost":
                raise AwayError("its node does not answer")
            if pod == "silent":
                await asyncio.Event().wait()
            yield "a line"

    cluster, target = Lossy(), make_target(tmp_path)
    for name in ("lost", "silent", "well"):
        put_chief(cluster, target, name)
    put_chief(cluster, target, "ending", deletionTimestamp="2026-01-01T00:00:00Z")
    assert asyncio.run(take_snapshot(cluster.kube, target)).logs == {"well": ["a line"]}
    assert "ending" not in asked


def test_few_rights_are_enough_and_said_once(tmp_path: Path) -> None:
    class Strict(Cluster):
        async def list(self, kind: str, labels: Mapping[str, str] | None = None) -> list[Manifest]:
            if kind in ("Event", "PersistentVolumeClaim"):
                raise ForbiddenError(f"you may not list {kind}")
            return await super().list(kind, labels)

    cluster, target = Strict(), make_target(tmp_path)
    for _ in range(2):
        found = asyncio.run(take_snapshot(cluster.kube, target))
        assert (found.around.events, found.around.claims) == ([], None)
    assert cluster.warnings == [
        "you may not list Event; so reasons may be missing",
        "you may not list PersistentVolumeClaim; so reasons may be missing",
    ]


def test_claims_of_others_are_around_but_no_objects(tmp_path: Path) -> None:
    cluster, target = Cluster(), make_target(tmp_path)
    cluster.put({"kind": "PersistentVolumeClaim", "metadata": {"name": "theirs"}})
    labels = labels_of(target, "storage")
    cluster.put({"kind": "PersistentVolumeClaim", "metadata": {"name": "ours", "labels": labels}})
    found = asyncio.run(take_snapshot(cluster.kube, target))
    assert [each["metadata"]["name"] for each in found.objects] == ["ours"]
    assert set(found.around.claims or ()) == {"ours", "theirs"}
