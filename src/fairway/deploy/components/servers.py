"""Pods of the model servers: fairway's own, or TensorFlow Serving with a copying container beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fairway.config import METRICS_PATH
from fairway.deploy.components import pods
from fairway.deploy.components.access import access_environment, access_volumes
from fairway.deploy.components.base import Placement, is_on_claim, is_uri
from fairway.deploy.components.environment import Environment, from_secrets, plain
from fairway.deploy.components.service import GRPC_PORT, REST_PORT
from fairway.deploy.components.volumes import Volume, check_paths, secret_volumes, volume
from fairway.deploy.languages import SecretKey
from fairway.deploy.resources import Manifest

if TYPE_CHECKING:
    from fairway.deploy.components.serving import ServingParams

MODELS = "/models"
"""Where the copies are that TensorFlow Serving reads."""
GCP_CREDENTIALS = "/secret/gcp-credentials"
_GCP_KEY = f"{GCP_CREDENTIALS}/user-gcp-sa.json"
_KEEP = 2
"""Copies to keep: the version that is served while the next one comes, and that one."""
_MONITORING_ANNOTATION = "fairway/monitoring"
_MONITORING_FILE = "/etc/monitoring/config"
_DRAIN_S, _GRACE_S = 5, 30
_DAY_S = 24 * 60 * 60
_TENSORFLOW_SERVING = "/usr/bin/tensorflow_model_server"
"""The image's entry point adds flags of its own."""
_SIDECAR_RESOURCES = {
    "requests": {"cpu": "50m", "memory": "128Mi"},
    "limits": {"cpu": "1", "memory": "512Mi"},
}
_PORTS = [pods.port("grpc-tf-serving", GRPC_PORT), pods.port("http-tf-serving", REST_PORT)]


def pod(params: ServingParams, placement: Placement) -> Manifest:
    """Return the spec of a server's pods.

    Raises:
        UsageError: a directory or a variable cannot be as it is.
    """
    build = _tensorflow_serving if params.server == "tensorflow-serving" else _fairway
    return build(params, placement)


def pod_annotations(params: ServingParams) -> dict[str, str]:
    """Return the annotations of a server's pods: where Prometheus finds the metrics.

    Source of the names: kubernetes-pods in
    https://github.com/prometheus/prometheus/blob/main/documentation/examples/prometheus-kubernetes.yml
    """
    if not params.enable_prometheus:
        return {}
    found = {
        "prometheus.io/scrape": "true",
        "prometheus.io/path": METRICS_PATH,
        "prometheus.io/port": str(REST_PORT),
    }
    if params.server == "tensorflow-serving":
        found[_MONITORING_ANNOTATION] = f'prometheus_config {{ enable: true path: "{METRICS_PATH}" }}'
    return found


def _fairway(params: ServingParams, placement: Placement) -> Manifest:
    component = placement.component
    volumes = _access(params, component)
    container = pods.container(
        "fairway",
        params.image,
        [
            "serve",
            f"--port={GRPC_PORT}",
            f"--rest_api_port={REST_PORT}",
            f"--model_name={params.model_name}",
            f"--model_base_path={params.model_base_path}",
            f"--host={pods.EVERY_INTERFACE}",
        ],
        _environment(params, component),
        volumes,
        pods.resources(params, params.num_gpus),
        ports=_PORTS,
        **pods.http_probes(REST_PORT, alive="/healthz", ready="/readyz"),
        lifecycle=pods.drain(_DRAIN_S),
    )
    return _spec(params, placement, container, volumes)


def _tensorflow_serving(params: ServingParams, placement: Placement) -> Manifest:
    component = placement.component
    base_path, monitoring = str(params.model_base_path), _monitoring(params)
    if not is_uri(base_path):
        volumes = _access(params, component, *monitoring)
        environment = _environment(params, component)
        return _spec(params, placement, _server(params, base_path, environment, volumes), volumes)
    copies = volume("models", {"emptyDir": {}}, MODELS)
    volumes = _access(params, component, copies)
    check_paths(component, [*volumes, *monitoring])
    target = f"{MODELS}/{params.model_name}"
    read_only = volume("models", {"emptyDir": {}}, MODELS, read_only=True)
    # The keys of the store are for the container that copies.
    server = _server(params, target, plain(params.env_variables or {}), [read_only, *monitoring])
    sidecar = _sidecar(params, component, target, volumes)
    return _spec(params, placement, server, [*volumes, *monitoring], sidecar)


