"""The part of a run that the lead does with TensorFlow: restore, train, measure, export."""

from __future__ import annotations

import logging
import time

from fairway.config import TrainSettings
from fairway.errors import FairwayError, PeerError, StoppedError
from fairway.progress import Progress
from fairway.storage.exports import Version
from fairway.storage.model_dir import CHECKPOINTS
from fairway.tfs.signatures import DEFAULT_SIGNATURE
from fairway.train.checkpoints import Checkpoints
from fairway.train.evaluate import evaluate
from fairway.train.export import export_model, servable_model
from fairway.train.peers import Peers
from fairway.train.profile import Profile
from fairway.train.records import Records
from fairway.train.stop import StopSignal
from fairway.train.strategies.base import Progressed, Strategy, pauses
from fairway.train.workspace import Workspace
from fairway.workloads.base import Dataset, Workload

log = logging.getLogger(__name__)


class Session:
    """One run of a training, from the newest checkpoint to the exported version.

    Args:
        workload: What is trained.
        settings: Resolved.
        dataset: The images.
        strategy: How the steps are done.
        workspace: Where it works, and publishes the version.
        peers: The other tasks.
        stop: Tells whether this task was told to stop.
    """

    def __init__(
        self,
        workload: Workload,
        settings: TrainSettings,
        dataset: Dataset,
        strategy: Strategy,
        workspace: Workspace,
        peers: Peers,
        stop: StopSignal,
    ) -> None:
        self._workload, self._settings, self._dataset = workload, settings, dataset
        self._strategy, self._workspace, self._peers, self._stop = strategy, workspace, peers, stop
        self._total = settings.train_steps or 0
        directory = workspace.model_dir / CHECKPOINTS
        self._checkpoints = Checkpoints(directory, **strategy.state.parts)

    def run(self, run: str) -> Version:
        """Train to the end and export.

        Args:
            run: The run's id, by which its export is known again.

        Raises:
            StorageError: a directory cannot be written to.
            StoppedError: SIGINT or SIGTERM came; a checkpoint is saved.
            PeerError: a task was lost without which it cannot go on.
        """
        step = self._checkpoints.restore()
        self._stop.check()
        self._announce(step)
        with Records(self._workspace.model_dir, step) as records:
            self._peers.record_with(records.add_event)
            with self._peers.watch():
                self._strategy.spread()  # the others wait for it, also when nothing is left to train
                if step < self._total:
                    self._train(step, records)
            self._stop.close()  # an export is whole or not there: a signal may end it at once
            return self._finish(max(step, self._total), run, records)

    def _announce(self, step: int) -> None:
        dataset, settings = self._dataset, self._settings
        log.info(
            "data: %s images from %s (%s)", f"{dataset.train_images:,}", dataset.source, dataset.train.name
        )
        log.info(
            "training %s for %d steps of %s images in %s%s",
            settings.model_type,
            self._total,
            f"{self._strategy.images_per_step:,}",
            settings.precision,
            ", images varied" if settings.augment else "",
        )
        if step:
            log.info("resuming at step %d of %d from %s", step, self._total, settings.model_dir)

    def _train(self, step: int, records: Records) -> None:
        interval = self._settings.checkpoint_steps
        with (
            Progress("training", self._total, done=step) as progress,
            Profile(self._workspace.model_dir, self._settings.profile) as profile,
        ):
            for first, until in pauses(step, self._total, interval):
                step, is_stopping = self._train_until(first, until, records, progress, profile)
                self._save(step, records)
                if is_stopping and step < self._total:
                    raise self._stopped(step)

    def _train_until(
        self, step: int, until: int, records: Records, progress: Progress, profile: Profile
    ) -> tuple[int, bool]:
        """Train up to a step, or until a task is told to stop; return where it is, and whether one was."""
        started = time.monotonic()
        for progressed in self._strategy.steps(step, until):
            seconds = time.monotonic() - started
            started += seconds
            self._strategy.state.seconds.assign_add(seconds)
            self._report(progressed, seconds, records, progress)
            profile.advance()
            if progressed.is_stopping:
                return progressed.step, True
        return until, False

    def _report(self, progressed: Progressed, seconds: float, records: Records, progress: Progress) -> None:
        check_finite(progressed.loss, progressed.step)
        steps_per_s = progressed.steps / seconds
        images_per_s = steps_per_s * self._strategy.images_per_step
        records.add_training(progressed, seconds, images_per_s)
        note = (
            f"loss {progressed.loss:.3f} · accuracy {100 * progressed.accuracy:.1f} %"
            f" · {steps_per_s:.0f} steps/s · {images_per_s:,.0f} images/s"
        )
        progress.update(progressed.step, note)
        self._peers.publish({"kind": "progress", "step": progressed.step, "total": self._total, "note": note})

    def _save(self, step: int, records: Records) -> None:
        started = time.monotonic()
        self._strategy.gather()
        with self._peers.pause():
            self._checkpoints.save(step)
        records.add_checkpoint(step, time.monotonic() - started)
        self._workspace.check()

    def _stopped(self, step: int) -> FairwayError:
        where = f" at step {step} of {self._total}; a checkpoint is saved"
        if self._stop.signum is not None:
            return StoppedError(self._stop.signum, where)
        return PeerError(f"another task was told to stop{where}", hint="The training goes on from there.")

    def _finish(self, step: int, run: str, records: Records) -> Version:
        workload, settings, dataset, state = (
            self._workload,
            self._settings,
            self._dataset,
            self._strategy.state,
        )
        model = servable_model(workload, settings, state)
        endpoint = workload.endpoints(model)[DEFAULT_SIGNATURE]
        evaluation = evaluate(endpoint, dataset.test, len(workload.class_names))
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
            self._workspace,
            run=run,
            step=step,
            seconds=float(state.seconds),
        )
        version = self._workspace.publish(version)
        log.info("exported version %d to %s", version.number, version.uri)
        return version


def check_finite(loss: float, step: int) -> None:
    """Raise a `FairwayError` if the loss is not a number any more."""
    if not abs(loss) < float("inf"):
        raise FairwayError(
            f"the loss is {loss} at step {step}: the training has diverged",
            hint="Set a smaller --learning-rate; the last checkpoint is from before that.",
        )
