"""Merged logs, against a cluster in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from fairway.deploy.kube.errors import AwayError
from fairway.deploy.settings import LogsSettings
from fairway.deploy.state.inventory import labels_of
from fairway.deploy.target import Target
from fairway.deploy.verbs import logs
from fairway.deploy.verbs.logs import Source
from fairway.errors import ClusterError
from tests.unit.deploy.fake import APP, Cluster, make_target

RUNNING: dict[str, Any] = {"running": {}}


def put_pod(
    cluster: Cluster,
    target: Target,
    component: str,
    name: str,
    containers: dict[str, dict[str, Any]],
    role: str = "",
    phase: str = "Running",
) -> None:
    """Have a pod there; containers by name, with their status."""
    labels = labels_of(target, component) | ({"fairway/role": role} if role else {})
    statuses = [{"name": each, "restartCount": 0, **status} for each, status in containers.items()]
    cluster.put(
        {
            "kind": "Pod",
            "metadata": {"name": name, "labels": labels},
            "spec": {"containers": [{"name": each} for each in containers]},
            "status": {"phase": phase, "containerStatuses": statuses},
        }
    )


def read(cluster: Cluster, target: Target, **settings: Any) -> list[tuple[str, str]]:
    lines: list[tuple[str, str]] = []

    def emit(source: Source, text: str) -> None:
        lines.append((source.title, text))

    verb = logs.follow if settings.get("follow") else logs.run
    asyncio.run(verb(cluster.kube, target, LogsSettings(**settings), emit))
    return lines


@pytest.fixture
def target(tmp_path: Path) -> Target:
    return make_target(tmp_path)


@pytest.fixture
def cluster(target: Target) -> Cluster:
    found = Cluster()
    put_pod(found, target, "train", "t-chief-0", {"tensorflow": {"state": RUNNING}}, "chief")
    put_pod(found, target, "train", "t-ps-0", {"tensorflow": {"state": RUNNING}}, "ps")
    put_pod(
        found, target, "serving", "server-1-x", {"serving": {"state": RUNNING}, "sync": {"state": RUNNING}}
    )
    found.texts = {
        ("t-chief-0", "tensorflow"): ["01 first", "04 fourth"],
        ("t-ps-0", "tensorflow"): ["02 second"],
        ("server-1-x", "sync"): ["03 third  with blanks"],
    }
    return found


def test_lines_come_in_the_order_of_time(cluster: Cluster, target: Target) -> None:
    assert read(cluster, target) == [
        ("chief-0", "first"),
        ("ps-0", "second"),
        ("serving-x/sync", "third  with blanks"),
        ("chief-0", "fourth"),
    ]


def test_some_components_roles_and_lines(cluster: Cluster, target: Target) -> None:
    assert read(cluster, target, component=("serving",)) == [("serving-x/sync", "third  with blanks")]
    assert read(cluster, target, role="ps") == [("ps-0", "second")]
    assert read(cluster, target, role="chief", tail=1) == [("chief-0", "fourth")]


def test_nothing_to_read(cluster: Cluster, target: Target) -> None:
    with pytest.raises(ClusterError, match="there are no pods of web-ui in namespace ns"):
        read(cluster, target, component=("web-ui",))
    with pytest.raises(ClusterError, match="no container of train has been restarted"):
        read(cluster, target, component=("train",), previous=True)
    waiting = {"waiting": {"reason": "ContainerCreating"}}
    put_pod(cluster, target, "web-ui", "w-1", {"web-ui": {"state": waiting}})
    with pytest.raises(ClusterError, match="no container of web-ui has started yet"):
        read(cluster, target, component=("web-ui",))


def test_a_container_that_crashed_has_a_log(cluster: Cluster, target: Target) -> None:
    crashed = {
        "state": {"waiting": {"reason": "CrashLoopBackOff"}},
        "lastState": {"terminated": {"exitCode": 1}},
    }
    put_pod(cluster, target, "web-ui", "w-1", {"web-ui": crashed | {"restartCount": 1}})
    cluster.texts["w-1", "web-ui"] = ["05 error: no"]
    assert read(cluster, target, component=("web-ui",)) == [("web-ui-1", "error: no")]
    assert read(cluster, target, component=("web-ui",), previous=True) == [("web-ui-1", "error: no")]


@pytest.mark.parametrize("follow", [False, True])
def test_a_log_that_cannot_be_read_does_not_keep_the_others(
    follow: bool, target: Target, caplog: pytest.LogCaptureFixture
) -> None:
    class Lossy(Cluster):
        async def logs(self, pod: str, **options: Any) -> AsyncIterator[str]:
            if pod == "t-ps-0":
                raise AwayError("its node does not answer")
            async for line in super().logs(pod, **options):
                yield line

    cluster = Lossy()
    for name, role in (("t-chief-0", "chief"), ("t-ps-0", "ps")):
        put_pod(cluster, target, "train", name, {"tensorflow": {"state": RUNNING}}, role, phase="Succeeded")
    done = {"conditions": [{"type": "Succeeded", "status": "True"}]}
    cluster.put(
        {"kind": "TFJob", "metadata": {"name": "t", "labels": labels_of(target, "train")}, "status": done}
    )
    cluster.texts["t-chief-0", "tensorflow"] = ["01 first"]
    assert read(cluster, target, component=("train",), follow=follow) == [("chief-0", "first")]
    assert "ps-0: its node does not answer" in caplog.text


def test_following_a_finished_training_ends(cluster: Cluster, target: Target) -> None:
    done = {"conditions": [{"type": "Succeeded", "status": "True"}]}
    labels = labels_of(target, "train")
    cluster.put({"kind": "TFJob", "metadata": {"name": "t", "labels": labels}, "status": done})
    for name in ("t-chief-0", "t-ps-0"):
        cluster.objects["Pod", name]["status"]["phase"] = "Succeeded"
    lines = read(cluster, target, component=("train",), follow=True)
    assert sorted(lines) == [("chief-0", "first"), ("chief-0", "fourth"), ("ps-0", "second")]


def test_following_a_server_has_no_end(cluster: Cluster, target: Target) -> None:
    labels = labels_of(target, "serving")
    cluster.put({"kind": "Deployment", "metadata": {"name": "server", "labels": labels}})

    async def follow() -> None:
        settings = LogsSettings(component=("serving",), follow=True)
        async with asyncio.timeout(0.2):
            await logs.follow(cluster.kube, target, settings, lambda source, text: None)

    with pytest.raises(TimeoutError):
        asyncio.run(follow())


def test_following_a_training_ends_when_it_went_away_after_its_end(cluster: Cluster, target: Target) -> None:
    """By ttlSecondsAfterFinished: its end may lie between two looks."""
    labels = labels_of(target, "train")
    cluster.put({"kind": "TFJob", "metadata": {"name": "t", "labels": labels}})

    async def follow() -> None:
        settings = LogsSettings(component=("train",), follow=True)
        async with asyncio.timeout(10):
            following = asyncio.create_task(
                logs.follow(cluster.kube, target, settings, lambda source, text: None)
            )
            await asyncio.sleep(0.1)
            assert not following.done()
            for place in (("TFJob", "t"), ("Pod", "t-chief-0"), ("Pod", "t-ps-0")):
                del cluster.objects[place]
            await following

    asyncio.run(follow())


def test_the_tasks_of_two_trainings_are_told_from_each_other(tmp_path: Path) -> None:
    app = APP + "  second: {kind: train, params: {name: second, pvcName: model}}\n"
    target, cluster = make_target(tmp_path, app=app), Cluster()
    for component in ("train", "second"):
        put_pod(cluster, target, component, f"{component}-0", {"tensorflow": {"state": RUNNING}}, "chief")
        cluster.texts[f"{component}-0", "tensorflow"] = ["01 first"]
    assert sorted(read(cluster, target)) == [("second-chief-0", "first"), ("train-chief-0", "first")]
    assert read(cluster, target, component=("second",)) == [("chief-0", "first")]


def test_a_training_that_the_app_no_longer_has_is_told_from_its_own(cluster: Cluster, target: Target) -> None:
    put_pod(cluster, target, "dropped", "d-0", {"tensorflow": {"state": RUNNING}}, "chief")
    cluster.texts["d-0", "tensorflow"] = ["05 other"]
    assert {("dropped-chief-0", "other"), ("chief-0", "first")} <= set(read(cluster, target))
