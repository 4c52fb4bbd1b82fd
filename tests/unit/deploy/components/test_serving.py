"""The components of kind `serving`: servers, places of the model, scaling, and who may ask."""

from __future__ import annotations

from typing import Any

import pytest

from fairway.deploy.components.serving import ServingParams, Storage, takes_part
from fairway.deploy.resources import Manifest
from fairway.errors import UsageError
from fairway.tfs.configs import Monitoring, parse_monitoring
from tests.unit.deploy.components.cases import SERVING, build


def spec_of(manifests: list[Manifest], kind: str = "Deployment") -> Manifest:
    """Return the spec of the one manifest of a kind."""
    found: list[Manifest] = [each["spec"] for each in manifests if each["kind"] == kind]
    (spec,) = found
    return spec


def pod_of(manifests: list[Manifest]) -> Manifest:
    """Return the spec of the Deployment's pods."""
    pod: Manifest = spec_of(manifests)["template"]["spec"]
    return pod


def container_of(manifests: list[Manifest]) -> Manifest:
    """Return the one container of the Deployment's pods."""
    containers: list[Manifest] = pod_of(manifests)["containers"]
    (container,) = containers
    return container


def variables(container: Manifest) -> dict[str, Any]:
    """Return a container's variables: values, and where they come from."""
    return {each["name"]: each.get("value", each.get("valueFrom")) for each in container.get("env", [])}


def test_a_pod_runs_the_command_of_the_laptop() -> None:
    container = container_of(build("serving", **SERVING["pvc"], modelName="digits"))
    assert container["args"] == [
        "serve",
        "--port=9000",
        "--rest_api_port=8500",
        "--model_name=digits",
        "--model_base_path=/mnt/export",
        "--host=::",
    ]
    assert "command" not in container
    assert {port["name"]: port["containerPort"] for port in container["ports"]} == {
        "grpc-tf-serving": 9000,
        "http-tf-serving": 8500,
    }


def test_ready_means_that_a_model_answers_and_waiting_for_one_is_no_death() -> None:
    container = container_of(build("serving", **SERVING["pvc"]))
    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"
    for probe in ("startupProbe", "livenessProbe"):
        assert container[probe]["httpGet"]["path"] == "/healthz"


def test_tensorflow_serving_is_ready_when_its_metadata_answers() -> None:
    container = container_of(build("serving", **SERVING["pvc"], server="tensorflow-serving"))
    assert container["readinessProbe"]["httpGet"] == {"path": "/v1/models/mnist/metadata", "port": 8500}
    startup = container["startupProbe"]
    assert startup["failureThreshold"] * startup["periodSeconds"] >= 24 * 60 * 60
    assert container["command"] == ["/usr/bin/tensorflow_model_server"]
    assert "--model_base_path=/mnt/export" in container["args"]


@pytest.mark.parametrize("place", ["gcp", "aws"])
def test_tensorflow_serving_gets_copies_from_a_sidecar_that_alone_has_the_keys(place: str) -> None:
    written = SERVING[place] | {
        "secretKeyRefs": "TOKEN=keys.token",
        "envVariables": "LEVEL=1",
        "secret": "keys=/secret/keys",
    }
    pod = pod_of(build("serving", **written, server="tensorflow-serving"))
    (sidecar,), (server,) = pod["initContainers"], pod["containers"]
    assert sidecar["restartPolicy"] == "Always"
    assert sidecar["args"][:4] == ["sync", written["modelBasePath"], "/models/mnist", "--watch"]
    assert sidecar["image"] != server["image"]
    assert "/models/mnist/[0-9]*/saved_model.pb" in sidecar["startupProbe"]["exec"]["command"][-1]
    assert variables(server) == {"LEVEL": "1"}
    assert {"TOKEN", "LEVEL"} < variables(sidecar).keys()
    assert [mount["mountPath"] for mount in server["volumeMounts"]] == ["/tmp", "/models", "/etc/monitoring"]
    assert server["volumeMounts"][1]["readOnly"]
    assert {"/models", "/secret/keys"} < {mount["mountPath"] for mount in sidecar["volumeMounts"]}


