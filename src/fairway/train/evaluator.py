"""The evaluator of a distributed training: measures each new checkpoint on the test images.

It knows of the training only what the model directory shows, and nobody in the training knows of it: so it
may start before the lead, end after it, and be away in between.
"""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, NamedTuple

from fairway.config import TrainSettings, cache_dir
from fairway.errors import FairwayError, StorageError
from fairway.net.cluster import Cluster
from fairway.net.control.messages import Notice
from fairway.net.control.session import lead_name
from fairway.storage.checkpoints import fetch_checkpoint, list_checkpoints, make_empty
from fairway.storage.files import scratch_directory, storage_errors
from fairway.storage.mirror import INTERVAL_S, PATIENCE_S
from fairway.storage.model_dir import CHECKPOINTS, CONFIG, EVENTS, METRICS
from fairway.storage.outage import Outage
from fairway.storage.stores.store import Entry, Store, read_if_there
from fairway.storage.stores.uri import local_path, open_store
from fairway.tfs.signatures import DEFAULT_SIGNATURE
from fairway.train.agreement import DIRECTORIES, LISTING_S, OWN, check_data
from fairway.train.evaluate import Evaluation, evaluate
from fairway.train.finished import exported_version
from fairway.train.libraries import load_tensorflow
from fairway.train.stop import StopSignal
from fairway.workloads.base import Dataset, Workload

POLL_S = 1.0
"""Seconds between two looks at a disk; a store gets something new every `INTERVAL_S`."""
CHECK_S = 0.2
"""Seconds after which a signal is noticed."""
EVENT_DIR = f"{EVENTS}/evaluator"
RESTORED = ("kernels", "offsets", "statistics")
"""What a model needs of a checkpoint; the optimizer is for the training alone."""

