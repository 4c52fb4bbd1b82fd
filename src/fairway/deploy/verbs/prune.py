"""What an environment has in its cluster and no longer makes: what `apply --prune` deletes of it. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from fairway.deploy.resources import Manifest
from fairway.deploy.state.inventory import CLAIM, Key, component_of, key
from fairway.deploy.state.jobs import JobState, is_job, job_state
from fairway.deploy.target import Target


@dataclass(frozen=True)
class Leftover:
    """An object that the environment has, and that is none of those to be applied.

    Attributes:
        manifest: The object.
        reason: Why it is left over.
        kept: Why it stays all the same; empty if it is to be deleted.
    """

    manifest: Manifest
    reason: str
    kept: str = ""


def find_leftovers(target: Target, known: Iterable[Key], owned: Iterable[Manifest]) -> list[Leftover]:
    """Return what is left over, but for claims: those are data.

    A component that takes no part where none is named, though nobody switched it off, was applied by its
    name; so it stays. So does a training that runs, with all that it has.

    Args:
        target: The environment.
        known: What is to be applied.
        owned: What it has.
    """
    wanted = set(known)
    left = [each for each in owned if key(each) not in wanted and each["kind"] != CLAIM]
    running = {component_of(each) for each in left if is_job(each) and job_state(each) is JobState.RUNNING}
    return [_leftover(target, each, running) for each in left]


def _leftover(target: Target, manifest: Manifest, running: set[str]) -> Leftover:
    name = component_of(manifest)
    delete = f"fairway delete {target.environment.name} -c {name}"
    reason, is_dropped = _reason(target, name)
    if not is_dropped:
        return Leftover(manifest, reason, kept=f"kept: {reason}; delete it with {delete}")
    if name in running:
        subject = "it" if is_job(manifest) else "its training"
        return Leftover(manifest, reason, kept=f"kept: {subject} is running; stop it with {delete}")
    return Leftover(manifest, reason)


def _reason(target: Target, name: str) -> tuple[str, bool]:
    """Return why an object of a component is left over, and whether that is meant to be so."""
    component = next((each for each in target.components if each.name == name), None)
    if component is None:
        return f"the app no longer has {name}", True
    if component.params.enabled is False:
        return f"{name} is switched off", True
    if component.takes_part:
        return f"{name} no longer makes it", True
    return f"{name} takes no part here", False
