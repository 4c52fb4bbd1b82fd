"""The component `mnist-service`: one address for the model servers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

from fairway.config import MODEL_NAME
from fairway.deploy.components import routes
from fairway.deploy.components.base import (
    ComponentParams,
    Gateway,
    Name,
    Placement,
    ServiceName,
    Subdomain,
    join_name,
)
from fairway.deploy.components.needs import Needs, refuse_unread
from fairway.deploy.components.objects import service, service_port
from fairway.deploy.languages import Language, Share, parse_traffic_rule
from fairway.deploy.resources import Manifest, owner_labels
from fairway.errors import UsageError

GRPC_PORT = 9000
REST_PORT = 8500
_VERBS = ("predict", "classify", "regress")

ServiceType = Literal["ClusterIP", "NodePort", "LoadBalancer"]
TrafficRule = Annotated[
    tuple[Share, ...], Language("VERSION:PERCENT,… or LABEL=VALUE:PERCENT,…", parse_traffic_rule)
]


@dataclass(frozen=True, kw_only=True)
class ServiceParams(ComponentParams):
    """Which model servers are asked, under which name."""

    name: ServiceName = "mnist-service"
    """Name of the Service: REST on port 8500, gRPC on port 9000."""

    model_name: Name = MODEL_NAME
    """Name of the model: its servers are behind the Service."""

    service_type: ServiceType = "ClusterIP"
    """Who reaches it. ClusterIP: the cluster. NodePort, LoadBalancer: others too."""

    traffic_rule: TrafficRule = (Share("version", "v1", 100),)
    """Which versions' pods get the traffic; several share that of the gateway by their weights."""

    gateway: Gateway | None = None
    """Gateway through which an HTTPRoute leads here. Default: none."""

    gateway_namespace: Name | None = None
    """Namespace of the gateway's proxies, which the model servers let in. Default: the gateway's."""

    hostname: Subdomain | None = None
    """Host name of the HTTPRoute. Default: all of the gateway's."""


RETIRED: Mapping[str, str] = {
    "injectIstio": "Set gateway; it divides traffic by an HTTPRoute.",
    "enablePrometheus": "Set it for the model server: Prometheus asks its pods, not the Service.",
}
NEEDS = (Needs(["gateway_namespace", "hostname"], "gateway", lambda params: params.gateway),)


def build(params: ServiceParams, placement: Placement) -> list[Manifest]:
    """Return the Service, and the way through the gateway: divided, where the rule divides.

    Raises:
        UsageError: params do not fit together; the rule divides, and there is no gateway that could.
    """
    refuse_unread(params, NEEDS, placement.component)
    shares = params.traffic_rule
    if len(shares) == 1:
        return [_service(params, placement, params.name, shares[0]), *_routes(params, placement, {})]
    if params.gateway is None:
        raise UsageError(
            f"{placement.component}: trafficRule divides the traffic among {len(shares)}, "
            "which only a gateway can, but gateway is not set",
            hint="Set gateway to the Gateway's name, or name one version: v1:100",
        )
    names = {share: join_name(placement.component, params.name, share.value) for share in shares}
    if len(set(names.values())) < len(names):
        raise UsageError(
            f"{placement.component}: trafficRule has one value under two labels",
            hint="Give them different values: each makes a Service of that name.",
        )
    return [
        # Who asks the Service itself, as the web UI does, gets any of the model's servers.
        _service(params, placement, params.name, None),
        *(_service(params, placement, name, share) for share, name in names.items()),
        *_routes(params, placement, {name: share.weight for share, name in names.items()}),
    ]


def _service(params: ServiceParams, placement: Placement, name: str, share: Share | None) -> Manifest:
    # Another environment in the namespace may serve another model under the same name and version.
    selector = {
        "app": params.model_name,
        **({share.label: share.value} if share else {}),
        "app.kubernetes.io/name": "serving",
        **owner_labels(placement.app, placement.environment),
    }
    ports = [
        service_port("grpc-tf-serving", GRPC_PORT, GRPC_PORT),
        service_port("http-tf-serving", REST_PORT, REST_PORT),
    ]
    service_type = params.service_type if name == params.name else "ClusterIP"
    return service(placement, name, params.name, selector, ports, service_type)


def _routes(params: ServiceParams, placement: Placement, weights: Mapping[str, int]) -> list[Manifest]:
    if params.gateway is None:
        return []
    path = f"/v1/models/{params.model_name}"
    rule = {
        "matches": [routes.prefix(path), *(routes.exact(f"{path}:{verb}") for verb in _VERBS)],
        "backendRefs": [routes.backend(name, REST_PORT, weight) for name, weight in weights.items()]
        or [routes.backend(params.name, REST_PORT)],
    }
    return [routes.http_route(placement, params.name, params.name, params.gateway, params.hostname, [rule])]
