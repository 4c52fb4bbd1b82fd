"""Trainings on a real cluster: every launcher, with and without shared disks, whatever dies."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.apps import SMALL, ClusterApp, until

KEYS = "AWS_ACCESS_KEY_ID=keys.id,AWS_SECRET_ACCESS_KEY=keys.secret"


def train(app: ClusterApp) -> None:
    app.fairway("apply", "dev", "-c", "storage", "-c", "train", "--wait")


def check_one_export(app: ClusterApp, steps: int, **pod: str) -> None:
    (version,) = app.versions(pod.pop("export_dir", "/mnt/export"), **pod)
    assert version["state"] == "complete"
    assert version["step"] == steps
    assert version["test_accuracy"] > 0.85


def lose_each(app: ClusterApp, *roles: str) -> None:
    """Delete a pod of each role in the middle of the training, the next once it goes on with a new one."""
    reached = until(app.step, 120, "first step")
    for role in roles:
        lost = app.pod(role)
        app.kubectl("delete", "pod", lost["metadata"]["name"], "--wait=false")
        until(lambda: is_another(app.pod(role), lost), 120, f"new pod of {role}")  # noqa: B023
        reached = until(lambda: beyond(app.step(), reached), 120, f"step beyond {reached} without {role}")  # noqa: B023


def is_another(pod: dict[str, Any], lost: dict[str, Any]) -> bool:
    return bool(pod) and pod["metadata"]["uid"] != lost["metadata"]["uid"]


def beyond(step: int, reached: int) -> int:
    return step if step > reached else 0


@contextmanager
def waiting(app: ClusterApp) -> Iterator[None]:
    """Train while somebody waits for the end, who starts a TFJob again that lost a pod."""
    process = app.start("apply", "dev", "-c", "storage", "-c", "train", "--wait")
    try:
        yield
        printed, said = process.communicate(timeout=240)
        assert process.returncode == 0, printed + said
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize(
    ("launcher", "workers", "ps"),
    [("tfjob", 0, 0), ("job", 2, 1), ("jobset", 2, 0)],
    ids=["tfjob-chief", "job-asynchronous", "jobset-in-step"],
)
def test_every_launcher_trains_the_same(
    launcher: str, workers: int, ps: int, namespace: str, tmp_path: Path
) -> None:
    params = SMALL | {"launcher": launcher, "numWorkers": workers, "numPs": ps}
    app = ClusterApp.make(tmp_path, namespace, {"train": params})

    train(app)

    check_one_export(app, 60, claim="mnist-model")
    (row,) = json.loads(app.fairway("status", "dev", "-c", "train", "-o", "json").stdout)
    assert row["state"] == "done"
    app.fairway("diff", "dev", "-c", "storage", "-c", "train")
    again = app.fairway("apply", "dev", "-c", "train", "--wait").stdout
    assert "unchanged" in again
    running = [pod for pod in app.objects("pods") if pod["status"]["phase"] == "Running"]
    assert not running, "parameter servers are left behind"


@pytest.mark.timeout(600)
def test_tasks_without_a_shared_disk_train_into_s3_and_survive_the_loss_of_each(
    namespace: str, tmp_path: Path
) -> None:
    # Long enough that each loss falls into it.
    params = SMALL | {"trainSteps": 1200, "numWorkers": 2, "numPs": 1, "evaluator": True}
    params |= {"modelDir": "s3://models/model", "exportDir": "s3://models/export"}
    app = ClusterApp.make(tmp_path, namespace, {"train": params})
    variables = app.start_s3()
    secret = {"id": variables.pop("AWS_ACCESS_KEY_ID"), "secret": variables.pop("AWS_SECRET_ACCESS_KEY")}
    app.kubectl(
        "create", "secret", "generic", "keys", *(f"--from-literal={k}={v}" for k, v in secret.items())
    )
    app.set("train", "secretKeyRefs", KEYS)
    app.set("train", "envVariables", ",".join(f"{name}={value}" for name, value in variables.items()))

    with waiting(app):
        lose_each(app, "worker", "ps", "chief")

    variables |= {"AWS_ACCESS_KEY_ID": secret["id"], "AWS_SECRET_ACCESS_KEY": secret["secret"]}
    (version,) = app.versions("s3://models/export", variables=variables)
    assert (version["state"], version["step"]) == ("complete", 1200)


def test_a_training_in_step_survives_the_loss_of_each_task(namespace: str, tmp_path: Path) -> None:
    # Nobody looks after it but the controller of Jobs.
    params = SMALL | {"trainSteps": 300, "numWorkers": 2, "launcher": "job"}
    app = ClusterApp.make(tmp_path, namespace, {"train": params})

    app.fairway("apply", "dev", "-c", "storage", "-c", "train")
    lose_each(app, "worker", "chief")
    app.fairway("apply", "dev", "-c", "train", "--wait")

    check_one_export(app, 300, claim="mnist-model")
