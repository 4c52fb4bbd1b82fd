"""Makes an app of an old ksonnet app: what both have is taken over, the rest is named."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fairway.deploy.apps.app import App, Environment, list_environments, load_app
from fairway.deploy.apps.edits import add_environment, app_name, create_app, set_params
from fairway.deploy.apps.ksonnet import KsonnetEnvironment, read_app
from fairway.deploy.components.needs import Needs, unread
from fairway.deploy.params import camel_case, find_param, list_params, read_value
from fairway.errors import FairwayError, UsageError
from fairway.storage.files import scratch_directory, storage_errors

_OLD_IMAGES = ("gcr.io/kubeflow", "tensorflow/")
"""How the images of the 2019 tutorial begin: none of them can do what the params say today."""
_SCRATCH = ".fairway-import-"


@dataclass
class _Takeover:
    app: App
    notes: list[str] = field(default_factory=list)
    base: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    """By component, the params that the old app sets for all environments and that are taken over."""
    idle: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    """By component, those that it sets for all and that have no effect: an environment may give them one."""

    def components(self, components: Mapping[str, Mapping[str, Any]]) -> None:
        for component, values in components.items():
            kept = self._kept(component, component, values)
            idle = self._unread(component, kept)
            self._note_idle(component, idle)
            self.idle[component] = {name: kept.pop(name) for name in idle}
            if kept:
                set_params(self.app, None, component, kept)
                self.base[component] = kept

    def environment(self, old: KsonnetEnvironment) -> None:
        name = app_name(old.name)
        if name in list_environments(self.app):
            self.notes.append(f"environment {old.name}: there is one called {name} already; it is left out")
            return
        params = {
            component: kept
            for component, values in old.params.items()
            if (kept := self._kept_here(f"{component} (environment {name})", component, values))
        }
        try:
            add_environment(self.app, Environment(name, namespace=old.namespace, params=params))
        except UsageError as err:
            self.notes.append(f"environment {old.name} is left out: {err.message}")
            return
        called = "" if name == old.name else f" is called {name} now; it"
        self.notes.append(
            f"environment {old.name}{called} has no cluster yet; its server was "
            f"{old.server or 'not recorded'}. Choose one: fairway env set {name} --context CONTEXT"
        )

    def _kept_here(self, where: str, component: str, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return what is taken over for one environment, so that all of it has an effect there."""
        kept = self._kept(where, component, values)
        base = self.base.get(component, {})
        waiting = {name: v for name, v in self.idle.get(component, {}).items() if name not in values}
        idle = self._unread(component, {**waiting, **base, **kept})
        self._note_idle(where, {name: need for name, need in idle.items() if name in kept})
        unset = {name: self._default(component, name) for name in idle if name in base}
        return {name: v for name, v in {**waiting, **kept}.items() if name not in idle} | unset

    def _unread(self, component: str, values: Mapping[str, Any]) -> dict[str, Needs]:
        """Return the params that have no effect beside the others, and what each needs for one."""
        if component not in self.app.components:
            return {}
        spec = self.app.components[component]
        known = list_params(spec.kind.params)
        read = {
            known[name].field: read_value(spec.kind.params, name, value, component)
            for name, value in {**spec.params, **values}.items()
        }
        idle = unread(spec.kind.params(**read), spec.kind.needs)
        return {camel_case(name): need for name, need in idle.items()}

    def _note_idle(self, where: str, idle: Mapping[str, Needs]) -> None:
        for name, need in idle.items():
            self.notes.append(f"{where}: {name} is left out: it has no effect without {need.condition}")

    def _default(self, component: str, name: str) -> Any:
        default = list_params(self.app.components[component].kind.params)[name].default
        return "" if default is None else default

    def _kept(self, where: str, component: str, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return the params that are taken over; note which are not, and why."""
        if component not in self.app.components:
            self.notes.append(f"{where}: there is no such component here; its params are left out")
            return {}
        base = self.base.get(component, {})
        kept = {}
        for name, value in values.items():
            if value in ("", "null", None):  # as ksonnet's prototypes wrote what was not set
                value = ""
                if name not in base:
                    continue
            if self._fits(where, component, name, value):
                kept[name] = value
        return kept

    def _fits(self, where: str, component: str, name: str, value: Any) -> bool:
        """Return whether a param can be taken over and says something; note why it cannot."""
        spec = self.app.components[component]
        if name == "image" and str(value).startswith(_OLD_IMAGES):
            self.notes.append(f"{where}: image {value} is the old tutorial's; set that of your own build")
            return False
        try:
            param = find_param(spec.kind.params, spec.kind.name, name, spec.kind.retired)
            read = read_value(spec.kind.params, name, value, component)
        except UsageError as err:
            self.notes.append(f"{where}: {name} is left out: {err.message}. {err.hint}")
            return False
        return name in spec.params or name in self.base.get(component, {}) or read != param.default


def take_over(source: Path, directory: Path | None, name: str | None) -> tuple[App, list[str]]:
    """Make an app from an old ksonnet app.

    Args:
        source: Directory of the old app.
        directory: Where the new app goes; `None`: a directory of the app's name, in the current one.
        name: The new app's name; `None`: the directory's.

    Returns:
        The app, and a sentence for each thing that is not taken over.

    Raises:
        FairwayError: the old app cannot be read, or the new one not be written; nothing is left of it then.
    """
    old = read_app(source)
    directory = directory or Path(app_name(old.name) or "mnist")
    with storage_errors("create", directory):
        exists = directory.is_symlink() or (directory.exists() and any(directory.iterdir()))
        target = directory.resolve()
    if exists:
        raise FairwayError(
            f"there is something in {directory} already",
            hint=f"Name a directory that is not there yet: fairway import {source} NAME",
        )
    with scratch_directory(target.parent, _SCRATCH) as scratch:
        takeover = _Takeover(create_app(scratch / "app", name or app_name(target.name)), list(old.notes))
        takeover.components(old.components)
        for environment in old.environments:
            takeover.environment(environment)
        with storage_errors("create", directory):
            (scratch / "app").rename(target)  # an empty directory that is there makes room
    return load_app(directory), takeover.notes
