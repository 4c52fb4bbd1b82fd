"""An app on the test cluster: its files, the commands on it, and what pods see of its model."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

from fairway.deploy.components.base import SERVE_IMAGE, TRAIN_IMAGE
from tests.conftest import clean_environment

S3_IMAGE = "fairway-test-s3:1"
TF_SERVING_IMAGE = "fairway-test-tfserving:1"
"""A stand-in for TensorFlow Serving's image: see tfserving/Dockerfile."""
SMALL = {"dataset": "embedded", "trainSteps": 60, "checkpointSteps": 20, "cpu": "50m"}
"""Params of a training that takes a second, once its tasks have begun; many fit on a small node."""

DEADLINE_S = 600
"""On a machine at leisure nothing takes a minute; but here several trainings share a few cores."""
REQUESTS = {"requests": {"cpu": "100m"}}
"""A pod that requests nothing gets next to nothing while trainings compute beside it."""

_S3 = """
import boto3, botocore.config, time
config = botocore.config.Config(connect_timeout=2, read_timeout=10, retries={"max_attempts": 0})
for _ in range(150):
    try:
        boto3.client("s3", endpoint_url="http://s3:9000", config=config).create_bucket(Bucket="models")
        break
    except Exception as err:
        time.sleep(0.2)
else:
    raise err
"""


class TimedOutError(AssertionError):
    """Something did not come about in time."""


def until(condition: Callable[[], Any], what: str, poll_s: float = 0.5) -> Any:
    """Wait until a condition is true, and return what it gave."""
    deadline = time.monotonic() + DEADLINE_S
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise TimedOutError(f"after {DEADLINE_S} s: no {what}")
        time.sleep(poll_s)
    return found


def _index(pod: Mapping[str, Any]) -> int:
    """Return the index of a pod's task, by the label of the training operator or of the Job controller."""
    labels = pod["metadata"]["labels"]
    index = labels.get("training.kubeflow.org/replica-index")
    return int(labels["batch.kubernetes.io/job-completion-index"] if index is None else index)


