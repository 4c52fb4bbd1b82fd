"""apply, diff, delete, status and logs on a real cluster."""

from __future__ import annotations

import json
import re
import signal
import socket
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster.apps import SMALL, ClusterApp, until

OTHER_MANAGER = "somebody"


CLAIM = {
    "apiVersion": "v1",
    "kind": "PersistentVolumeClaim",
    "metadata": {"name": "mnist-model"},
    "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
}


def rows(app: ClusterApp, *words: str) -> dict[str, dict[str, Any]]:
    """Return what status says, by component."""
    done = app.fairway("status", app.environment, *words, "-o", "json")
    return {row["component"]: row for row in json.loads(done.stdout)}


def test_from_apply_to_delete(namespace: str, tmp_path: Path) -> None:
    app = ClusterApp.make(tmp_path, namespace, {"train": SMALL})

    shown = app.fairway("apply", "dev", "--dry-run", "server").stdout
    assert "TFJob mnist-train created (dry run)" in shown
    assert app.objects("deployments") == []
    created = app.fairway("diff", "dev", code=1).stdout
    assert "TFJob mnist-train: created" in created

    done = app.fairway("apply", "dev", "--wait")
    assert "Deployment web-ui created" in done.stdout
    assert "train is done: has trained: test accuracy" in done.stderr
    assert "mnist-deploy-pvc is ready" in done.stderr

    assert app.fairway("diff", "dev").stdout == ""
    again = app.fairway("apply", "dev", "--prune").stdout
    assert "TFJob mnist-train unchanged (has succeeded; --replace trains anew)" in again
    assert all(" unchanged" in line for line in again.splitlines())

    found = rows(app)
    assert {row["state"] for row in found.values()} == {"ready", "done"}
    training = found["train"]["training"]
    assert training["test_accuracy"] > 0.85
    (version,) = app.versions("/mnt/export", claim="mnist-model")
    assert (version["version"], version["state"], version["step"]) == (training["version"], "complete", 60)

    check_logs(app)
    check_params_reach_the_cluster(app)
    check_delete(app)


def check_logs(app: ClusterApp) -> None:
    merged = app.fairway("logs", "dev").stdout
    assert re.search(r"^chief-0 +│ training cnn for 60 steps of", merged, re.MULTILINE)
    assert "web-ui-" in merged
    followed = app.fairway("logs", "dev", "-c", "train", "--role", "chief", "-f", "--tail", "2").stdout
    assert [line.partition(" │ ")[0] for line in followed.splitlines()] == ["chief-0", "chief-0"]
    assert "exported version" in followed
    nobody = app.fairway("logs", "dev", "-c", "train", "--role", "ps", code=1)
    assert "there are no pods of train with role ps" in nobody.stderr
    app.fairway("logs", "dev", "-c", "web-ui", "--previous", code=1)


def check_params_reach_the_cluster(app: ClusterApp) -> None:
    app.set("web-ui", "cpu", "150m")
    changed = app.fairway("diff", "dev", "-c", "web-ui", code=1).stdout
    assert "+            cpu: 150m" in changed
    assert "Deployment web-ui configured" in app.fairway("apply", "dev", "-c", "web-ui").stdout
    assert app.fairway("diff", "dev", "-c", "web-ui").stdout == ""

    app.set("train", "trainSteps", 80)
    assert "apply needs --replace" in app.fairway("diff", "dev", "-c", "train", code=1).stdout
    refused = app.fairway("apply", "dev", code=1)
    assert "TFJob mnist-train is of other params, and has succeeded" in refused.stderr
    assert refused.stdout == ""
    replaced = app.fairway("apply", "dev", "-c", "train", "--replace").stdout
    assert "TFJob mnist-train deleted (replaced)" in replaced
    assert "TFJob mnist-train created" in replaced
    app.set("train", "launcher", "job")
    running = app.fairway("apply", "dev", "-c", "train", "--replace", code=1)
    assert "still running" in running.stderr

    app.set("web-ui", "enabled", False)
    assert "Deployment web-ui: removed" in app.fairway("diff", "dev", code=1).stdout
    app.set("train", "launcher", "tfjob")
    assert "Deployment web-ui deleted" in app.fairway("apply", "dev", "--prune").stdout
    assert not [each for each in app.objects("deployments") if each["metadata"]["name"] == "web-ui"]


