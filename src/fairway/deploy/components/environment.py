"""Environment variables of containers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from fairway.config import TrainSettings, environment_variable
from fairway.deploy.languages import SecretKey
from fairway.deploy.resources import Manifest
from fairway.errors import UsageError

Environment = dict[str, Manifest]
"""By name, where a value comes from: `{"value": …}` or `{"valueFrom": …}`."""

_NAMES = {"data_url": "FAIRWAY_DATA_URL"}


def literal(text: str) -> str:
    """Return a text that Kubernetes, which expands `$(NAME)` and `$$`, makes into the given one."""
    return text.replace("$", "$$") if "$(" in text or "$$" in text else text


def plain(values: Mapping[str, str]) -> Environment:
    """Return variables that have just these values."""
    return {name: {"value": literal(value)} for name, value in values.items()}


def from_secrets(refs: Mapping[str, SecretKey]) -> Environment:
    """Return variables whose values are in Secrets."""
    return {
        name: {"valueFrom": {"secretKeyRef": {"name": ref.secret, "key": ref.key}}}
        for name, ref in refs.items()
    }


def from_field(path: str) -> Manifest:
    """Return that a value is a field of the pod's own object."""
    return {"valueFrom": {"fieldRef": {"fieldPath": path}}}


def train_settings(params: TrainSettings) -> Environment:
    """Return the settings of a training that are not `fairway train`'s own defaults."""
    values = {}
    for field in fields(TrainSettings):
        value = getattr(params, field.name)
        if value != field.default:
            values[_NAMES.get(field.name) or environment_variable(field.name)] = _word(value)
    return plain(values)


def merge(
    component: str,
    own: Environment,
    secret_key_refs: Mapping[str, SecretKey] | None,
    env_variables: Mapping[str, str] | None,
) -> Environment:
    """Return all variables of a container.

    Args:
        component: The component's name, for the message.
        own: Those that other params stand for.
        secret_key_refs: The param.
        env_variables: The param.

    Raises:
        UsageError: a variable is set in two ways.
    """
    sources = {
        "another param": own,
        "secretKeyRefs": from_secrets(secret_key_refs or {}),
        "envVariables": plain(env_variables or {}),
    }
    merged: Environment = {}
    where: dict[str, str] = {}
    for source, variables in sources.items():
        for name in variables:
            if name in where:
                raise UsageError(
                    f"{component}: {name} is set twice: by {where[name]} and by {source}",
                    hint=f"Take it out of {source}.",
                )
            where[name] = source
        merged |= variables
    return merged


def _word(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
