"""The component `web-ui`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from fairway.config import DatasetName
from fairway.deploy.components import pods, routes
from fairway.deploy.components.access import access_environment, access_volumes
from fairway.deploy.components.base import (
    AccessParams,
    Gateway,
    Name,
    Placement,
    Port,
    Replicas,
    ServiceName,
    Subdomain,
)
from fairway.deploy.components.needs import Needs, refuse_unread
from fairway.deploy.components.objects import deployment, service, service_port
from fairway.deploy.components.policies import allow, front_peers, network_policy
from fairway.deploy.components.scaling import disruption_budgets
from fairway.deploy.components.service import REST_PORT, ServiceType
from fairway.deploy.params import From
from fairway.deploy.resources import Manifest
from fairway.errors import UsageError

_DRAIN_S, _GRACE_S = 5, 20


@dataclass(frozen=True, kw_only=True)
class WebParams(AccessParams):
    """The web UI and the model server it asks."""

    directories: ClassVar[tuple[str, ...]] = ("model_dir", "export_dir", "data_dir")

    name: ServiceName = "web-ui"
    """Name of the Deployment and the Service."""

    service: Annotated[Name | None, From("mnist-service", "name")] = None
    """Name of the Service that is asked, on port 8500. Default: that of mnist-service."""

    model_name: Annotated[Name | None, From("mnist-service", "modelName")] = None
    """Name of the model there. Default: that of mnist-service."""

    model_dir: Annotated[str | None, From("train", "modelDir")] = None
    """Model directory, for the curves of a running training. Default: the training's."""

    export_dir: Annotated[str | None, From("train", "exportDir")] = None
    """Export directory, for the record of the served version. Default: the training's."""

    dataset: Annotated[DatasetName | None, From("train", "dataset")] = None
    """Where the random test images come from; nothing is downloaded. Default: the training's."""

    data_dir: Annotated[str | None, From("train", "dataDir")] = None
    """Directory with the data. Default: the training's."""

    replicas: Replicas = 1
    """Pods."""

    container_port: Port = 5000
    """Port in the pod."""

    service_port: Port = 80
    """Port of the Service."""

    type: ServiceType = "ClusterIP"
    """Who reaches it. ClusterIP: the cluster. NodePort, LoadBalancer: others too."""

    gateway: Gateway | None = None
    """Gateway through which an HTTPRoute leads here, under /NAMESPACE/APP/. Default: none."""

    gateway_namespace: Name | None = None
    """Namespace of the gateway's proxies, which are let in. Default: the gateway's."""

    hostname: Subdomain | None = None
    """Host name of the HTTPRoute. Default: all of the gateway's."""


NEEDS = (Needs(["gateway_namespace", "hostname"], "gateway", lambda params: params.gateway),)


def build(params: WebParams, placement: Placement) -> list[Manifest]:
    """Return the Deployment, the Service, and the ways to them.

    Raises:
        UsageError: params do not fit together.
    """
    refuse_unread(params, NEEDS, placement.component)
    name, port = params.name, params.container_port
    manifests = []
    if params.network_policy:
        peers = front_peers(params.type, params.gateway, params.gateway_namespace, placement)
        manifests.append(network_policy(placement, name, name, allow(peers, port)))
    selector = {"app": name} | placement.selector(name)
    ports = [service_port("http", params.service_port, port)]
    manifests += [
        service(placement, name, name, selector, ports, params.type),
        deployment(placement, name, name, _template(params, placement), params.replicas),
        *disruption_budgets(placement, name, params.replicas),
    ]
    if params.gateway:
        path = f"/{placement.namespace}/{placement.app}"
        rules = routes.mount_rules(path, name, params.service_port)
        manifests.append(routes.http_route(placement, name, name, params.gateway, params.hostname, rules))
    return manifests


def _template(params: WebParams, placement: Placement) -> Manifest:
    component, port = placement.component, params.container_port
    volumes = access_volumes(params, component)
    container = pods.container(
        "web-ui",
        params.image,
        _args(params, component),
        access_environment(params, component),
        volumes,
        pods.resources(params),
        ports=[pods.port("http", port)],
        **pods.http_probes(port, alive="/healthz", ready="/healthz"),
        lifecycle=pods.drain(_DRAIN_S),
    )
    return pods.pod_template(
        placement.labels(params.name) | {"app": params.name},
        pods.pod_spec(
            params,
            placement,
            container,
            volumes,
            service_account=params.service_account,
            grace_s=_GRACE_S,
        ),
    )


def _args(params: WebParams, component: str) -> list[str]:
    if params.service is None:
        raise UsageError(
            f"{component}: service is not set, and there is no mnist-service that it could be",
            hint="Set service to the name of a Service of a model server.",
        )
    dataset = params.dataset
    if dataset == "mnist" and params.data_dir is None:
        # The training downloads it, the web UI does not. With auto it looks at the same places first, and
        # shows the digits in the image where they have nothing.
        dataset = "auto"
    flags = {
        "host": pods.EVERY_INTERFACE,
        "port": params.container_port,
        "server": f"{params.service}:{REST_PORT}",
        "model-name": params.model_name,
        "model-dir": params.model_dir,
        "export-dir": params.export_dir,
        "dataset": dataset,
        "data-dir": params.data_dir,
    }
    return ["web", *(f"--{flag}={value}" for flag, value in flags.items() if value is not None)]
