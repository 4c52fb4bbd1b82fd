"""Tries in a pod what a training will do: with its image, its settings, its Secrets and its claim.

The pod runs `fairway models probe`; what it says is what is found. Its Job is deleted in any case: by us, and
if we are killed by its deadline.
"""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
from copy import deepcopy
from typing import TYPE_CHECKING, Any

from fairway.deploy.resources import Manifest, manifest
from fairway.deploy.state.inventory import CLAIM, component_of, key, labels_of
from fairway.deploy.state.jobs import CHIEF, ROLE_LABEL
from fairway.deploy.state.pods import Cause, Problem, Surroundings, find_problem, refusal_problem
from fairway.deploy.verbs.checks.check import Check, Patient, fail, ok, pod_templates, warn
from fairway.deploy.verbs.wait import GRACE_S, GRACES_S
from fairway.errors import ClusterError

if TYPE_CHECKING:
    from fairway.deploy.kube.client import Kube

COMMAND = ("models", "probe", "-o", "json")
POLL_S = 0.5
TITLE = "write probe"
_RESOURCES = {"requests": {"cpu": "50m", "memory": "128Mi"}, "limits": {"cpu": "1", "memory": "512Mi"}}
_USAGE = 2
"""The exit code of a fairway that does not know the command."""
# Kubelet's, for a container that is not to be seen as one that works.
_NOT_FOR_A_PROBE = ("ports", "lifecycle", "livenessProbe", "readinessProbe", "startupProbe")

log = logging.getLogger(__name__)


async def check_writing(patient: Patient, timeout_s: float) -> list[Check]:
    """Check from a pod whether a training could write, and say how many versions it would find.

    Args:
        patient: The environment.
        timeout_s: Seconds that the pod may take.
    """
    template = chief_template(patient)
    if template is None:
        return []
    if not await patient.kube.may("create", "Job"):
        return [warn(TITLE, "not tried, as you may not make a Job")]
    if missing := await _missing_claim(patient.kube, template):
        return [
            warn(TITLE, f"not tried, as the claim {missing} is not there yet", _how_to_make(patient, missing))
        ]
    job = probe_job(patient, template, timeout_s)
    return await _run(patient, job, timeout_s)


def chief_template(patient: Patient) -> Manifest | None:
    """Return the pod template of the training's chief; `None` if no training takes part."""
    for each in patient.manifests:
        for template in pod_templates(each):
            if (template["metadata"].get("labels") or {}).get(ROLE_LABEL) == CHIEF:
                return template
    return None


def probe_job(patient: Patient, template: Manifest, timeout_s: float) -> Manifest:
    """Return the Job that tries.

    Args:
        patient: The environment.
        template: Of the pod of the training's chief.
        timeout_s: Seconds after which Kubernetes ends it.
    """
    name = f"fairway-doctor-{secrets.token_hex(4)}"
    labels = {
        # None that a Service or policy selects, or that make it a part of the environment.
        **labels_of(patient.target),
        "app.kubernetes.io/managed-by": "fairway-doctor",
        "app.kubernetes.io/name": "doctor",
        "app.kubernetes.io/instance": name,
    }
    spec = deepcopy(template["spec"])
    container = spec["containers"][0]
    for field in _NOT_FOR_A_PROBE:
        container.pop(field, None)
    env = [each for each in container.get("env") or () if each["name"] != "TF_CONFIG"]
    container |= {"args": list(COMMAND), "resources": _RESOURCES, "env": env}
    spec |= {"containers": [container], "restartPolicy": "Never"}
    for field in ("subdomain", "hostname"):
        spec.pop(field, None)
    return manifest(
        "Job",
        {"name": name, "namespace": patient.target.environment.namespace, "labels": labels},
        {
            "backoffLimit": 0,
            "activeDeadlineSeconds": int(timeout_s) + 60,
            "ttlSecondsAfterFinished": 60,
            "template": {"metadata": {"labels": labels}, "spec": spec},
        },
    )


async def _missing_claim(kube: Kube, template: Manifest) -> str | None:
    for volume in template["spec"].get("volumes") or ():
        claim = volume.get("persistentVolumeClaim")
        if claim and await kube.get(CLAIM, claim["claimName"]) is None:
            return str(claim["claimName"])
    return None


def _how_to_make(patient: Patient, claim: str) -> str:
    environment = patient.target.environment.name
    for each in patient.manifests:
        if key(each) == (CLAIM, claim):
            return f"Make it, and ask again: fairway apply {environment} -c {component_of(each)}"
    return "Make it, or set pvcName to one that exists."