_CHECKPOINT = re.compile(rf"{CHECKPOINTS}/ckpt-(\d+)\.(?:index|json)")

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
        FairwayError: nothing has changed in the model directory for `peer_wait_seconds`.
    """
    with StopSignal() as stop, _open_model_dir(settings.model_dir) as model_dir:
        _Evaluator(workload, settings, cluster, model_dir).run(stop)
    log.info("the training is done")


class Checkpoint(NamedTuple):
    """One that is complete.

    Attributes:
        step: Steps trained.
        tag: Changes when it is written anew, as after a damage.
    """

    step: int
    tag: str


@dataclass(frozen=True)
class Training:
    """What `config.json` says.

    Attributes:
        run: The run's id.
        total: Steps to train for.
        settings: Resolved; directories and waits are this task's.
        dataset: The record of the lead's data.
    """

    run: str
    total: int
    settings: TrainSettings
    dataset: dict[str, Any]


@dataclass(frozen=True)
class Sight:
    """What is to be seen of a training at one moment; two that differ are a sign of life.

    Attributes:
        config: Content of `config.json`; `None` before there is one.
        metrics: Size and time of `metrics.jsonl`, or what changes like them.
        checkpoints: In any order.
    """

    config: bytes | None = None
    metrics: Entry | None = None
    checkpoints: frozenset[Checkpoint] = frozenset()


def find_checkpoints(entries: Iterable[Entry]) -> frozenset[Checkpoint]:
    """Return the checkpoints among the files of a model directory: what comes last of each tells.

    That is the index on a disk, and the manifest in an object store.
    """
    found = ((_CHECKPOINT.fullmatch(entry.key), entry.tag) for entry in entries)
    return frozenset(Checkpoint(int(match[1]), tag) for match, tag in found if match)


def read_training(config: bytes, settings: TrainSettings) -> Training:
    """Return what is trained.

    Args:
        config: Content of `config.json`, perhaps of a training that the lead is about to go on with: so
            more `train_steps` of this task win.
        settings: This task's.

    Raises:
        StorageError: it is damaged.
        UsageError: a setting is out of its range.
    """
    own = (*OWN, *DIRECTORIES, "train_steps")
    try:
        content = json.loads(config)
        common = {
            field.name: content["settings"][field.name] for field in fields(settings) if field.name not in own
        }
        total = max(int(content["train_steps"]), settings.train_steps or 0)
        return Training(str(content["run"]), total, replace(settings, **common), dict(content["dataset"]))
    except (ValueError, KeyError, TypeError) as err:
        raise StorageError(f"{CONFIG} in {settings.model_dir} is damaged ({err!r})") from err


class _ModelDir:
    """A model directory, as one has it who only reads it and adds event files.

    Attributes:
        uri: As the user gave it.
        events: Directory of this machine for the event files.
        poll_s: Seconds between two looks.
        settle_s: Seconds after an export within which a last checkpoint may yet be seen.

    Args:
        store: The directory as a store.
        path: Where it is on this machine, or where copies are.
        is_remote: These are copies.
    """

    def __init__(self, store: Store, path: Path, is_remote: bool) -> None:
        self._store, self._path, self._is_remote = store, path, is_remote
        self._sent: dict[str, int] = {}
        self.uri = store.uri
        self.events = path / EVENT_DIR
        self.poll_s = INTERVAL_S if is_remote else POLL_S
        # The lead sends its version before the last checkpoint; a shared disk may show a file late.
        self.settle_s = PATIENCE_S if is_remote else LISTING_S

    def look(self) -> Sight:
        """Return what is to be seen.

        Raises:
            StorageError: it cannot be read.
        """
        config, metrics = read_if_there(self._store, CONFIG), self._store.stat(METRICS)
        return Sight(config, metrics, find_checkpoints(self._store.list(f"{CHECKPOINTS}/")))

    def fetch(self, step: int) -> Path | None:
        """Return the path of a checkpoint, as TensorFlow takes it; `None` if it is damaged or gone.

        Raises:
            StorageError: the store does not answer, or the copy cannot be written.
        """
        path = self._path / CHECKPOINTS / f"ckpt-{step:08d}"
        if not self._is_remote:
            return path
        found = next((each for each in list_checkpoints(self._store) if each.step == step), None)
        with storage_errors("write to", self._path):
            make_empty(path.parent)
            return path if found and fetch_checkpoint(self._store, found, self._path) else None

    def send_events(self) -> None:
        """Bring event files that have grown to the store.

        Raises:
            StorageError: it does not take them.
        """
        for path in self.events.glob("*") if self._is_remote else ():
            size = path.stat().st_size
            if size != self._sent.get(path.name):
                self._store.upload(path, f"{EVENT_DIR}/{path.name}")
                self._sent[path.name] = size


@contextmanager
def _open_model_dir(uri: str) -> Iterator[_ModelDir]:
    store, path = open_store(uri), local_path(uri)
    if path is not None:
        yield _ModelDir(store, path, is_remote=False)
        return
    with scratch_directory(cache_dir() / "evaluations", prefix="model-") as scratch:
        yield _ModelDir(store, scratch, is_remote=True)


class _Evaluator:
    """Follows a training.

    Args:
        workload: What is trained.
        settings: This task's.
        cluster: Says whom to wait for.
        model_dir: The training's.
    """

    def __init__(
        self, workload: Workload, settings: TrainSettings, cluster: Cluster, model_dir: _ModelDir
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

    def _noted(self) -> Any:
        return self._outage.noted("trying again")

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
        if time.monotonic() - self._changed > self._settings.peer_wait_seconds:
            raise self._lost()
        if self._training is None and not self._outage.problem:
            self._notice.say(f"{self._lead} to start the training in {self._model_dir.uri}")
        end = time.monotonic() + self._model_dir.poll_s
        while (left := end - time.monotonic()) > 0:
            time.sleep(min(CHECK_S, left))
            stop.check()

    def _lost(self) -> FairwayError:
        directory, wait_s = self._model_dir.uri, self._settings.peer_wait_seconds
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
                log.warning("checkpoint %s is damaged and passed over (%s)", path, _first_line(err))
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


def _first_line(err: Exception) -> str:
    return next(iter(str(err).splitlines()), type(err).__name__)
