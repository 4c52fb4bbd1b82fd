"""`fairway up`."""

from __future__ import annotations

from fairway.config import TrainSettings, UpSettings


def up(
    train: TrainSettings = TrainSettings(),  # noqa: B008 - frozen
    settings: UpSettings = UpSettings(),  # noqa: B008 - frozen
) -> None:
    """Run the whole story here: train if nothing is exported yet, serve, with TensorBoard and web UI.

    The links are printed once they answer. A part that crashes is restarted; Ctrl-C stops all.

    For example:

        fairway up
        fairway up --dataset embedded --web-port 0

    See also: fairway train, fairway serve, fairway web, fairway tensorboard
    """
    from fairway.local.up import run

    run(train, settings)