async def _run(patient: Patient, job: Manifest, timeout_s: float) -> list[Check]:
    kube, name = patient.kube, job["metadata"]["name"]
    log.info("trying in a pod: Job %s", name)
    try:
        applied = await kube.apply(job)
        pod = await asyncio.wait_for(_wait(kube, applied, told := _Told()), timeout_s)
        return await _read(patient, pod)
    except TimeoutError:
        said = f": {told.problem.reason}" if told.problem else ""
        hint = (
            told.problem and told.problem.hint
        ) or "Give it longer with --timeout, or leave it out: --no-probe."
        return [fail(TITLE, f"the pod has not ended after {timeout_s:g} s{said}", hint)]
    except _StuckError as err:
        return [fail(TITLE, f"the pod cannot run: {err.message}", err.hint)]
    finally:
        # Also after Ctrl-C; a second one breaks it off.
        await _delete(kube, name)


async def _delete(kube: Kube, name: str) -> None:
    try:
        await kube.delete("Job", name)
    except ClusterError as err:
        log.warning("Job %s could not be deleted, and goes away by itself: %s", name, err.message)


class _StuckError(ClusterError):
    """The pod cannot run without help."""


class _Told:
    """Why the pod is waited for, as far as it was told."""

    def __init__(self) -> None:
        self.problem: Problem | None = None
        self._since = 0.0

    def tell(self, problem: Problem | None) -> None:
        """Note a problem, and log it if it is new.

        Raises:
            _StuckError: it is there for longer than such things take to heal.
        """
        now = asyncio.get_running_loop().time()
        is_new = problem and (self.problem is None or problem.reason != self.problem.reason)
        if problem and is_new and problem.cause is not Cause.NOT_READY:
            log.info("waiting for the pod: %s", problem.reason)
        if problem is None or self.problem is None or problem.cause is not self.problem.cause:
            self._since = now
        self.problem = problem
        if problem and problem.needs_help and now - self._since >= GRACES_S.get(problem.cause, GRACE_S):
            raise _StuckError(problem.reason, hint=problem.hint)


async def _wait(kube: Kube, job: Manifest, told: _Told) -> Manifest:
    """Return the Job's pod once it has ended."""
    labels = {"batch.kubernetes.io/job-name": job["metadata"]["name"]}
    while True:
        pods, events, claims = await asyncio.gather(
            kube.list("Pod", labels), kube.list("Event"), kube.list(CLAIM)
        )
        for pod in pods:
            if pod["status"].get("phase") in ("Succeeded", "Failed"):
                return pod
        around = Surroundings(events, {each["metadata"]["name"]: each for each in claims})
        told.tell(find_problem(pods[0], around) if pods else _refusal(around.of(job)))
        await asyncio.sleep(POLL_S)


def _refusal(events: list[Manifest]) -> Problem | None:
    """Return why no pod can be made, by the events of its Job."""
    for event in events:
        if event.get("reason") == "FailedCreate":
            return refusal_problem(event.get("message", ""))
    return None


async def _read(patient: Patient, pod: Manifest) -> list[Check]:
    lines = [line async for line in patient.kube.logs(pod["metadata"]["name"])]
    image = pod["spec"]["containers"][0]["image"]
    try:
        findings = json.loads("\n".join(lines))
        return _checks(patient, image, findings)
    except (ValueError, KeyError, TypeError):
        pass
    if _exit_code(pod) == _USAGE:
        return [
            fail(
                TITLE,
                f"image {image} has another fairway, which does not know: fairway {' '.join(COMMAND)}",
                "Build it from this fairway's checkout: fairway image build train",
            )
        ]
    problem = find_problem(pod, Surroundings([], {}))
    return [fail(TITLE, problem.reason if problem else f"the pod said: {' '.join(lines[-3:])}")]


def _checks(patient: Patient, image: str, findings: list[dict[str, Any]]) -> list[Check]:
    blocked = "If only pods cannot reach it, see the namespace's NetworkPolicies and the cluster's DNS."
    checks = [ok("image", f"{image} runs")]
    for finding in findings:
        directory = finding["directory"]
        if finding["problem"]:
            hint = " ".join(filter(None, (finding["hint"], blocked if "://" in directory else "")))
            checks.append(fail(TITLE, f"{directory}: {finding['problem']}", hint))
        else:
            checks.append(ok(TITLE, f"a pod has created, read and deleted a file in {directory}"))
    export = findings[-1]
    if export["versions"] == 0:
        name = patient.target.environment.name
        checks.append(
            warn(
                "versions",
                f"there is no version in {export['directory']} yet, so model servers have nothing to serve",
                f"Train one: fairway up {name}, or fairway apply {name} -c train",
            )
        )
    elif export["versions"]:
        checks.append(ok("versions", f"{export['directory']} has {export['versions']}"))
    return checks


def _exit_code(pod: Manifest) -> int | None:
    for status in pod["status"].get("containerStatuses") or ():
        if ended := (status.get("state") or {}).get("terminated"):
            return int(ended.get("exitCode", 0))
    return None
