"""Makes an app of an old ksonnet app: what both have is taken over, the rest is named."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fairway.deploy.app import App, Environment, list_environments
from fairway.deploy.edits import add_environment, app_name, create_app, set_params
from fairway.deploy.ksonnet import KsonnetEnvironment, read_app
from fairway.deploy.params import find_param, nearest, read_value
from fairway.errors import FairwayError, UsageError

_OLD_IMAGES = ("gcr.io/kubeflow", "tensorflow/")
"""How the images of the 2019 tutorial begin: none of them can do what the params say today."""


@dataclass
class _Takeover:
    app: App
    notes: list[str] = field(default_factory=list)

    def params(self, environment: str | None, component: str, values: Mapping[str, Any]) -> None:
        where = f"{component} (environment {environment})" if environment else component
        if component not in self.app.components:
            self.notes.append(f"{where}: no such component here{nearest(component, self.app.components)}")
            return
        kept = {name: value for name, value in values.items() if self._fits(where, component, name, value)}
        if kept:
            set_params(self.app, environment, component, kept)

    def _fits(self, where: str, component: str, name: str, value: Any) -> bool:
        """Return whether a param can be taken over; note why not."""
        spec = self.app.components[component]
        if name == "image" and str(value).startswith(_OLD_IMAGES):
            self.notes.append(f"{where}: {name} {value} is the old tutorial's; set that of your own build")
            return False
        if value in ("", "null", None):
            return False  # as ksonnet's prototypes wrote what was not set
        try:
            find_param(spec.kind.params, spec.kind.name, name, spec.kind.retired)
            read_value(spec.kind.params, name, value, component)
        except UsageError as err:
            self.notes.append(f"{where}: {name} is left out: {err.message}. {err.hint}")
            return False
        return True

    def environment(self, old: KsonnetEnvironment) -> None:
        name = app_name(old.name)
        if name in list_environments(self.app):
            self.notes.append(f"environment {old.name}: there is one called {name} already; it is left out")
            return
        add_environment(self.app, Environment(name, namespace=old.namespace))
        self.notes.append(
            f"environment {old.name}: it has no context yet; its server was {old.server or 'not recorded'}. "
            f"Set it with: fairway env set {name} --context CONTEXT"
        )
        for component, values in old.params.items():
            self.params(name, component, values)


def take_over(source: Path, directory: Path | None, name: str | None) -> tuple[App, list[str]]:
    """Make an app from an old ksonnet app.

    Args:
        source: Directory of the old app.
        directory: Where the new app goes; `None`: a directory of the app's name, in the current one.
        name: The new app's name; `None`: the directory's.

    Returns:
        The app, and a sentence for each thing that is not taken over.

    Raises:
        FairwayError: the old app cannot be read, or the new one not be written.
    """
    old = read_app(source)
    directory = directory or Path(app_name(old.name))
    if directory.resolve() == source.resolve():
        raise FairwayError(
            f"{directory} is the old app itself",
            hint=f"Name another directory: fairway import {source} mnist",
        )
    takeover = _Takeover(create_app(directory, name), list(old.notes))
    for component, values in old.components.items():
        takeover.params(None, component, values)
    for environment in old.environments:
        takeover.environment(environment)
    return takeover.app, takeover.notes
