"""The components of kind `serving`: model servers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

from fairway.config import MODEL_NAME, Count, Range
from fairway.deploy.components import servers
from fairway.deploy.components.base import (
    AccessParams,
    ComponentParams,
    Gateway,
    Labels,
    Name,
    Placement,
    Quantity,
    Replicas,
    Subdomain,
    is_uri,
)
from fairway.deploy.components.needs import Needs, refuse_unread
from fairway.deploy.components.objects import deployment
from fairway.deploy.components.pods import pod_template
from fairway.deploy.components.policies import allow, front_peers, namespace_pods, network_policy, pods
from fairway.deploy.components.scaling import autoscaler, check_replicas, disruption_budgets
from fairway.deploy.components.service import GRPC_PORT, REST_PORT, ServiceType
from fairway.deploy.params import From
from fairway.deploy.resources import APP_LABEL, Manifest
from fairway.errors import UsageError

Storage = Literal["gcp", "aws", "pvc", "local"]
_SCHEMES: Mapping[str, Storage] = {"gs": "gcp", "s3": "aws"}
TENSORFLOW_SERVING_IMAGE = "tensorflow/serving:2.19.1"


@dataclass(frozen=True, kw_only=True)
class ServingParams(AccessParams):
    """Which model is served, from where, by which server."""

    directories: ClassVar[tuple[str, ...]] = ("model_base_path",)

    name: Name = "mnist-deploy"
    """Name of the Deployment."""

    storage: Storage = "pvc"
    """Where the model lies. gcp: gs://…, aws: s3://…, pvc: a claim, local: a claim, or the image itself."""

    server: Literal["fairway", "tensorflow-serving"] = "fairway"
    """Which model server. TensorFlow Serving is given the versions by a copying container beside it."""

    server_image: str = TENSORFLOW_SERVING_IMAGE
    """Container image of TensorFlow Serving; `image` is fairway's, also that of the copying container."""

    model_name: Name = MODEL_NAME
    """Name under which the model is served."""

    version_name: Name = "v1"
    """The pods' label `version`, for the trafficRule of mnist-service."""

    model_base_path: Annotated[str | None, From("train", "exportDir")] = None
    """Directory with one sub-directory per version. Default: the training's exportDir."""

    labels: Labels = field(default_factory=dict)
    """Further labels of the pods, for a trafficRule by labels."""

    replicas: Replicas = 1
    """Pods; with maxReplicas the least."""

    max_replicas: Annotated[Count | None, Range(minimum=1, maximum=1000)] = None
    """Pods at most: as many as the load needs. Default: always as many as replicas."""

    target_cpu: Annotated[Count, Range(minimum=1, maximum=100)] = 80
    """Percent of `cpu` that pods use on average before there are more of them."""

    clients: Labels = field(default_factory=lambda: {"fairway/client": "true"})
    """Pods of the namespace with these labels may ask the server, besides the web UI."""

    gateway: Annotated[Gateway | None, From("mnist-service", "gateway")] = None
    """Gateway whose proxies may ask the server too. Default: that of mnist-service."""

    gateway_namespace: Annotated[Name | None, From("mnist-service", "gatewayNamespace")] = None
    """Namespace of these proxies. Default: that of mnist-service, or the gateway's."""

    service_type: Annotated[ServiceType | None, From("mnist-service", "serviceType")] = None
    """Whether others than the cluster may ask the server. Default: as mnist-service has it."""

    enable_prometheus: bool = True
    """Whether annotations prometheus.io/scrape, path and port tell Prometheus where the metrics are."""

    prometheus_namespace: Name | None = None
    """Namespace of Prometheus, whose pods may ask the server too. Default: as `clients` has it."""

    num_gpus: Annotated[Count, Range(minimum=0, maximum=16)] = 0
    """GPUs of a pod (nvidia.com/gpu), for an image that can use them."""

    memory: Quantity = "256Mi"
    """Memory that is set aside for a pod, in bytes (Mi, Gi)."""

    gcp_credential_secret_name: Subdomain | None = None
    """Secret with the file user-gcp-sa.json, the key of a Google service account."""

    s3_enable: bool = False
    """Take the way to S3 from the following params instead of secretKeyRefs and envVariables."""

    s3_secret_name: Subdomain | None = None
    """Secret with the S3 keys."""

    s3_secret_accesskeyid_key_name: str = "AWS_ACCESS_KEY_ID"
    """Where the access key is in it."""

    s3_secret_secretaccesskey_key_name: str = "AWS_SECRET_ACCESS_KEY"
    """Where the secret key is in it."""

    s3_aws_region: str | None = None
    """Region of the bucket."""

    s3_endpoint: str | None = None
    """HOST:PORT of an S3 server other than AWS."""

    s3_use_https: bool = True
    """Whether it is asked by https."""

    s3_verify_ssl: bool = True
    """Whether its certificate is checked."""