@pytest.mark.parametrize("server", ["fairway", "tensorflow-serving"])
def test_prometheus_is_told_where_the_metrics_are_unless_it_is_not_to(server: str) -> None:
    template = spec_of(build("serving", **SERVING["pvc"], server=server))["template"]
    annotations = template["metadata"]["annotations"]
    where = {name: value for name, value in annotations.items() if name.startswith("prometheus.io/")}
    assert where == {
        "prometheus.io/scrape": "true",
        "prometheus.io/path": "/monitoring/prometheus/metrics",
        "prometheus.io/port": "8500",
    }
    manifests = build("serving", **SERVING["pvc"], server=server, enablePrometheus=False)
    assert "annotations" not in spec_of(manifests)["template"]["metadata"]
    assert "monitoring" not in str(pod_of(manifests))


def test_tensorflow_serving_reads_from_an_annotation_that_it_is_to_have_metrics() -> None:
    template = spec_of(build("serving", **SERVING["pvc"], server="tensorflow-serving"))["template"]
    (container,) = template["spec"]["containers"]
    (item,) = next(each for each in template["spec"]["volumes"] if "downwardAPI" in each)["downwardAPI"][
        "items"
    ]
    assert f"--monitoring_config_file=/etc/monitoring/{item['path']}" in container["args"]
    annotation = item["fieldRef"]["fieldPath"].removeprefix("metadata.annotations['").removesuffix("']")
    text = template["metadata"]["annotations"][annotation]
    assert parse_monitoring(text) == Monitoring(enabled=True, path="/monitoring/prometheus/metrics")


@pytest.mark.parametrize("server", ["fairway", "tensorflow-serving"])
def test_a_claim_is_only_read(server: str) -> None:
    for place in ("pvc", "local"):
        written = SERVING["pvc"] | {"storage": place}
        pod = pod_of(build("serving", **written, server=server))
        assert {"name": "model", "mountPath": "/mnt", "readOnly": True} in pod["containers"][0][
            "volumeMounts"
        ]
        assert "initContainers" not in pod


def test_a_model_in_the_image_needs_no_claim_even_if_the_training_has_one() -> None:
    for claim in (None, "mnist-model"):
        pod = pod_of(build("serving", **SERVING["local"], pvcName=claim))
        assert [volume["name"] for volume in pod["volumes"]] == ["tmp"]


def test_the_s3_params_are_what_the_store_s_client_reads() -> None:
    written = SERVING["aws"] | {"envVariables": "S3_ENDPOINT=of-the-training:9000,LEVEL=1"}
    assert variables(container_of(build("serving", **written))) == {
        "AWS_ACCESS_KEY_ID": {"secretKeyRef": {"name": "aws-creds", "key": "awsAccessKeyID"}},
        "AWS_SECRET_ACCESS_KEY": {"secretKeyRef": {"name": "aws-creds", "key": "awsSecretAccessKey"}},
        "AWS_REGION": "us-west-2",
        "S3_ENDPOINT": "minio:9000",
        "S3_USE_HTTPS": "0",
        "S3_VERIFY_SSL": "0",
        "LEVEL": "1",
    }


def test_the_google_key_is_mounted_only_where_there_is_one() -> None:
    path = "/secret/gcp-credentials/user-gcp-sa.json"
    container = container_of(build("serving", **SERVING["gcp"]))
    assert variables(container)["GOOGLE_APPLICATION_CREDENTIALS"] == path
    assert "/secret/gcp-credentials" in [mount["mountPath"] for mount in container["volumeMounts"]]
    without = SERVING["gcp"] | {"gcpCredentialSecretName": None}
    assert "env" not in container_of(build("serving", **without))
    assert len(pod_of(build("serving", **without))["volumes"]) == 1


def test_what_a_deployment_selects_depends_on_no_param_but_its_name() -> None:
    before = spec_of(build("serving", **SERVING["pvc"]))
    after = spec_of(build("serving", **SERVING["pvc"], modelName="m", versionName="v2", labels="track=x"))
    assert before["selector"] == after["selector"]
    assert (
        after["template"]["metadata"]["labels"].items() >= {"app": "m", "version": "v2", "track": "x"}.items()
    )
    other = spec_of(build("serving", **SERVING["pvc"], name="other"))
    assert other["selector"] != before["selector"]


