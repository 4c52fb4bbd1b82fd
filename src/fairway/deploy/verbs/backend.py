"""What is behind a Service: pods that are ready, as they come and go."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from fairway.deploy.resources import Manifest
from fairway.deploy.state.pods import is_ready
from fairway.errors import ClusterError

if TYPE_CHECKING:
    from fairway.deploy.kube.client import Kube
    from fairway.deploy.kube.forward import PodStream

WAIT_S = 20.0
"""How long a connection waits for a pod. Browsers are more patient."""


class Backend:
    """The pods behind a port of a Service.

    Args:
        kube: The cluster.
        service: The Service's name.
        port: The name of one of its ports.
    """

    def __init__(self, kube: Kube, service: str, port: str) -> None:
        self._kube, self._service, self._port = kube, service, port
        self._ready: list[Manifest] = []
        self._target: int | str = 0
        self._changed = asyncio.Event()
        self._limits: dict[str, set[asyncio.Timeout]] = defaultdict(set)
        self.exists = False
        """Whether the Service is there."""

    @property
    def is_ready(self) -> bool:
        """Whether there is a pod for a connection."""
        return bool(self._ready)

    async def refresh(self) -> None:
        """See which pods there are, and close the connections to those that are gone.

        What a pod closes by itself is closed anyway; but a node that is lost closes nothing.

        Raises:
            ClusterError: the cluster is away or refuses.
        """
        service = await self._kube.get("Service", self._service)
        self.exists = service is not None
        pods = await self._kube.list("Pod", _selector(service)) if service else []
        self._ready = ready_pods(pods)
        self._target = target_port(service, self._port) if service else 0
        for name in self._limits.keys() - {pod["metadata"]["name"] for pod in pods}:
            for limit in self._limits.pop(name):
                limit.reschedule(asyncio.get_running_loop().time())
        if self._ready:
            self._changed.set()
        else:
            self._changed.clear()

    async def until_ready(self) -> None:
        """Wait until there is a pod for a connection; somebody has to call `refresh` meanwhile."""
        while not self._ready:
            await self._changed.wait()

    async def pick(self) -> tuple[str, int]:
        """Return the pod for a new connection, and its port: of several that are ready the newest.

        Raises:
            ClusterError: none has become ready for a while, or the cluster is away.
        """
        await self.refresh()
        try:
            await asyncio.wait_for(self.until_ready(), WAIT_S)
        except TimeoutError:
            raise ClusterError(f"no pod of Service {self._service} is ready") from None
        pod = self._ready[-1]
        return pod["metadata"]["name"], pod_port(pod, self._target)

    @asynccontextmanager
    async def open(self, pod: str, port: int) -> AsyncIterator[PodStream]:
        """Give a connection to a pod, which ends with a `TimeoutError` when the pod is gone.

        Raises:
            ClusterError: there is no such pod, or it does not run.
        """
        async with asyncio.timeout(None) as limit:
            self._limits[pod].add(limit)
            try:
                async with self._kube.forward(pod, port) as stream:
                    yield stream
            finally:
                self._limits[pod].discard(limit)


def _selector(service: Manifest) -> dict[str, str]:
    """Return the labels of a Service's pods.

    Raises:
        ClusterError: it has none.
    """
    found: dict[str, str] = service["spec"].get("selector") or {}
    if not found:
        raise ClusterError(
            f"Service {service['metadata']['name']} selects no pods",
            hint="Somebody has changed it; make it anew with: fairway apply",
        )
    return found


def ready_pods(pods: list[Manifest]) -> list[Manifest]:
    """Return the pods that take new connections, the newest last."""
    ready = [pod for pod in pods if is_ready(pod) and not pod["metadata"].get("deletionTimestamp")]
    return sorted(ready, key=lambda pod: str(pod["metadata"].get("creationTimestamp")))


def target_port(service: Manifest, name: str) -> int | str:
    """Return the number or the name of the pods' port to which a Service's port of a name leads.

    Raises:
        ClusterError: it has no such port.
    """
    for port in service["spec"].get("ports") or ():
        if port.get("name") == name:
            found: int | str = port.get("targetPort", port["port"])
            return found
    raise ClusterError(
        f"Service {service['metadata']['name']} has no port {name}",
        hint="Somebody has changed it; make it anew with: fairway apply",
    )


def pod_port(pod: Manifest, target: int | str) -> int:
    """Return the number of a port of a pod.

    Raises:
        ClusterError: none has that name.
    """
    if isinstance(target, int):
        return target
    for container in (*(pod["spec"].get("initContainers") or ()), *pod["spec"]["containers"]):
        for port in container.get("ports") or ():
            if port.get("name") == target:
                return int(port["containerPort"])
    raise ClusterError(f"pod {pod['metadata']['name']} has no port {target}")