RETIRED: Mapping[str, str] = {
    "defaultCpuImage": "Set image; with `server tensorflow-serving` set serverImage.",
    "defaultGpuImage": "Set numGpus, and image or serverImage to one that can use them.",
    "deployHttpProxy": "The model server answers REST by itself, on port 8500.",
    "httpProxyImage": "The model server answers REST by itself, on port 8500.",
    "injectIstio": "Set gateway of mnist-service; it divides traffic by an HTTPRoute.",
}
_S3_KEYS = ("s3_secret_accesskeyid_key_name", "s3_secret_secretaccesskey_key_name")
_S3 = ("s3_secret_name", *_S3_KEYS, "s3_aws_region", "s3_endpoint", "s3_use_https", "s3_verify_ssl")
# Not those that mnist-service may have set for all model servers.
NEEDS = (
    Needs(
        ["server_image"],
        "server tensorflow-serving",
        lambda params: params.server == "tensorflow-serving",
    ),
    Needs(["prometheus_namespace"], "networkPolicy true", lambda params: params.network_policy),
    Needs(["target_cpu"], "maxReplicas", lambda params: params.max_replicas),
    Needs(_S3, "s3Enable true", lambda params: params.s3_enable),
    Needs(_S3_KEYS, "s3SecretName", lambda params: params.s3_secret_name),
)


def place(params: ServingParams) -> Storage:
    """Return where a model lies, whatever the component's `storage` is, unless nobody knows the scheme."""
    base_path = params.model_base_path or ""
    if is_uri(base_path):
        # An unknown scheme is an error of the component, which must not be left out for it.
        scheme = base_path.partition("://")[0].lower()
        return _SCHEMES.get(scheme, params.storage)
    return "pvc" if params.pvc_name else "local"


def takes_part(params: ServingParams, _others: Sequence[ComponentParams]) -> bool:
    """Return whether the component is the one for the place where its model lies."""
    return params.storage == place(params)


def build(params: ServingParams, placement: Placement) -> list[Manifest]:
    """Return the Deployment, what scales it, and who may ask it.

    Raises:
        UsageError: params do not fit together.
    """
    name, most = params.name, params.max_replicas
    refuse_unread(params, NEEDS, placement.component)
    check_replicas(placement.component, params.replicas, most)
    _check_place(params, placement.component)
    own_labels = {
        **placement.labels(name),
        "app": params.model_name,
        "version": params.version_name,
    }
    _check_labels(params, placement.component, own_labels)
    template = pod_template(
        dict(params.labels) | own_labels, servers.pod(params, placement), servers.pod_annotations(params)
    )
    return [
        *([_policy(params, placement)] if params.network_policy else []),
        deployment(placement, name, name, template, None if most else params.replicas),
        *([autoscaler(placement, name, params.replicas, most, params.target_cpu)] if most else []),
        *disruption_budgets(placement, name, most or params.replicas),
    ]


def _policy(params: ServingParams, placement: Placement) -> Manifest:
    peers = front_peers(
        params.service_type or "ClusterIP", params.gateway, params.gateway_namespace, placement
    )
    if peers is not None:
        # Of any environment: its param `service` may name the Service of another one.
        web_ui = {"app.kubernetes.io/name": "web-ui", APP_LABEL: placement.app}
        prometheus = namespace_pods(params.prometheus_namespace)
        peers = [*pods(web_ui), *pods(params.clients), *prometheus, *peers]
    return network_policy(placement, params.name, params.name, allow(peers, REST_PORT, GRPC_PORT))


def _check_place(params: ServingParams, component: str) -> None:
    if not params.model_base_path:
        raise UsageError(
            f"{component}: modelBasePath is not set, and there is no training whose exportDir it could be",
            hint="Set modelBasePath to a path, s3://… or gs://…",
        )
    if params.storage in (found := place(params), "local" if found == "pvc" else None):
        return
    if params.storage == "pvc" and found == "local":
        raise UsageError(
            f"{component}: storage is pvc, but pvcName is not set",
            hint="Set pvcName to the claim with the model; storage local is for a model in the image.",
        )
    raise UsageError(
        f"{component}: storage is {params.storage}, but modelBasePath is {params.model_base_path}, "
        f"which is {found}",
        hint=f"Apply a component with storage {found}, or set modelBasePath to where the model lies.",
    )


def _check_labels(params: ServingParams, component: str, own: Mapping[str, str]) -> None:
    for label in params.labels:
        if label in own:
            raise UsageError(
                f"{component}: labels has {label}, which is set already: to {own[label]}",
                hint="Choose another label; app and version are set with modelName and versionName.",
            )
