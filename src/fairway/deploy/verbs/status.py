"""The state of an environment's components, once or again and again."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING

from fairway.deploy.state.diagnosis import diagnose
from fairway.deploy.state.record import Record
from fairway.deploy.state.snapshot import snapshots, take_snapshot
from fairway.deploy.target import Target

if TYPE_CHECKING:
    from fairway.deploy.kube.client import Kube


async def run(kube: Kube, target: Target, names: Sequence[str] = ()) -> list[Record]:
    """Return the state of components.

    Args:
        kube: The cluster.
        target: The environment.
        names: Of the components; none: those that take part, and what the cluster has besides.

    Raises:
        UsageError: no component has one of the names.
        ClusterError: the cluster is away or refuses.
    """
    target.choose(names)  # a wrong name is found before the cluster is asked
    return diagnose(target, await take_snapshot(kube, target), names)


async def watch(kube: Kube, target: Target, names: Sequence[str] = ()) -> AsyncIterator[list[Record]]:
    """Yield the state of components every second.

    Args:
        kube: The cluster.
        target: The environment.
        names: As for `run`.

    Raises:
        UsageError: no component has one of the names.
        ClusterError: the cluster refuses, or is away for long.
    """
    target.choose(names)
    async for snapshot in snapshots(kube, target):
        yield diagnose(target, snapshot, names)
