"""The way of a component's pods to what a training wrote."""

from __future__ import annotations

from fairway.deploy.components.base import AccessParams
from fairway.deploy.components.environment import Environment, merge
from fairway.deploy.components.volumes import Volume, check_paths, claim_volumes, secret_volumes


def access_volumes(params: AccessParams, component: str, *more: Volume) -> list[Volume]:
    """Return what a container mounts to read the component's directories.

    Args:
        params: Name the directories, the claim and the Secret.
        component: The component's name, for messages.
        more: Further volumes.

    Raises:
        UsageError: a directory is outside of the claim, or two volumes are to be at one path.
    """
    volumes = [*claim_volumes(params, component, read_only=True), *secret_volumes(params.secret), *more]
    check_paths(component, volumes)
    return volumes


def access_environment(params: AccessParams, component: str, own: Environment | None = None) -> Environment:
    """Return the environment variables of a container.

    Args:
        params: Have secretKeyRefs and envVariables.
        component: The component's name, for messages.
        own: Variables that other params stand for; they take the place of those, which may be the training's.

    Raises:
        UsageError: a variable is both in secretKeyRefs and in envVariables.
    """
    own = own or {}
    refs = {name: ref for name, ref in (params.secret_key_refs or {}).items() if name not in own}
    variables = {name: value for name, value in (params.env_variables or {}).items() if name not in own}
    return merge(component, own, refs, variables)
