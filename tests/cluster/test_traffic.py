"""Who reaches whom, and how many serve: NetworkPolicies, the HPA and HTTPRoutes on a real cluster."""

from __future__ import annotations

import re
from pathlib import Path

from tests.cluster.apps import SERVE_IMAGE, SMALL, ClusterApp, until

REACH = """
import socket, sys
for place in sys.argv[1:]:
    host, _, port = place.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=3).close()
        print(place, "open")
    except OSError:
        print(place, "closed")
"""
LOAD = """
import http.client, json
body = json.dumps({"instances": [[[0.0] * 28] * 28] * 32})
while True:
    try:
        connection = http.client.HTTPConnection("mnist-service", 8500, timeout=5)
        for _ in range(1000):
            connection.request("POST", "/v1/models/mnist:predict", body)
            connection.getresponse().read()
    except OSError:
        pass
"""
METRICS = """
import sys, urllib.request
print(urllib.request.urlopen(sys.argv[1], timeout=60).read().decode())
"""
PYTHON = ("/opt/fairway/bin/python", "-c")
CLIENT = {"fairway/client": "true"}


def reach(app: ClusterApp, *places: str, labels: dict[str, str] | None = None) -> dict[str, str]:
    """Return which places a pod with some labels reaches: `open` or `closed`."""
    printed = app.in_pod(command=(*PYTHON, REACH, *places), labels=labels)
    return dict(line.split() for line in printed.splitlines())


def test_only_the_app_reaches_the_tasks_of_a_training(namespace: str, tmp_path: Path) -> None:
    params = SMALL | {"trainSteps": 100_000, "numWorkers": 1, "numPs": 1, "launcher": "tfjob"}
    app = ClusterApp.make(tmp_path, namespace, {"train": params})
    app.fairway("apply", "dev", "-c", "storage", "-c", "train")
    until(app.step, "first step")  # by which chief, worker and ps have reached each other

    places = [f"mnist-train-{task}-0:{port}" for task in ("chief", "ps") for port in (2222, 2223)]
    assert set(reach(app, *places[:3]).values()) == {"closed"}
    inside = app.objects("pods", "fairway/role=worker")[0]["metadata"]["labels"]
    ours = {key: value for key, value in inside.items() if key.startswith(("app.kubernetes.io/", "fairway/"))}
    ours["fairway/role"] = "stranger-with-the-labels"
    assert set(reach(app, *places[:3], labels=ours).values()) == {"open"}

    app.fairway("delete", "dev", "--yes")
    assert app.objects("pods") == []


def test_serving_lets_in_its_clients_scales_has_routes_and_is_deleted(namespace: str, tmp_path: Path) -> None:
    serving = {"maxReplicas": 3, "targetCpu": 40, "cpu": "100m", "prometheusNamespace": "default"}
    params = {"train": SMALL | {"modelType": "linear"}, "mnist-deploy-pvc": serving}
    app = ClusterApp.make(tmp_path, namespace, params)
    app.set("web-ui", "gateway", "infra/public")
    app.set("mnist-service", "gateway", "infra/public")
    app.set("tensorboard", "gateway", "infra/public")
    app.fairway("apply", "dev", "--wait")

    routes = {route["metadata"]["name"]: route["spec"] for route in app.objects("httproutes")}
    assert set(routes) == {"mnist-service", "web-ui", "tensorboard-tb"}
    assert {spec["parentRefs"][0]["namespace"] for spec in routes.values()} == {"infra"}

    assert reach(app, "mnist-service:8500") == {"mnist-service:8500": "closed"}
    assert reach(app, "mnist-service:8500", labels=CLIENT) == {"mnist-service:8500": "open"}
    assert set(reach(app, "web-ui:80", "tensorboard-tb:80").values()) == {"closed"}

    check_metrics(app)
    check_scaling(app)
    check_delete(app)


def check_metrics(app: ClusterApp) -> None:
    """From Prometheus' namespace the metrics can be read where annotations of the pod say."""
    (pod,) = app.objects("pods", "app.kubernetes.io/name=serving")
    found = pod["metadata"]["annotations"]
    url = f"http://{pod['status']['podIP']}:{found['prometheus.io/port']}{found['prometheus.io/path']}"
    printed = ClusterApp(app.directory, "default").in_pod(command=(*PYTHON, METRICS, url))
    assert re.search(r'^fairway_version_serving\{model_name="mnist",version="\d+"\} 1', printed, re.MULTILINE)


def check_scaling(app: ClusterApp) -> None:
    """Put load on the model server and take it away again."""

    def replicas() -> int:
        return int(
            app.objects("deployments", "app.kubernetes.io/name=serving")[0]["status"].get("replicas", 0)
        )

    container = {"name": "load", "image": SERVE_IMAGE, "command": [*PYTHON, LOAD]}
    spec = {"terminationGracePeriodSeconds": 0, "containers": [container]}
    app.create(
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "load", "labels": CLIENT}, "spec": spec}
    )
    until(lambda: replicas() >= 2, "second replica under load", poll_s=2)
    app.kubectl("delete", "pod", "load")
    until(lambda: replicas() == 1, "return to one replica", poll_s=2)


def check_delete(app: ClusterApp) -> None:
    """Of all these kinds nothing is left, but for the claim."""
    kinds = {name.partition("/")[0] for name in app.left()}
    assert kinds > {
        *("horizontalpodautoscaler.autoscaling", "poddisruptionbudget.policy", "tfjob.kubeflow.org"),
        *("httproute.gateway.networking.k8s.io", "networkpolicy.networking.k8s.io", "deployment.apps"),
    }
    app.fairway("delete", "dev", "--yes")
    until(lambda: app.left() == ["persistentvolumeclaim/mnist-model"], "end of all but the claim")
