"""Trainings on a real cluster: every launcher, with and without shared disks, whatever dies.

The chief alone is trained in test_verbs.py and test_up.py.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.cluster.apps import DEADLINE_S, SMALL, TF_SERVING_IMAGE, ClusterApp, until

KEYS = "AWS_ACCESS_KEY_ID=keys.id,AWS_SECRET_ACCESS_KEY=keys.secret"
PREDICT = """
import json, sys, urllib.request
body = json.dumps({"instances": [{"x": [[0.0] * 28] * 28}]}).encode()
model = "http://mnist-service:8500/v1/models/mnist"
versions = json.load(urllib.request.urlopen(model, timeout=60))["model_version_status"]
answer = json.load(urllib.request.urlopen(model + ":predict", body, timeout=60))
print(json.dumps({"predictions": answer["predictions"], "version": versions[0]["version"]}))
"""
HEALTH = """
import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
with grpc.insecure_channel("mnist-service:9000") as channel:
    request = health_pb2.HealthCheckRequest(service="tensorflow.serving.PredictionService")
    print(health_pb2_grpc.HealthStub(channel).Check(request, timeout=60, wait_for_ready=True).status)
"""
CLIENT = {"fairway/client": "true"}


def test_tasks_without_a_shared_disk_train_into_s3_and_survive_the_loss_of_each(
    namespace: str, tmp_path: Path
) -> None:
    # Long enough that each loss falls into it.
    params = SMALL | {"trainSteps": 1600, "numWorkers": 2, "numPs": 1, "evaluator": True}
    params |= {"modelDir": "s3://models/model", "exportDir": "s3://models/export"}
    app = ClusterApp.make(tmp_path, namespace, {"train": params})
    variables = reach_s3(app)
    app.set("mnist-deploy-aws", "server", "tensorflow-serving")
    app.set("mnist-deploy-aws", "serverImage", TF_SERVING_IMAGE)
    app.fairway("apply", "dev", "-c", "mnist-deploy-aws", "-c", "mnist-service")

    with waiting(app):
        lose_each(app, "worker", "ps", "chief", "evaluator")
        check_waits_for_a_version(app)

    check_one_export(app, 1600, export_dir="s3://models/export", variables=variables)
    check_is_served(app)
    for param in ("server", "serverImage"):
        app.fairway("param", "delete", "--env=dev", "mnist-deploy-aws", param)
    check_is_served(app)
    printed = app.in_pod(command=("/opt/fairway/bin/python", "-c", HEALTH), labels=CLIENT)
    assert printed.strip() == "1", "gRPC does not say that it serves"


def reach_s3(app: ClusterApp) -> dict[str, str]:
    """Tell the training the way to an S3 server of the test's own; return the variables that lead there."""
    variables = app.start_s3()
    keys = {"id": variables["AWS_ACCESS_KEY_ID"], "secret": variables["AWS_SECRET_ACCESS_KEY"]}
    app.kubectl("create", "secret", "generic", "keys", *(f"--from-literal={k}={v}" for k, v in keys.items()))
    app.set("train", "secretKeyRefs", KEYS)
    others = {
        name: value for name, value in variables.items() if not name.startswith("AWS_") or "REGION" in name
    }
    app.set("train", "envVariables", ",".join(f"{name}={value}" for name, value in others.items()))
    return variables


def check_waits_for_a_version(app: ClusterApp) -> None:
    """Of TensorFlow Serving's pod the copying container runs; the server has not been started."""
    (pod,) = app.objects("pods", "app.kubernetes.io/name=serving")
    (sync,) = pod["status"]["initContainerStatuses"]
    (server,) = pod["status"]["containerStatuses"]
    assert "running" in sync["state"]
    assert (sync["started"], server["started"], server["ready"]) == (False, False, False)


def check_is_served(app: ClusterApp) -> None:
    """The model server becomes ready, and the exported version answers through the Service.

    With `server tensorflow-serving` a stand-in serves: that shows the pod, its copying container, its probes
    and its way to the versions, but nothing of TensorFlow Serving itself.
    """
    app.fairway("apply", "dev", "-c", "mnist-deploy-aws", "--wait")
    printed = app.in_pod(command=("/opt/fairway/bin/python", "-c", PREDICT), labels=CLIENT)
    answer = json.loads(printed)
    (prediction,) = answer["predictions"]
    assert len(prediction["predictions"]) == 10
    assert int(answer["version"]) == app.row("train")["training"]["version"]


