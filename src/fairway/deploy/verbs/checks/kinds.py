"""What a cluster has to know beyond plain Kubernetes, and whether it takes the manifests."""

from __future__ import annotations

import asyncio

from fairway.deploy.resources import RESOURCES, Manifest
from fairway.deploy.state.diagnosis import diagnose
from fairway.deploy.state.inventory import component_of, key
from fairway.deploy.state.jobs import condition, is_job
from fairway.deploy.state.ownership import find_refusal
from fairway.deploy.state.pods import Cause
from fairway.deploy.state.snapshot import take_snapshot
from fairway.deploy.verbs.checks.check import Check, Patient, fail, ok, warn
from fairway.errors import ClusterError

METRICS = "metrics.k8s.io/v1beta1"
ADDED = ("TFJob", "JobSet", "HTTPRoute")
"""The kinds that an operator or its CRDs add."""


async def check_kinds(patient: Patient) -> list[Check]:
    """Check that the cluster knows the kinds of object that are not Kubernetes' own, in the version used."""
    used = {manifest["kind"]: component_of(manifest) for manifest in reversed(patient.manifests)}
    return [await _check_kind(patient, kind, used[kind]) for kind in ADDED if kind in used]


async def _check_kind(patient: Patient, kind: str, component: str) -> Check:
    version = RESOURCES[kind].api_version
    if kind in (await patient.kube.resources(version) or ()):
        return ok(kind, f"the cluster knows it, as {version}")
    try:
        await patient.kube.list(kind)
    except ClusterError as err:
        return fail(kind, err.message, err.hint.replace("COMPONENT", component))
    return ok(kind, f"the cluster knows it, as {version}")


async def check_operator(patient: Patient) -> list[Check]:
    """Check by the training that is there, if one is, that its operator works.

    The operator's own pods say nothing: they may run anywhere, and mostly may not be seen.
    """
    names = [each.name for each in patient.target.choose() if each.kind.name == "train"]
    if not names:
        return []
    records = diagnose(patient.target, await take_snapshot(patient.kube, patient.target), names)
    return [
        fail("operator", record.reason, record.hint) for record in records if record.cause is Cause.OPERATOR
    ]


async def check_metrics(patient: Patient) -> list[Check]:
    """Check that there are metrics, where something scales by them."""
    if not any(manifest["kind"] == "HorizontalPodAutoscaler" for manifest in patient.manifests):
        return []
    hint = "Install metrics-server, or take maxReplicas away."
    try:
        served = await patient.kube.resources(METRICS)
    except ClusterError as err:  # its server is registered, and away
        return [fail("metrics", f"{METRICS} does not work: {err.message}", hint)]
    if served is None:
        return [fail("metrics", f"maxReplicas is set, but the cluster has no {METRICS} to scale by", hint)]
    return [ok("metrics", f"the cluster has {METRICS} to scale by")]


async def check_gateways(patient: Patient) -> list[Check]:
    """Check that the gateways are there to which routes are attached."""
    routes = [manifest for manifest in patient.manifests if manifest["kind"] == "HTTPRoute"]
    parents = dict.fromkeys(
        (parent.get("namespace") or patient.target.environment.namespace, parent["name"])
        for route in routes
        for parent in route["spec"]["parentRefs"]
    )
    return [await _check_gateway(patient, *parent) for parent in parents]


async def _check_gateway(patient: Patient, namespace: str, name: str) -> Check:
    from fairway.deploy.kube.client import Kube

    title = f"gateway {namespace}/{name}"
    try:
        async with Kube(patient.kube.connection, namespace) as kube:
            if not await kube.may("get", "Gateway"):
                return warn(title, "whether it exists may not be asked for")
            gateway = await kube.get("Gateway", name)
    except ClusterError as err:
        return fail(title, err.message, err.hint)
    if gateway is None:
        return fail(title, "it does not exist", "Make it, or set the param gateway to one that does.")
    if condition(gateway, "Programmed"):
        return ok(title, "it works")
    return warn(title, "nobody has set it up yet", "See whether its class has a controller that runs.")


async def check_manifests(patient: Patient) -> list[Check]:
    """Have the API server check each manifest: by schema, webhooks, quota, policies and field managers.

    A training that is there is left out: apply leaves it, or makes it anew. So is what belongs to others.
    """
    live = await asyncio.gather(*(_look(patient, each) for each in patient.manifests))
    checks, checked = [], []
    for manifest, there in zip(patient.manifests, live, strict=True):
        if there and (refusal := find_refusal(manifest, there, patient.target)):
            checks.append(fail(" ".join(key(manifest)), refusal.reason, refusal.hint))
        elif not (there and is_job(manifest)):
            checked.append(manifest)
    requests = (patient.kube.apply(each, dry_run=True) for each in checked)
    answers = await asyncio.gather(*requests, return_exceptions=True)
    for manifest, answer in zip(checked, answers, strict=True):
        if isinstance(answer, ClusterError):
            checks.append(_refused(manifest, answer))
        elif isinstance(answer, BaseException):
            raise answer
    return checks or [ok("manifests", f"the cluster takes all {len(checked)}")]


async def _look(patient: Patient, manifest: Manifest) -> Manifest | None:
    """Return what is there of a manifest; of a kind that the cluster does not know nothing is."""
    from fairway.deploy.kube.errors import NotServedError

    try:
        return await patient.kube.get(*key(manifest))
    except NotServedError:
        return None


def _refused(manifest: Manifest, err: ClusterError) -> Check:
    from fairway.deploy.kube.errors import NotServedError

    title = " ".join(key(manifest))
    if "failed calling webhook" in err.message:
        return fail(title, err.message, "What looks after that kind is installed but does not run.")
    return (
        fail(title, err.message, err.hint)
        if not isinstance(err, NotServedError)
        else warn(title, err.message)
    )