@dataclass
class ClusterApp:
    """An app with one environment.

    Attributes:
        directory: Where its files are.
        namespace: Its namespace in the cluster.
        environment: The environment's name.
        variables: Environment of its commands.
    """

    directory: Path
    namespace: str
    environment: str = "dev"
    variables: dict[str, str] = field(default_factory=dict)

    @classmethod
    def make(cls, parent: Path, namespace: str, params: Mapping[str, Mapping[str, Any]]) -> ClusterApp:
        """Make an app with an environment that has some params."""
        app = cls(parent / "mnist", namespace)
        app.variables = clean_environment(parent / "cache") | {"KUBECONFIG": os.environ["KUBECONFIG"]}
        app.fairway("init", "mnist", directory=parent)
        app.fairway("env", "add", app.environment, "--namespace", namespace)
        for component, values in params.items():
            for key, value in values.items():
                app.set(component, key, value)
        return app

    def set(self, component: str, key: str, value: Any) -> None:
        """Set a param of the environment."""
        word = str(value).lower() if isinstance(value, bool) else str(value)
        self.fairway("param", "set", f"--env={self.environment}", component, key, word)

    def start(self, *words: str) -> subprocess.Popen[str]:
        """Start a command in the app's folder."""
        return subprocess.Popen(
            [sys.executable, "-m", "fairway", *words],
            cwd=self.directory,
            env=self.variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def fairway(
        self, *words: str, code: int = 0, directory: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in the app's folder; it must end with the exit code."""
        done = subprocess.run(
            [sys.executable, "-m", "fairway", *words],
            cwd=directory or self.directory,
            env=self.variables,
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
            check=False,
        )
        assert done.returncode == code, f"{words}: {done.returncode}\n{done.stdout}{done.stderr}"
        assert "Traceback" not in done.stderr, done.stderr
        return done

    def kubectl(self, *words: str, code: int = 0, stdin: str | None = None) -> str:
        """Run kubectl in the app's namespace and return what it printed."""
        done = subprocess.run(
            ["kubectl", "--namespace", self.namespace, *words],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
            check=False,
        )
        assert done.returncode == code, f"{words}: {done.stdout}{done.stderr}"
        return done.stdout

    def objects(self, kind: str, selector: str = "") -> list[dict[str, Any]]:
        """Return the objects of a kind, as `kubectl get` has them."""
        chosen = ["-l", selector] if selector else []
        found: list[dict[str, Any]] = json.loads(self.kubectl("get", kind, "-o", "json", *chosen))["items"]
        return found

    def tasks(self, role: str) -> dict[int, dict[str, Any]]:
        """Return the newest pod of each task of a role of the training, by the task's index."""
        pods = self.objects("pods", f"fairway/role={role}")
        live = [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]
        live.sort(key=lambda pod: str(pod["metadata"]["creationTimestamp"]))
        return {_index(pod): pod for pod in live}

    def left(self) -> list[str]:
        """Return all that is in the namespace, as KIND/NAME, but for what every namespace has, and events."""
        kinds = self.kubectl("api-resources", "--namespaced", "--verbs=list", "-o", "name").split()
        asked = [kind for kind in kinds if not kind.startswith(("events", "pods.metrics", "endpoints"))]
        found = self.kubectl("get", ",".join(asked), "--ignore-not-found", "-o", "name").split()
        return sorted({*found} - {"configmap/kube-root-ca.crt", "serviceaccount/default"})

    def logs(self, pod: str) -> str:
        """Return what a pod has written; empty while it has not begun."""
        done = subprocess.run(
            ["kubectl", "--namespace", self.namespace, "logs", pod],
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
            check=False,
        )
        return done.stdout if done.returncode == 0 else ""

    def row(self, component: str) -> dict[str, Any]:
        """Return what `fairway status` says of a component."""
        words = ("status", self.environment, "-c", component, "-o", "json")
        (row,) = json.loads(self.fairway(*words).stdout)
        return dict(row)

    def step(self) -> int:
        """Return how far the training is, by `fairway status`; 0 while it does not say."""
        return int((self.row("train")["training"] or {}).get("step") or 0)

    def in_pod(
        self,
        *words: str,
        image: str = SERVE_IMAGE,
        command: tuple[str, ...] = (),
        claim: str = "",
        variables: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
        code: int = 0,
    ) -> str:
        """Run something in a pod of its own and return what it printed."""
        name = f"run-{uuid4().hex[:8]}"
        container: dict[str, Any] = {
            "name": "run",
            "image": image,
            "args": list(words),
            "env": [{"name": key, "value": value} for key, value in (variables or {}).items()],
            "resources": REQUESTS,
        }
        if command:
            container["command"] = list(command)
        spec: dict[str, Any] = {
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 0,
            "securityContext": {"runAsUser": 10001, "fsGroup": 10001},
            "containers": [container],
        }
        if claim:
            container["volumeMounts"] = [{"name": "model", "mountPath": "/mnt"}]
            spec["volumes"] = [{"name": "model", "persistentVolumeClaim": {"claimName": claim}}]
        metadata = {"name": name, "labels": dict(labels or {})}
        self.create({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})

        def ended() -> dict[str, Any] | None:
            pod: dict[str, Any] = json.loads(self.kubectl("get", "pod", name, "-o", "json"))
            return pod if pod["status"].get("phase") in ("Succeeded", "Failed") else None

        state = until(ended, f"end of {words or command}")["status"]["containerStatuses"][0]["state"]
        printed = self.logs(name)
        self.kubectl("delete", "pod", name, "--wait=false")
        assert state["terminated"]["exitCode"] == code, printed
        return printed

    def create(self, *manifests: Mapping[str, Any]) -> None:
        """Create objects."""
        found = {"apiVersion": "v1", "kind": "List", "items": manifests}
        self.kubectl("apply", "-f", "-", stdin=json.dumps(found))

    def versions(self, export_dir: str, **pod: Any) -> list[dict[str, Any]]:
        """Return the versions in an export directory, as `fairway models list` has them."""
        found: list[dict[str, Any]] = json.loads(
            self.in_pod("models", "list", "--export-dir", export_dir, "-o", "json", **pod)
        )
        return found

    def start_s3(self) -> dict[str, str]:
        """Start an S3 server with the bucket `models`; return the variables that lead there."""
        labels = {"app": "s3"}
        container = {
            "name": "s3",
            "image": S3_IMAGE,
            "ports": [{"containerPort": 9000}],
            "resources": REQUESTS,
        }
        template = {"metadata": {"labels": labels}, "spec": {"containers": [container]}}
        self.create(
            {
                "apiVersion": "apps/v1",
                "kind": "Deployment",
                "metadata": {"name": "s3"},
                "spec": {"selector": {"matchLabels": labels}, "template": template},
            },
            {
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": {"name": "s3"},
                "spec": {"selector": labels, "ports": [{"port": 9000}]},
            },
        )
        keys = {"AWS_ACCESS_KEY_ID": "access", "AWS_SECRET_ACCESS_KEY": "secret"}
        region = {"AWS_DEFAULT_REGION": "us-east-1"}
        self.in_pod(command=("/opt/fairway/bin/python", "-c", _S3), variables=keys | region)
        return keys | {"S3_ENDPOINT": "s3:9000", "S3_USE_HTTPS": "0", "AWS_REGION": "us-east-1"}


__all__ = [
    "DEADLINE_S",
    "SERVE_IMAGE",
    "SMALL",
    "TF_SERVING_IMAGE",
    "TRAIN_IMAGE",
    "ClusterApp",
    "TimedOutError",
    "until",
]
