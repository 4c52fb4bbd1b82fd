"""Which pod a connection gets, and when it ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest

from fairway.deploy.kube.forward import PodStream
from fairway.deploy.resources import Manifest
from fairway.deploy.verbs import backend as module
from fairway.deploy.verbs.backend import Backend, pod_port, ready_pods, target_port
from fairway.errors import ClusterError
from tests.unit.deploy.fake import Cluster

LABELS = {"app": "web"}


class Forwarding(Cluster):
    """A cluster whose pods take connections."""

    def __init__(self) -> None:
        super().__init__()
        self.opened: list[tuple[str, int]] = []

    @asynccontextmanager
    async def forward(self, pod: str, port: int) -> AsyncIterator[PodStream]:
        self.opened.append((pod, port))
        yield cast(PodStream, object())


@pytest.fixture
def cluster() -> Forwarding:
    found = Forwarding()
    ports = [{"name": "http", "port": 80, "targetPort": "web"}]
    found.put({"kind": "Service", "metadata": {"name": "web"}, "spec": {"selector": LABELS, "ports": ports}})
    return found


def pod(name: str, created: str = "2026-01-01T00:00:00Z", *, ready: bool = True, **metadata: Any) -> Manifest:
    condition = {"type": "Ready", "status": "True" if ready else "False"}
    return {
        "kind": "Pod",
        "metadata": {"name": name, "labels": LABELS, "creationTimestamp": created, **metadata},
        "spec": {"containers": [{"name": "c", "ports": [{"name": "web", "containerPort": 5000}]}]},
        "status": {"phase": "Running", "conditions": [condition]},
    }


def test_ready_pods_are_those_that_take_connections_the_newest_last() -> None:
    pods = [
        pod("new", "2026-01-02T00:00:00Z"),
        pod("old"),
        pod("starting", ready=False),
        pod("ending", deletionTimestamp="2026-01-01T00:00:00Z"),
    ]
    assert [each["metadata"]["name"] for each in ready_pods(pods)] == ["old", "new"]


def test_ports_are_found_by_number_and_by_name() -> None:
    service = {
        "metadata": {"name": "s"},
        "spec": {"ports": [{"name": "a", "port": 1, "targetPort": "web"}, {"name": "b", "port": 2}]},
    }
    assert target_port(service, "a") == "web"
    assert target_port(service, "b") == 2
    with pytest.raises(ClusterError, match="^Service s has no port c$"):
        target_port(service, "c")
    assert pod_port(pod("p"), "web") == 5000
    assert pod_port(pod("p"), 7) == 7
    with pytest.raises(ClusterError, match="^pod p has no port other$"):
        pod_port(pod("p"), "other")


def test_a_connection_gets_the_newest_pod_of_the_moment(cluster: Forwarding) -> None:
    async def pick() -> list[tuple[str, int]]:
        backend = Backend(cluster.kube, "web", "http")
        cluster.put(pod("old"))
        first = await backend.pick()
        cluster.put(pod("new", "2026-01-02T00:00:00Z"))
        second = await backend.pick()
        del cluster.objects["Pod", "new"]
        return [first, second, await backend.pick()]

    assert asyncio.run(pick()) == [("old", 5000), ("new", 5000), ("old", 5000)]


def test_a_connection_waits_for_a_pod(cluster: Forwarding) -> None:
    async def pick() -> tuple[str, int]:
        backend = Backend(cluster.kube, "web", "http")
        cluster.put(pod("p", ready=False))
        picking = asyncio.create_task(backend.pick())
        await asyncio.sleep(0.01)
        assert not picking.done()
        assert not backend.is_ready
        cluster.put(pod("p"))
        await backend.refresh()
        return await asyncio.wait_for(picking, 5)

    assert asyncio.run(pick()) == ("p", 5000)


def test_a_connection_does_not_wait_for_ever(cluster: Forwarding, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WAIT_S", 0.01)
    with pytest.raises(ClusterError, match="^no pod of Service web is ready$"):
        asyncio.run(Backend(cluster.kube, "web", "http").pick())


def test_without_a_service_nothing_is_ready(cluster: Forwarding) -> None:
    async def look() -> tuple[bool, bool]:
        backend = Backend(cluster.kube, "absent", "http")
        await backend.refresh()
        return backend.exists, backend.is_ready

    assert asyncio.run(look()) == (False, False)


def test_a_service_without_a_selector_is_told_of(cluster: Forwarding) -> None:
    cluster.objects["Service", "web"]["spec"] = {"type": "ExternalName"}
    with pytest.raises(ClusterError, match="^Service web selects no pods$"):
        asyncio.run(Backend(cluster.kube, "web", "http").refresh())


def test_a_connection_ends_with_its_pod_and_no_other(cluster: Forwarding) -> None:
    async def hold(backend: Backend, name: str) -> None:
        async with backend.open(name, 5000):
            await asyncio.Event().wait()

    async def lose() -> None:
        backend = Backend(cluster.kube, "web", "http")
        cluster.put(pod("lost"))
        cluster.put(pod("kept"))
        lost, kept = (asyncio.create_task(hold(backend, name)) for name in ("lost", "kept"))
        await asyncio.sleep(0)
        await backend.refresh()
        del cluster.objects["Pod", "lost"]
        await backend.refresh()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(lost), 5)
        assert lost.done()
        assert not kept.done()
        kept.cancel()
        await asyncio.gather(kept, return_exceptions=True)

    asyncio.run(lose())
    assert cluster.opened == [("lost", 5000), ("kept", 5000)]
