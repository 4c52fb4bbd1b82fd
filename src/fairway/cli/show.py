"""`fairway show`."""

from __future__ import annotations

from typing import Annotated, Literal

from cyclopts import Parameter

Components = Annotated[
    tuple[str, ...],
    Parameter(name="--component", alias="-c", negative="", help="Only this one; may be repeated."),
]
Set = Annotated[
    tuple[str, ...],
    Parameter(name="--set", negative="", help="COMPONENT.KEY=VALUE, for this time only; may be repeated."),
]


def show(
    env: Annotated[str, Parameter(help="Name of the environment.")],
    /,
    *,
    component: Components = (),
    set: Set = (),
    output: Annotated[Literal["yaml", "json"], Parameter(alias="-o", help="`yaml` or `json`.")] = "yaml",
) -> None:
    """Print the manifests of an environment: exactly what apply sends, always in the same order.

    For example:

        fairway show dev
        fairway show dev -c train --set train.numWorkers=2
        fairway show dev | kubectl apply -f -

    See also: fairway apply, fairway diff, fairway param
    """
    from fairway.deploy.environment import load_target
    from fairway.deploy.manifests import render, to_json, to_yaml

    target = load_target(env, set)
    manifests = render(target, target.choose(component))
    print(to_yaml(manifests) if output == "yaml" else to_json(manifests), end="")
