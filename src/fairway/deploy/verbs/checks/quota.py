"""How much of the namespace's quota is left."""

from __future__ import annotations

from decimal import Decimal

from fairway.deploy.resources import Manifest
from fairway.deploy.verbs.checks.check import Check, Patient, ok, warn

NEARLY = Decimal("0.9")
"""The part of a quota from which on it is worth a word."""
_FACTORS = {
    **{"n": Decimal("1e-9"), "u": Decimal("1e-6"), "m": Decimal("1e-3"), "": Decimal(1)},
    **{suffix: Decimal(1000) ** power for power, suffix in enumerate("kMGTPE", start=1)},
    **{f"{suffix}i": Decimal(1024) ** power for power, suffix in enumerate("KMGTPE", start=1)},
}


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


def amount(quantity: str) -> Decimal:
    """Return the number that a quantity such as `500m` or `1Gi` is.

    Source: https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/
    """
    number = quantity.rstrip("numkKMGTPEi")
    suffix = quantity[len(number) :]
    if suffix not in _FACTORS:  # 1E3: an exponent, and not a suffix
        return Decimal(quantity)
    return Decimal(number) * _FACTORS[suffix]
