"""`fairway show`."""

from __future__ import annotations

from fairway.cli.arguments import EnvironmentName
from fairway.deploy.settings import ShowSettings


def show(env: EnvironmentName, /, settings: ShowSettings = ShowSettings()) -> None:  # noqa: B008 - frozen
    """Print the manifests of an environment: exactly what apply sends, always in the same order.

    For example:

        fairway show dev
        fairway show dev -c train --set train.numWorkers=2
        fairway show dev | kubectl apply -f -

    See also: fairway apply, fairway diff, fairway param
    """
    from fairway.deploy.environment import load_target
    from fairway.deploy.manifests import render, to_json, to_yaml

    target = load_target(env, settings.set)
    manifests = render(target, target.choose(settings.component))
    print(to_yaml(manifests) if settings.output == "yaml" else to_json(manifests), end="")
