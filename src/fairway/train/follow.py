"""The tasks that are not the lead: they wait for it, take part as it says, and end when it is done."""

from __future__ import annotations

import logging
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from fairway.config import TrainSettings
from fairway.errors import FairwayError, PeerError, StoppedError, first_line
from fairway.net.cluster import Cluster
from fairway.net.control.client import Membership
from fairway.net.control.messages import FinishedError
from fairway.train.agreement import agree, check_data
from fairway.train.finished import Finished
from fairway.train.guard import Guard
from fairway.train.libraries import load_tensorflow
from fairway.train.resolve import share
from fairway.train.shards import shard_file, write_shard
from fairway.train.stop import StopSignal
from fairway.workloads.base import Dataset, Workload

log = logging.getLogger(__name__)


def follow(workload: Workload, settings: TrainSettings, cluster: Cluster) -> None:
    """Take part in a training until its lead has exported it.

    Raises:
        UsageError: the settings are not the lead's, or a directory is not shared.
        DataError: the data cannot be had or is damaged, or is not the lead's.
        FairwayError: the lead did not come, or another task has failed.
        StoreAwayError: the lead did not come, and the object store gave no answer.
        PeerError: a peer was lost; this task is to be started again.
        StoppedError: SIGINT or SIGTERM came.
    """
    guard, finished = Guard(), Finished(workload, settings, cluster)
    with (
        StopSignal() as stop,
        Membership(
            cluster, settings.peer_wait_seconds, finished, on_lost=guard.lose, on_failed=guard.fail
        ) as membership,
    ):
        kind = _InStep if cluster.mode == "synchronous" else _OnDemand
        try:
            kind(workload, settings, cluster).take_part(membership, stop, guard)
            log.info("the training is done")
        except FinishedError:
            log.info("the training is done already")
        except StoppedError as err:
            membership.leave(err.exit_code - 128)
            raise


class _Follower:
    """What both kinds have in common."""

    def __init__(self, workload: Workload, settings: TrainSettings, cluster: Cluster) -> None:
        self._workload, self._given, self._cluster = workload, settings, cluster

    def _load(self, settings: TrainSettings, offer: dict[str, Any]) -> Dataset:
        """Return this task's part of the data, which must be the lead's."""
        dataset = self._workload.load(settings)
        check_data(dataset, offer)
        return share(settings, dataset, self._cluster)


class _InStep(_Follower):
    """Trains in step with the lead."""

    def take_part(self, membership: Membership, stop: StopSignal, guard: Guard) -> None:
        membership.enlist(self._prepare, stop.check)
        with guard.watch():
            self._train(stop)
        membership.wait(stop.check)

    def _prepare(self, offer: dict[str, Any]) -> dict[str, Any]:
        self._settings = agree(self._given, offer)
        self._dataset = self._load(self._settings, offer)
        load_tensorflow(is_alone=False)
        return {}

    def _train(self, stop: StopSignal) -> None:
        from fairway.train.strategies.base import pauses
        from fairway.train.strategies.synchronous import Synchronous

        settings = self._settings
        strategy = Synchronous(self._workload, settings, self._dataset.train, stop, self._cluster)
        strategy.spread()
        first, total = int(strategy.state.step), settings.train_steps or 0
        for step, until in pauses(first, total, settings.checkpoint_steps):
            for progressed in strategy.steps(step, until):
                if progressed.is_stopping and progressed.step < total:
                    stop.check()
                    raise PeerError(
                        "another task was told to stop",
                        hint="The training goes on once all are started again.",
                    )


class _OnDemand(_Follower):
    """Runs what the lead of an asynchronous training sends: a worker or a parameter server."""

    def __init__(self, workload: Workload, settings: TrainSettings, cluster: Cluster) -> None:
        super().__init__(workload, settings, cluster)
        self._server: Any = None
        self._path: Path | None = None

    def take_part(self, membership: Membership, stop: StopSignal, guard: Guard) -> None:
        with ExitStack() as stack:
            prepare = partial(self._prepare, stack=stack, stop=stop)
            while True:
                membership.enlist(prepare, stop.check)
                try:
                    membership.wait(stop.check)
                except PeerError as err:  # the server goes on, and what the lead left in it is replaced
                    log.warning("%s; waiting for its return", err.message)
                else:
                    return

    def _prepare(self, offer: dict[str, Any], stack: ExitStack, stop: StopSignal) -> dict[str, Any]:
        settings = agree(self._given, offer)
        shard = None
        if self._cluster.this.role == "worker":  # anew each time: another lead may have other data
            if self._path is None:
                address = self._cluster.addresses[self._cluster.this]
                self._path = stack.enter_context(shard_file(address, stop.check))
            shard = write_shard(self._load(settings, offer).train, self._path)
        if self._server is None:
            self._server = _serve(self._cluster)
        return {"shard": shard}


def _serve(cluster: Cluster) -> Any:
    """Start a TensorFlow server and return it. It listens on every interface: TensorFlow has no choice.

    Raises:
        FairwayError: it cannot listen.
    """
    load_tensorflow(is_alone=False)
    import tensorflow as tf

    job, index = cluster.job
    try:
        return tf.distribute.Server(tf.train.ClusterSpec(cluster.spec), job_name=job, task_index=index)
    except tf.errors.OpError as err:
        address = cluster.addresses[cluster.this]
        raise FairwayError(
            f"TensorFlow's server does not start on {address}: {first_line(err)}",
            hint="If another process has the port, name another in every task's TF_CONFIG.",
        ) from err
