"""All tasks do the same step at the same time, each on images of its own, and change their weights alike."""

from __future__ import annotations

from collections.abc import Iterator

import tensorflow as tf

from fairway.config import TrainSettings
from fairway.net.cluster import Cluster
from fairway.train.state import State
from fairway.train.stop import StopSignal
from fairway.train.strategies.base import Progressed, resolver
from fairway.train.strategies.single import Single
from fairway.workloads.base import Split, Workload


class Synchronous:
    """Trains with MultiWorkerMirroredStrategy's collective operations; all tasks call the same methods.

    One message a step carries the gradients and the drift of the BatchNorm statistics, so that weights and
    statistics are the same everywhere at any step: a checkpoint or an export needs nobody else.

    Args:
        workload: What is trained.
        settings: Resolved, the same everywhere.
        split: The training images of this task.
        stop: Tells whether this task was told to stop; then all do.
        cluster: All of whose tasks are there.
    """

    def __init__(
        self, workload: Workload, settings: TrainSettings, split: Split, stop: StopSignal, cluster: Cluster
    ) -> None:
        self._strategy = _connect(cluster)
        stop.renew()  # TensorFlow watches for SIGTERM itself now, and would keep it
        self._is_lead = cluster.is_lead
        rank = cluster.workers.index(cluster.this)
        self._loop = Single(workload, settings, split, stop, rank=rank, mean=self._mean)
        self.images_per_step = settings.batch_size * len(cluster.workers)

    @property
    def state(self) -> State:
        """The state, the same on all tasks."""
        return self._loop.state

    def spread(self) -> None:
        """Give the lead's state to all tasks."""
        self._spread()

    def gather(self) -> None:
        """Do nothing: the state is the same everywhere."""

    def steps(self, first: int, until: int) -> Iterator[Progressed]:
        """Train from one step to another, see `Strategy`."""
        return self._loop.steps(first, until)

    @tf.function
    def _spread(self) -> None:
        # TensorFlow crashes at a reduction of nothing: a model may have no statistics.
        for variable in (each for each in self.state.variables if each.shape.num_elements()):
            mine = variable.read_value()
            variable.assign(self._reduce("SUM", mine if self._is_lead else tf.zeros_like(mine)))

    def _mean(self, vector: tf.Tensor) -> tf.Tensor:
        return self._reduce("MEAN", vector)

    def _reduce(self, operation: str, value: tf.Tensor) -> tf.Tensor:
        def reduce() -> tf.Tensor:
            # The copy is made in the replica, which gives the collective operation its device.
            return tf.distribute.get_replica_context().all_reduce(operation, tf.identity(value))

        return self._strategy.run(reduce)


def _connect(cluster: Cluster) -> tf.distribute.MultiWorkerMirroredStrategy:
    gpus = tf.config.list_physical_devices("GPU")
    tf.config.set_visible_devices(gpus[:1], "GPU")  # one replica a task; a second GPU is for a second task
    return tf.distribute.MultiWorkerMirroredStrategy(resolver(cluster))
