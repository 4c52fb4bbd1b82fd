"""The app: `fairway.yaml` says what runs, `environments/NAME.yaml` where, and what differs there.

version: 1                          context: gke_prod               # of the kubeconfig
name: mnist                         server: https://…               # the cluster that is meant:
components:                         certificateAuthority: sha256:…  # another one is refused
  train:                            namespace: mnist
    kind: train                     params:
    params:                           train:
      trainSteps: 200                   numWorkers: 2
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fairway.deploy.apps.documents import DocumentError, parse
from fairway.deploy.components import KINDS
from fairway.deploy.components.base import Kind
from fairway.deploy.languages import parse_name
from fairway.deploy.params import nearest
from fairway.errors import FairwayError, UsageError
from fairway.storage.files import storage_errors

APP_FILE = "fairway.yaml"
ENVIRONMENTS = "environments"
FORMAT = "1"

_APP_KEYS = ("version", "name", "components")
_COMPONENT_KEYS = ("kind", "params")
_ENVIRONMENT_KEYS = ("context", "server", "certificateAuthority", "namespace", "params")


@dataclass(frozen=True)
class ComponentSpec:
    """A component as the app's file has it.

    Attributes:
        name: Its name in the app.
        kind: What it is.
        params: The app's own values, unread.
    """

    name: str
    kind: Kind
    params: Mapping[str, Any]


@dataclass(frozen=True)
class App:
    """An app: what runs.

    Attributes:
        root: Directory of `fairway.yaml`.
        name: Label of all its objects.
        components: By name, in the file's order.
    """

    root: Path
    name: str
    components: Mapping[str, ComponentSpec]

    @property
    def path(self) -> Path:
        """The app's file."""
        return self.root / APP_FILE

    def environment_path(self, name: str) -> Path:
        """Return the file of an environment, whether it is there or not."""
        return self.root / ENVIRONMENTS / f"{name}.yaml"

    def component(self, name: str) -> ComponentSpec:
        """Return a component.

        Raises:
            UsageError: there is none of that name; the message names the nearest one.
        """
        try:
            return self.components[name]
        except KeyError:
            raise UsageError(
                f"no component {name!r} in {self.path}{nearest(name, self.components)}",
                hint=f"It has: {', '.join(self.components)}.",
            ) from None


@dataclass(frozen=True)
class Environment:
    """Where an app runs, and what differs there.

    Attributes:
        name: Its name, that of its file.
        context: Context of the kubeconfig; `None`: it was never tied to a cluster.
        server: URL of the API server that is meant; `None` if it was never known.
        certificate_authority: `sha256:…` of the cluster's certificate authority; `None` without one.
        namespace: Where its objects go.
        params: By component, the environment's own values, unread.
    """

    name: str
    context: str | None = None
    server: str | None = None
    certificate_authority: str | None = None
    namespace: str = "default"
    params: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def find_app(start: Path | None = None) -> App:
    """Return the app that a directory belongs to.

    Args:
        start: The directory, or one below the app's; `None`: the current one.

    Raises:
        FairwayError: there is no app, or its file is not right. The message says what of it.
    """
    with storage_errors("look for an app in", start or "the current directory"):
        start = (start or Path.cwd()).resolve()
        root = next((each for each in (start, *start.parents) if (each / APP_FILE).is_file()), None)
    if root:
        return load_app(root)
    raise FairwayError(
        f"no {APP_FILE} in {start} or above",
        hint="Make an app with: fairway init mnist, and go into its folder.",
    )


def load_app(root: Path) -> App:
    """Return the app of a directory.

    Raises:
        FairwayError: its file cannot be read, or is not right.
    """
    path = root / APP_FILE
    content = _load_mapping(path, _APP_KEYS)
    version = content.get("version")
    if version != FORMAT:
        found = "has no version" if version is None else f"has the version {_short(version)}"
        raise FairwayError(
            f"{path} {found}, but this fairway reads version {FORMAT}",
            hint=f"Write `version: {FORMAT}`, or install the fairway that wrote it.",
        )
    if content.get("name") is None:
        raise FairwayError(f"{path} has no name", hint="Write the app's name: `name: mnist`.")
    return App(root, _name(path, "name", content["name"]), _components(path, content.get("components")))


def list_environments(app: App) -> list[str]:
    """Return the names of an app's environments, sorted.

    Raises:
        FairwayError: their directory cannot be read.
    """
    with storage_errors("read", app.root / ENVIRONMENTS):
        files = (app.root / ENVIRONMENTS).glob("*.yaml")
        return sorted(path.stem for path in files if not path.name.startswith("."))


