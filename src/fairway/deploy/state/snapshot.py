"""What a cluster has of an environment at a moment, all that a diagnosis is made of."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from fairway.deploy.resources import JOBS, Manifest
from fairway.deploy.state.inventory import CLAIM, component_of, labels_of, list_kinds, namespace_exists
from fairway.deploy.state.jobs import CHIEF, ROLE_LABEL
from fairway.deploy.state.pods import Surroundings
from fairway.deploy.state.training_log import LINES
from fairway.deploy.target import Target
from fairway.errors import ClusterError

if TYPE_CHECKING:
    from fairway.deploy.kube.client import Kube

log = logging.getLogger(__name__)

POLL_S = 1.0
AWAY_S = 60.0
KINDS = (*JOBS, "Deployment", "Service", CLAIM)
"""The kinds of object that a component's state is read from."""


@dataclass(frozen=True)
class Snapshot:
    """What is there.

    Attributes:
        taken: When.
        namespace: Whether the namespace exists.
        objects: Those of the environment that are of `KINDS`.
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
    found, pods, events, claims = await asyncio.gather(
        list_kinds(kube, labels, KINDS),
        kube.list("Pod", labels),
        kube.list("Event"),
        kube.list(CLAIM),
    )
    objects = [each for those in found.values() for each in those or ()]
    return Snapshot(
        datetime.now(UTC),
        bool(objects) or await namespace_exists(kube, target.environment.namespace),
        objects,
        pods,
        Surroundings(sorted(events, key=_time_of), {each["metadata"]["name"]: each for each in claims}),
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
    from fairway.deploy.kube.errors import AwayError

    if (pod.get("status") or {}).get("phase") in (None, "Pending"):
        return []
    container = pod["spec"]["containers"][0]["name"]
    try:
        return [line async for line in kube.logs(pod["metadata"]["name"], container=container, tail=LINES)]
    except AwayError:
        raise
    except ClusterError:  # gone with its pod or node: what it said is not needed
        return []


def _time_of(event: Manifest) -> str:
    """Return when an event was last seen; newer API clients leave the old fields empty."""
    times = event.get("lastTimestamp"), event.get("eventTime"), event["metadata"].get("creationTimestamp")
    return next((str(each) for each in times if each), "")
