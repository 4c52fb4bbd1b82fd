"""The tutorial's commands for a cluster, run as they stand."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from fairway.net.ports import claim_port
from tests.cluster.apps import DEADLINE_S, TRAIN_IMAGE, ClusterApp
from tests.conftest import ROOT, clean_environment

PAGE = ROOT / "docs" / "tutorial" / "cluster.md"
CLAIM = {
    "apiVersion": "v1",
    "kind": "PersistentVolumeClaim",
    "metadata": {"name": "my-claim"},
    "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
}


def kubeconfig_for(namespace: str, directory: Path) -> str:
    """Return a kubeconfig whose context has the namespace, as a user's would."""
    path = directory / "kubeconfig"
    shutil.copy(os.environ["KUBECONFIG"], path)
    words = ("kubectl", "config", "set-context", "--current", "--namespace", namespace)
    subprocess.run(words, env=os.environ | {"KUBECONFIG": str(path)}, check=True, capture_output=True)
    return str(path)


def commands(values: dict[str, str]) -> str:
    """Return the page's commands, with values in the place of its examples."""
    script = "\n".join(re.findall(r"^```bash\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL))
    assert script
    for name, value in values.items():
        script, count = re.subn(rf"^export {name}=.*$", f"export {name}={value}", script, flags=re.MULTILINE)
        assert count == 1, name
    for port in ("8080", "8090"):
        script = script.replace(port, str(claim_port("127.0.0.1", 0, "")))
    small = "fairway param set train trainSteps 60\nfairway param set train checkpointSteps 20\n"
    return script.replace("cd ks_app\n", f"cd ks_app\n{small}")


def test_every_command_works(namespace: str, tmp_path: Path) -> None:
    app = ClusterApp(tmp_path, namespace)
    app.create(CLAIM)
    s3 = app.start_s3()
    values = {name: value for name, value in s3.items() if name != "S3_USE_HTTPS"}
    script = commands(
        values | {"AWS_ENDPOINT_URL": "http://s3:9000", "BUCKET_NAME": "models", "S3_USE_HTTPS": "0"}
    )
    settings = {
        "KUBECONFIG": kubeconfig_for(namespace, tmp_path),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "DOCKER_URL": TRAIN_IMAGE,
        "PVC_NAME": "my-claim",
    }

    done = subprocess.run(
        ["bash", "-euxo", "pipefail", "-c", f"trap 'kill $(jobs -p) 2>/dev/null || true' EXIT\n{script}"],
        cwd=tmp_path,
        env=clean_environment(tmp_path / "cache") | settings,
        capture_output=True,
        text=True,
        timeout=2 * DEADLINE_S,
        check=False,
    )

    printed = done.stdout + done.stderr
    assert done.returncode == 0, printed
    assert len(re.findall(r"^exported version", printed, re.MULTILINE)) >= 2, printed
    assert "9000/TCP" in done.stdout
    assert [claim["metadata"]["name"] for claim in app.objects("persistentvolumeclaims")] == ["my-claim"]
    deployments = {each["metadata"]["name"] for each in app.objects("deployments")}
    assert deployments == {"s3"}, "what was applied is not deleted"