def environment_file(app: App, name: str) -> Path:
    """Return the file of an environment that is there, right or not.

    Raises:
        FairwayError: there is none of that name.
    """
    if name not in (names := list_environments(app)):
        raise FairwayError(
            f"environment {name!r} not found in {app.root / ENVIRONMENTS}{nearest(name, names)}",
            hint=f"There are: {', '.join(names)}." if names else "Make one with: fairway env add NAME",
        )
    return app.environment_path(name)


def load_environment(app: App, name: str) -> Environment:
    """Return an environment.

    Raises:
        FairwayError: there is none of that name, or its file is not right.
    """
    path = environment_file(app, name)
    _name(path, "the name of an environment", name)
    content = _load_mapping(path, _ENVIRONMENT_KEYS)
    return Environment(
        name,
        context=_word(path, content, "context"),
        server=_word(path, content, "server"),
        certificate_authority=_word(path, content, "certificateAuthority"),
        namespace=_name(path, "namespace", _word(path, content, "namespace") or "default"),
        params=_environment_params(app, path, content.get("params")),
    )


def _components(path: Path, content: Any) -> dict[str, ComponentSpec]:
    if not isinstance(content, Mapping) or not content:
        raise FairwayError(f"{path} has no components", hint="See what `fairway init` writes.")
    return {name: _component(path, name, entry) for name, entry in content.items()}


def _component(path: Path, name: str, content: Any) -> ComponentSpec:
    where = f"components.{_name(path, 'the name of a component', name)}"
    content = _mapping(path, where, content, _COMPONENT_KEYS)
    kind = content.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        found = " is missing" if kind is None else f" is {_short(kind)}, which is no kind of component"
        raise FairwayError(
            f"{path}: {where}.kind{found}{nearest(kind, KINDS) if isinstance(kind, str) else ''}",
            hint=f"It is one of: {', '.join(KINDS)}.",
        )
    return ComponentSpec(name, KINDS[kind], _mapping(path, f"{where}.params", content.get("params")))


def _environment_params(app: App, path: Path, content: Any) -> dict[str, Mapping[str, Any]]:
    params = {}
    for name, values in _mapping(path, "params", content).items():
        if name not in app.components:
            raise FairwayError(
                f"{path}: no component {name!r} in {app.path}{nearest(name, app.components)}",
                hint=f"It has: {', '.join(app.components)}.",
            )
        params[name] = _mapping(path, f"params.{name}", values)
    return params


def read_document(path: Path) -> str:
    """Return a file's text, its line ends as they are.

    Raises:
        FairwayError: it cannot be read, or is no text.
    """
    with storage_errors("read", path):
        content = path.read_bytes()
    try:
        return content.decode()
    except UnicodeDecodeError as err:
        raise FairwayError(f"{path} is no text in UTF-8", hint="Save it as UTF-8.") from err


def _load_mapping(path: Path, keys: tuple[str, ...]) -> Mapping[str, Any]:
    try:
        return _mapping(path, "", parse(read_document(path)), keys)
    except DocumentError as err:
        raise FairwayError(f"{path}: {err}", hint="Mend the file.") from err


def _mapping(path: Path, where: str, content: Any, keys: tuple[str, ...] = ()) -> Mapping[str, Any]:
    """Return what must be a mapping; absent is empty. With `keys`, others are an error."""
    if content is None:
        return {}
    if not isinstance(content, Mapping):
        raise FairwayError(
            f"{path}: {where or 'the file'} is {_short(content)}, not `key: value` lines",
            hint="Mend the file.",
        )
    for key in content:
        if keys and key not in keys:
            at = f"{where}.{key}" if where else key
            raise FairwayError(
                f"{path}: unknown key {at}{nearest(key, keys)}",
                hint=f"Known are: {', '.join(keys)}.",
            )
    return content


def _word(path: Path, content: Mapping[str, Any], key: str) -> str | None:
    value = content.get(key)
    if value is not None and not isinstance(value, str):
        raise FairwayError(f"{path}: {key} is {_short(value)}, not a word", hint="Mend the file.")
    return value or None


def _name(path: Path, what: str, value: Any) -> str:
    try:
        return parse_name(value)
    except ValueError as err:
        raise FairwayError(f"{path}: {what}: {err}", hint="For example: mnist-prod") from err


def _short(value: Any) -> str:
    """Return a value for a message, however long it is."""
    if isinstance(value, Mapping | list):
        return "a list" if isinstance(value, list) else "a mapping"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}…"