def _server(
    params: ServingParams, base_path: str, environment: Environment, volumes: list[Volume]
) -> Manifest:
    """Return TensorFlow Serving's container.

    It opens its ports when the first version is loaded, and waits for one without an end; after that its
    status answers 200 even while nothing can be served, its metadata does not.

    Metrics it has only with a MonitoringConfig in a file, which is the pod's own annotation.
    """
    return pods.container(
        "tensorflow-serving",
        params.server_image,
        [
            f"--port={GRPC_PORT}",
            f"--rest_api_port={REST_PORT}",
            f"--model_name={params.model_name}",
            f"--model_base_path={base_path}",
            *([f"--monitoring_config_file={_MONITORING_FILE}"] if params.enable_prometheus else []),
        ],
        environment,
        volumes,
        pods.resources(params, params.num_gpus),
        command=[_TENSORFLOW_SERVING],
        ports=_PORTS,
        startupProbe=pods.tcp_probe(GRPC_PORT, period_s=1, failures=_DAY_S),
        readinessProbe=pods.http_probe(
            f"/v1/models/{params.model_name}/metadata", REST_PORT, period_s=5, failures=3
        ),
        livenessProbe=pods.tcp_probe(GRPC_PORT, period_s=10, failures=6),
        lifecycle=pods.drain(_DRAIN_S),
    )


def _monitoring(params: ServingParams) -> list[Volume]:
    """Return the volume with TensorFlow Serving's MonitoringConfig, if metrics are wanted."""
    if not params.enable_prometheus:
        return []
    path, _, name = _MONITORING_FILE.rpartition("/")
    field = {"fieldPath": f"metadata.annotations['{_MONITORING_ANNOTATION}']"}
    source = {"downwardAPI": {"items": [{"path": name, "fieldRef": field}]}}
    return [volume("monitoring", source, path, read_only=True)]


def _sidecar(params: ServingParams, component: str, target: str, volumes: list[Volume]) -> Manifest:
    """Return the container that copies versions: the server starts when the first one is there."""
    return pods.container(
        "sync",
        params.image,
        ["sync", str(params.model_base_path), target, "--watch", "--delete", f"--keep={_KEEP}"],
        _environment(params, component),
        volumes,
        _SIDECAR_RESOURCES,
        restartPolicy="Always",
        startupProbe=pods.command_probe(
            ["sh", "-c", f"ls -d {target}/[0-9]*/saved_model.pb"], period_s=1, failures=_DAY_S
        ),
    )


def _access(params: ServingParams, component: str, *more: Volume) -> list[Volume]:
    if params.gcp_credential_secret_name:
        source = {"secret": {"secretName": params.gcp_credential_secret_name}}
        more = (*more, volume("gcp-credentials", source, GCP_CREDENTIALS, read_only=True))
    base_path = str(params.model_base_path)
    if params.storage == "local" and not is_uri(base_path) and not is_on_claim(base_path):
        # The model is in the image, whatever the claim holds.
        volumes = [*secret_volumes(params.secret), *more]
        check_paths(component, volumes)
        return volumes
    return access_volumes(params, component, *more)


def _environment(params: ServingParams, component: str) -> Environment:
    own = _s3(params) if params.s3_enable else {}
    if params.gcp_credential_secret_name:
        own |= plain({"GOOGLE_APPLICATION_CREDENTIALS": _GCP_KEY})
    return access_environment(params, component, own)


def _s3(params: ServingParams) -> Environment:
    keys = {
        "AWS_ACCESS_KEY_ID": params.s3_secret_accesskeyid_key_name,
        "AWS_SECRET_ACCESS_KEY": params.s3_secret_secretaccesskey_key_name,
    }
    secret = params.s3_secret_name
    refs = {name: SecretKey(secret, key) for name, key in keys.items()} if secret else {}
    values = {
        "AWS_REGION": params.s3_aws_region,
        "S3_ENDPOINT": params.s3_endpoint,
        "S3_USE_HTTPS": str(int(params.s3_use_https)),
        "S3_VERIFY_SSL": str(int(params.s3_verify_ssl)),
    }
    return from_secrets(refs) | plain({name: value for name, value in values.items() if value is not None})


def _spec(
    params: ServingParams,
    placement: Placement,
    container: Manifest,
    volumes: list[Volume],
    sidecar: Manifest | None = None,
) -> Manifest:
    return pods.pod_spec(
        params,
        placement,
        container,
        volumes,
        service_account=params.service_account,
        grace_s=_GRACE_S,
        sidecar=sidecar,
    )
