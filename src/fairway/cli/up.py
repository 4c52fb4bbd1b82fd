"""`fairway up`."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from fairway.config import TrainSettings, flags_given
from fairway.deploy.settings import ClusterUpSettings
from fairway.errors import UsageError


def up(
    env: Annotated[str | None, Parameter(help="Environment: a cluster. Default: this machine.")] = None,
    /,
    train: TrainSettings = TrainSettings(),  # noqa: B008 - frozen
    settings: ClusterUpSettings = ClusterUpSettings(),  # noqa: B008 - frozen
) -> int:
    """Run the whole story: train if nothing is exported yet, serve, with TensorBoard and web UI.

    The links are printed once they answer. On this machine a part that crashes is restarted; Ctrl-C stops
    all. On a cluster the training is what the environment's params say; Ctrl-C only closes the ports, and
    the same command goes on where the first one stood.

    For example:

        fairway up
        fairway up --dataset embedded --web-port 0
        fairway up dev
        fairway up dev --replace --set train.trainSteps=500

    See also: fairway train, fairway serve, fairway web, fairway tensorboard, fairway apply, fairway open
    """
    if env is None:
        _refuse_cluster_flags(settings)
        from fairway.local.up import run

        run(train, settings)
        return 0
    _refuse_train_flags(env, train)
    from fairway.deploy.environment import load_target
    from fairway.deploy.verbs import up as on_cluster

    return on_cluster.run(load_target(env, settings.set), settings)


def _refuse_cluster_flags(settings: ClusterUpSettings) -> None:
    for field in ("set", "replace", "create_namespace"):
        if getattr(settings, field) != getattr(ClusterUpSettings(), field):
            flag = f"--{field.replace('_', '-')}"
            raise UsageError(
                f"{flag} is for a cluster, and no environment is named",
                hint=f"Write: fairway up ENV {flag} …",
            )


def _refuse_train_flags(env: str, train: TrainSettings) -> None:
    from fairway.deploy.params import camel_case

    for field in flags_given(train):
        value = getattr(train, field)
        raise UsageError(
            f"--{field.replace('_', '-')} is for a training on this machine; on a cluster it is a param",
            hint=f"Set it for good: fairway param set --env={env} train {camel_case(field)} {value}, "
            f"or for this time: --set train.{camel_case(field)}={value}",
        )
