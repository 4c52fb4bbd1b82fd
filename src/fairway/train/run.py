"""A training run from beginning to end: data, steps, evaluation, export; interrupted and resumed at will."""

from __future__ import annotations

import logging
import signal
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from types import FrameType
from typing import Any

from fairway.config import TrainSettings
from fairway.errors import FairwayError, UsageError
from fairway.progress import Progress
from fairway.storage.exports import Version, list_versions
from fairway.storage.files import lock_directory, make_directory
from fairway.train.batches import BatchOrder
from fairway.train.checkpoints import Checkpoints
from fairway.train.evaluate import evaluate
from fairway.train.export import DEFAULT_SIGNATURE, export_model, record_dataset, servable_model
from fairway.train.loop import Trainer
from fairway.train.precision import best_precision
from fairway.train.records import Records, read_config, write_config
from fairway.workloads.base import Dataset, Workload

log = logging.getLogger(__name__)

CHUNK = 20
"""Steps in one call of the compiled loop: how often metrics are recorded and a stop is noticed."""


class Stopped(FairwayError):
    """The run was asked to stop, and has saved a checkpoint."""

    def __init__(self, signum: int, step: int, total: int) -> None:
        super().__init__(
            f"stopped by {signal.Signals(signum).name} at step {step} of {total}; a checkpoint is saved",
            hint="The same command goes on from there.",
        )
        self.exit_code = 128 + signum


def train(workload: Workload, settings: TrainSettings) -> Version:
    """Train until `train_steps` are done, in this run or in all runs on this model directory; export once.

    Returns:
        The exported version; the one that is there already if this training was finished before.

    Raises:
        UsageError: a setting does not fit the data, or the model directory holds another training.
        DataError: the data cannot be had or is damaged.
        StorageError: a directory cannot be written to; the last checkpoint is unharmed.
        Stopped: SIGINT or SIGTERM came; a checkpoint is saved.
    """
    model_dir = Path(settings.model_dir)
    make_directory(model_dir)
    make_directory(Path(settings.export_dir))
    with lock_directory(model_dir, "train"):
        dataset = workload.load(settings)
        settings = resolve(workload, settings, dataset)
        run = _join_run(workload, settings, dataset)
        return _train(workload, settings, dataset, run)


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


def _join_run(workload: Workload, settings: TrainSettings, dataset: Dataset) -> str:
    """Return the id of the model directory's run, a new one if it is empty, and write `config.json`."""
    model_dir = Path(settings.model_dir)
    earlier = read_config(model_dir)
    now = {"workload": workload.name, "model_type": settings.model_type, "dataset": dataset.name}
    if earlier is not None:
        there = {"workload": earlier.get("workload"), "model_type": earlier.get("model_type")}
        there["dataset"] = earlier.get("dataset", {}).get("name")
        for name, value in now.items():
            if there[name] != value:
                raise UsageError(
                    f"{model_dir} holds a training of {name} {there[name]!r}, not {value!r}",
                    hint="Choose another --model-dir, or remove this one to start afresh.",
                )
    run = earlier["run"] if earlier else uuid.uuid4().hex
    config: dict[str, Any] = {"run": run, "train_steps": settings.train_steps}
    config |= now | {"dataset": asdict(record_dataset(dataset)), "settings": asdict(settings)}
    write_config(model_dir, config)
    return str(run)


def _train(workload: Workload, settings: TrainSettings, dataset: Dataset, run: str) -> Version:
    total = settings.train_steps or 0
    trainer = Trainer(workload, settings, dataset.train)
    checkpoints = Checkpoints(
        Path(settings.model_dir) / "checkpoints",
        model=trainer.model,
        optimizer=trainer.optimizer,
        step=trainer.step,
        seconds=trainer.seconds,
    )
    step = checkpoints.restore()
    exported = _exported(Path(settings.export_dir), run, max(step, total))
    if exported:
        log.info("trained already: step %d of %d, version %d", step, total, exported.number)
        log.info("  train on with a larger --train-steps, or afresh with another --model-dir")
        return exported
    _announce(settings, dataset, step, total)
    with Records(Path(settings.model_dir), step) as records:
        _run_steps(trainer, settings, dataset, checkpoints, records, step)
        step = max(step, total)
        model = servable_model(workload, settings, trainer.model)
        evaluation = evaluate(
            workload.signatures(model)[DEFAULT_SIGNATURE], dataset.test, len(workload.class_names)
        )
        log.info(
            "test accuracy %.2f %% on %s (%s images)",
            100 * evaluation.accuracy,
            dataset.test.name,
            f"{len(dataset.test):,}",
        )
        records.add_test(step, evaluation, dataset.test, workload.class_names)
    version = export_model(
        workload, settings, dataset, model, evaluation, run=run, step=step, seconds=float(trainer.seconds)
    )
    log.info("exported version %d to %s", version.number, version.path)
    return version


def _announce(settings: TrainSettings, dataset: Dataset, step: int, total: int) -> None:
    log.info("data: %s images from %s (%s)", f"{len(dataset.train):,}", dataset.source, dataset.train.name)
    log.info(
        "training %s for %d steps of %d images in %s%s",
        settings.model_type,
        total,
        settings.batch_size,
        settings.precision,
        ", images varied" if settings.augment else "",
    )
    if step:
        log.info("resuming at step %d of %d from %s", step, total, settings.model_dir)


def _run_steps(
    trainer: Trainer,
    settings: TrainSettings,
    dataset: Dataset,
    checkpoints: Checkpoints,
    records: Records,
    step: int,
) -> None:
    total, interval = settings.train_steps or 0, settings.checkpoint_steps
    order = BatchOrder(len(dataset.train), settings.batch_size, settings.seed)
    saved = step
    with _stop_signal() as received, Progress("training", total, done=step) as progress:
        while step < total and not received:
            started = time.monotonic()
            chunk = min(CHUNK - step % CHUNK, interval - step % interval, total - step)
            progressed = trainer.advance(order.take(step, chunk))
            step += chunk
            seconds = time.monotonic() - started
            trainer.seconds.assign_add(seconds)
            _check_finite(progressed.loss, step)
            records.add_training(step, progressed, chunk / seconds)
            progress.update(
                step,
                f"loss {progressed.loss:.3f} · accuracy {100 * progressed.accuracy:.1f} % · {chunk / seconds:.0f} steps/s",
            )
            if step % interval == 0 or step == total:
                checkpoints.save(step)
                saved = step
    if received and step < total:
        if saved < step:
            checkpoints.save(step)
        raise Stopped(received[0], step, total)


def _check_finite(loss: float, step: int) -> None:
    if not abs(loss) < float("inf"):
        raise FairwayError(
            f"the loss is {loss} at step {step}: the training has diverged",
            hint="Set a smaller --learning-rate; the last checkpoint is from before that.",
        )


def _exported(export_dir: Path, run: str, step: int) -> Version | None:
    """Return the complete version that this run exported at this step, if there is one."""
    for version in reversed(list_versions(export_dir)):
        manifest = version.manifest
        if manifest and not version.problem and (manifest.run, manifest.step) == (run, step):
            return version
    return None


@contextmanager
def _stop_signal() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM in a list, so that a step is never cut in half; a second one ends at once."""
    received: list[int] = []

    def note(signum: int, frame: FrameType | None) -> None:
        received.append(signum)
        signal.signal(signum, before[signum])

    signals = (signal.SIGINT, signal.SIGTERM)
    before = {signum: signal.signal(signum, note) for signum in signals}
    try:
        yield received
    finally:
        for signum in signals:
            signal.signal(signum, before[signum])
