"""`fairway tensorboard`: real TensorBoard, without TensorFlow."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import httpx
import psutil
import pytest


@pytest.mark.parametrize("prefix", ["", "/board"])
def test_curves_and_pictures_are_shown(
    trained_export: Path, environment: dict[str, str], prefix: str
) -> None:
    words = ["--logdir", "mnist/model", "--port", "0", *(["--path-prefix", prefix] if prefix else [])]
    with subprocess.Popen(
        [sys.executable, "-m", "fairway", "tensorboard", *words],
        cwd=trained_export.parents[1],
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        url = process.stderr.readline().split()[-1]
        assert prefix in url
        with httpx.Client(trust_env=False, base_url=url) as client:
            scalars = client.get("data/plugin/scalars/tags").json()
            assert scalars["events/train"].keys() == {"loss", "accuracy", "learning_rate", "steps_per_s"}
            pictures = client.get("data/plugin/images/tags").json()["events/test"]
            assert pictures.keys() == {"confusion matrix", "worst mistakes"}
        maps = psutil.Process(process.pid).memory_maps()
        assert not [file.path for file in maps if "tensorflow" in file.path]
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=20) == 0
