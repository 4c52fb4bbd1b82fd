"""`fairway tensorboard`."""

from __future__ import annotations

from fairway.config import TensorBoardSettings


def tensorboard(settings: TensorBoardSettings = TensorBoardSettings()) -> None:  # noqa: B008 - frozen
    """Watch trainings in TensorBoard: curves, the confusion matrix and the worst mistakes.

    Event files in s3://… and gs://… are followed into a temporary directory, with all that is appended.

    For example:

        fairway tensorboard
        fairway tensorboard --logdir runs --port 6006
        fairway tensorboard --logdir s3://models/runs --path_prefix /tensorboard

    See also: fairway train, fairway up
    """
    from fairway.local.tensorboard import run

    run(settings)
