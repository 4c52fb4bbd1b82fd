"""The component `storage`: a claim for the model, where the cluster has a disk for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from fairway.deploy.components.base import ComponentParams, Language, PodParams, Quantity, Subdomain, parse_subdomain


@dataclass(frozen=True, kw_only=True)
class ClaimParams(ComponentParams):
    """A PersistentVolumeClaim that the other components mount, by their pvcName."""

    name: Annotated[str, Language("the name of an object", parse_subdomain)] = "mnist-model"
    """Name of the claim."""

    size: Quantity = "1Gi"
    """How much it holds, in bytes (Mi, Gi)."""

    access_mode: Literal["ReadWriteOnce", "ReadWriteMany", "ReadWriteOncePod"] = "ReadWriteOnce"
    """ReadWriteOnce: pods of one node. ReadWriteMany: pods of all nodes, where the storage class can do it."""

    storage_class: Subdomain | None = None
    """Storage class. Default: the cluster's."""


def takes_part(params: ClaimParams, others: Sequence[ComponentParams]) -> bool:
    """Return whether another component mounts the claim."""
    return any(other.claim() == params.name for other in others if isinstance(other, PodParams))


def build(params: Any, placement: Placement) -> list[Manifest]:
    raise NotImplementedError
