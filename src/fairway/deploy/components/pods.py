"""What all pods have in common: who they run as, what they may do and take, how their health is asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any

from fairway.deploy.components.base import Placement, PodParams
from fairway.deploy.components.environment import Environment, literal
from fairway.deploy.components.volumes import TMP, Volume
from fairway.deploy.languages import amount
from fairway.deploy.resources import Manifest, owner_labels
from fairway.errors import UsageError

USER = 10001
"""User and group of pods; the images' own. Not root, and none that a system has."""
EVERY_INTERFACE = "::"
"""Address that containers listen on: all of IPv6 and IPv4, and loopback, which port-forward comes by."""
_UNPRIVILEGED = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}


def pod_template(
    labels: dict[str, str], spec: Manifest, annotations: Mapping[str, str] | None = None
) -> Manifest:
    """Return a pod template."""
    more = {"annotations": dict(annotations)} if annotations else {}
    return {"metadata": {"labels": labels, **more}, "spec": spec}


def pod_spec(
    params: PodParams,
    placement: Placement,
    container: Manifest,
    volumes: Sequence[Volume],
    *,
    service_account: str | None,
    grace_s: int,
    sidecar: Manifest | None = None,
) -> Manifest:
    """Return the spec of a pod with one container.

    Args:
        params: Where it may run.
        placement: Whose it is.
        container: The container.
        volumes: What its containers mount.
        service_account: `None`: the namespace's default, and no token of it in the pod.
        grace_s: Seconds from SIGTERM to SIGKILL.
        sidecar: Starts before the container and runs beside it.

    Raises:
        UsageError: more is to be set aside for it than it may take.
    """
    _check_limit(placement.component, "cpu", params.cpu, params.cpu_limit)
    _check_limit(placement.component, "memory", params.memory, params.memory_limit)
    account = {"serviceAccountName": service_account} if service_account else {}
    secret = params.image_pull_secret
    return {
        **account,
        # Nothing here asks the API server; but a service account that a cloud knows proves itself with it.
        "automountServiceAccountToken": service_account is not None,
        "enableServiceLinks": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "terminationGracePeriodSeconds": grace_s,
        **({"imagePullSecrets": [{"name": secret}]} if secret else {}),
        **({"nodeSelector": dict(params.node_selector)} if params.node_selector else {}),
        **_affinity(placement, volumes),
        **({"tolerations": [dict(entry) for entry in params.tolerations]} if params.tolerations else {}),
        **({"initContainers": [sidecar]} if sidecar else {}),
        "containers": [container],
        "volumes": [deepcopy(volume.source) for volume in (TMP, *volumes)],
    }


def container(
    name: str,
    image: str,
    args: Sequence[str],
    env: Environment,
    volumes: Sequence[Volume],
    resources: Manifest,
    **more: Any,
) -> Manifest:
    """Return a container.

    Args:
        name: Its name.
        image: Its image.
        args: Words for the image's entry point, taken as they are.
        env: Its environment variables.
        volumes: What is mounted, besides a directory for temporary files.
        resources: Requests and limits.
        more: Further fields.
    """
    variables = [{"name": variable, **entry} for variable, entry in env.items()]
    return {
        "name": name,
        "image": image,
        "args": [literal(word) for word in args],
        **({"env": variables} if variables else {}),
        "resources": resources,
        "securityContext": deepcopy(_UNPRIVILEGED),
        # What `status` shows of a crash are then the last lines of the log.
        "terminationMessagePolicy": "FallbackToLogsOnError",
        **more,
        "volumeMounts": [deepcopy(volume.mount) for volume in (TMP, *volumes)],
    }


def resources(params: PodParams, gpus: int = 0) -> Manifest:
    """Return what a container gets and may take at most."""
    gpu = {"nvidia.com/gpu": str(gpus)} if gpus else {}
    return {
        "requests": {"cpu": params.cpu, "memory": params.memory},
        "limits": {"cpu": params.cpu_limit, "memory": params.memory_limit, **gpu},
    }


def port(name: str, number: int) -> Manifest:
    """Return a container's port."""
    return {"name": name, "containerPort": number}


def http_probe(path: str, number: int, *, period_s: int, failures: int) -> Manifest:
    """Return a probe that asks for a path, and gives up after so many failures in a row."""
    return {"httpGet": {"path": path, "port": number}} | _patience(period_s, failures)


def http_probes(number: int, *, alive: str, ready: str) -> dict[str, Manifest]:
    """Return the probes of a server that answers soon after its start.

    Args:
        number: Its port.
        alive: Path that is answered as long as the server works.
        ready: Path that is answered while it is of use.
    """
    return {
        "startupProbe": http_probe(alive, number, period_s=1, failures=300),
        "readinessProbe": http_probe(ready, number, period_s=5, failures=3),
        "livenessProbe": http_probe(alive, number, period_s=10, failures=6),
    }


def tcp_probe(number: int, *, period_s: int, failures: int) -> Manifest:
    """Return a probe that connects to a port, and gives up after so many failures in a row."""
    return {"tcpSocket": {"port": number}} | _patience(period_s, failures)


def command_probe(command: Sequence[str], *, period_s: int, failures: int) -> Manifest:
    """Return a probe that runs a command, and gives up after so many failures in a row."""
    return {"exec": {"command": list(command)}} | _patience(period_s, failures)


def drain(seconds: int) -> Manifest:
    """Return a hook that keeps a server answering while others still learn that it is about to end."""
    return {"preStop": {"exec": {"command": ["sleep", str(seconds)]}}}


def _check_limit(component: str, param: str, request: str, limit: str) -> None:
    """Refuse what the cluster would only refuse when it makes the pods, long after `apply`."""
    if amount(request) > amount(limit):
        raise UsageError(
            f"{component}: {param} is {request}, more than {param}Limit, which is {limit}",
            hint=f"Set {param}Limit to at least {request}, or {param} to at most {limit}.",
        )


def _affinity(placement: Placement, volumes: Sequence[Volume]) -> Manifest:
    """Return where pods that mount a claim are better off: most disks are on one node at a time."""
    if not any("persistentVolumeClaim" in volume.source for volume in volumes):
        return {}
    term = {
        "labelSelector": {"matchLabels": owner_labels(placement.app, placement.environment)},
        "topologyKey": "kubernetes.io/hostname",
    }
    # Only preferred: a pod must not wait where the disk may be on several nodes and one of them is full.
    preferred = [{"weight": 100, "podAffinityTerm": term}]
    return {"affinity": {"podAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": preferred}}}


def _patience(period_s: int, failures: int) -> Manifest:
    # A busy node is slow, which is no fault of the server's.
    return {"periodSeconds": period_s, "timeoutSeconds": 5, "failureThreshold": failures}
