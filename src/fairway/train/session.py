"""The part of a run that needs TensorFlow: restore, train, measure, export."""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from fairway.config import TrainSettings
from fairway.errors import FairwayError
from fairway.progress import Progress
from fairway.storage.exports import Version, list_versions
from fairway.storage.model_dir import CHECKPOINTS
from fairway.tfs.signatures import DEFAULT_SIGNATURE
from fairway.train.batches import BatchOrder
from fairway.train.checkpoints import Checkpoints
from fairway.train.evaluate import evaluate
from fairway.train.export import export_model, servable_model
from fairway.train.loop import Trainer
from fairway.train.records import Records
from fairway.train.workspace import Workspace
from fairway.workloads.base import Dataset, Workload

log = logging.getLogger(__name__)

CHUNK = 20
"""Steps in one call of the compiled loop: how often metrics are recorded and a stop is noticed."""


class StoppedError(FairwayError):
    """The run was asked to stop, and has saved a checkpoint."""

    def __init__(self, signum: int, step: int, total: int) -> None:
        super().__init__(
            f"stopped by {signal.Signals(signum).name} at step {step} of {total}; a checkpoint is saved",
            hint="The same command goes on from there.",
        )
        self.exit_code = 128 + signum


def run_session(
    workload: Workload, settings: TrainSettings, dataset: Dataset, run: str, workspace: Workspace
) -> Version:
    """Train from the newest checkpoint to the end and export, unless that is done already.

    Args:
        workload: What is trained.
        settings: Resolved settings.
        dataset: The images.
        run: The run's id, by which its export is known again.
        workspace: Where it works, and publishes the version.

    Raises:
        StorageError: a directory cannot be written to.
        StoppedError: SIGINT or SIGTERM came; a checkpoint is saved.
    """
    total = settings.train_steps or 0
    trainer = Trainer(workload, settings, dataset.train)
    checkpoints = Checkpoints(
        workspace.model_dir / CHECKPOINTS,
        model=trainer.model,
        optimizer=trainer.optimizer,
        step=trainer.step,
        seconds=trainer.seconds,
    )
    step = checkpoints.restore()
    exported = _exported(settings.export_dir, run, max(step, total))
    if exported:
        log.info("trained already: step %d of %d, version %d", step, total, exported.number)
        log.info("  train on with a larger --train-steps, or afresh with another --model-dir")
        return exported
    _announce(settings, dataset, step, total)
    with Records(workspace.model_dir, step) as records:
        _run_steps(trainer, settings, dataset, checkpoints, records, step, workspace.check)
        step = max(step, total)
        model = servable_model(workload, settings, trainer.model)
        evaluation = evaluate(
            workload.endpoints(model)[DEFAULT_SIGNATURE], dataset.test, len(workload.class_names)
        )
        log.info(
            "test accuracy %.2f %% on %s (%s images)",
            100 * evaluation.accuracy,
            dataset.test.name,
            f"{len(dataset.test):,}",
        )
        records.add_test(step, evaluation, dataset.test, workload.class_names)
    version = export_model(
        workload,
        settings,
        dataset,
        model,
        evaluation,
        workspace,
        run=run,
        step=step,
        seconds=float(trainer.seconds),
    )
    version = workspace.publish(version)
    log.info("exported version %d to %s", version.number, version.uri)
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
    check: Callable[[], None],
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
            check_finite(progressed.loss, step)
            records.add_training(step, progressed, chunk / seconds)
            note = f"loss {progressed.loss:.3f} · accuracy {100 * progressed.accuracy:.1f} %"
            progress.update(step, f"{note} · {chunk / seconds:.0f} steps/s")
            if step % interval == 0 or step == total:
                checkpoints.save(step)
                saved = step
                check()
    if received and step < total:
        if saved < step:
            checkpoints.save(step)
        raise StoppedError(received[0], step, total)


def check_finite(loss: float, step: int) -> None:
    """Raise a `FairwayError` if the loss is not a number any more."""
    if not abs(loss) < float("inf"):
        raise FairwayError(
            f"the loss is {loss} at step {step}: the training has diverged",
            hint="Set a smaller --learning-rate; the last checkpoint is from before that.",
        )


def _exported(export_dir: str, run: str, step: int) -> Version | None:
    """Return the complete version that this run exported at this step, if there is one."""
    for version in reversed(list_versions(export_dir)):
        manifest = version.manifest
        if manifest and not version.problem and (manifest.run, manifest.step) == (run, step):
            return version
    return None


@contextmanager
def _stop_signal() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM in a list, so that no step is cut in half; a second one ends at once."""
    received: list[int] = []

    def note(signum: int, frame: FrameType | None) -> None:
        received.append(signum)
        signal.signal(signum, before[signum])

    signals = (signal.SIGINT, signal.SIGTERM)
    before: dict[int, Any] = {signum: signal.signal(signum, note) for signum in signals}
    try:
        yield received
    finally:
        for signum in signals:
            signal.signal(signum, before[signum])
