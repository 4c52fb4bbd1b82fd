"""What an environment has in its cluster: found by labels, never by what the app says now."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from itertools import filterfalse
from typing import TYPE_CHECKING

from fairway.deploy.resources import COMPONENT_LABEL, Manifest, owner_labels
from fairway.deploy.target import Target

if TYPE_CHECKING:
    from fairway.deploy.kube.client import Kube

Key = tuple[str, str]

CLAIM = "PersistentVolumeClaim"
OWNED = (
    *("HorizontalPodAutoscaler", "TFJob", "JobSet", "Job", "Deployment"),
    *("HTTPRoute", "Service", "PodDisruptionBudget", "NetworkPolicy", "ConfigMap", CLAIM),
)
"""The kinds of object that apply makes, in the order in which they are deleted: what has pods first."""
OPTIONAL = ("TFJob", "JobSet", "HTTPRoute")
"""Those of them that a cluster has only where somebody installed them."""


def key(manifest: Manifest) -> Key:
    """Return kind and name of an object."""
    return manifest["kind"], manifest["metadata"]["name"]


def component_of(manifest: Manifest) -> str:
    """Return the component that an object or a pod belongs to, by its label; empty without one."""
    return str((manifest["metadata"].get("labels") or {}).get(COMPONENT_LABEL, ""))


def labels_of(target: Target, component: str | None = None) -> dict[str, str]:
    """Return the labels of an environment's objects, or of those of one of its components."""
    return owner_labels(target.app.name, target.environment.name, component)


async def list_owned(kube: Kube, labels: Mapping[str, str], kinds: Iterable[str] = OWNED) -> list[Manifest]:
    """Return the objects with these labels that somebody applied, by kind in the given order, then by name.

    What a controller made for them, such as the Jobs of a JobSet, goes with its owner and is left out.

    Raises:
        ClusterError: the cluster is away or refuses.
    """
    found = await list_kinds(kube, labels, kinds)
    return [each for objects in found.values() for each in objects or ()]


async def list_kinds(
    kube: Kube, labels: Mapping[str, str], kinds: Iterable[str]
) -> dict[str, list[Manifest] | None]:
    """Return what `list_owned` does, by kind; `None` for kinds that the cluster does not know.

    Raises:
        ClusterError: the cluster is away or refuses.
    """
    kinds = tuple(kinds)
    found = await asyncio.gather(*(list_served(kube, kind, labels) for kind in kinds))
    return {
        kind: None if objects is None else sorted(filterfalse(_is_controlled, objects), key=key)
        for kind, objects in zip(kinds, found, strict=True)
    }


async def list_served(
    kube: Kube, kind: str, labels: Mapping[str, str] | None = None
) -> list[Manifest] | None:
    """Return the objects of a kind, in no order; `None` if the cluster does not know the kind.

    Of a kind that not every cluster has, none are there for a user who may not list them.

    Raises:
        ClusterError: the cluster is away or refuses.
    """
    from fairway.deploy.kube.errors import ForbiddenError, NotServedError

    try:
        return await kube.list(kind, labels)
    except NotServedError:
        return None
    except ForbiddenError:
        if kind in OPTIONAL:
            return []
        raise


async def namespace_exists(kube: Kube, namespace: str) -> bool:
    """Return whether a namespace exists; it does for a user who may not see that.

    Raises:
        ClusterError: the cluster is away.
    """
    from fairway.deploy.kube.errors import ForbiddenError

    try:
        return await kube.get("Namespace", namespace) is not None
    except ForbiddenError:
        return True


def _is_controlled(manifest: Manifest) -> bool:
    return any(owner.get("controller") for owner in manifest["metadata"].get("ownerReferences") or ())
