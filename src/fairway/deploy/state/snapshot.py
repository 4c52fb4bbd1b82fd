"""What a cluster has of an environment at a moment, all that a diagnosis is made of."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from fairway.deploy.resources import JOBS, Manifest
from fairway.deploy.state.inventory import (
    CLAIM,
    component_of,
    key,
    labels_of,
    list_kinds,
    namespace_exists,
)
from fairway.deploy.state.jobs import CHIEF, ROLE_LABEL
from fairway.deploy.state.pods import Surroundings, time_of
from fairway.deploy.state.training_log import LINES
from fairway.deploy.target import Target
from fairway.errors import ClusterError

if TYPE_CHECKING:
    from fairway.deploy.kube.client import Kube

log = logging.getLogger(__name__)

POLL_S = 1.0
AWAY_S = 60.0
LOG_S = 3.0
"""How long the log of a pod may take: the node of one may be lost."""
KINDS = (*JOBS, "Deployment", "Service")
"""The kinds of object that a component's state is read from, beside claims."""


@dataclass(frozen=True)
class Snapshot:
    """What is there.

    Attributes:
        taken: When.
        namespace: Whether the namespace exists.
        objects: Those of the environment that are of `KINDS`, and its claims.
        pods: Those of the environment.
        around: Events and claims of the namespace.
        unserved: Of `KINDS`, those that the cluster does not know.
        logs: The last lines of the pods of chiefs, by the pod's name, as far as there are any.
    """

    taken: datetime
    namespace: bool = True
    objects: Sequence[Manifest] = ()
    pods: Sequence[Manifest] = ()
    around: Surroundings = field(default_factory=lambda: Surroundings([], {}))
    unserved: frozenset[str] = frozenset()
    logs: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def of(self, component: str, *kinds: str) -> list[Manifest]:
        """Return a component's objects, all or those of some kinds."""
        return [
            each
            for each in self.objects
            if component_of(each) == component and (not kinds or each["kind"] in kinds)
        ]

    def pods_of(self, component: str) -> list[Manifest]:
        """Return a component's pods that are not being deleted, the newest first."""
        found = [
            each
            for each in self.pods
            if component_of(each) == component and not each["metadata"].get("deletionTimestamp")
        ]
        return sorted(found, key=lambda pod: str(pod["metadata"].get("creationTimestamp")), reverse=True)


async def take_snapshot(kube: Kube, target: Target) -> Snapshot:
    """Look at what a cluster has of an environment.

    Raises:
        ClusterError: the cluster is away or refuses.
    """
    labels = labels_of(target)
    found = await list_kinds(kube, labels, KINDS)
    # After the objects: so the pods that a Deployment counts are among them.
    pods, events, claims = await asyncio.gather(
        kube.list("Pod", labels), _list_if_allowed(kube, "Event"), _list_if_allowed(kube, CLAIM)
    )
    own = [each for each in claims or () if labels.items() <= (each["metadata"].get("labels") or {}).items()]
    objects = [*(each for those in found.values() for each in those or ()), *sorted(own, key=key)]
    taken = datetime.now(UTC)
    by_name = None if claims is None else {each["metadata"]["name"]: each for each in claims}
    return Snapshot(
        taken,
        bool(objects) or await namespace_exists(kube, target.environment.namespace),
        objects,
        pods,
        Surroundings(sorted(events or (), key=time_of), by_name, taken),
        frozenset(kind for kind, those in found.items() if those is None),
        await _read_logs(kube, pods),
    )


async def snapshots(kube: Kube, target: Target) -> AsyncIterator[Snapshot]:
    """Look at what a cluster has of an environment again and again, also where it is away for a while.

    Raises:
        ClusterError: the cluster refuses, is away at first, or later for longer than `AWAY_S`.
    """
    from fairway.deploy.kube.errors import AwayError

    clock = asyncio.get_running_loop().time
    seen: float | None = None
    away = False
    while True:
        try:
            snapshot = await take_snapshot(kube, target)
        except AwayError as err:
            if seen is None or clock() - seen > AWAY_S:
                raise
            if not away:
                log.warning("%s; trying again for a minute", err.message)
            away = True
        else:
            seen, away = clock(), False
            yield snapshot
        await asyncio.sleep(POLL_S)


async def _read_logs(kube: Kube, pods: Iterable[Manifest]) -> dict[str, list[str]]:
    chiefs = [pod for pod in pods if (pod["metadata"].get("labels") or {}).get(ROLE_LABEL) == CHIEF]
    texts = await asyncio.gather(*(_read_log(kube, pod) for pod in chiefs))
    return {pod["metadata"]["name"]: text for pod, text in zip(chiefs, texts, strict=True) if text}


async def _read_log(kube: Kube, pod: Manifest) -> list[str]:
    if (pod.get("status") or {}).get("phase") in (None, "Pending") or pod["metadata"].get(
        "deletionTimestamp"
    ):
        return []
    container = pod["spec"]["containers"][0]["name"]
    try:
        async with asyncio.timeout(LOG_S):
            return [
                line async for line in kube.logs(pod["metadata"]["name"], container=container, tail=LINES)
            ]
    except (ClusterError, TimeoutError):  # gone with its pod or node: what it said is not needed
        return []


async def _list_if_allowed(kube: Kube, kind: str) -> list[Manifest] | None:
    """Return the objects of a kind in the namespace; `None` for a user who may not see them."""
    from fairway.deploy.kube.errors import ForbiddenError

    try:
        return await kube.list(kind)
    except ForbiddenError as err:
        kube.warn_once(f"{err.message}; so reasons may be missing")
        return None
