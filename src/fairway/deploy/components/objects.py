"""The objects that several components make: Deployments and Services."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fairway.deploy.components.base import Placement
from fairway.deploy.resources import Manifest, manifest


def deployment(
    placement: Placement, name: str, instance: str, template: Manifest, replicas: int | None
) -> Manifest:
    """Return a Deployment that replaces a pod only when the new one is ready.

    Args:
        placement: Where it goes.
        name: Its name.
        instance: The component's param `name`.
        template: Of its pods.
        replicas: `None`: something else scales it.
    """
    return manifest(
        "Deployment",
        placement.metadata(name, instance),
        {
            **({} if replicas is None else {"replicas": replicas}),
            "selector": {"matchLabels": placement.selector(instance)},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
            "template": template,
        },
    )


def service(
    placement: Placement,
    name: str,
    instance: str,
    selector: Mapping[str, str],
    ports: Sequence[Manifest],
    service_type: str = "ClusterIP",
) -> Manifest:
    """Return a Service.

    Args:
        placement: Where it goes.
        name: Its name.
        instance: The component's param `name`.
        selector: Labels of the pods behind it.
        ports: Of `service_port`.
        service_type: Who reaches it.
    """
    spec = {"type": service_type, "selector": dict(selector), "ports": list(ports)}
    return manifest("Service", placement.metadata(name, instance), spec)


def headless_service(
    placement: Placement, instance: str, selector: Mapping[str, str], ports: Sequence[Manifest]
) -> Manifest:
    """Return a Service that gives each of some pods a name, ready or not."""
    spec = {
        "clusterIP": "None",
        "publishNotReadyAddresses": True,
        "selector": dict(selector),
        "ports": list(ports),
    }
    return manifest("Service", placement.metadata(instance, instance), spec)


def service_port(name: str, number: int, target: int) -> Manifest:
    """Return a port of a Service, which leads to a port of its pods."""
    return {"name": name, "port": number, "targetPort": target}
