"""A training run from beginning to end; what can go wrong early is found before TensorFlow is loaded."""

from __future__ import annotations

import logging
import os
import uuid
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from fairway.config import TrainSettings
from fairway.errors import StorageError, UsageError
from fairway.quiet import without_notices
from fairway.storage.exports import Version
from fairway.storage.model_dir import read_config, write_config
from fairway.storage.publish import keep_newest
from fairway.train.precision import best_precision
from fairway.train.workspace import open_workspace
from fairway.workloads.base import Dataset, Workload

log = logging.getLogger(__name__)


def train(workload: Workload, settings: TrainSettings) -> Version:
    """Train until `train_steps` are done, in this run or in all runs on this model directory; export once.

    Returns:
        The exported version; the one that is there already if this training was finished before.

    Raises:
        UsageError: a setting does not fit the data, or the model directory holds another training.
        DataError: the data cannot be had or is damaged.
        StorageError: a directory cannot be written to; the last checkpoint is unharmed, and what an object
            store did not take is kept on this machine.
        StoppedError: SIGINT or SIGTERM came; a checkpoint is saved.
    """
    with open_workspace(settings.model_dir, settings.export_dir) as workspace:
        dataset = workload.load(settings)
        settings = resolve(workload, settings, dataset)
        run = _join_run(workload, settings, dataset, workspace.model_dir)
        workspace.start()
        # TensorFlow reads this when it is imported; its notices are for its developers.
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
        with without_notices():
            from fairway.train.session import run_session
        version = run_session(workload, settings, dataset, run, workspace)
    if settings.keep:
        _delete_older(settings.export_dir, settings.keep)
    return version


def resolve(workload: Workload, settings: TrainSettings, dataset: Dataset) -> TrainSettings:
    """Return the settings with every `None` and `auto` replaced by what it means here.

    Raises:
        UsageError: the batch is larger than the training set.
    """
    if settings.batch_size > len(dataset.train):
        raise UsageError(
            f"batch_size is {settings.batch_size}, but there are only {len(dataset.train)} training images",
            hint="Set a smaller one with --batch-size or TF_BATCH_SIZE.",
        )
    recipe = workload.recipe(settings, dataset)
    return replace(
        settings,
        dataset=dataset.name,
        train_steps=settings.train_steps or recipe.train_steps,
        learning_rate=settings.learning_rate or recipe.learning_rate,
        augment=recipe.augment if settings.augment is None else settings.augment,
        precision=best_precision() if settings.precision == "auto" else settings.precision,
    )


def _delete_older(export_dir: str, keep: int) -> None:
    try:
        for number in keep_newest(export_dir, keep):
            log.info("deleted version %d: the newest %d are kept", number, keep)
    except StorageError as err:  # the training is done, and its version there
        log.warning("older versions stay: %s", err.message)


def _join_run(workload: Workload, settings: TrainSettings, dataset: Dataset, model_dir: Path) -> str:
    """Return the id of the model directory's run, a new one if it is empty, and write `config.json`."""
    earlier = read_config(model_dir)
    now = {"workload": workload.name, "model_type": settings.model_type, "dataset": dataset.name}
    if earlier is not None:
        there = {"workload": earlier.get("workload"), "model_type": earlier.get("model_type")}
        there["dataset"] = earlier.get("dataset", {}).get("name")
        for name, value in now.items():
            if there[name] != value:
                raise UsageError(
                    f"{settings.model_dir} holds a training of {name} {there[name]!r}, not {value!r}",
                    hint="Choose another --model-dir, or remove this one to start afresh.",
                )
    run = earlier["run"] if earlier else uuid.uuid4().hex
    config: dict[str, Any] = {"run": run, "train_steps": settings.train_steps}
    config |= now | {"dataset": asdict(dataset.record()), "settings": asdict(settings)}
    write_config(model_dir, config)
    return str(run)
