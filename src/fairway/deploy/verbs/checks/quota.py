"""How much of the namespace's quota is left."""

from __future__ import annotations

from decimal import Decimal

from fairway.deploy.languages import amount
from fairway.deploy.resources import Manifest
from fairway.deploy.verbs.checks.check import Check, Patient, ok, warn

NEARLY = Decimal("0.9")
"""The part of a quota from which on it is worth a word."""


async def check_quotas(patient: Patient) -> list[Check]:
    """Check that no quota is nearly used up."""
    if not await patient.kube.may("list", "ResourceQuota"):
        return [warn("quota", "how much is left may not be asked for")]
    return [_check_quota(patient, quota) for quota in await patient.kube.list("ResourceQuota")]


def _check_quota(patient: Patient, quota: Manifest) -> Check:
    title, status = f"quota {quota['metadata']['name']}", quota.get("status") or {}
    used = status.get("used") or {}
    short = [
        f"{used[resource]} of {hard} {resource}"
        for resource, hard in (status.get("hard") or {}).items()
        if resource in used and is_nearly_used_up(used[resource], hard)
    ]
    if short:
        return warn(
            title,
            f"it is nearly used up: {', '.join(short)}",
            f"End what is no longer needed, or have it raised: {patient.kubectl} describe quota",
        )
    return ok(title, "there is enough left")


def is_nearly_used_up(used: str, hard: str) -> bool:
    """Return whether an amount is near to its limit; both as Kubernetes writes quantities."""
    return amount(used) >= NEARLY * amount(hard)
