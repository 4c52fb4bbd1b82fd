"""How a manifest is sent: who has the number of replicas, and a trial of what cannot be sent yet."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from fairway.deploy.resources import FIELD_MANAGER, Manifest
from fairway.errors import ClusterError

if TYPE_CHECKING:
    from fairway.deploy.kube.client import Kube

REPLICAS_MANAGER = "fairway-replicas"
"""Holds the number of replicas from when the manifest no longer has it until an autoscaler sets it."""
_RANDOM = 5


async def send(
    kube: Kube, manifest: Manifest, live: Manifest | None, *, dry_run: bool = False, force: bool = False
) -> Manifest:
    """Apply a manifest; a Deployment that is scaled automatically from now on keeps its replicas meanwhile.

    A field that its only manager no longer applies is removed, and the API server would then have one
    replica: https://kubernetes.io/docs/reference/using-api/server-side-apply/#transferring-ownership

    Args:
        kube: The cluster.
        manifest: What to apply.
        live: What is there of it.
        dry_run: Only have the cluster say what would be.
        force: Take over fields that others have set to other values.

    Returns:
        The whole object as it is (or would be) now.

    Raises:
        ConflictError: others have set fields to other values.
        ClusterError: the cluster is away or refuses.
    """
    from fairway.deploy.kube.errors import ConflictError

    gives_up = live is not None and gives_replicas_up(live, manifest)
    if live is not None and gives_up and not dry_run:
        await kube.apply(_only_replicas(live), manager=REPLICAS_MANAGER)
    try:
        found = await kube.apply(manifest, dry_run=dry_run, force=force)
    except ConflictError as err:
        if any(conflict.manager != REPLICAS_MANAGER for conflict in err.conflicts):
            raise
        found = await kube.apply(manifest, dry_run=dry_run, force=True)  # it was only fairway itself
    if live is not None and gives_up and dry_run:
        return found | {"spec": found["spec"] | {"replicas": live["spec"]["replicas"]}}
    return found


def gives_replicas_up(live: Manifest, wanted: Manifest) -> bool:
    """Return whether a manifest no longer has the number of replicas, which only fairway has set."""
    if wanted["kind"] != "Deployment" or "replicas" in wanted["spec"]:
        return False
    owners = {
        each.get("manager")
        for each in live["metadata"].get("managedFields") or ()
        if "f:replicas" in (each.get("fieldsV1") or {}).get("f:spec", {})
    }
    return owners == {FIELD_MANAGER}


async def try_anew(kube: Kube, manifest: Manifest) -> None:
    """Have the cluster check a job that takes the place of another one, before that is deleted.

    It is checked under a name that is free, and as long, as kinds have limits for it.

    Raises:
        ClusterError: the cluster refuses it, or is away.
    """
    from fairway.deploy.kube.errors import QuotaError

    name = manifest["metadata"]["name"]
    stem = name[:-_RANDOM] if len(name) > _RANDOM else f"{name}-"
    trial = f"{stem}{secrets.token_hex(_RANDOM)[:_RANDOM]}"
    try:
        await kube.apply(manifest | {"metadata": manifest["metadata"] | {"name": trial}}, dry_run=True)
    except QuotaError:
        return  # there is room again once the old one is gone
    except ClusterError as err:
        if "metadata.name" in err.message:
            return  # it is only about the name
        err.message = err.message.replace(trial, name)
        err.args = (err.message,)
        raise


def _only_replicas(live: Manifest) -> Manifest:
    metadata = {name: live["metadata"][name] for name in ("name", "namespace") if name in live["metadata"]}
    spec = {"replicas": live["spec"]["replicas"]}
    return {"apiVersion": live["apiVersion"], "kind": live["kind"], "metadata": metadata, "spec": spec}
