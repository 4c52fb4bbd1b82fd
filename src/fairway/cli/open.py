"""`fairway open`."""

from __future__ import annotations

from fairway.cli.arguments import EnvironmentName
from fairway.deploy.settings import OpenSettings


def open_(
    env: EnvironmentName,
    /,
    settings: OpenSettings = OpenSettings(),  # noqa: B008 - frozen
) -> int:
    """Open web UI, TensorBoard and model server of an environment on ports of this machine.

    The links are printed once they answer. Each connection gets a pod that is ready, so a pod may be
    replaced meanwhile; what is not ready yet is waited for. Ctrl-C closes the ports.

    For example:

        fairway open dev
        fairway open dev -c web-ui --web-port 0

    See also: fairway up, fairway apply, fairway status
    """
    from fairway.deploy.environment import load_target
    from fairway.deploy.verbs.open import run

    return run(load_target(env), settings)
