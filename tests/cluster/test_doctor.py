"""`fairway doctor` on a real cluster: what is well, and what is missing."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import yaml

from tests.cluster.apps import ClusterApp, until
from tests.cluster.running import running

ROLE = """
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: reader}
rules:
- {apiGroups: ["", apps, batch, kubeflow.org, jobset.x-k8s.io, autoscaling, policy, networking.k8s.io,
    gateway.networking.k8s.io], resources: ["*"], verbs: [get, list, watch]}
"""
QUOTA = """
apiVersion: v1
kind: ResourceQuota
metadata: {name: team}
spec: {hard: {pods: "0", services: "10"}}
"""


def doctor(app: ClusterApp, *words: str, code: int = 0) -> list[dict[str, Any]]:
    """Return what the doctor finds."""
    found: list[dict[str, Any]] = json.loads(
        app.fairway("doctor", app.environment, "-o", "json", *words, code=code).stdout
    )
    return found


def fails(checks: list[dict[str, Any]]) -> dict[str, str]:
    """Return what fails, by title: sentence and hint."""
    return {
        check["title"]: f"{check['sentence']} | {check['hint']}"
        for check in checks
        if check["outcome"] == "fail"
    }


def warnings(checks: list[dict[str, Any]]) -> dict[str, str]:
    """Return what is warned of, by title."""
    return {check["title"]: check["sentence"] for check in checks if check["outcome"] == "warn"}


def test_all_is_well_but_there_is_no_model(namespace: str, tmp_path: Path) -> None:
    app = ClusterApp.make(tmp_path, namespace, {})
    before = doctor(app)
    assert warnings(before) == {"write probe": "not tried, as the claim mnist-model is not there yet"}

    app.fairway("apply", "dev", "-c", "storage")
    done = app.fairway("doctor", "dev")
    assert "ok   TFJob: the cluster knows it, as kubeflow.org/v1" in done.stdout
    assert "ok   image: fairway-train:0.1.0 runs" in done.stdout
    assert "ok   write probe: a pod has created, read and deleted a file in /mnt\n" in done.stdout
    assert "ok   write probe: a pod has created, read and deleted a file in /mnt/export\n" in done.stdout
    assert "warn versions: there is no version in /mnt/export yet" in done.stdout
    assert "fail" not in done.stdout
    assert app.objects("jobs") == []


def test_what_is_missing_is_named(namespace: str, tmp_path: Path) -> None:
    params: dict[str, dict[str, Any]] = {
        "train": {
            "pvcName": "absent",
            "secretKeyRefs": "AWS_ACCESS_KEY_ID=s3.id,AWS_SECRET_ACCESS_KEY=s3.key",
            "serviceAccount": "trainer",
        },
        "mnist-service": {"gateway": "public"},
        "mnist-deploy-pvc": {"maxReplicas": 2},
    }
    app = ClusterApp.make(tmp_path, namespace, params)
    app.kubectl("create", "secret", "generic", "s3", "--from-literal=id=x")
    app.kubectl("create", "-f", "-", stdin=QUOTA)
    until(lambda: app.objects("resourcequotas")[0]["status"].get("used"), "use of the quota")
    checks = doctor(app, code=1)
    found, titles = fails(checks), [check["title"] for check in checks]
    assert set(found) == {
        f"gateway {namespace}/public",
        "claim absent",
        "secret s3",
        "service account trainer",
    }
    assert "it has no key, and" in found["secret s3"]
    assert "create serviceaccount trainer" in found["service account trainer"]
    assert warnings(checks)["quota team"] == "it is nearly used up: 0 of 0 pods"
    assert {"title": "metrics", "outcome": "ok"}.items() <= checks[titles.index("metrics")].items()


def test_a_store_that_pods_cannot_reach_is_told_by_the_pod(namespace: str, tmp_path: Path) -> None:
    train = {
        "modelDir": "s3://models/mnist",
        "exportDir": "s3://models/export",
        "envVariables": "AWS_ACCESS_KEY_ID=a,AWS_SECRET_ACCESS_KEY=b,AWS_REGION=x,S3_ENDPOINT=nobody:9000",
    }
    app = ClusterApp.make(tmp_path, namespace, {"train": train})
    found = fails(doctor(app, code=1))
    assert set(found) == {"write probe"}
    assert "s3://models/export: " in found["write probe"]
    assert "nobody:9000" in found["write probe"]
    assert "NetworkPolicies" in found["write probe"]
    assert app.objects("jobs") == []


def test_a_quota_and_a_wrong_image_are_told_and_ctrl_c_leaves_nothing(namespace: str, tmp_path: Path) -> None:
    app = ClusterApp.make(tmp_path, namespace, {"train": {"image": "fairway-train:absent"}})
    app.fairway("apply", "dev", "-c", "storage")
    with running(app, "doctor", "dev") as command:
        command.wait_for("^waiting for the pod: image .*fairway-train:absent cannot be pulled")
        command.end(signal.SIGINT)
    assert app.objects("jobs") == []

    app.kubectl("create", "-f", "-", stdin=QUOTA)
    found = fails(doctor(app, code=1))["write probe"]
    assert "no pod may be made: exceeded quota: team" in found
    assert app.objects("jobs") == []


def test_rights_that_lack_are_named(namespace: str, tmp_path: Path) -> None:
    app = ClusterApp.make(tmp_path, namespace, {})
    app.kubectl("create", "serviceaccount", "reader")
    app.kubectl("create", "-f", "-", stdin=ROLE)
    app.kubectl("create", "rolebinding", "reader", "--role=reader", f"--serviceaccount={namespace}:reader")
    token = app.kubectl("create", "token", "reader").strip()
    content = yaml.safe_load(Path(app.variables["KUBECONFIG"]).read_text())
    content["users"][0]["user"] = {"token": token}
    copy = tmp_path / "kubeconfig"
    copy.write_text(yaml.safe_dump(content))
    app.variables = app.variables | {"KUBECONFIG": str(copy)}

    checks = doctor(app, code=1)
    rights = [check for check in checks if check["title"] == "rights"]
    assert [check["outcome"] for check in rights] == ["fail", "warn"]
    assert "create, patch TFJob" in rights[0]["sentence"]
    assert "get Pod" not in rights[0]["sentence"]
    assert "delete TFJob" in rights[1]["sentence"]
    assert "auth can-i --list" in rights[0]["hint"]


def test_another_cluster_and_no_namespace_are_told(namespace: str, tmp_path: Path) -> None:
    app = ClusterApp.make(tmp_path, namespace, {})
    app.fairway("env", "set", "dev", "--namespace", f"{namespace}-absent")
    checks = doctor(app, code=1)
    assert checks[-1]["sentence"] == f"{namespace}-absent does not exist, so nothing in it was looked at"

    path = app.directory / "environments" / "dev.yaml"
    path.write_text(path.read_text().replace("https://", "https://other."))
    (check,) = doctor(app, code=1)
    assert (check["title"], check["outcome"]) == ("cluster", "fail")
    assert "leads to another cluster" in check["sentence"]
