"""Deletes what `apply` made of an environment, and waits until its pods have ended. Data stays."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from fairway.deploy.inventory import CLAIM, component_of, key, labels_of, list_owned
from fairway.deploy.resources import Manifest
from fairway.deploy.settings import DeleteSettings
from fairway.deploy.target import Target
from fairway.errors import ClusterError

if TYPE_CHECKING:
    from fairway.deploy.kube.client import Kube

log = logging.getLogger(__name__)

POLL_S = 0.5
REPLACED_TIMEOUT_S = 300.0
"""How long the pods of a training that has ended may take to go."""


async def find(kube: Kube, target: Target, names: Iterable[str] = ()) -> list[Manifest]:
    """Return what an environment, or some components of it, have in the cluster, in the order of deletion.

    Raises:
        UsageError: no component has one of the names.
        ClusterError: the cluster is away or refuses.
    """
    wanted = {target.app.component(name).name for name in names}
    owned = await list_owned(kube, labels_of(target))
    return [each for each in owned if not wanted or component_of(each) in wanted]


def without_claims(objects: Iterable[Manifest]) -> list[Manifest]:
    """Return what of these is no data."""
    return [each for each in objects if each["kind"] != CLAIM]


async def delete_objects(kube: Kube, objects: Iterable[Manifest]) -> list[Manifest]:
    """Delete objects, and soon after what they own; return those that were still there.

    Raises:
        ClusterError: the cluster is away or refuses.
    """
    return [each for each in objects if await kube.delete(*key(each))]


async def remove(
    kube: Kube, target: Target, objects: Sequence[Manifest], settings: DeleteSettings
) -> list[Manifest]:
    """Delete objects of an environment and wait until they are gone, and their components' pods.

    Raises:
        ClusterError: the cluster is away or refuses, or something is still there after the timeout.
    """
    deleted = await delete_objects(kube, objects)
    components = {component_of(each) for each in objects}
    if objects:
        await wait_until_gone(
            kube, objects, labels_of(target), components=components, timeout_s=settings.timeout
        )
    return deleted


def describe(manifest: Manifest) -> str:
    """Return kind and name of an object in one."""
    return " ".join(key(manifest))


async def wait_until_gone(
    kube: Kube,
    objects: Sequence[Manifest],
    pod_labels: Mapping[str, str],
    *,
    components: Collection[str] = (),
    timeout_s: float = REPLACED_TIMEOUT_S,
) -> None:
    """Wait until deleted objects are gone, and the pods of an environment or component with them.

    Args:
        kube: The cluster.
        objects: What was deleted.
        pod_labels: Of the pods.
        components: Only the pods of these; none: all pods with the labels.
        timeout_s: Seconds to wait.

    Raises:
        ClusterError: they are not gone in time; the message names what is left.
    """
    clock = asyncio.get_running_loop().time
    deadline, said = clock() + timeout_s, ""
    while left := await _left(kube, objects, pod_labels, components):
        if clock() > deadline:
            raise ClusterError(
                f"still there after {timeout_s:.0f} s: {', '.join(left)}",
                hint=f"They go when their node says so; see: kubectl describe {left[0].lower()}",
            )
        if said != (said := ", ".join(left)):
            log.info("ending: %s", said)
        await asyncio.sleep(POLL_S)


async def _left(
    kube: Kube, objects: Iterable[Manifest], pod_labels: Mapping[str, str], components: Collection[str]
) -> list[str]:
    pods = await kube.list("Pod", pod_labels)
    left = [each for each in pods if not components or component_of(each) in components]
    left += [each for each in await asyncio.gather(*(kube.get(*key(each)) for each in objects)) if each]
    return sorted(map(describe, left))
