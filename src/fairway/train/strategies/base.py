"""What the session asks of every strategy."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

import tensorflow as tf

from fairway.net.cluster import Cluster
from fairway.train.state import State

CHUNK = 20
"""Steps between two reports: how often metrics are recorded and a stop is noticed."""


@dataclass(frozen=True)
class Progressed:
    """What some steps did, up to CHUNK of them.

    Attributes:
        step: Steps done in all.
        steps: Steps these were.
        loss: Mean cross-entropy over their images in nats, without label smoothing.
        accuracy: Share of right answers, 0..1.
        learning_rate: Of the last one.
        is_stopping: A task was told to stop.
        by_task: How many of these steps each task did, where they take turns.
    """

    step: int
    steps: int
    loss: float
    accuracy: float
    learning_rate: float
    is_stopping: bool = False
    by_task: dict[str, int] = field(default_factory=dict)


class Strategy(Protocol):
    """Trains a state.

    Attributes:
        images_per_step: Of the whole job.
    """

    images_per_step: int

    @property
    def state(self) -> State:
        """What checkpoints hold and the export is made of."""

    def spread(self) -> None:
        """Give the lead's state, just restored, to all tasks that train."""

    def steps(self, first: int, until: int) -> Iterator[Progressed]:
        """Train from one step to another, and report every CHUNK steps.

        May be left early after any report: the steps reported are done, and no others.
        """

    def gather(self) -> None:
        """Bring `state` up to date after steps."""


def pauses(first: int, total: int, interval: int) -> Iterator[tuple[int, int]]:
    """Return from where to where to train without a pause: the checkpoints lie between."""
    while first < total:
        until = min(first - first % interval + interval, total)
        yield first, until
        first = until


def resolver(cluster: Cluster) -> tf.distribute.cluster_resolver.ClusterResolver:
    """Return the cluster as TensorFlow's strategies want to be told of it."""
    job, index = cluster.job
    return tf.distribute.cluster_resolver.SimpleClusterResolver(
        tf.train.ClusterSpec(cluster.spec), task_type=job, task_id=index, rpc_layer="grpc"
    )
