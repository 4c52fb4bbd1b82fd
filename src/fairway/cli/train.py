"""`fairway train`."""

from __future__ import annotations

import importlib.util

from fairway.config import ClusterSettings, TrainSettings, tf_config
from fairway.errors import UsageError, missing_extra


def train(
    settings: TrainSettings = TrainSettings(),  # noqa: B008 - frozen
    cluster: ClusterSettings = ClusterSettings(),  # noqa: B008 - frozen
) -> None:
    """Train a model, measure it on the test set and export it as one servable version.

    A run that was interrupted goes on where it stood when the same command is given again.
    Prints the directory of the exported version.

    With --workers, --ps or --evaluator the training is distributed over several processes of this machine.
    Where TF_CONFIG is set, as Kubeflow's training operator does, this process is the task that it names.

    For example:

        fairway train
        fairway train --model-type linear --train-steps 500 --model-dir linear/model
        fairway train --workers 2 --ps 1

    See also: fairway up, fairway models, fairway serve, fairway tensorboard
    """
    if not importlib.util.find_spec("tensorflow"):
        raise missing_extra("TensorFlow", "train", "training")
    if cluster != ClusterSettings():
        print(_train_in_processes(settings, cluster))
        return
    from fairway.net.cluster import parse_tf_config
    from fairway.train.run import train as run
    from fairway.workloads.mnist.workload import Mnist

    version = run(Mnist(), settings, parse_tf_config(tf_config()))
    if version:
        print(version.uri)


def _train_in_processes(settings: TrainSettings, cluster: ClusterSettings) -> str:
    if tf_config():
        raise UsageError(
            "TF_CONFIG is set, so this process is one task of a training; it does not start others",
            hint="Unset it, or leave out --workers, --ps and --evaluator (TF_WORKERS, TF_PS, TF_EVALUATOR).",
        )
    from fairway.local.cluster import run

    return run(settings, cluster)
