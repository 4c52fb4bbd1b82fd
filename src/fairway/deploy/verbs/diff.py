"""What `apply` would change: what is in the cluster beside what the cluster would make of the manifests."""

from __future__ import annotations

import asyncio
import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from fairway.deploy.manifests import render, to_yaml
from fairway.deploy.resources import Manifest
from fairway.deploy.state.inventory import component_of, key, labels_of, list_owned
from fairway.deploy.state.jobs import Presence, compare, is_job
from fairway.deploy.state.ownership import find_refusal
from fairway.deploy.target import Target
from fairway.deploy.verbs.prune import Leftover, find_leftovers
from fairway.deploy.verbs.sending import send

if TYPE_CHECKING:
    from fairway.deploy.kube.client import Kube

State = Literal["equal", "changed", "created", "removed"]
MASK = "***"
# What the API server and the controllers write, and nobody applies.
_METADATA = ("managedFields", "resourceVersion", "generation", "uid", "creationTimestamp", "selfLink")


@dataclass(frozen=True)
class Difference:
    """What differs in one object.

    Attributes:
        kind: Of the object.
        name: Of the object.
        component: Whose it is.
        state: `removed` is one that the app no longer makes: `apply --prune` would delete it.
        diff: Unified diff of YAML; empty where nothing differs.
        note: What there is to know of it; mostly empty.
    """

    kind: str
    name: str
    component: str
    state: State
    diff: str
    note: str = ""


async def run(kube: Kube, target: Target, names: Sequence[str] = ()) -> list[Difference]:
    """Compare an environment with its cluster, which says itself what it would make of each manifest.

    Args:
        kube: The cluster.
        target: The environment.
        names: Only these components; without any also what the app no longer has is found.

    Returns:
        One for each object, also for those that are equal.

    Raises:
        UsageError: no component has one of the names.
        ClusterError: the cluster is away or refuses.
    """
    wanted = render(target, target.choose(names))
    owned = await list_owned(kube, labels_of(target))
    trainings = _other_trainings(wanted, owned)
    others = [component_of(each) in trainings for each in wanted]
    compared = (_compare(kube, target, *each) for each in zip(wanted, others, strict=True))
    found = await asyncio.gather(*compared)
    chosen = {component.name for component in target.choose(names)}
    left = [
        each
        for each in find_leftovers(target, map(key, wanted), owned)
        if not names or component_of(each.manifest) in chosen
    ]
    return [*found, *(_removed(each, component_of(each.manifest) in trainings) for each in left)]


def normalise(manifest: Manifest) -> Manifest:
    """Return what somebody applied of an object: without status, server's metadata, and secret values."""
    metadata = {name: value for name, value in manifest["metadata"].items() if name not in _METADATA}
    found = {name: value for name, value in manifest.items() if name != "status"} | {"metadata": metadata}
    if manifest["kind"] == "Secret":
        hidden = ("data", "stringData")
        found |= {name: dict.fromkeys(found[name], MASK) for name in hidden if found.get(name)}
    return found


def unified(before: Manifest | None, after: Manifest | None) -> str:
    """Return the unified diff of two states of an object, `None` where it is not there; empty if equal."""
    named = after or before
    assert named is not None
    title = "/".join(key(named))
    return "\n".join(
        difflib.unified_diff(
            _sorted_yaml(before),
            _sorted_yaml(after),
            fromfile=f"cluster/{title}",
            tofile=f"app/{title}",
            lineterm="",
            n=3,
        )
    )


def overlay(live: Any, wanted: Any) -> Any:
    """Return an object with the fields of a manifest, where the cluster cannot say what it would be."""
    if isinstance(live, Mapping) and isinstance(wanted, Mapping):
        return dict(live) | {name: overlay(live.get(name), value) for name, value in wanted.items()}
    if isinstance(live, list) and isinstance(wanted, list) and len(live) == len(wanted):
        return [overlay(*pair) for pair in zip(live, wanted, strict=True)]
    return wanted


def _other_trainings(wanted: Sequence[Manifest], owned: Sequence[Manifest]) -> set[str]:
    """Return the components of which another training is there."""
    components = {component_of(each) for each in wanted if is_job(each)}
    return {
        name
        for name in components
        if compare(_jobs_of(name, wanted), _jobs_of(name, owned)).presence is Presence.OTHER
    }


def _jobs_of(component: str, manifests: Iterable[Manifest]) -> list[Manifest]:
    return [each for each in manifests if is_job(each) and component_of(each) == component]


async def _compare(kube: Kube, target: Target, wanted: Manifest, is_other_training: bool) -> Difference:
    live = await kube.get(*key(wanted))
    note = "apply needs --replace" if is_other_training and is_job(wanted) else ""
    if live is None:
        return Difference(*key(wanted), component_of(wanted), "created", unified(None, wanted), note)
    if refusal := find_refusal(wanted, live, target):
        note = f"{refusal.reason}: apply {'needs --force-conflicts' if refusal.can_force else 'refuses'}"
    text = unified(live, await _would_be(kube, wanted, live))
    return Difference(*key(wanted), component_of(wanted), "changed" if text else "equal", text, note)


async def _would_be(kube: Kube, wanted: Manifest, live: Manifest) -> Manifest:
    from fairway.deploy.kube.errors import ImmutableError

    try:
        # With force the whole difference is seen; apply itself says whose fields they are.
        return await send(kube, wanted, live, dry_run=True, force=True)
    except ImmutableError:
        merged: Manifest = overlay(live, wanted)
        return merged


def _removed(left: Leftover, is_other_training: bool) -> Difference:
    live = left.manifest
    if is_other_training and is_job(live):
        note = "apply needs --replace"
    elif left.kept:
        return Difference(*key(live), component_of(live), "equal", "", left.kept)
    else:
        note = f"{left.reason}; apply needs --prune"
    return Difference(*key(live), component_of(live), "removed", unified(live, None), note)


def _sorted_yaml(manifest: Manifest | None) -> list[str]:
    if manifest is None:
        return []
    return to_yaml([_sorted(normalise(manifest))]).splitlines()[1:]


def _sorted(content: Any) -> Any:
    if isinstance(content, Mapping):
        return {name: _sorted(content[name]) for name in sorted(content)}
    return [_sorted(each) for each in content] if isinstance(content, list) else content
