"""The cluster, its version, the namespace, and what we may do there."""

from __future__ import annotations

import asyncio
import re

from fairway.deploy.state.inventory import CLAIM, OWNED
from fairway.deploy.verbs.checks.check import Check, Patient, fail, ok, warn

NEEDED_VERSION = (1, 29)
"""The first that has sidecar containers, and podReplacementPolicy of Jobs, without their being switched on:
https://kubernetes.io/docs/concepts/workloads/pods/sidecar-containers/"""
_OTHERS = (
    *(("get", "Pod", "log"), ("get", "Pod", "portforward")),
    *(("create", "Job", ""), ("delete", "Job", "")),
)
"""What of `status`, `logs`, `open` and this command itself goes beyond what they share with `apply`."""


async def check_context(patient: Patient) -> list[Check]:
    """Say which cluster it is; that it is the one that was written down was looked at before."""
    connection, name = patient.kube.connection, patient.target.environment.name
    context = connection.context
    sentence = f"context {context} leads to {connection.server}, which environment {name} was made for"
    return [ok("cluster", sentence)]


async def check_version(patient: Patient) -> list[Check]:
    """Check that Kubernetes is new enough."""
    version = await patient.kube.version()
    found = re.match(r"v?(\d+)\.(\d+)", version)
    needed = ".".join(map(str, NEEDED_VERSION))
    if found is None:
        return [warn("Kubernetes", f"its version is {version}, which cannot be compared with {needed}")]
    if (int(found[1]), int(found[2])) < NEEDED_VERSION:
        return [
            fail(
                "Kubernetes",
                f"its version is {version}; it takes {needed} to have sidecar containers (they copy "
                "models for TensorFlow Serving) and Jobs that wait for a pod's end before they replace it",
                "Have the cluster upgraded, or use another.",
            )
        ]
    return [ok("Kubernetes", f"its version is {version}")]


async def check_namespace(patient: Patient) -> list[Check]:
    """Check that the namespace is there."""
    environment = patient.target.environment
    name = environment.namespace
    if not await patient.kube.may("get", "Namespace"):
        return [ok("namespace", f"{name}; whether it exists may not be asked for")]
    namespace = await patient.kube.get("Namespace", name)
    if namespace is None:
        return [
            fail(
                "namespace",
                f"{name} does not exist, so nothing in it was looked at",
                f"Have it made: fairway up {environment.name} --create-namespace",
            )
        ]
    if namespace["metadata"].get("deletionTimestamp"):
        return [fail("namespace", f"{name} is being deleted", "Wait until it is gone, and make it anew.")]
    return [ok("namespace", f"{name} exists")]


async def check_rights(patient: Patient) -> list[Check]:
    """Check that we may do what the commands do."""
    kinds = dict.fromkeys(manifest["kind"] for manifest in patient.manifests)
    apply = [(verb, kind, "") for kind in kinds for verb in ("get", "create", "patch")]
    apply += [("list", kind, "") for kind in dict.fromkeys(("Pod", *OWNED))]
    others = [("delete", kind, "") for kind in kinds if kind != CLAIM] + list(_OTHERS)
    reasons = [("list", "Event", "")]
    lacking = [await _lacking(patient, each) for each in (apply, others, reasons)]
    hint = (
        f"Ask for them in namespace {patient.target.environment.namespace}; these you have: "
        f"{patient.kubectl} auth can-i --list"
    )
    checks = []
    if lacking[0]:
        checks.append(fail("rights", f"apply and status need rights that you lack: {lacking[0]}", hint))
    if lacking[1]:
        checks.append(
            warn("rights", f"delete, logs, open and doctor need rights that you lack: {lacking[1]}", hint)
        )
    if lacking[2]:
        checks.append(warn("rights", f"status cannot tell all reasons without: {lacking[2]}", hint))
    return checks or [ok("rights", f"you have all {len({*apply, *others, *reasons})} that the commands need")]


async def _lacking(patient: Patient, rights: list[tuple[str, str, str]]) -> str:
    """Return the rights that we do not have, by kind."""
    answers = await asyncio.gather(*(patient.kube.may(*right) for right in rights))
    kinds: dict[str, list[str]] = {}
    for (verb, kind, subresource), may in zip(rights, answers, strict=True):
        if not may:
            kinds.setdefault(f"{kind}/{subresource}" if subresource else kind, []).append(verb)
    return "; ".join(f"{', '.join(verbs)} {kind}" for kind, verbs in kinds.items())
