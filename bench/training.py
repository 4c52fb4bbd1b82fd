"""Accuracy and speed of training: the default recipe, the long one, the embedded digits."""

from __future__ import annotations

import tempfile
from pathlib import Path
from statistics import median

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from bench.report import Figure
from bench.runs import mnist_dir, train
from fairway.config import DataSettings
from fairway.quiet import without_notices
from fairway.storage.exports import find_version
from fairway.storage.manifest import TFLITE
from fairway.workloads.mnist.data import load_test

LONG_STEPS = 7488


def default_recipe(seeds: int = 5) -> list[Figure]:
    """Full MNIST, no flags but the seed."""
    accuracies, walls, cpus = [], [], []
    for seed in range(seeds):
        with tempfile.TemporaryDirectory() as home:
            manifest, cost = train(Path(home), "--data-dir", str(mnist_dir()), "--seed", str(seed))
        accuracies.append(100 * manifest.metrics["test_accuracy"])
        walls.append(manifest.metrics["train_seconds"])
        cpus.append(cost.cpu)
    return [
        Figure(
            "full MNIST, default: worst test accuracy",
            *(min(accuracies), "%", 99.0, "higher", f"seeds 0-{seeds - 1}: {_list(accuracies, 2)}"),
        ),
        Figure(
            "full MNIST, default: training wall",
            median(walls),
            "s",
            8,
            "lower",
            _values(walls),
        ),
        Figure(
            "full MNIST, default: CPU of the whole command",
            median(cpus),
            "s",
            note=_values(cpus),
        ),
    ]


def long_recipe(seeds: int = 3) -> list[Figure]:
    """Full MNIST, many steps of varied images."""
    accuracies, walls = [], []
    words = ("--augment", "--train-steps", str(LONG_STEPS), "--data-dir", str(mnist_dir()))
    for seed in range(seeds):
        with tempfile.TemporaryDirectory() as home:
            manifest, _ = train(Path(home), *words, "--seed", str(seed))
        accuracies.append(100 * manifest.metrics["test_accuracy"])
        walls.append(manifest.metrics["train_seconds"])
    name = f"full MNIST, --augment --train-steps {LONG_STEPS}"
    return [
        Figure(
            f"{name}: worst test accuracy",
            *(min(accuracies), "%", 99.6, "higher", f"seeds 0-{seeds - 1}: {_list(accuracies, 2)}"),
        ),
        Figure(f"{name}: longest training wall", max(walls), "s", 150, "lower", _list(walls, 0)),
    ]


def embedded_recipe(seeds: int = 5) -> list[Figure]:
    """The embedded digits, no flags but the seed; measured on the 10,000 images of the real test set."""
    split = load_test(DataSettings(data_dir=str(mnist_dir())))
    accuracies, walls = [], []
    for seed in range(seeds):
        with tempfile.TemporaryDirectory() as home:
            manifest, _ = train(Path(home), "--dataset", "embedded", "--seed", str(seed))
            model = find_version(Path(home, "mnist", "export")).path / TFLITE
            with without_notices():
                runner = Interpreter(model_path=str(model)).get_signature_runner("serving_default")
                classes = runner(x=split.images.astype(np.float32) / 255)["classes"]
        accuracies.append(100 * float((classes == split.labels).mean()))
        walls.append(manifest.metrics["train_seconds"])
    return [
        Figure(
            "embedded digits, default: worst accuracy on the real test set",
            *(min(accuracies), "%", 98.5, "higher", f"seeds 0-{seeds - 1}: {_list(accuracies, 2)}"),
        ),
        Figure("embedded digits, default: training wall", median(walls), "s", note=_values(walls)),
    ]


def _values(values: list[float]) -> str:
    return f"median of {_list(values, 1)}"


def _list(values: list[float], digits: int) -> str:
    return ", ".join(f"{value:.{digits}f}" for value in values)
