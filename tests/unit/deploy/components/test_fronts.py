"""The components that people see: `mnist-service`, `tensorboard`, `web-ui`; and their ways in."""

from __future__ import annotations

from typing import Any

import pytest

from fairway.errors import UsageError
from tests.unit.deploy.components.cases import SERVING, WEB, build
from tests.unit.deploy.components.test_serving import container_of, pod_of, spec_of

PUBLIC = {"gateway": "gateways/public"}


def labels_of(kind: str, **written: Any) -> dict[str, str]:
    labels: dict[str, str] = spec_of(build(kind, **written))["template"]["metadata"]["labels"]
    return labels


def test_the_service_has_the_tutorial_s_ports_and_leads_to_the_model_s_servers() -> None:
    service = spec_of(build("mnist-service"), "Service")
    ports = {port["name"]: port["port"] for port in service["ports"]}
    assert ports == {"grpc-tf-serving": 9000, "http-tf-serving": 8500}
    assert service["selector"].items() <= labels_of("serving", **SERVING["pvc"]).items()
    other_version = labels_of("serving", **SERVING["pvc"], versionName="v2")
    assert not service["selector"].items() <= other_version.items()
    web_ui = labels_of("web-ui", **WEB, name="mnist")
    assert web_ui["app"] == service["selector"]["app"]
    assert not service["selector"].items() <= web_ui.items()


def test_traffic_is_divided_by_the_gateway_among_services_of_one_version_each() -> None:
    manifests = build("mnist-service", **PUBLIC, trafficRule="v1:90,v2:10", serviceType="NodePort")
    services = {each["metadata"]["name"]: each["spec"] for each in manifests if each["kind"] == "Service"}
    assert [(name, spec["type"], spec["selector"].get("version")) for name, spec in services.items()] == [
        ("mnist-service", "NodePort", None),
        ("mnist-service-v1", "ClusterIP", "v1"),
        ("mnist-service-v2", "ClusterIP", "v2"),
    ]
    (rule,) = spec_of(manifests, "HTTPRoute")["rules"]
    assert rule["backendRefs"] == [
        {"name": "mnist-service-v1", "port": 8500, "weight": 90},
        {"name": "mnist-service-v2", "port": 8500, "weight": 10},
    ]


def test_a_rule_may_name_a_label_of_the_pods() -> None:
    manifests = build("mnist-service", **PUBLIC, trafficRule="track=stable:50,track=canary:50")
    canary = next(each for each in manifests if each["metadata"]["name"] == "mnist-service-canary")
    pod = labels_of("serving", **SERVING["pvc"], versionName="v7", labels="track=canary")
    assert canary["spec"]["selector"].items() <= pod.items()


def test_the_route_has_the_paths_of_the_rest_api() -> None:
    """A prefix matches whole elements of a path, so `mnist:predict` has to be named."""
    (rule,) = spec_of(build("mnist-service", **PUBLIC), "HTTPRoute")["rules"]
    paths = [(match["path"]["type"], match["path"]["value"]) for match in rule["matches"]]
    assert ("PathPrefix", "/v1/models/mnist") in paths
    assert ("Exact", "/v1/models/mnist:predict") in paths
    assert rule["backendRefs"] == [{"name": "mnist-service", "port": 8500}]


@pytest.mark.parametrize(
    ("gateway", "parent"),
    [("public", {"name": "public"}), ("gateways/public", {"namespace": "gateways", "name": "public"})],
)
def test_a_gateway_may_be_in_another_namespace(gateway: str, parent: dict[str, str]) -> None:
    route = spec_of(build("mnist-service", gateway=gateway, hostname="mnist.example"), "HTTPRoute")
    assert route["parentRefs"] == [parent]
    assert route["hostnames"] == ["mnist.example"]


@pytest.mark.parametrize(
    ("kind", "written", "path", "service"),
    [
        ("web-ui", WEB, "/mnist/mnist", "web-ui"),
        ("tensorboard", {"logDir": "s3://b/x"}, "/mnist/tensorboard/mnist", "tensorboard-tb"),
    ],
)
def test_a_path_of_the_gateway_shows_a_page(kind: str, written: Any, path: str, service: str) -> None:
    manifests = build(kind, **written, **PUBLIC)
    redirect, page = spec_of(manifests, "HTTPRoute")["rules"]
    assert redirect["matches"] == [{"path": {"type": "Exact", "value": path}}]
    assert redirect["filters"][0]["requestRedirect"]["path"]["replaceFullPath"] == f"{path}/"
    assert page["matches"] == [{"path": {"type": "PathPrefix", "value": f"{path}/"}}]
    assert page["filters"][0]["urlRewrite"]["path"]["replacePrefixMatch"] == "/"
    assert page["backendRefs"] == [{"name": service, "port": 80}]
    (rule,) = spec_of(manifests, "NetworkPolicy")["ingress"]
    assert rule["from"] == [
        {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "gateways"}}}
    ]


@pytest.mark.parametrize(("kind", "written"), [("web-ui", WEB), ("tensorboard", {"logDir": "s3://b/x"})])
def test_without_a_gateway_only_port_forward_leads_in(kind: str, written: Any) -> None:
    assert spec_of(build(kind, **written), "NetworkPolicy")["ingress"] == []
    assert "NetworkPolicy" not in [each["kind"] for each in build(kind, **written, networkPolicy=False)]


def test_everybody_gets_in_through_a_node_s_port() -> None:
    manifests = build("web-ui", **WEB, type="NodePort")
    assert spec_of(manifests, "Service")["type"] == "NodePort"
    assert spec_of(manifests, "NetworkPolicy")["ingress"] == [{"ports": [{"protocol": "TCP", "port": 5000}]}]