def check_delete(app: ClusterApp) -> None:
    app.kubectl("create", "secret", "generic", "of-somebody")
    asked = app.fairway("delete", "dev", code=2)
    assert "--yes" in asked.stderr
    done = app.fairway("delete", "dev", "--yes")
    assert "TFJob mnist-train deleted" in done.stdout
    assert "PersistentVolumeClaim mnist-model stays" in done.stderr
    for kind in ("pods", "deployments", "services", "networkpolicies", "tfjobs", "jobs"):
        assert app.objects(kind) == [], kind
    assert [each["metadata"]["name"] for each in app.objects("pvc")] == ["mnist-model"]
    assert [each["metadata"]["name"] for each in app.objects("secrets")] == ["of-somebody"]
    app.fairway("delete", "dev", "--yes", "--data")
    assert app.objects("pvc") == []


def test_a_field_of_another_manager_is_a_conflict(namespace: str, tmp_path: Path) -> None:
    app = ClusterApp.make(tmp_path, namespace, {})
    app.fairway("apply", "dev", "-c", "mnist-service")
    port = {"port": 8500, "protocol": "TCP", "name": "theirs"}
    app.kubectl(
        *("apply", "--server-side", "--force-conflicts", "--field-manager", OTHER_MANAGER, "-f", "-"),
        stdin=json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": {"name": "mnist-service"},
                "spec": {"ports": [port]},
            }
        ),
    )
    refused = app.fairway("apply", "dev", "-c", "mnist-service", "-c", "storage", code=1)
    assert "Service mnist-service is also managed by others: somebody has set .spec.ports" in refused.stderr
    assert "--force-conflicts" in refused.stderr
    assert refused.stdout == ""
    assert app.objects("pvc") == [], "it was applied although something else was refused"
    taken = app.fairway("apply", "dev", "-c", "mnist-service", "--force-conflicts").stdout
    assert taken == "Service mnist-service configured\n"


def test_a_missing_namespace(namespace: str, tmp_path: Path) -> None:
    missing = f"{namespace}-b"
    app = ClusterApp.make(tmp_path, missing, {})
    app.namespace = missing
    assert f"namespace {missing} does not exist" in rows(app)["train"]["reason"]
    refused = app.fairway("apply", "dev", "-c", "storage", code=1)
    assert f"create namespace {missing}" in refused.stderr
    try:
        made = app.fairway("apply", "dev", "-c", "storage", "--create-namespace").stdout
        assert made.splitlines() == [
            f"Namespace {missing} created",
            "PersistentVolumeClaim mnist-model created",
        ]
    finally:
        app.kubectl("delete", "namespace", missing, "--ignore-not-found", "--wait=false")


def test_two_environments_in_one_namespace(namespace: str, tmp_path: Path) -> None:
    app = ClusterApp.make(tmp_path, namespace, {})
    app.fairway("env", "add", "prod", "--namespace", namespace)
    app.fairway("apply", "dev", "-c", "storage", "-c", "mnist-service")
    until(lambda: app.objects("pvc")[0]["status"]["phase"] == "Bound", "volume for the claim")
    before = app.objects("services") + app.objects("pvc")

    refused = app.fairway("apply", "prod", "-c", "mnist-service", code=1)
    assert "environment dev" in refused.stderr
    assert "Service mnist-service" in refused.stderr
    refused = app.fairway("apply", "prod", code=1)
    assert refused.stdout == ""
    app.fairway("delete", "prod", "--yes", "--data")
    assert app.objects("services") + app.objects("pvc") == before
    assert app.objects("tfjobs") == [], "a part of it was applied"


def test_a_claim_of_somebody_else(namespace: str, tmp_path: Path) -> None:
    app = ClusterApp.make(tmp_path, namespace, {})
    app.create(CLAIM)
    refused = app.fairway("apply", "dev", "-c", "storage", "-c", "tensorboard", code=1)
    assert "PersistentVolumeClaim mnist-model" in refused.stderr
    assert app.objects("deployments") == [], "a part of it was applied"

    app.set("storage", "enabled", False)
    app.fairway("apply", "dev", "-c", "tensorboard")
    app.fairway("delete", "dev", "--yes", "--data")
    assert app.objects("deployments") == []
    (claim,) = app.objects("pvc")
    assert not {"labels", "deletionTimestamp"} & set(claim["metadata"])


