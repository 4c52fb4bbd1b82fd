"""What a check finds, and what it is given."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from fairway.deploy.resources import Manifest
from fairway.deploy.state.inventory import component_of
from fairway.deploy.target import Target

if TYPE_CHECKING:
    from fairway.deploy.kube.client import Kube


class Outcome(StrEnum):
    """How a check ended; the same words in JSON."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True)
class Check:
    """What was found.

    Attributes:
        title: What was looked at.
        outcome: How it stands with it.
        sentence: What is so.
        hint: What to do; empty where all is well.
    """

    title: str
    outcome: Outcome
    sentence: str
    hint: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the check with keys that stay."""
        return asdict(self)


@dataclass(frozen=True)
class Patient:
    """An environment that is looked at.

    Attributes:
        kube: Its cluster.
        target: The environment.
        manifests: Of all components that take part.
    """

    kube: Kube
    target: Target
    manifests: Sequence[Manifest]

    @property
    def kubectl(self) -> str:
        """The beginning of a kubectl command for the environment's namespace."""
        return f"kubectl --context {self.kube.connection.context} -n {self.target.environment.namespace}"

    def pod_specs(self) -> Iterator[tuple[str, Manifest]]:
        """Yield component and spec of each pod that the manifests would make."""
        for manifest in self.manifests:
            for template in pod_templates(manifest):
                yield component_of(manifest), template["spec"]


def ok(title: str, sentence: str) -> Check:
    """Return that all is well."""
    return Check(title, Outcome.OK, sentence)


def warn(title: str, sentence: str, hint: str = "") -> Check:
    """Return that something may become a problem, or could not be seen."""
    return Check(title, Outcome.WARN, sentence, hint)


def fail(title: str, sentence: str, hint: str = "") -> Check:
    """Return that something does not work."""
    return Check(title, Outcome.FAIL, sentence, hint)


def pod_templates(manifest: Any) -> Iterator[Manifest]:
    """Yield the pod templates in a manifest, wherever its kind has them."""
    if isinstance(manifest, Mapping):
        template = manifest.get("template")
        if isinstance(template, dict) and "containers" in (template.get("spec") or {}):
            yield template
            return
        for value in manifest.values():
            yield from pod_templates(value)
    elif isinstance(manifest, list):
        for value in manifest:
            yield from pod_templates(value)
