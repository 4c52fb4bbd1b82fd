"""As many pods as the load needs, and never all of them away at once."""

from __future__ import annotations

from fairway.deploy.components.base import Placement
from fairway.deploy.resources import Manifest, manifest
from fairway.errors import UsageError

_CALM_S = 60
"""Seconds of low load before pods are taken away. The default, 300, is for pods that start slowly."""


def check_replicas(component: str, replicas: int, max_replicas: int | None) -> None:
    """Check that the bounds of autoscaling are such.

    Raises:
        UsageError: they are not.
    """
    if max_replicas is None:
        return
    if max_replicas < replicas:
        raise UsageError(
            f"{component}: maxReplicas is {max_replicas}, less than replicas, which is {replicas}",
            hint="replicas is the least number of pods, maxReplicas the largest.",
        )
    if not replicas:
        raise UsageError(
            f"{component}: replicas is 0, but with maxReplicas there is at least one pod",
            hint="Set replicas to 1, or take maxReplicas away.",
        )


def autoscaler(
    placement: Placement, name: str, replicas: int, max_replicas: int, target_cpu: int
) -> Manifest:
    """Return what scales a Deployment by the processor time that its pods use.

    Args:
        placement: Where it goes.
        name: The Deployment's, and the component's param `name`.
        replicas: Pods at least.
        max_replicas: Pods at most.
        target_cpu: Percent of what the pods request.
    """
    cpu = {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": target_cpu}}
    return manifest(
        "HorizontalPodAutoscaler",
        placement.metadata(name, name),
        {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": name},
            "minReplicas": replicas,
            "maxReplicas": max_replicas,
            "metrics": [{"type": "Resource", "resource": cpu}],
            "behavior": {"scaleDown": {"stabilizationWindowSeconds": _CALM_S}},
        },
    )


def disruption_budgets(placement: Placement, name: str, most: int) -> list[Manifest]:
    """Return what keeps the draining of nodes from taking away more than one pod at a time.

    Args:
        placement: Where it goes.
        name: The Deployment's, and the component's param `name`.
        most: How many pods there may be; with one there is nothing to keep.
    """
    if most < 2:
        return []
    spec = {
        "maxUnavailable": 1,
        "selector": {"matchLabels": placement.selector(name)},
        # A pod that is not ready serves nobody; by default it would hold up the draining of its node.
        "unhealthyPodEvictionPolicy": "AlwaysAllow",
    }
    return [manifest("PodDisruptionBudget", placement.metadata(name, name), spec)]