def test_as_many_pods_as_the_load_needs() -> None:
    manifests = build("serving", **SERVING["pvc"], replicas=2, maxReplicas=5)
    assert "replicas" not in spec_of(manifests)
    scaler = spec_of(manifests, "HorizontalPodAutoscaler")
    assert (scaler["minReplicas"], scaler["maxReplicas"]) == (2, 5)
    budget = spec_of(manifests, "PodDisruptionBudget")
    assert budget["selector"] == spec_of(manifests)["selector"]
    assert budget["unhealthyPodEvictionPolicy"] == "AlwaysAllow"


@pytest.mark.parametrize(("replicas", "kinds"), [(1, []), (2, ["PodDisruptionBudget"])])
def test_one_pod_needs_no_budget(replicas: int, kinds: list[str]) -> None:
    manifests = build("serving", **SERVING["pvc"], replicas=replicas)
    assert [each["kind"] for each in manifests] == ["NetworkPolicy", "Deployment", *kinds]
    assert spec_of(manifests)["replicas"] == replicas
    assert spec_of(manifests)["strategy"]["rollingUpdate"]["maxUnavailable"] == 0


WEB_UI = {"app.kubernetes.io/name": "web-ui", "app.kubernetes.io/part-of": "mnist"}
CLIENTS = {"fairway/client": "true"}


@pytest.mark.parametrize(
    ("written", "labels"),
    [
        ({}, [WEB_UI, CLIENTS]),
        ({"clients": ""}, [WEB_UI]),
        ({"clients": "role=client,tier=a"}, [WEB_UI, {"role": "client", "tier": "a"}]),
        ({"gateway": "public"}, [WEB_UI, CLIENTS, {"gateway.networking.k8s.io/gateway-name": "public"}]),
        (
            {"gateway": "mnist/public"},
            [WEB_UI, CLIENTS, {"gateway.networking.k8s.io/gateway-name": "public"}],
        ),
        ({"gateway": "gateways/public"}, [WEB_UI, CLIENTS, {"kubernetes.io/metadata.name": "gateways"}]),
        (
            {"gateway": "gateways/public", "gatewayNamespace": "proxies"},
            [WEB_UI, CLIENTS, {"kubernetes.io/metadata.name": "proxies"}],
        ),
        ({"gatewayNamespace": "proxies"}, [WEB_UI, CLIENTS]),
        (
            {"prometheusNamespace": "monitoring"},
            [WEB_UI, CLIENTS, {"kubernetes.io/metadata.name": "monitoring"}],
        ),
    ],
)
def test_only_these_may_ask(written: dict[str, Any], labels: list[dict[str, str]]) -> None:
    (rule,) = spec_of(build("serving", **SERVING["pvc"], **written), "NetworkPolicy")["ingress"]
    assert [next(iter(peer.values()))["matchLabels"] for peer in rule["from"]] == labels
    assert [port["port"] for port in rule["ports"]] == [8500, 9000]


@pytest.mark.parametrize("service_type", ["NodePort", "LoadBalancer"])
def test_everybody_may_ask_what_others_than_the_cluster_reach(service_type: str) -> None:
    manifests = build("serving", **SERVING["pvc"], serviceType=service_type)
    (rule,) = spec_of(manifests, "NetworkPolicy")["ingress"]
    assert "from" not in rule


