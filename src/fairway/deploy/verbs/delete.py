"""Deletes what `apply` made of an environment, and waits until its pods have ended. Data stays."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from fairway.deploy.resources import Manifest
from fairway.deploy.state.inventory import CLAIM, component_of, key, labels_of, list_owned
from fairway.deploy.target import Target
from fairway.errors import ClusterError

if TYPE_CHECKING:
    from fairway.deploy.kube.client import Kube

log = logging.getLogger(__name__)

POLL_S = 0.5


async def find(kube: Kube, target: Target, names: Iterable[str] = ()) -> list[Manifest]:
    """Return what an environment, or some components of it, have in the cluster, in the order of deletion.

    Raises:
        UsageError: no component has one of the names.
        ClusterError: the cluster is away or refuses.
    """
    owned = await list_owned(kube, labels_of(target))
    there = {component_of(each) for each in owned}  # also those that the app no longer has
    wanted = {name if name in there else target.app.component(name).name for name in names}
    return [each for each in owned if not wanted or component_of(each) in wanted]


def without_claims(objects: Iterable[Manifest]) -> list[Manifest]:
    """Return what of these is no data."""
    return [each for each in objects if each["kind"] != CLAIM]


def describe(manifest: Manifest) -> str:
    """Return kind and name of an object in one."""
    return " ".join(key(manifest))


async def remove(kube: Kube, objects: Iterable[Manifest], report: Callable[[Manifest], None]) -> None:
    """Delete objects, and soon after what they own.

    Args:
        kube: The cluster.
        objects: What to delete; others that have got their names meanwhile stay.
        report: Is told of each that was still there as soon as it is deleted.

    Raises:
        ClusterError: the cluster is away or refuses.
    """
    for each in objects:
        if await kube.delete(*key(each), uid=each["metadata"].get("uid")):
            report(each)


async def wait_for_end(kube: Kube, target: Target, objects: Sequence[Manifest], *, timeout_s: float) -> None:
    """Wait until deleted objects are gone, and the pods of their components too.

    Args:
        kube: The cluster.
        target: The environment that they are of.
        objects: What was deleted.
        timeout_s: Seconds to wait.

    Raises:
        ClusterError: they are not gone in time; the message names what is left.
    """
    clock = asyncio.get_running_loop().time
    deadline, said = clock() + timeout_s, ""
    while left := await _left(kube, target, objects):
        if clock() > deadline:
            raise ClusterError(
                f"still there after {timeout_s:g} s: {', '.join(left)}",
                hint=f"They go when their node says so; see: kubectl describe {left[0].lower()}",
            )
        if said != (said := ", ".join(left)):
            log.info("ending: %s", said)
        await asyncio.sleep(POLL_S)


async def _left(kube: Kube, target: Target, objects: Sequence[Manifest]) -> list[str]:
    if not objects:
        return []
    components = {component_of(each) for each in objects}
    pods = await kube.list("Pod", labels_of(target))
    there = await asyncio.gather(*(kube.get(*key(each)) for each in objects))
    left = [now for before, now in zip(objects, there, strict=True) if now and _uid(now) == _uid(before)]
    left += [pod for pod in pods if component_of(pod) in components]
    return sorted(map(describe, left))


def _uid(manifest: Manifest) -> str | None:
    found: str | None = manifest["metadata"].get("uid")
    return found