def test_workers_in_step_train_as_a_tfjob(namespace: str, tmp_path: Path) -> None:
    app = ClusterApp.make(tmp_path, namespace, {"train": SMALL | {"numWorkers": 2}})
    app.fairway("apply", "dev", "-c", "storage", "-c", "train", "--wait")
    check_has_trained(app, 60)


def test_an_asynchronous_training_survives_the_loss_of_each_task(namespace: str, tmp_path: Path) -> None:
    # Nobody looks after it but the controller of Jobs.
    params = SMALL | {"trainSteps": 1200, "launcher": "job", "numWorkers": 2, "numPs": 1}
    app = ClusterApp.make(tmp_path, namespace, {"train": params})
    with following(app) as text:
        app.fairway("apply", "dev", "-c", "storage", "-c", "train")
        lose_each(app, "worker", "ps", "chief")
        check_has_trained(app, 1200)
    assert "training cnn for 1200 steps" in text[0]
    assert "resuming at step" in text[0]
    assert "exported version" in text[0]


def test_a_training_in_step_survives_the_loss_of_each_task(namespace: str, tmp_path: Path) -> None:
    # Nobody looks after it but the controllers of JobSets and Jobs.
    # Long enough that the second loss falls into it, too.
    params = SMALL | {"trainSteps": 500, "launcher": "jobset", "numWorkers": 2}
    app = ClusterApp.make(tmp_path, namespace, {"train": params})
    app.fairway("apply", "dev", "-c", "storage", "-c", "train")
    lose_each(app, "worker", "chief")
    check_has_trained(app, 500)

    app.fairway("delete", "dev", "--yes")
    until(lambda: app.left() == ["persistentvolumeclaim/mnist-model"], "end of all but the claim")


def check_has_trained(app: ClusterApp, steps: int) -> None:
    """The training ends by itself, with one export on the claim; it is then there, done and in its place."""
    until(lambda: app.row("train")["state"] == "done", "end of the training", poll_s=1)
    check_one_export(app, steps, claim="mnist-model")
    app.fairway("diff", "dev", "-c", "storage", "-c", "train")
    assert "unchanged" in app.fairway("apply", "dev", "-c", "train", "--wait").stdout
    running = [pod for pod in app.objects("pods") if pod["status"]["phase"] == "Running"]
    assert not running, "parameter servers are left behind"


def check_one_export(app: ClusterApp, steps: int, export_dir: str = "/mnt/export", **pod: Any) -> None:
    (version,) = app.versions(export_dir, **pod)
    assert version["state"] == "complete"
    assert version["step"] == steps
    assert version["test_accuracy"] > 0.85


def lose_each(app: ClusterApp, *roles: str) -> None:
    """Delete the last pod of each role while it trains, the next once that task is back and it goes on."""
    reached = until(app.step, "first step")
    for role in roles:
        index, lost = max(app.tasks(role).items())
        app.kubectl("delete", "pod", lost["metadata"]["name"], "--wait=false")
        until(lambda: runs_anew(app.tasks(role).get(index), lost), f"new pod of {role} {index}")  # noqa: B023
        reached = until(lambda: beyond(app.step(), reached), f"step beyond {reached} without {role}")  # noqa: B023


def runs_anew(pod: dict[str, Any] | None, lost: dict[str, Any]) -> bool:
    """Return whether the pod of a task that was lost is another one now, and runs."""
    if pod is None or pod["metadata"]["uid"] == lost["metadata"]["uid"]:
        return False
    return bool(pod["status"]["phase"] == "Running")


def beyond(step: int, reached: int) -> int:
    return step if step > reached else 0


@contextmanager
def waiting(app: ClusterApp) -> Iterator[None]:
    """Train while somebody waits for the end, who starts a TFJob again that lost a pod."""
    with app.start("apply", "dev", "-c", "storage", "-c", "train", "--wait") as process:
        try:
            yield
            printed, said = process.communicate(timeout=DEADLINE_S)
            assert process.returncode == 0, printed + said
        finally:
            process.kill()


@contextmanager
def following(app: ClusterApp) -> Iterator[list[str]]:
    """Follow the logs of a training from before its beginning to its end; then the list has what they say."""
    text: list[str] = []
    with app.start("logs", "dev", "-c", "train", "-f") as process:
        try:
            yield text
            printed, errors = process.communicate(timeout=DEADLINE_S)
            assert process.returncode == 0, errors
            text.append(printed)
        finally:
            process.kill()