@pytest.mark.parametrize(
    ("written", "words"),
    [
        (
            {"storage": "gcp", "modelBasePath": "s3://b/x"},
            ["storage is gcp", "modelBasePath is s3://b/x, which is aws"],
        ),
        ({"storage": "pvc", "modelBasePath": "gs://b/x"}, ["storage is pvc", "gs://b/x, which is gcp"]),
        ({"storage": "local", "modelBasePath": "gs://b/x"}, ["storage is local", "which is gcp"]),
        ({"storage": "aws", "modelBasePath": "/mnt/x", "pvcName": "c"}, ["storage is aws", "which is pvc"]),
        ({"storage": "aws", "modelBasePath": "/models/x"}, ["storage is aws", "which is local"]),
        ({"storage": "pvc", "modelBasePath": "/mnt/x"}, ["storage is pvc, but pvcName is not set"]),
        ({"storage": "pvc"}, ["modelBasePath is not set"]),
        (
            {"storage": "pvc", "modelBasePath": "/data", "pvcName": "c"},
            ["modelBasePath is /data", "not on the claim c"],
        ),
        ({"storage": "aws", "modelBasePath": "http://b/x"}, ["unknown scheme 'http'"]),
        ({"storage": "gcp", "modelBasePath": "http://b/x"}, ["unknown scheme 'http'"]),
        ({"storage": "pvc", "modelBasePath": "hdfs://b/x", "pvcName": "c"}, ["unknown scheme 'hdfs'"]),
        ({"storage": "local", "modelBasePath": "http://b/x"}, ["unknown scheme 'http'"]),
        ({**SERVING["pvc"], "replicas": 3, "maxReplicas": 2}, ["maxReplicas is 2", "replicas, which is 3"]),
        ({**SERVING["pvc"], "replicas": 0, "maxReplicas": 2}, ["replicas is 0", "maxReplicas"]),
        ({**SERVING["pvc"], "labels": "version=v9"}, ["labels has version, which is set already: to v1"]),
        ({**SERVING["pvc"], "labels": "fairway/environment=x"}, ["labels has fairway/environment"]),
        (
            {**SERVING["pvc"], "envVariables": "A=1", "secretKeyRefs": "A=s.k"},
            ["A is set twice: by secretKeyRefs and by envVariables"],
        ),
        ({**SERVING["pvc"], "serverImage": "tfs:1"}, ["serverImage is tfs:1", "server tensorflow-serving"]),
        (
            {**SERVING["pvc"], "prometheusNamespace": "monitoring", "networkPolicy": False},
            ["prometheusNamespace is monitoring", "no effect without networkPolicy true"],
        ),
        (
            {**SERVING["pvc"], "server": "tensorflow-serving", "secret": "s=/etc/monitoring"},
            ["secret is to be mounted at /etc/monitoring, where something else is"],
        ),
        (
            {**SERVING["aws"], "server": "tensorflow-serving", "secret": "s=/etc/monitoring"},
            ["secret is to be mounted at /etc/monitoring, where something else is"],
        ),
        (
            {**SERVING["local"], "secret": "s=/tmp"},
            ["secret is to be mounted at /tmp, where something else is"],
        ),
        ({**SERVING["pvc"], "targetCpu": 60}, ["targetCpu is 60", "no effect without maxReplicas"]),
        ({**SERVING["aws"], "s3Enable": False}, ["s3SecretName is aws-creds", "without s3Enable true"]),
        ({**SERVING["pvc"], "s3UseHttps": False}, ["s3UseHttps is false", "without s3Enable true"]),
        ({**SERVING["pvc"], "s3VerifySsl": False}, ["s3VerifySsl is false", "without s3Enable true"]),
        ({**SERVING["pvc"], "s3AwsRegion": "eu"}, ["s3AwsRegion is eu", "without s3Enable true"]),
        ({**SERVING["pvc"], "s3Endpoint": "a:1"}, ["s3Endpoint is a:1", "without s3Enable true"]),
        (
            {**SERVING["pvc"], "s3SecretAccesskeyidKeyName": "id"},
            ["s3SecretAccesskeyidKeyName is id", "without s3Enable true"],
        ),
        (
            {**SERVING["aws"], "s3SecretName": None},
            ["s3SecretAccesskeyidKeyName is awsAccessKeyID", "without s3SecretName"],
        ),
    ],
)
def test_params_that_do_not_fit_together(written: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(UsageError) as caught:
        build("serving", **written)
    for word in words:
        assert word in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize("storage", SERVING)
def test_a_scheme_that_nobody_knows_is_refused_and_not_passed_over(storage: Storage) -> None:
    assert takes_part(ServingParams(storage=storage, model_base_path="http://b/x"), [])
