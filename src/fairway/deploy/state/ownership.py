"""Whose an object is that has the name of one to be applied. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from fairway.deploy.resources import (
    APP_LABEL,
    COMPONENT_LABEL,
    ENVIRONMENT_LABEL,
    JOBS,
    MANAGED_BY_LABEL,
    Manifest,
)
from fairway.deploy.state.inventory import CLAIM, Key, component_of, key, labels_of
from fairway.deploy.target import Target
from fairway.errors import ClusterError


@dataclass(frozen=True)
class Refusal:
    """Why an object is left alone.

    Attributes:
        reason: In a sentence.
        hint: What to do.
        can_force: Whether `--force-conflicts` takes it over.
    """

    reason: str
    hint: str
    can_force: bool = False


def find_refusal(wanted: Manifest, live: Manifest, target: Target) -> Refusal | None:
    """Return why a manifest must not be applied over an object; `None` if that is the environment's own.

    Args:
        wanted: The manifest.
        live: The object of its kind and name.
        target: The environment.
    """
    labels: Mapping[str, str] = live["metadata"].get("labels") or {}
    owner = labels_of(target)
    if owner.items() <= labels.items():
        return None
    if labels.get(MANAGED_BY_LABEL) == owner[MANAGED_BY_LABEL]:
        return _of_another(wanted, labels, target)
    return _not_ours(wanted, target)


def check_owners(
    wanted: Iterable[Manifest], live: Mapping[Key, Manifest], target: Target, *, force: bool
) -> None:
    """Refuse to apply over what is another environment's, or somebody's own.

    Args:
        wanted: The manifests.
        live: The objects of their kinds and names that are there.
        target: The environment.
        force: Take over what fairway did not make, but for data and what does work.

    Raises:
        ClusterError: it names the first such object, and whose it is.
    """
    for each in wanted:
        refusal = find_refusal(each, live[key(each)], target) if key(each) in live else None
        if refusal and not (refusal.can_force and force):
            raise ClusterError(refusal.reason, hint=refusal.hint)


def _of_another(wanted: Manifest, labels: Mapping[str, str], target: Target) -> Refusal:
    environment, app = labels.get(ENVIRONMENT_LABEL, ""), labels.get(APP_LABEL, "")
    of_app = f" of app {app}" if app != target.app.name else ""
    reason = f"{' '.join(key(wanted))} belongs to environment {environment}{of_app}"
    if wanted["kind"] == CLAIM:
        return Refusal(reason, f"{_use_as_it_is(wanted, target)} Or {_rename(wanted, target)}.")
    there = f"fairway delete {environment} -c {labels.get(COMPONENT_LABEL, '')}"
    return Refusal(reason, f"{_capital(_rename(wanted, target))}; or delete it there: {there}")


def _not_ours(wanted: Manifest, target: Target) -> Refusal:
    kind, name = key(wanted)
    reason = f"{kind} {name} is there, and was not made by fairway"
    rename = _capital(_rename(wanted, target))
    if kind == CLAIM:
        return Refusal(reason, _use_as_it_is(wanted, target))
    if kind in JOBS:
        return Refusal(reason, f"{rename}; or delete that one: kubectl delete {kind.lower()} {name}")
    force = f"fairway apply {target.environment.name} --force-conflicts"
    return Refusal(reason, f"{rename}; or take it over, for fairway to change and delete: {force}", True)


def _rename(wanted: Manifest, target: Target) -> str:
    command = f"fairway param set --env={target.environment.name} {component_of(wanted)} name NAME"
    return f"give yours another name: {command}"


def _use_as_it_is(wanted: Manifest, target: Target) -> str:
    command = f"fairway param set --env={target.environment.name} {component_of(wanted)} enabled false"
    return f"It is used as it is, and never deleted, with: {command}."


def _capital(sentence: str) -> str:
    return sentence[0].upper() + sentence[1:]