def take_kubeconfig(app: ClusterApp, part: str, value: dict[str, Any]) -> None:
    """Tie the environment to a copy of the kubeconfig with another cluster or user."""
    content = yaml.safe_load(Path(app.variables["KUBECONFIG"]).read_text())
    content[f"{part}s"][0][part] = value
    copy = app.directory.parent / "kubeconfig"
    copy.write_text(yaml.safe_dump(content))
    app.variables = app.variables | {"KUBECONFIG": str(copy)}
    app.fairway("env", "set", app.environment, "--context", content["current-context"])


def check_refused(app: ClusterApp, words: str) -> None:
    """What looks and what changes ends with one sentence, and its hint."""
    for command in ("status", "apply", "delete", "diff"):
        confirmed = ("--yes",) if command == "delete" else ()
        refused = app.fairway(command, "dev", *confirmed, code=2 if command == "diff" else 1)
        assert refused.stdout == ""
        error, hint = refused.stderr.splitlines()
        assert words in error
        assert hint.strip()


def test_a_cluster_that_is_away(namespace: str, tmp_path: Path) -> None:
    app = ClusterApp.make(tmp_path, namespace, {})
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    take_kubeconfig(app, "cluster", {"server": f"https://127.0.0.1:{port}"})
    check_refused(app, f"does not answer at https://127.0.0.1:{port}")


def test_a_token_that_is_wrong(namespace: str, tmp_path: Path) -> None:
    app = ClusterApp.make(tmp_path, namespace, {})
    take_kubeconfig(app, "user", {"token": "wrong"})
    check_refused(app, "does not accept the credentials")


FAULTS = {
    "image": (
        "web-ui",
        {"image": "nowhere.example/web:1"},
        "image nowhere.example/web:1 cannot be pulled: ",
    ),
    "secret": ("train", {"secretKeyRefs": "KEY=nosuch.key"}, "secret nosuch does not exist"),
    "service-account": ("tensorboard", {"serviceAccount": "nosuch"}, "service account nosuch does not exist"),
    "claim": ("mnist-deploy-pvc", {"pvcName": "nosuch"}, "claim nosuch does not exist"),
    "unschedulable": (
        "web-ui",
        {"memory": "900Gi", "memoryLimit": "900Gi"},
        "no node takes it: 1 Insufficient memory",
    ),
    "crash": ("train", {"dataset": "custom", "dataDir": "/mnt/none"}, "error: "),
}


@pytest.mark.parametrize("cause", FAULTS)
def test_status_says_what_is_the_matter(cause: str, namespace: str, tmp_path: Path) -> None:
    component, params, words = FAULTS[cause]
    app = ClusterApp.make(tmp_path, namespace, {"train": {"dataset": "embedded"}})
    for name, value in params.items():
        app.set(component, name, value)
    app.fairway("apply", "dev", "-c", "storage", "-c", component)

    row = until(lambda: (now := rows(app)[component])["cause"] == cause and now, f"cause {cause}")

    assert words in row["reason"]
    assert "\n" not in row["reason"]


def test_a_training_that_is_ended_for_its_memory_again_and_again(namespace: str, tmp_path: Path) -> None:
    app = ClusterApp.make(tmp_path, namespace, {"train": SMALL | {"memory": "32Mi", "memoryLimit": "32Mi"}})
    app.fairway("apply", "dev", "-c", "storage", "-c", "train")

    # Between two of its pods there is nothing to be seen of it but the operator's count.
    def restarts() -> int:
        events = app.objects("events")
        return sum(each.get("count", 1) for each in events if each["reason"] == "TFJobRestarting")

    until(lambda: restarts() >= 3, "third restart", poll_s=1)
    row = app.row("train")
    assert row["cause"] == "memory"
    assert "for their memory and started again" in row["reason"]
    failed = app.fairway("apply", "dev", "-c", "train", "--wait", code=1)
    assert "train cannot go on: tasks were ended for their memory and started again" in failed.stderr


