"""Workers take turns at the steps, each at its own speed; the weights live on the parameter servers."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import tensorflow as tf

from fairway.config import TrainSettings
from fairway.net.cluster import Cluster
from fairway.train.shards import LABEL_BYTES, Shard
from fairway.train.state import State
from fairway.train.step import Step
from fairway.train.stop import StopSignal
from fairway.train.strategies.base import CHUNK, Progressed, resolver
from fairway.train.weights import Weights
from fairway.workloads.base import Workload

UNROLLED = 4
"""Steps that a worker does in one go: with a call for each, a quarter of the time goes into the calls."""
AHEAD = 2
"""Goes for each worker that are sent before their results are looked at, so that none is idle."""


class Asynchronous:
    """Trains with ParameterServerStrategy; only the lead calls this, workers and ps run what it sends.

    The lead has a state of its own, which checkpoints are written from: `gather` brings it up to date. It
    counts the steps too: what a dead worker left unfinished is done again by another, and counted once.

    Args:
        workload: What is trained.
        settings: Resolved.
        shards: Where each worker has its training images, in the order of `cluster.workers`.
        stop: Tells whether the lead was told to stop.
        cluster: All of whose tasks are there.
    """

    def __init__(
        self,
        workload: Workload,
        settings: TrainSettings,
        shards: list[Shard],
        stop: StopSignal,
        cluster: Cluster,
    ) -> None:
        self._strategy = tf.distribute.ParameterServerStrategy(resolver(cluster))
        self._coordinator = tf.distribute.coordinator.ClusterCoordinator(self._strategy)
        self.state = State(workload, settings)
        with self._strategy.scope():
            self._weights = Weights(self.state.model, settings.learning_rate or 0)
        self.images_per_step = settings.batch_size
        self._step, self._stop = Step(workload, settings), stop
        self._names = [str(task) for task in cluster.workers]
        self._shards, self._seed = shards, settings.seed
        self._go = {count: tf.function(partial(self._train, count)) for count in (UNROLLED, 1)}
        self._batches: Any = None

    def spread(self) -> None:
        """Give the state to the parameter servers, and their images to the workers' functions."""
        for there, here in zip(self._weights.variables, self.state.weights.variables, strict=True):
            there.assign(here)
        seed = self._seed + int(self.state.step)  # after a restart another order
        dataset = self._coordinator.create_per_worker_dataset(lambda: self._dataset(seed))
        self._batches = iter(dataset)

    def gather(self) -> None:
        """Bring the state back from the parameter servers."""
        for there, here in zip(self._weights.variables, self.state.weights.variables, strict=True):
            here.assign(there)
        # Two steps at the same time are counted as one there.
        self.state.weights.optimizer.iterations.assign(self.state.step)

    def steps(self, first: int, until: int) -> Iterator[Progressed]:
        """Train from one step to another, see `Strategy`."""
        goes = deque(_goes(first, until))
        sent: deque[tuple[int, Any]] = deque()
        done, reported, tally = first, first, _Tally()
        while goes or sent:
            while goes and len(sent) < AHEAD * len(self._names):
                step, count = goes.popleft()
                arguments = (self._batches, tf.constant(step, tf.int64))
                sent.append((count, self._coordinator.schedule(self._go[count], arguments)))
            count, result = sent.popleft()
            tally.add(count, *result.fetch().tolist())
            done += count
            if stopping := self._stop.signum is not None:
                goes.clear()
            is_idle = not (goes or sent)  # until then workers change the weights
            if done // CHUNK > reported // CHUNK or is_idle:
                self.state.step.assign(done)
                yield self._report(done, done - reported, tally, is_stopping=stopping and is_idle)
                reported, tally = done, _Tally()

    def _report(self, done: int, steps: int, tally: _Tally, *, is_stopping: bool) -> Progressed:
        return Progressed(
            done,
            steps,
            tally.loss / steps,
            tally.accuracy / steps,
            float(self._step.learning_rate(tf.constant(done - 1))),
            is_stopping=is_stopping,
            by_task={self._names[worker]: count for worker, count in sorted(tally.by_worker.items())},
        )

    def _train(self, count: int, batches: Any, step: tf.Tensor) -> tf.Tensor:
        """Do some steps on a worker; return loss, accuracy (means) and the worker's number, float32 [3]."""
        worker = tf.distribute.coordinator.experimental_get_current_worker_index()
        results = []
        for ahead in range(count):
            records = next(batches)
            results.append(self._strategy.run(self._train_one, (records, step + ahead, worker)))
        loss, accuracy = tf.unstack(tf.reduce_mean(tf.stack(results), 0))
        return tf.stack([loss, accuracy, tf.cast(worker, tf.float32)])

    def _train_one(self, records: tf.Tensor, step: tf.Tensor, worker: tf.Tensor) -> tf.Tensor:
        shard = self._shards[0]
        images = tf.reshape(records[:, :-LABEL_BYTES], [-1, shard.height, shard.width])
        labels = tf.bitcast(records[:, -LABEL_BYTES:], tf.int32)
        computed = self._step.compute(self._weights, images, labels, step, worker)
        self._step.apply(self._weights, computed.gradients, computed.drift, step)
        return tf.stack([computed.loss, computed.accuracy])

    def _dataset(self, seed: int) -> tf.data.Dataset:
        """Return the batches of the worker that runs this: records, uint8 [batch_size, bytes]."""
        shard, worker = self._shards[0], tf.distribute.coordinator.experimental_get_current_worker_index()
        size = shard.height * shard.width + LABEL_BYTES
        content = tf.io.read_file(tf.gather([each.path for each in self._shards], worker))
        records = tf.reshape(tf.io.decode_raw(content, tf.uint8), [-1, size])
        images = tf.gather(tf.constant([each.images for each in self._shards], tf.int64), worker)
        numbers = tf.data.Dataset.range(images).shuffle(images, seed).repeat()
        batches = numbers.batch(self.images_per_step, drop_remainder=True)
        return batches.map(lambda batch: tf.gather(records, batch)).prefetch(2)


@dataclass
class _Tally:
    """Sums over steps."""

    loss: float = 0
    accuracy: float = 0
    by_worker: Counter[int] = field(default_factory=Counter)

    def add(self, steps: int, loss: float, accuracy: float, worker: float) -> None:
        self.loss += loss * steps
        self.accuracy += accuracy * steps
        self.by_worker[int(worker)] += steps


def _goes(first: int, until: int) -> Iterator[tuple[int, int]]:
    """Return the first step and the number of steps of each go."""
    while first < until:
        count = UNROLLED if first + UNROLLED <= until else 1
        yield first, count
        first += count
