"""`fairway up ENV` on a real cluster: from an empty namespace to a prediction, and on from there."""

from __future__ import annotations

import random
import signal
from pathlib import Path

import httpx

from tests.cluster.apps import SMALL, ClusterApp
from tests.cluster.running import FREE_PORTS, Running, running

CNN = {"train": SMALL}
LINEAR = {"train": SMALL | {"modelType": "linear"}}


def predict(command: Running) -> dict[str, object]:
    """Have the model server at the shown link classify an image; return its answer."""
    url = command.link("Model server")
    image = [[random.Random(0).random() for _ in range(28)] for _ in range(28)]
    answer = httpx.post(f"{url}:predict", json={"instances": [{"x": image}]}, trust_env=False, timeout=30)
    assert answer.status_code == 200, answer.text
    (prediction,) = answer.json()["predictions"]
    return dict(prediction)


def uid(app: ClusterApp) -> str:
    """Return which TFJob it is."""
    (job,) = app.objects("tfjobs")
    return str(job["metadata"]["uid"])


def test_from_an_empty_namespace_to_a_prediction_and_on(namespace: str, tmp_path: Path) -> None:
    app = ClusterApp.make(tmp_path, namespace, CNN)
    with running(app, "up", "dev", *FREE_PORTS) as command:
        command.wait_for("^TFJob mnist-train created$")
        assert "Deployment web-ui" not in command.output
        command.wait_for(r"^train is done: has trained: test accuracy")
        assert 0 <= int(str(predict(command)["classes"])) <= 9
        command.wait_for("^ready:$")
        assert "Ctrl-C closes the ports; what runs in the cluster goes on." in command.output
        command.end(signal.SIGINT)
        command.wait_for_end("the ports are closed; what runs in the cluster goes on: fairway status dev")
    first = uid(app)
    with running(app, "open", "dev", *FREE_PORTS) as command:
        assert 0 <= int(str(predict(command)["classes"])) <= 9
        check_digits(app, command.link("Draw a digit"))
        command.end(signal.SIGINT)
    check_again(app)
    assert uid(app) == first
    check_replace(app)
    assert uid(app) != first


def check_digits(app: ClusterApp, web: str) -> None:
    """The web UI has the model server, whose NetworkPolicy lets it in, read ten test images."""
    answers = [httpx.post(f"{web}api/random", trust_env=False, timeout=30).json() for _ in range(10)]
    assert sum(answer["digit"] == answer["truth"] for answer in answers) >= 8, answers
    assert {int(answer["version"]) for answer in answers} == {app.row("train")["training"]["version"]}
    assert app.objects("networkpolicies", "app.kubernetes.io/name=serving"), "everybody is let in"


def check_again(app: ClusterApp) -> None:
    """A second call finds all there, and repeats nothing; nor does one with other params."""
    with running(app, "up", "dev", *FREE_PORTS, "--set", "train.trainSteps=70") as command:
        command.wait_for("^train has succeeded with other params than now.*fairway up dev --replace$")
        predict(command)
        command.wait_for("^ready:$")
        assert "created" not in command.output
        command.end(signal.SIGTERM)


def check_replace(app: ClusterApp) -> None:
    """With --replace it trains anew, while the old version is served; Ctrl-C leaves the training alone."""
    with running(app, "up", "dev", *FREE_PORTS, "--replace", "--set", "train.trainSteps=70") as command:
        command.wait_for(r"^TFJob mnist-train deleted \(replaced\)$")
        command.wait_for("^TFJob mnist-train created$")
        predict(command)
        command.end(signal.SIGINT)
    with running(app, "up", "dev", *FREE_PORTS, "--set", "train.trainSteps=70") as command:
        command.wait_for("^train is done: has trained: test accuracy")
        assert "TFJob" not in command.output
        command.end(signal.SIGINT)


def test_what_cannot_go_on_ends_it(namespace: str, tmp_path: Path) -> None:
    app = ClusterApp.make(tmp_path, namespace, LINEAR)
    app.set("train", "image", "fairway-train:absent")
    failed = app.fairway("up", "dev", *FREE_PORTS, code=1).stderr
    assert "train cannot go on: image docker.io/library/fairway-train:absent cannot be pulled" in failed or (
        "train cannot go on: image fairway-train:absent cannot be pulled" in failed
    )
    app.fairway("delete", "dev", "-c", "train", "--yes")

    app.set("train", "image", "fairway-train:0.1.0")
    app.set("train", "dataset", "custom")
    app.set("train", "dataDir", "/mnt/nothing")
    failed = app.fairway("up", "dev", *FREE_PORTS, code=1).stderr
    assert "train has failed: " in failed
    assert "/mnt/nothing" in failed
    assert app.objects("deployments", "app.kubernetes.io/name=serving") == []


def test_a_namespace_is_made_when_told(namespace: str, tmp_path: Path) -> None:
    app = ClusterApp.make(tmp_path, namespace, {})
    app.fairway("env", "set", "dev", "--namespace", f"{namespace}-new")
    refused = app.fairway("up", "dev", *FREE_PORTS, code=1).stderr
    assert f"namespace {namespace}-new does not exist" in refused
    assert "fairway up dev --create-namespace" in refused
    try:
        with running(app, "up", "dev", *FREE_PORTS, "--create-namespace") as command:
            command.wait_for(f"^Namespace {namespace}-new created$")
            command.wait_for("^TFJob mnist-train created$")
            command.end(signal.SIGINT)
    finally:
        app.kubectl("delete", "namespace", f"{namespace}-new", "--wait=false")


def test_flags_of_the_other_place_are_refused(namespace: str, tmp_path: Path) -> None:
    app = ClusterApp.make(tmp_path, namespace, {})
    refused = app.fairway("up", "dev", "--train-steps", "3", code=2).stderr
    assert "fairway param set --env=dev train trainSteps 3" in refused
    assert "--set train.trainSteps=3" in refused
    assert "fairway up ENV --replace" in app.fairway("up", "--replace", code=2).stderr
