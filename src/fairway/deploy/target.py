"""What an environment is made of: the app's components with the value of each param, and where it comes from.

default < app < environment < --set; what is set nowhere may come from another component, as the place of the
model comes from the training. An empty value is set too: it means none, also not the training's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from fairway.deploy.apps.app import App, ComponentSpec, Environment
from fairway.deploy.components import KINDS
from fairway.deploy.components.base import ComponentParams, Kind, Placement
from fairway.deploy.params import find_param, list_params, read_value
from fairway.errors import UsageError

DEFAULT, SET = "default", "--set"

Overrides = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Value:
    """The value of a param.

    Attributes:
        read: As the component has it.
        written: As somebody wrote it; the default itself where nobody did.
        origin: `default`, `app`, `environment NAME`, `--set`, or where it is taken from: `train.exportDir`.
    """

    read: Any
    written: Any
    origin: str

    @property
    def is_set(self) -> bool:
        """Whether somebody wrote it."""
        return self.origin != DEFAULT and "." not in self.origin


@dataclass(frozen=True)
class Component:
    """A component of an environment.

    Attributes:
        name: Its name in the app.
        kind: What it is.
        values: By the param's name, in the order of the kind's params.
        params: The same, as its manifests are built from them.
        takes_part: Whether it takes part where no component is named.
    """

    name: str
    kind: Kind
    values: Mapping[str, Value]
    params: ComponentParams
    takes_part: bool = True


@dataclass(frozen=True)
class Target:
    """An environment with its resolved components.

    Attributes:
        app: The app.
        environment: The environment; a nameless one for what the app has by itself.
        components: All of the app's, in the order in which they are applied.
    """

    app: App
    environment: Environment
    components: Sequence[Component]

    def choose(self, names: Iterable[str] = ()) -> list[Component]:
        """Return the named components, or those that take part where none is named.

        Raises:
            UsageError: a name is none of a component.
        """
        wanted = {self.app.component(name).name for name in names}
        return [each for each in self.components if (each.name in wanted if wanted else each.takes_part)]

    def first(self, kind: str) -> Component | None:
        """Return the component of a kind, the first that takes part if there are several."""
        found = [each for each in self.components if each.kind.name == kind]
        return next((each for each in found if each.takes_part), found[0] if found else None)

    def placement(self, component: Component) -> Placement:
        """Return where a component's objects go, and their labels."""
        return Placement(
            self.app.name,
            self.environment.name,
            self.environment.namespace,
            component.name,
            component.kind.name,
        )


def parse_overrides(app: App, words: Iterable[str]) -> Overrides:
    """Read `COMPONENT.KEY=VALUE` words.

    Raises:
        UsageError: a word is not of that form, or names an unknown component.
    """
    overrides: dict[str, dict[str, Any]] = {}
    for word in words:
        place, equals, value = word.partition("=")
        component, dot, key = place.partition(".")
        if not equals or not dot or not key:
            raise UsageError(
                f"--set {word!r} is not COMPONENT.KEY=VALUE", hint="For example: --set train.numWorkers=2"
            )
        overrides.setdefault(app.component(component).name, {})[key] = value
    return overrides


def resolve(app: App, environment: Environment, overrides: Overrides | None = None) -> Target:
    """Return an environment with the value and the origin of every param.

    Raises:
        UsageError: a param is unknown, or cannot have its value. The message names component and value.
    """
    kinds: dict[str, list[Component]] = {}
    for spec in _in_order(app):
        written = _set_values(spec, environment, (overrides or {}).get(spec.name, {}))
        kinds.setdefault(spec.kind.name, []).append(_resolve(spec, written, kinds))
    return Target(app, environment, _with_parts([each for found in kinds.values() for each in found]))


def _set_values(
    spec: ComponentSpec, environment: Environment, overrides: Mapping[str, Any]
) -> dict[str, Value]:
    """Return what is written for a component, the nearest writer's."""
    layers = (
        ("app", spec.params),
        (f"environment {environment.name}", environment.params.get(spec.name, {})),
        (SET, overrides),
    )
    values = {}
    for origin, written in layers:
        for name, value in written.items():
            find_param(spec.kind.params, spec.kind.name, name, spec.kind.retired)
            values[name] = Value(read_value(spec.kind.params, name, value, spec.name), value, origin)
    return values


def _in_order(app: App) -> list[ComponentSpec]:
    """Return the components in the order of their kinds, which is that in which they are applied."""
    order = list(KINDS)
    return sorted(app.components.values(), key=lambda spec: order.index(spec.kind.name))


def _resolve(
    spec: ComponentSpec, layer: Mapping[str, Value], kinds: Mapping[str, Sequence[Component]]
) -> Component:
    values = {}
    for name, param in list_params(spec.kind.params).items():
        value = layer.get(name)
        if value is None and param.source and (source := _first_enabled(kinds.get(param.source.kind, ()))):
            inherited = source.values[param.source.param]
            value = replace(inherited, origin=f"{source.name}.{param.source.param}")
        values[name] = value or Value(param.default, param.default, DEFAULT)
    fields = {list_params(spec.kind.params)[name].field: value.read for name, value in values.items()}
    return Component(spec.name, spec.kind, values, spec.kind.params(**fields))


def _first_enabled(components: Sequence[Component]) -> Component | None:
    """Return the component that others take values from: the first that is not switched off, or the first."""
    enabled = (each for each in components if each.params.enabled is not False)
    return next(enabled, components[0] if components else None)


def _with_parts(components: Sequence[Component]) -> list[Component]:
    """Return components that know whether they take part.

    What holds a model comes first and takes part for those after it; so these are asked first.
    """
    known: list[Component] = []
    for component in reversed(components):
        part = component.params.enabled
        if part is None:
            part = component.kind.takes_part(
                component.params, [each.params for each in known if each.takes_part]
            )
        known.append(replace(component, takes_part=part))
    return known[::-1]
