"""Secrets and service accounts that pods name."""

from __future__ import annotations

from collections.abc import Iterator

from fairway.deploy.resources import Manifest
from fairway.deploy.verbs.checks.check import Check, Patient, fail, ok, warn


async def check_secrets(patient: Patient) -> list[Check]:
    """Check each Secret that a pod takes something from: that it is there, with the keys that are named."""
    needs: dict[str, tuple[set[str], set[str]]] = {}
    for component, spec in patient.pod_specs():
        for name, key in secrets_of(spec):
            keys, users = needs.setdefault(name, (set(), set()))
            keys |= {key} if key else set()
            users.add(component)
    return [await _check_secret(patient, name, *need) for name, need in sorted(needs.items())]


def secrets_of(spec: Manifest) -> Iterator[tuple[str, str]]:
    """Yield each Secret that a pod names, and the key, which is empty where it takes all of it."""
    for container in (*(spec.get("initContainers") or ()), *spec["containers"]):
        for variable in container.get("env") or ():
            if ref := (variable.get("valueFrom") or {}).get("secretKeyRef"):
                yield ref["name"], ref["key"]
    for volume in spec.get("volumes") or ():
        if secret := volume.get("secret"):
            items = secret.get("items") or [{"key": ""}]
            yield from ((secret["secretName"], item["key"]) for item in items)
    for secret in spec.get("imagePullSecrets") or ():
        yield secret["name"], ""


async def _check_secret(patient: Patient, name: str, keys: set[str], users: set[str]) -> Check:
    title, needed = f"secret {name}", f"{', '.join(sorted(users))} need{'s' if len(users) == 1 else ''} it"
    if not await patient.kube.may("get", "Secret"):
        return warn(title, f"{needed}; whether it exists may not be asked for")
    secret = await patient.kube.get("Secret", name)
    if secret is None:
        literals = " ".join(f"--from-literal={key}=…" for key in sorted(keys)) or "--from-file=…"
        command = f"{patient.kubectl} create secret generic {name} {literals}"
        return fail(title, f"it does not exist, and {needed}", f"Make it: {command}")
    if missing := sorted(keys - (secret.get("data") or {}).keys()):
        have = ", ".join(sorted(secret.get("data") or {})) or "none"
        return fail(title, f"it has no {', '.join(missing)}, and {needed}", f"Its keys are: {have}.")
    return ok(title, f"it has {', '.join(sorted(keys)) or 'something'}; {needed}")


async def check_accounts(patient: Patient) -> list[Check]:
    """Check that the service accounts are there that pods run as."""
    names = sorted(
        {spec["serviceAccountName"] for _, spec in patient.pod_specs() if "serviceAccountName" in spec}
    )
    checks = []
    for name in names:
        title = f"service account {name}"
        if not await patient.kube.may("get", "ServiceAccount"):
            checks.append(warn(title, "whether it exists may not be asked for"))
            continue
        account = await patient.kube.get("ServiceAccount", name)
        hint = f"Make it: {patient.kubectl} create serviceaccount {name}"
        checks.append(ok(title, "it exists") if account else fail(title, "it does not exist", hint))
    return checks
