"""The manifests of an environment, which are what `show` prints and what `apply` sends."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

import yaml

from fairway.deploy.resources import Manifest
from fairway.deploy.target import Component, Target
from fairway.errors import UsageError

_FAST: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


class _Dumper(_FAST):  # type: ignore[misc] # which of the two it is, is known only when it runs
    """Writes out what is there twice, where YAML would refer back to it."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


# Words that kubectl's YAML reader takes for a number or a truth; PyYAML does not, and would not quote them.
# It drops all underscores first: https://github.com/go-yaml/yaml/blob/v2.4.0/resolve.go
_Dumper.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"[-+]?_*(\.[0-9_]+|[0-9][0-9_]*(\.[0-9_]*)?)([eE]_*[-+]?[0-9_]+)?$"
        r"|[-+]?_*0_*[xXoObB][0-9a-fA-F_]+$"
    ),
    list("-+.0123456789"),
)
_Dumper.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile("[yYnN]$"), list("yYnN"))


def render(target: Target, components: Iterable[Component]) -> list[Manifest]:
    """Return the manifests of components of an environment, in the order in which they are applied.

    Raises:
        UsageError: the params of a component do not fit together, or two components make the same object.
    """
    manifests: list[Manifest] = []
    makers: dict[tuple[str, str], str] = {}
    for component in components:
        for manifest in component.kind.build(component.params, target.placement(component)):
            key = manifest["kind"], manifest["metadata"]["name"]
            if (other := makers.setdefault(key, component.name)) != component.name:
                raise UsageError(
                    f"{other} and {component.name} both make {key[0]} {key[1]}",
                    hint=f"Give one another name: fairway param set {component.name} name {key[1]}-2",
                )
            manifests.append(manifest)
    return manifests


def to_yaml(manifests: Sequence[Manifest]) -> str:
    """Return manifests as a stream of YAML documents, keys in the order in which they were built."""
    return yaml.dump_all(
        manifests, Dumper=_Dumper, sort_keys=False, explicit_start=True, allow_unicode=True, width=110
    )


def to_json(manifests: Sequence[Manifest]) -> str:
    """Return manifests as one Kubernetes List, which kubectl takes too."""
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": list(manifests)}, indent=2)
