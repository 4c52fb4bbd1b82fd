"""The component `tensorboard`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from fairway.deploy.components import pods, routes
from fairway.deploy.components.access import access_environment, access_volumes
from fairway.deploy.components.base import (
    AccessParams,
    Gateway,
    Name,
    Placement,
    ServiceName,
    Subdomain,
    join_name,
)
from fairway.deploy.components.needs import Needs, refuse_unread
from fairway.deploy.components.objects import deployment, service, service_port
from fairway.deploy.components.policies import allow, front_peers, network_policy
from fairway.deploy.components.volumes import require_claim
from fairway.deploy.params import From
from fairway.deploy.resources import Manifest
from fairway.errors import UsageError

PORT = 80
POD_PORT = 8090
_GRACE_S = 10


@dataclass(frozen=True, kw_only=True)
class TensorBoardParams(AccessParams):
    """What TensorBoard shows."""

    directories: ClassVar[tuple[str, ...]] = ("log_dir",)

    name: ServiceName = "tensorboard"
    """Name of the Deployment and the Service, to which -tb is added."""

    log_dir: Annotated[str | None, From("train", "modelDir")] = None
    """Directory with event files. Default: the training's modelDir."""

    gateway: Gateway | None = None
    """Gateway through which an HTTPRoute leads here, under /NAMESPACE/tensorboard/APP. Default: none."""

    gateway_namespace: Name | None = None
    """Namespace of the gateway's proxies, which are let in. Default: the gateway's."""

    hostname: Subdomain | None = None
    """Host name of the HTTPRoute. Default: all of the gateway's."""


NEEDS = (Needs(["gateway_namespace", "hostname"], "gateway", lambda params: params.gateway),)


def build(params: TensorBoardParams, placement: Placement) -> list[Manifest]:
    """Return the Deployment, the Service, and the ways to them.

    Raises:
        UsageError: params do not fit together.
    """
    refuse_unread(params, NEEDS, placement.component)
    instance = params.name
    name = join_name(placement.component, instance, "tb")
    manifests = []
    if params.network_policy:
        peers = front_peers("ClusterIP", params.gateway, params.gateway_namespace, placement)
        manifests.append(network_policy(placement, instance, name, allow(peers, POD_PORT)))
    selector = _labels(params) | placement.selector(instance)
    manifests += [
        service(placement, name, instance, selector, [service_port("http", PORT, POD_PORT)]),
        deployment(placement, name, instance, _template(params, placement), replicas=1),
    ]
    if params.gateway:
        rules = routes.mount_rules(f"/{placement.namespace}/tensorboard/{placement.app}", name, PORT)
        manifests.append(routes.http_route(placement, name, instance, params.gateway, params.hostname, rules))
    return manifests


def _labels(params: TensorBoardParams) -> dict[str, str]:
    return {"app": "tensorboard", "tb-job": params.name}


def _template(params: TensorBoardParams, placement: Placement) -> Manifest:
    component = placement.component
    if params.log_dir is None:
        raise UsageError(
            f"{component}: logDir is not set, and there is no training whose modelDir it could be",
            hint="Set logDir to a path on the claim, s3://… or gs://…",
        )
    require_claim(params, component, "there would be nothing to see")
    volumes = access_volumes(params, component)
    container = pods.container(
        "tensorboard",
        params.image,
        [
            "tensorboard",
            f"--host={pods.EVERY_INTERFACE}",
            f"--port={POD_PORT}",
            f"--logdir={params.log_dir}",
        ],
        access_environment(params, component),
        volumes,
        pods.resources(params),
        ports=[pods.port("http", POD_PORT)],
        **pods.http_probes(POD_PORT, alive="/", ready="/"),
    )
    return pods.pod_template(
        placement.labels(params.name) | _labels(params),
        pods.pod_spec(
            params,
            placement,
            container,
            volumes,
            service_account=params.service_account,
            grace_s=_GRACE_S,
        ),
    )
