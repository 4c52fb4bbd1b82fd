"""The component `storage`: a claim for the model, where the cluster has a disk for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from fairway.deploy.components.base import ComponentParams, Placement, PodParams, Size, Subdomain
from fairway.deploy.languages import Language, parse_subdomain
from fairway.deploy.resources import Manifest, manifest

_MODES = ("ReadWriteOnce", "ReadWriteMany")


def _parse_access_mode(value: Any) -> str:
    """Return the access mode. Raises `ValueError` with what is wrong, to follow a `but`."""
    if value == "ReadWriteOncePod":
        raise ValueError("several pods mount the claim, which that mode forbids")
    if value not in _MODES:
        raise ValueError(f"must be one of {', '.join(_MODES)}")
    return str(value)


@dataclass(frozen=True, kw_only=True)
class ClaimParams(ComponentParams):
    """A PersistentVolumeClaim that the other components mount, by their pvcName."""

    name: Annotated[str, Language("the name of an object", parse_subdomain)] = "mnist-model"
    """Name of the claim."""

    size: Size = "1Gi"
    """How much it holds, in bytes (Mi, Gi)."""

    access_mode: Annotated[
        Literal["ReadWriteOnce", "ReadWriteMany"], Language(" | ".join(_MODES), _parse_access_mode)
    ] = "ReadWriteOnce"
    """ReadWriteOnce: pods of one node. ReadWriteMany: pods of all nodes, where the storage class has it."""

    storage_class: Subdomain | None = None
    """Storage class. Default: the cluster's."""


def takes_part(params: ClaimParams, others: Sequence[ComponentParams]) -> bool:
    """Return whether another component mounts the claim."""
    return any(other.claim() == params.name for other in others if isinstance(other, PodParams))


def build(params: ClaimParams, placement: Placement) -> list[Manifest]:
    """Return the claim."""
    spec = {
        "accessModes": [params.access_mode],
        "resources": {"requests": {"storage": params.size}},
        **({"storageClassName": params.storage_class} if params.storage_class else {}),
    }
    return [manifest("PersistentVolumeClaim", placement.metadata(params.name, params.name), spec)]