def test_tensorboard_has_the_tutorial_s_name_labels_and_ports() -> None:
    manifests = build("tensorboard", name="mnist-train", logDir="s3://b/x")
    assert {each["metadata"]["name"] for each in manifests} == {"mnist-train-tb"}
    labels = labels_of("tensorboard", name="mnist-train", logDir="s3://b/x")
    assert {"app": "tensorboard", "tb-job": "mnist-train"}.items() <= labels.items()
    assert spec_of(manifests, "Service")["ports"] == [{"name": "http", "port": 80, "targetPort": 8090}]
    assert spec_of(manifests, "Service")["selector"].items() <= labels.items()
    assert container_of(manifests)["args"] == [
        "tensorboard",
        "--host=::",
        "--port=8090",
        "--logdir=s3://b/x",
    ]


def test_the_web_ui_asks_the_service_and_reads_the_training_s_directories() -> None:
    manifests = build("web-ui", **WEB, modelDir="/mnt", exportDir="s3://b/x", pvcName="c", containerPort=8081)
    assert container_of(manifests)["args"] == [
        "web",
        "--host=::",
        "--port=8081",
        "--server=mnist-service:8500",
        "--model-name=mnist",
        "--model-dir=/mnt",
        "--export-dir=s3://b/x",
        "--dataset=auto",
    ]
    assert {"name": "model", "mountPath": "/mnt", "readOnly": True} in container_of(manifests)["volumeMounts"]
    assert spec_of(manifests, "Service")["ports"] == [{"name": "http", "port": 80, "targetPort": 8081}]


@pytest.mark.parametrize(
    ("written", "flags"),
    [
        ({"dataset": "mnist"}, ["--dataset=auto"]),
        ({"dataset": "mnist", "dataDir": "s3://b/data"}, ["--dataset=mnist", "--data-dir=s3://b/data"]),
        ({"dataset": "custom", "dataDir": "s3://b/data"}, ["--dataset=custom", "--data-dir=s3://b/data"]),
        ({"dataset": "embedded"}, ["--dataset=embedded"]),
    ],
)
def test_the_web_ui_asks_for_no_images_that_it_would_have_to_download(
    written: dict[str, str], flags: list[str]
) -> None:
    assert container_of(build("web-ui", **WEB | written))["args"][5:] == flags


def test_environments_of_one_namespace_do_not_share_model_servers() -> None:
    selector = spec_of(build("mnist-service"), "Service")["selector"]
    assert selector["fairway/environment"] == "dev"


@pytest.mark.parametrize(("kind", "written"), [("web-ui", WEB), ("tensorboard", {"logDir": "s3://b/x"})])
@pytest.mark.parametrize(
    ("gateway", "peer"),
    [
        ("public", {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "proxies"}}}),
        (
            "gateways/public",
            {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "proxies"}}},
        ),
    ],
)
def test_the_proxies_of_a_gateway_may_run_in_another_namespace(
    kind: str, written: Any, gateway: str, peer: dict[str, Any]
) -> None:
    manifests = build(kind, **written, gateway=gateway, gatewayNamespace="proxies")
    (rule,) = spec_of(manifests, "NetworkPolicy")["ingress"]
    assert rule["from"] == [peer]
    assert "proxies" not in str(spec_of(manifests, "HTTPRoute"))


def test_the_proxies_of_a_gateway_elsewhere_may_run_in_the_app_s_namespace() -> None:
    manifests = build("web-ui", **WEB, **PUBLIC, gatewayNamespace="mnist")
    (rule,) = spec_of(manifests, "NetworkPolicy")["ingress"]
    labels = {"gateway.networking.k8s.io/gateway-name": "public"}
    assert rule["from"] == [{"podSelector": {"matchLabels": labels}}]


def test_the_web_ui_shows_a_model_whose_files_it_cannot_see() -> None:
    manifests = build("web-ui", **WEB, modelDir="/mnt", exportDir="/mnt/export")
    assert [volume["name"] for volume in pod_of(manifests)["volumes"]] == ["tmp"]


@pytest.mark.parametrize(
    ("kind", "written", "words"),
    [
        ("mnist-service", {"trafficRule": "v1:90,v2:10"}, ["trafficRule", "among 2", "gateway is not set"]),
        (
            "mnist-service",
            {**PUBLIC, "trafficRule": "version=a:50,track=a:50"},
            ["trafficRule has one value under two labels"],
        ),
        ("mnist-service", {**PUBLIC, "name": "m" * 62, "trafficRule": "v1:50,v2:50"}, ["2 too many"]),
        ("tensorboard", {}, ["logDir is not set"]),
        ("tensorboard", {"logDir": "/mnt"}, ["logDir is /mnt", "pvcName is not set", "nothing to see"]),
        ("tensorboard", {"logDir": "/x", "pvcName": "c"}, ["logDir is /x", "not on the claim c"]),
        ("tensorboard", {"logDir": "s3://b/x", "name": "m" * 61}, ["too many"]),
        ("web-ui", {}, ["service is not set"]),
        ("web-ui", {**WEB, "hostname": "a.example"}, ["hostname is a.example", "no effect without gateway"]),
        ("tensorboard", {"logDir": "s3://b/x", "hostname": "a"}, ["hostname is a,", "without gateway"]),
        ("mnist-service", {"hostname": "a"}, ["hostname is a,", "without gateway"]),
        ("mnist-service", {"gatewayNamespace": "a"}, ["gatewayNamespace is a,", "without gateway"]),
        ("web-ui", {**WEB, "modelDir": "/x", "pvcName": "c"}, ["modelDir is /x", "not on the claim c"]),
    ],
)
def test_params_that_do_not_fit_together(kind: str, written: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(UsageError) as caught:
        build(kind, **written)
    for word in words:
        assert word in caught.value.message
    assert caught.value.hint
