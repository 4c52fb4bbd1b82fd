"""The component `mnist-service`: one address for the model servers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

from fairway.config import MODEL_NAME
from fairway.deploy.components.base import ComponentParams, Gateway, Name, Subdomain
from fairway.deploy.languages import Language, Share, parse_traffic_rule

ServiceType = Literal["ClusterIP", "NodePort", "LoadBalancer"]
TrafficRule = Annotated[
    tuple[Share, ...], Language("VERSION:PERCENT,… or LABEL=VALUE:PERCENT,…", parse_traffic_rule)
]


@dataclass(frozen=True, kw_only=True)
class ServiceParams(ComponentParams):
    """Which model servers are asked, under which name."""

    name: Name = "mnist-service"
    """Name of the Service: REST on port 8500, gRPC on port 9000."""

    model_name: Name = MODEL_NAME
    """Name of the model: its servers are behind the Service."""

    service_type: ServiceType = "ClusterIP"
    """Who reaches it. ClusterIP: the cluster. NodePort, LoadBalancer: others too."""

    traffic_rule: TrafficRule = (Share("version", "v1", 100),)
    """Which versions' pods get how much of the traffic; more than one needs a gateway."""

    gateway: Gateway | None = None
    """Gateway through which an HTTPRoute leads here. Default: none."""

    hostname: Subdomain | None = None
    """Host name of the HTTPRoute. Default: all of the gateway's."""


RETIRED: Mapping[str, str] = {
    "injectIstio": "Set gateway; it divides traffic by an HTTPRoute.",
    "enablePrometheus": "Leave it out: there is nothing to switch on.",
}


def build(params: Any, placement: Placement) -> list[Manifest]:
    raise NotImplementedError
