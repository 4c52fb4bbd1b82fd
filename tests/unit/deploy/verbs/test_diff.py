"""Differences between a cluster in memory and what an app says."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from fairway.deploy.kube.errors import ImmutableError
from fairway.deploy.settings import ApplySettings
from fairway.deploy.verbs import apply, diff
from fairway.deploy.verbs.diff import Difference, normalise, overlay, unified
from tests.unit.deploy.fake import Cluster, make_target


def run(cluster: Cluster, directory: Path, *overrides: str, names: tuple[str, ...] = ()) -> list[Difference]:
    """Return what differs."""
    found = asyncio.run(diff.run(cluster.kube, make_target(directory, *overrides), names))
    return [each for each in found if each.state != "equal"]


def applied(directory: Path) -> Cluster:
    cluster = Cluster()
    target = make_target(directory)
    asyncio.run(apply.run(cluster.kube, target, ApplySettings(), lambda change: None))
    return cluster


def test_nothing_differs_after_apply(tmp_path: Path) -> None:
    cluster = applied(tmp_path)
    cluster.set_status("Deployment", "web-ui", replicas=1)
    assert run(cluster, tmp_path) == []


def test_what_is_not_there_would_be_created(tmp_path: Path) -> None:
    found = run(Cluster(), tmp_path, names=("storage",))
    (only,) = found
    assert (only.kind, only.name, only.component, only.state) == (
        "PersistentVolumeClaim",
        "model",
        "storage",
        "created",
    )
    assert "+  name: model" in only.diff


def test_a_param_shows_as_a_line(tmp_path: Path) -> None:
    found = run(applied(tmp_path), tmp_path, "web-ui.cpu=200m")
    (only,) = found
    assert only.diff.splitlines()[:2] == ["--- cluster/Deployment/web-ui", "+++ app/Deployment/web-ui"]
    changed = [line for line in only.diff.splitlines()[2:] if line[0] in "+-"]
    assert [line.split() for line in changed] == [["-", "cpu:", "100m"], ["+", "cpu:", "200m"]]


def test_another_training_is_shown_although_it_cannot_be_changed(tmp_path: Path) -> None:
    cluster = applied(tmp_path)
    cluster.set_status("TFJob", "mnist-train", conditions=[])

    class Fixed(Cluster):
        async def apply(self, manifest: Any, **options: Any) -> Any:
            if manifest["kind"] == "TFJob":
                raise ImmutableError("cannot be changed")
            return await super().apply(manifest, **options)

    fixed = Fixed()
    fixed.objects = cluster.objects
    (only,) = run(fixed, tmp_path, "train.trainSteps=5")
    assert (only.kind, only.state, only.note) == ("TFJob", "changed", "apply needs --replace")
    assert "fairway/manifest" in only.diff
    assert "name: TF_TRAIN_STEPS" in only.diff


def test_what_the_app_no_longer_has_is_shown_but_for_claims(tmp_path: Path) -> None:
    cluster = applied(tmp_path)
    found = run(cluster, tmp_path, "web-ui.enabled=false", "storage.enabled=false")
    assert {(each.kind, each.state, each.note) for each in found} == {
        ("Deployment", "removed", "web-ui is switched off; apply needs --prune"),
        ("Service", "removed", "web-ui is switched off; apply needs --prune"),
        ("NetworkPolicy", "removed", "web-ui is switched off; apply needs --prune"),
    }
    assert run(cluster, tmp_path, "web-ui.enabled=false", names=("storage",)) == []


def test_a_training_of_another_launcher_needs_replace(tmp_path: Path) -> None:
    found = run(applied(tmp_path), tmp_path, "train.launcher=job", names=("train",))
    assert {(each.kind, each.state, each.note) for each in found} == {
        ("Job", "created", "apply needs --replace"),
        ("TFJob", "removed", "apply needs --replace"),
    }


def test_secret_values_are_masked() -> None:
    before = {"kind": "Secret", "metadata": {"name": "s"}, "data": {"key": "aGVtbGln"}}
    assert normalise(before)["data"] == {"key": "***"}
    assert "aGVtbGln" not in unified(before, None)


def test_what_servers_write_is_left_out() -> None:
    metadata = {"name": "x", "uid": "1", "resourceVersion": "2", "generation": 3, "managedFields": []}
    live = {"kind": "Service", "metadata": {**metadata, "creationTimestamp": "t"}, "status": {"a": 1}}
    assert normalise(live) == {"kind": "Service", "metadata": {"name": "x"}}


@pytest.mark.parametrize(
    ("live", "wanted", "result"),
    [
        ({"a": 1, "b": 2}, {"a": 3}, {"a": 3, "b": 2}),
        ([{"a": 1, "b": 2}], [{"a": 3}], [{"a": 3, "b": 2}]),
        ([1, 2], [3], [3]),
        (None, {"a": {"b": 1}}, {"a": {"b": 1}}),
    ],
)
def test_a_manifest_over_an_object(live: Any, wanted: Any, result: Any) -> None:
    assert overlay(live, wanted) == result


def test_whose_an_object_is_that_apply_refuses_is_noted(tmp_path: Path) -> None:
    cluster = applied(tmp_path)
    labels = cluster.objects["Service", "mnist-service"]["metadata"]["labels"]
    labels["fairway/environment"] = "other"
    (only,) = run(cluster, tmp_path, names=("mnist-service",))
    assert only.note == "Service mnist-service belongs to environment other: apply refuses"
    labels.clear()
    (only,) = run(cluster, tmp_path, names=("mnist-service",))
    assert only.note.endswith("was not made by fairway: apply needs --force-conflicts")


def test_a_training_that_runs_is_no_difference_though_it_is_switched_off(tmp_path: Path) -> None:
    cluster = applied(tmp_path)
    assert run(cluster, tmp_path, "train.enabled=false", "storage.enabled=true") == []
