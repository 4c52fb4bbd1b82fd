"""A training run from beginning to end; what can go wrong early is found before TensorFlow is loaded."""

from __future__ import annotations

import logging
import uuid
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fairway.config import TrainSettings
from fairway.errors import StorageError, UsageError
from fairway.net.cluster import Cluster
from fairway.storage.exports import Version
from fairway.storage.model_dir import read_config, write_config
from fairway.storage.publish import keep_newest
from fairway.train.agreement import offered
from fairway.train.evaluator import evaluate_checkpoints
from fairway.train.finished import exported_version
from fairway.train.follow import follow
from fairway.train.libraries import load_tensorflow
from fairway.train.peers import Peers
from fairway.train.resolve import resolve, share
from fairway.train.stop import StopSignal
from fairway.train.workspace import Workspace, open_workspace
from fairway.workloads.base import Dataset, Workload

log = logging.getLogger(__name__)


def train(workload: Workload, settings: TrainSettings, cluster: Cluster | None = None) -> Version | None:
    """Train until `train_steps` are done, in this run or in all runs on this model directory; export once.

    Args:
        workload: What is trained.
        settings: As the user gave them.
        cluster: The tasks of a distributed training; `None` if it is this process alone.

    Returns:
        The exported version; the one that is there already if this training was finished before. `None` in a
        task that is not the lead, which ends when the lead has exported.

    Raises:
        UsageError: a setting does not fit the data, or the model directory holds another training.
        DataError: the data cannot be had or is damaged.
        StorageError: a directory cannot be written to; the last checkpoint is unharmed, and what an object
            store did not take is kept on this machine.
        StoppedError: SIGINT or SIGTERM came; a checkpoint is saved.
        PeerError: another task was lost; this one is to be started again.
        FairwayError: another task did not come, or failed.
    """
    if cluster is None or cluster.is_lead:
        return _lead(workload, settings, cluster)
    take_part = evaluate_checkpoints if cluster.this.role == "evaluator" else follow
    take_part(workload, settings, cluster)
    return None


def _lead(workload: Workload, settings: TrainSettings, cluster: Cluster | None) -> Version:
    with (
        open_workspace(settings.model_dir, settings.export_dir) as workspace,
        Peers(cluster, settings.peer_wait_seconds) as peers,
    ):
        dataset = workload.load(settings)
        settings = resolve(workload, settings, dataset, cluster)
        dataset = share(settings, dataset, cluster)
        run = _join_run(workload, settings, dataset, workspace.model_dir)
        workspace.start()
        version = _exported(settings, run)
        if version is None:
            version = _train(workload, settings, dataset, run, cluster, workspace, peers)
        peers.finish(version=version.uri)
    if settings.keep:
        _delete_older(settings.export_dir, settings.keep)
    return version


def _exported(settings: TrainSettings, run: str) -> Version | None:
    total = settings.train_steps or 0
    version = exported_version(settings.export_dir, run, total)
    if version and version.manifest:
        log.info("trained already: step %d of %d, version %d", version.manifest.step, total, version.number)
        log.info("  train on with a larger --train-steps, or afresh with another --model-dir")
    return version


def _train(
    workload: Workload,
    settings: TrainSettings,
    dataset: Dataset,
    run: str,
    cluster: Cluster | None,
    workspace: Workspace,
    peers: Peers,
) -> Version:
    """Train with all tasks and export."""
    stop = StopSignal()
    with offered(settings, dataset, run) as offer:
        peers.invite(offer)
        load_tensorflow(is_alone=cluster is None)
        from fairway.train.session import Session
        from fairway.train.strategies.choose import choose_strategy

        with stop:
            members = peers.assemble(stop.check)
            stop.on_stop = peers.limit_stop
            with peers.watch():
                strategy = choose_strategy(workload, settings, dataset, stop, cluster, members)
            return Session(workload, settings, dataset, strategy, workspace, peers, stop).run(run)


def _delete_older(export_dir: str, keep: int) -> None:
    try:
        for number in keep_newest(export_dir, keep):
            log.info("deleted version %d: the newest %d are kept", number, keep)
    except StorageError as err:  # the training is done, and its version there
        log.warning("older versions stay: %s", err.message)


def _join_run(workload: Workload, settings: TrainSettings, dataset: Dataset, model_dir: Path) -> str:
    """Return the id of the model directory's run, a new one if it is empty, and write `config.json`."""
    earlier = read_config(model_dir)
    now = {"workload": workload.name, "model_type": settings.model_type, "dataset": dataset.name}
    if earlier is not None:
        there = {"workload": earlier.get("workload"), "model_type": earlier.get("model_type")}
        there["dataset"] = earlier.get("dataset", {}).get("name")
        for name, value in now.items():
            if there[name] != value:
                raise UsageError(
                    f"{settings.model_dir} holds a training of {name} {there[name]!r}, not {value!r}",
                    hint="Choose another --model-dir, or remove this one to start afresh.",
                )
    run = earlier["run"] if earlier else uuid.uuid4().hex
    config: dict[str, Any] = {"run": run, "train_steps": settings.train_steps}
    config |= now | {"dataset": asdict(dataset.record()), "settings": asdict(settings)}
    write_config(model_dir, config)
    return str(run)
