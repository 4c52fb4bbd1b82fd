"""`fairway train`."""

from __future__ import annotations

import importlib.util

from fairway.config import TrainSettings
from fairway.errors import missing_extra


def train(settings: TrainSettings = TrainSettings()) -> None:  # noqa: B008 - frozen
    """Train a model, measure it on the test set and export it as one servable version.

    A run that was interrupted goes on where it stood when the same command is given again.
    Prints the directory of the exported version.

    For example:

        fairway train
        fairway train --model-type linear --train-steps 500 --model-dir linear/model

    See also: fairway up, fairway models, fairway serve
    """
    if not importlib.util.find_spec("tensorflow"):
        raise missing_extra("TensorFlow", "train", "training")
    from fairway.train.run import train as run
    from fairway.workloads.mnist.workload import Mnist

    print(run(Mnist(), settings).uri)