def test_a_secret_without_the_key(namespace: str, tmp_path: Path) -> None:
    app = ClusterApp.make(tmp_path, namespace, {"train": {"secretKeyRefs": "KEY=keys.nosuch"}})
    app.kubectl("create", "secret", "generic", "keys", "--from-literal=id=1")
    app.fairway("apply", "dev", "-c", "storage", "-c", "train")
    row = until(lambda: (now := rows(app)["train"])["cause"] == "secret" and now, "the cause")
    assert row["reason"] == "secret keys has no key nosuch"


def test_a_mounted_secret_that_is_missing(namespace: str, tmp_path: Path) -> None:
    app = ClusterApp.make(tmp_path, namespace, {"tensorboard": {"secret": "nosuch=/var/secrets"}})
    app.fairway("apply", "dev", "-c", "storage", "-c", "tensorboard")
    row = until(lambda: (now := rows(app)["tensorboard"])["cause"] == "secret" and now, "the cause")
    assert row["reason"] == "secret nosuch does not exist"


def test_a_claim_of_a_storage_class_that_is_missing(namespace: str, tmp_path: Path) -> None:
    app = ClusterApp.make(tmp_path, namespace, {"storage": {"storageClass": "nosuch"}})
    app.fairway("apply", "dev", "-c", "storage", "-c", "tensorboard")
    found = until(lambda: (now := rows(app))["storage"]["cause"] == "claim" and now, "the cause")
    assert "claim mnist-model is not bound: " in found["storage"]["reason"]
    assert "nosuch" in found["storage"]["reason"]
    assert found["tensorboard"]["cause"] == "claim"


@pytest.mark.parametrize("launcher", ["tfjob", "job", "jobset"])
def test_an_exceeded_quota(launcher: str, namespace: str, tmp_path: Path) -> None:
    app = ClusterApp.make(tmp_path, namespace, {"train": SMALL | {"launcher": launcher}})
    app.kubectl("create", "quota", "none", "--hard=pods=0")
    failed = app.fairway("apply", "dev", "-c", "storage", "-c", "train", "-c", "web-ui", "--wait", code=1)
    assert "cannot go on: no pod may be made: exceeded quota: none, requested: pods=1" in failed.stderr
    found = rows(app)
    assert found["train"]["cause"] == found["web-ui"]["cause"] == "quota"


def test_a_job_that_nobody_looks_after(namespace: str, tmp_path: Path) -> None:
    app = ClusterApp.make(tmp_path, namespace, {"train": SMALL})
    (shown,) = (
        each
        for each in json.loads(app.fairway("show", "dev", "-c", "train", "-o", "json").stdout)["items"]
        if each["kind"] == "TFJob"
    )
    # The operator leaves it alone, as it would if it did not run.
    shown["spec"].setdefault("runPolicy", {})["managedBy"] = "kueue.x-k8s.io/multikueue"
    app.create(shown)
    row = until(lambda: (now := rows(app)["train"])["cause"] == "operator" and now, "the cause")
    assert "Kubeflow's training operator is not installed, or does not run" in row["reason"]


def test_wait_gives_up_when_a_training_fails_and_in_time(namespace: str, tmp_path: Path) -> None:
    params = {"dataset": "custom", "dataDir": "/mnt/none"}
    app = ClusterApp.make(tmp_path, namespace, {"train": params})
    failed = app.fairway("apply", "dev", "-c", "storage", "-c", "train", "--wait", code=1)
    assert "train has failed: container tensorflow ended with exit code 1: error: " in failed.stderr
    assert rows(app)["train"]["state"] == "failed"
    late = app.fairway("apply", "dev", "-c", "mnist-deploy-pvc", "--wait", "--timeout", "3", code=1)
    assert "after 3 s mnist-deploy-pvc is starting: " in late.stderr


def test_watching_ends_quietly_with_ctrl_c(namespace: str, tmp_path: Path) -> None:
    app = ClusterApp.make(tmp_path, namespace, {})
    watching = app.start("status", "dev", "--watch", "-o", "json")
    try:
        assert watching.stdout is not None
        assert json.loads(watching.stdout.readline())["state"] == "absent"
        watching.send_signal(signal.SIGINT)
        _, errors = watching.communicate(timeout=30)
    finally:
        watching.kill()
    assert watching.returncode == 130
    assert errors == ""
