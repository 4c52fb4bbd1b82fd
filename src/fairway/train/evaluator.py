"""The evaluator of a distributed training: measures each new checkpoint on the test images.

It knows of the training only what the model directory shows, and nobody in the training knows of it: so it
may start before the lead, end after it, and be away in between.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from fairway.config import TrainSettings
from fairway.errors import FairwayError, StoreAwayError, first_line
from fairway.net.cluster import Cluster
from fairway.net.control.messages import Notice
from fairway.net.control.session import lead_name
from fairway.storage.outage import Outage
from fairway.storage.stores.uri import local_path
from fairway.tfs.signatures import DEFAULT_SIGNATURE
from fairway.train.agreement import check_data
from fairway.train.evaluate import Evaluation, evaluate
from fairway.train.finished import exported_version
from fairway.train.libraries import load_tensorflow
from fairway.train.stop import StopSignal
from fairway.train.watched import Checkpoint, Sight, Training, WatchedDir, open_watched, read_training
from fairway.workloads.base import Dataset, Workload

CHECK_S = 0.2
"""Seconds after which a signal is noticed."""
RESTORED = ("kernels", "offsets", "statistics")
"""What a model needs of a checkpoint; the optimizer is for the training alone."""

log = logging.getLogger(__name__)


def evaluate_checkpoints(workload: Workload, settings: TrainSettings, cluster: Cluster) -> None:
    """Evaluate each new checkpoint of a training until its last one is evaluated.

    Args:
        workload: What is trained.
        settings: This task's; what the lead has resolved in `config.json` wins, but for its own directories.
        cluster: Says whom to wait for.

    Raises:
        UsageError: a directory's URI is not one.
        DataError: the data cannot be had or is damaged, or is not the lead's.
        StorageError: the events cannot be written.
        StoppedError: SIGINT or SIGTERM came.
        FairwayError: nothing has changed in the model directory for `peer_wait_seconds`, or for twice as long
            once there is a training. The time for which its store is away does not count.
    """
    with StopSignal() as stop, open_watched(settings.model_dir) as model_dir:
        _Evaluator(workload, settings, cluster, model_dir).run(stop)
    log.info("the training is done")


class _Evaluator:
    """Follows a training.

    Args:
        workload: What is trained.
        settings: This task's.
        cluster: Says whom to wait for.
        model_dir: The training's.
    """

    def __init__(
        self, workload: Workload, settings: TrainSettings, cluster: Cluster, model_dir: WatchedDir
    ) -> None:
        self._workload, self._settings, self._model_dir = workload, settings, model_dir
        self._lead = lead_name(cluster)
        self._notice, self._outage = Notice(), Outage(f"{model_dir.uri} can be read again")
        self._sight, self._changed = Sight(), time.monotonic()
        self._training: Training | None = None
        self._meter: _Meter | None = None
        self._evaluated = -1
        self._passed_over: set[Checkpoint] = set()
        self._is_over = False

    def run(self, stop: StopSignal) -> None:
        """Follow to the end."""
        while not self._is_over:
            self._look()
            stop.check()  # now, as a look sends the events of the evaluation before it
            if self._training:
                self._prepare(self._training)
            if not (self._training and self._evaluate_newest(self._training)):
                self._wait(stop)

    def _look(self) -> None:
        with self._noted():
            # Is asked first: when there is a version, the last checkpoint has been written.
            is_exported = self._is_exported()
            self._take(self._model_dir.look())
            self._model_dir.send_events()
            is_last = self._training is not None and self._evaluated >= self._training.total
            self._is_over = (is_last or is_exported) and self._newest() is None

    @contextmanager
    def _noted(self) -> Iterator[None]:
        with self._outage.noted("trying again"):
            try:
                yield
            except StoreAwayError:
                self._changed = time.monotonic()  # the training goes on meanwhile, for all one can tell
                raise

    def _is_exported(self) -> bool:
        settings, training = self._settings, self._training
        quiet_s = time.monotonic() - self._changed
        if training is None or quiet_s < min(self._model_dir.settle_s, settings.peer_wait_seconds / 2):
            return False
        return exported_version(settings.export_dir, training.run, training.total) is not None

    def _take(self, sight: Sight) -> None:
        if sight != self._sight:
            self._sight, self._changed = sight, time.monotonic()
        before = self._training
        self._training = None if sight.config is None else read_training(sight.config, self._settings)
        if before and self._training and before.run != self._training.run:
            self._evaluated, self._passed_over = -1, set()

    def _newest(self) -> Checkpoint | None:
        """Return the newest checkpoint that is yet to be evaluated."""
        left = self._sight.checkpoints - self._passed_over
        return max((each for each in left if each.step > self._evaluated), default=None)

    def _prepare(self, training: Training) -> None:
        """Load data and TensorFlow while the training begins, or anew if it is another one."""
        if self._meter is None or not self._meter.is_for(training):
            self._meter = _Meter(self._workload, training, self._model_dir.events)
            self._changed = time.monotonic()  # that took seconds in which nobody looked

    def _evaluate_newest(self, training: Training) -> bool:
        """Evaluate the newest checkpoint; return `False` if there is none, or it cannot be read."""
        checkpoint, evaluation = self._newest(), None
        if checkpoint is None or self._meter is None:
            return False
        with self._noted():
            path = self._model_dir.fetch(checkpoint.step)
            evaluation = self._meter.measure(path) if path else None
            if evaluation is None:
                self._passed_over.add(checkpoint)
        if evaluation is None:
            return False
        self._meter.draw(checkpoint.step, evaluation)
        log.info(
            "step %d of %d: test accuracy %.2f %%, loss %.3f",
            checkpoint.step,
            training.total,
            100 * evaluation.accuracy,
            evaluation.loss,
        )
        self._evaluated, self._changed = checkpoint.step, time.monotonic()
        return True

    def _wait(self, stop: StopSignal) -> None:
        """Wait until it is time for the next look, but not for ever."""
        if self._is_over:
            return
        wait_s = self._settings.peer_wait_seconds
        if self._training:
            wait_s *= 2  # the lead may wait as long for another task, and then has to load TensorFlow
        if time.monotonic() - self._changed > wait_s:
            raise self._lost(wait_s)
        if self._training is None and not self._outage.problem:
            self._notice.say(f"{self._lead} to start the training in {self._model_dir.uri}")
        end = time.monotonic() + self._model_dir.poll_s
        while (left := end - time.monotonic()) > 0:
            time.sleep(min(CHECK_S, left))
            stop.check()

    def _lost(self, wait_s: float) -> FairwayError:
        directory = self._model_dir.uri
        cause = f": {self._outage.problem}" if self._outage.problem else ""
        shared = "" if local_path(directory) is None else " and shares this disk (else use an object store)"
        return FairwayError(
            f"nothing has happened in {directory} for {wait_s:g} s{cause}",
            hint=f"Check that {self._lead} runs{shared}, or raise --peer-wait-seconds.",
        )


class _Meter:
    """The part with TensorFlow: measures checkpoints of one training, and writes its event file.

    Args:
        workload: What is trained.
        training: Which of its trainings.
        events: Directory for the event file; it is made with the first event.

    Raises:
        DataError: the data cannot be had or is damaged, or is not the lead's.
    """

    def __init__(self, workload: Workload, training: Training, events: Path) -> None:
        dataset = _load(workload, training)
        load_tensorflow(is_alone=False)  # and it says nothing of what a damaged checkpoint lacks
        import tensorflow as tf

        from fairway.train.export import servable_model
        from fairway.train.state import State

        self._training, self._events, self._test = training, events, dataset.test
        self._classes = len(workload.class_names)
        state = State(workload, training.settings)
        self._weights = state.weights
        self._checkpoint = tf.train.Checkpoint(**{name: state.parts[name] for name in RESTORED})
        self._model = servable_model(workload, training.settings, state)
        self._endpoint = workload.endpoints(self._model)[DEFAULT_SIGNATURE]
        self._writer: Any = None

    def is_for(self, training: Training) -> bool:
        """Tell whether it can measure a training's checkpoints."""
        return replace(self._training, total=training.total) == training

    def measure(self, path: Path) -> Evaluation | None:
        """Return how good a checkpoint is on the test images; `None` if it is damaged or gone."""
        try:
            self._checkpoint.read(str(path)).assert_existing_objects_matched().expect_partial()
        except Exception as err:  # damage shows in many ways, IndexError among them
            if path.with_name(f"{path.name}.index").exists():  # else a newer one has taken its place
                log.warning("checkpoint %s is damaged and passed over (%s)", path, first_line(err))
            return None
        self._weights.write_to(self._model)
        return evaluate(self._endpoint, self._test, self._classes)

    def draw(self, step: int, evaluation: Evaluation) -> None:
        """Add to the curves, under the names that those of the training have.

        Raises:
            StorageError: the directory cannot be written to.
        """
        import tensorflow as tf

        from fairway.train.checkpoints import write_errors

        with write_errors(self._events):
            if self._writer is None:
                self._writer = tf.summary.create_file_writer(str(self._events))
            with self._writer.as_default(step):
                tf.summary.scalar("loss", evaluation.loss)
                tf.summary.scalar("accuracy", evaluation.accuracy)
            self._writer.flush()


def _load(workload: Workload, training: Training) -> Dataset:
    """Return the data without the training images."""
    dataset = workload.load(training.settings).keep(slice(0))
    check_data(dataset, training.dataset)
    log.info(
        "evaluating the checkpoints in %s on %s (%s images)",
        training.settings.model_dir,
        dataset.test.name,
        f"{len(dataset.test):,}",
    )
    return dataset
