"""Which strategy a cluster asks for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fairway.config import TrainSettings
from fairway.net.cluster import Cluster, Task
from fairway.train.shards import Shard
from fairway.train.stop import StopSignal
from fairway.train.strategies.asynchronous import Asynchronous
from fairway.train.strategies.base import Strategy
from fairway.train.strategies.single import Single
from fairway.train.strategies.synchronous import Synchronous
from fairway.workloads.base import Dataset, Workload


def choose_strategy(
    workload: Workload,
    settings: TrainSettings,
    dataset: Dataset,
    stop: StopSignal,
    cluster: Cluster | None,
    members: Mapping[Task, dict[str, Any]],
) -> Strategy:
    """Return the lead's strategy.

    Args:
        workload: What is trained.
        settings: Resolved.
        dataset: With the lead's share of the training images.
        stop: Tells whether the lead was told to stop.
        cluster: `None` if this process is alone.
        members: What each of the others has said of itself.
    """
    if cluster is None or cluster.mode == "single":
        return Single(workload, settings, dataset.train, stop)
    if cluster.mode == "synchronous":
        return Synchronous(workload, settings, dataset.train, stop, cluster)
    shards = [Shard(*members[worker]["shard"]) for worker in cluster.workers]
    return Asynchronous(workload, settings, shards, stop, cluster)
