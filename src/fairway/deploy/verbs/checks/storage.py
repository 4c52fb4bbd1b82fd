"""Claims, and the storage class of one that is to be made."""

from __future__ import annotations

from fairway.deploy.components.base import PodParams
from fairway.deploy.resources import Manifest
from fairway.deploy.state.inventory import CLAIM
from fairway.deploy.state.pods import Surroundings, claim_problem
from fairway.deploy.verbs.checks.check import Check, Patient, fail, ok, warn
from fairway.errors import ClusterError

_DEFAULT_CLASS = "storageclass.kubernetes.io/is-default-class"


async def check_claims(patient: Patient) -> list[Check]:
    """Check each claim that a component mounts."""
    users: dict[str, list[str]] = {}
    for component in patient.target.choose():
        if isinstance(component.params, PodParams) and (name := component.params.claim()):
            users.setdefault(name, []).append(component.name)
    if not users:
        return []
    claims = {each["metadata"]["name"]: each for each in await patient.kube.list(CLAIM)}
    around = Surroundings(await patient.kube.list("Event"), claims)
    made = {each["metadata"]["name"]: each for each in patient.manifests if each["kind"] == CLAIM}
    checks = []
    for name, components in users.items():
        if name not in claims and name in made:
            checks.append(await _check_class(patient, made[name]))
        else:
            checks.append(_check_claim(name, claims.get(name), around, components))
    return checks


def _check_claim(name: str, claim: Manifest | None, around: Surroundings, components: list[str]) -> Check:
    title = f"claim {name}"
    problem = claim_problem(name, around)
    if problem or claim is None:
        assert problem is not None, "one that is not there is a problem"
        return fail(title, f"{problem.reason}, and {', '.join(components)} mount it", problem.hint)
    if claim["status"].get("phase") != "Bound":
        return ok(title, "it gets its volume with the first pod that mounts it")
    modes, size = claim["spec"].get("accessModes") or (), claim["status"].get("capacity", {}).get("storage")
    return ok(title, f"it is bound: {size}, {', '.join(modes)}, for {', '.join(components)}")


async def _check_class(patient: Patient, claim: Manifest) -> Check:
    """Check that a claim that apply will make can get a volume."""
    title, name = f"claim {claim['metadata']['name']}", claim["spec"].get("storageClassName")
    try:
        classes = {each["metadata"]["name"]: each for each in await patient.kube.list("StorageClass")}
    except ClusterError as err:
        return warn(title, f"apply makes it; whether it will get a volume cannot be told: {err.message}")
    have = f"The cluster has: {', '.join(sorted(classes)) or 'none'}."
    if name and name not in classes:
        return fail(title, f"apply makes it of storage class {name}, which does not exist", have)
    default = [each for each, content in classes.items() if _is_default(content)]
    if not name and not default:
        return fail(
            title,
            "apply makes it without a storage class, and the cluster has no default one",
            f"Set storageClass of its component. {have}",
        )
    return ok(title, f"apply makes it, of storage class {name or default[0]}")


def _is_default(storage_class: Manifest) -> bool:
    return (storage_class["metadata"].get("annotations") or {}).get(_DEFAULT_CLASS) == "true"
