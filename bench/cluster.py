"""What the verbs for clusters cost, on the cluster that KUBECONFIG names."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from bench.report import Figure
from tests.cluster.apps import SMALL, ClusterApp

RUNS = 3
SHOWS = 15
RESIDENT_MB = 150


def show_time() -> list[Figure]:
    """`fairway show ENV` of all components; needs no cluster."""
    with tempfile.TemporaryDirectory() as folder:
        # As where it is installed: with compiled modules.
        variables = {name: os.environ[name] for name in os.environ.keys() - {"PYTHONDONTWRITEBYTECODE"}}
        app = ClusterApp(Path(folder) / "mnist", "default", variables=variables)
        app.fairway("init", "mnist", directory=Path(folder))
        (app.directory / "environments" / "dev.yaml").write_text("namespace: default\n")
        app.fairway("show", "dev")
        times = []
        for _ in range(SHOWS):
            start = time.perf_counter()
            app.fairway("show", "dev")
            times.append(time.perf_counter() - start)
    note = f"median of {SHOWS}; fastest {min(times):.2f} s"
    return [Figure("fairway show ENV", median(times), "s", 0.35, "lower", note)]


def apply_time() -> list[Figure]:
    """From nothing to all Ready with a model on the claim, by fairway and by kubectl in turns; and memory."""
    if subprocess.run(["kubectl", "version"], capture_output=True, check=False).returncode:
        print("no cluster answers: no times of apply", file=sys.stderr)
        return []
    times: dict[str, list[float]] = {"fairway": [], "kubectl": []}
    with _app() as app:
        app.fairway("apply", "dev", "--wait")
        resident = _resident_mb(app)
        for _ in range(RUNS):
            for way, seconds in times.items():
                _delete_servers(app)
                start = time.perf_counter()
                _apply_by(way, app)
                seconds.append(time.perf_counter() - start)
    ours, theirs = (median(times[way]) for way in ("fairway", "kubectl"))
    note = f"{ours:.1f} s ({_all(times['fairway'])}) against {theirs:.1f} s ({_all(times['kubectl'])})"
    figures = [Figure("apply to Ready / kubectl apply", ours / theirs, "×", 1.2, "lower", note)]
    return figures + [
        Figure(f"{pod} pod resident", size, "MB", RESIDENT_MB, "lower", "kubectl top, working set")
        for pod, size in resident.items()
    ]


@contextmanager
def _app() -> Iterator[ClusterApp]:
    namespace = f"fairway-bench-{secrets.token_hex(4)}"
    subprocess.run(["kubectl", "create", "namespace", namespace], check=True, capture_output=True)
    try:
        with tempfile.TemporaryDirectory() as folder:
            yield ClusterApp.make(Path(folder), namespace, {"train": SMALL})
    finally:
        subprocess.run(["kubectl", "delete", "namespace", namespace, "--wait=false"], check=False)


def _delete_servers(app: ClusterApp) -> None:
    """Delete all but the training and its claim, so that what is measured is not TensorFlow's import."""
    app.kubectl("delete", "deployments,services,networkpolicies", "--all", "--wait=true")
    while [pod for pod in app.objects("pods") if pod["status"]["phase"] == "Running"]:
        time.sleep(0.2)


def _apply_by(way: str, app: ClusterApp) -> None:
    if way == "fairway":
        app.fairway("apply", "dev", "--wait")
        return
    app.kubectl("apply", "--server-side", "-f", "-", stdin=app.fairway("show", "dev").stdout)
    app.kubectl("wait", "--for=condition=Available", "deployment", "--all", "--timeout=120s")


def _resident_mb(app: ClusterApp) -> dict[str, float]:
    """Return what the pods of web UI and TensorBoard hold, once the metrics server has seen them."""
    deadline = time.monotonic() + 120
    while True:
        path = f"/apis/metrics.k8s.io/v1beta1/namespaces/{app.namespace}/pods"
        pods = json.loads(app.kubectl("get", "--raw", path))["items"]
        found = {
            kind: int(pod["containers"][0]["usage"]["memory"].removesuffix("Ki")) / 1024
            for kind in ("web-ui", "tensorboard")
            for pod in pods
            if pod["metadata"]["name"].startswith(kind)
        }
        if len(found) == 2:
            return found
        if time.monotonic() > deadline:
            sys.exit("the metrics server knows nothing of the pods")
        time.sleep(2)


def _all(seconds: list[float]) -> str:
    return ", ".join(f"{each:.1f}" for each in seconds)
