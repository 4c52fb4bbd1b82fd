"""The component `web-ui`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from fairway.config import DatasetName
from fairway.deploy.components.base import AccessParams, Gateway, Name, Port, Replicas, Subdomain
from fairway.deploy.components.service import ServiceType
from fairway.deploy.params import From


@dataclass(frozen=True, kw_only=True)
class WebParams(AccessParams):
    """The web UI and the model server it asks."""

    directories: ClassVar[tuple[str, ...]] = ("model_dir", "export_dir", "data_dir")

    name: Name = "web-ui"
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
    """Where the random test images come from. Default: the training's."""

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

    hostname: Subdomain | None = None
    """Host name of the HTTPRoute. Default: all of the gateway's."""


def build(params: Any, placement: Placement) -> list[Manifest]:
    raise NotImplementedError
