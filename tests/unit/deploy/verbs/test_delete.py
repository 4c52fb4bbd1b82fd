"""What is deleted, and what stays."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from fairway.deploy.resources import Manifest
from fairway.deploy.settings import ApplySettings
from fairway.deploy.state.inventory import labels_of
from fairway.deploy.verbs import apply
from fairway.deploy.verbs.delete import describe, find, remove, wait_for_end, without_claims
from fairway.errors import ClusterError, UsageError
from tests.unit.deploy.fake import APP, Cluster, make_target


def applied(directory: Path) -> Cluster:
    cluster = Cluster()
    asyncio.run(apply.run(cluster.kube, make_target(directory), ApplySettings(), lambda change: None))
    labels = labels_of(make_target(directory), "web-ui")
    cluster.put({"kind": "Secret", "metadata": {"name": "ours", "labels": labels}})
    cluster.put({"kind": "Service", "metadata": {"name": "foreign", "labels": {"app": "x"}}})
    owner = [{"kind": "JobSet", "name": "s", "controller": True}]
    cluster.put({"kind": "Job", "metadata": {"name": "child", "labels": labels, "ownerReferences": owner}})
    return cluster


def test_all_that_was_applied_is_found_but_nothing_else(tmp_path: Path) -> None:
    cluster = applied(tmp_path)
    found = asyncio.run(find(cluster.kube, make_target(tmp_path)))
    names = set(map(describe, found))
    assert names == set(cluster.changes("apply"))
    assert describe(found[0]) == "TFJob mnist-train"
    assert describe(found[-1]) == "PersistentVolumeClaim model"
    assert {describe(each) for each in without_claims(found)} == names - {"PersistentVolumeClaim model"}


def test_only_some_components(tmp_path: Path) -> None:
    found = asyncio.run(find(applied(tmp_path).kube, make_target(tmp_path), ["storage", "mnist-service"]))
    assert list(map(describe, found)) == ["Service mnist-service", "PersistentVolumeClaim model"]


def test_an_unknown_component_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="did you mean 'web-ui'"):
        asyncio.run(find(Cluster().kube, make_target(tmp_path), ["webui"]))


def test_it_waits_until_the_components_pods_are_gone(tmp_path: Path) -> None:
    cluster, target = applied(tmp_path), make_target(tmp_path)
    for component in ("web-ui", "serving"):
        labels = labels_of(target, component)
        cluster.put({"kind": "Pod", "metadata": {"name": f"{component}-pod", "labels": labels}})
    chosen = asyncio.run(find(cluster.kube, target, ["web-ui"]))
    gone: list[Manifest] = []
    asyncio.run(remove(cluster.kube, chosen, gone.append))
    assert gone == chosen
    asyncio.run(remove(cluster.kube, chosen, gone.append))
    assert gone == chosen
    with pytest.raises(ClusterError, match=r"^still there after 0\.001 s: Pod web-ui-pod$"):
        asyncio.run(wait_for_end(cluster.kube, target, chosen, timeout_s=0.001))
    del cluster.objects["Pod", "web-ui-pod"]
    asyncio.run(wait_for_end(cluster.kube, target, chosen, timeout_s=0.001))


def test_where_nothing_was_deleted_nothing_is_waited_for(tmp_path: Path) -> None:
    cluster, target = Cluster(), make_target(tmp_path)
    cluster.put({"kind": "Pod", "metadata": {"name": "p", "labels": labels_of(target, "web-ui")}})
    asyncio.run(wait_for_end(cluster.kube, target, [], timeout_s=0.001))


def test_an_object_that_was_made_anew_stays_and_is_not_waited_for(tmp_path: Path) -> None:
    cluster, target = applied(tmp_path), make_target(tmp_path)
    chosen = asyncio.run(find(cluster.kube, target, ["mnist-service"]))
    cluster.objects["Service", "mnist-service"]["metadata"]["uid"] = "another"
    gone: list[Manifest] = []
    asyncio.run(remove(cluster.kube, chosen, gone.append))
    assert gone == []
    asyncio.run(wait_for_end(cluster.kube, target, chosen, timeout_s=0.001))
    assert ("Service", "mnist-service") in cluster.objects


def test_a_component_that_the_app_no_longer_has_can_be_named(tmp_path: Path) -> None:
    cluster = applied(tmp_path)
    target = make_target(tmp_path, app=APP.replace("  mnist-service: {kind: mnist-service}\n", ""))
    assert list(map(describe, asyncio.run(find(cluster.kube, target, ["mnist-service"])))) == [
        "Service mnist-service"
    ]
