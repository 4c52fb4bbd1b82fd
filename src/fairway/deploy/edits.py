"""Changes to the app's files: what people wrote there, its order and its comments, stays as it is."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap
from ruamel.yaml.error import YAMLError
from ruamel.yaml.util import load_yaml_guess_indent

from fairway.deploy.app import (
    APP_FILE,
    ENVIRONMENTS,
    App,
    Environment,
    list_environments,
    load_app,
    load_environment,
)
from fairway.deploy.languages import parse_name
from fairway.deploy.params import find_param, nearest, read_value
from fairway.errors import FairwayError, UsageError, first_line
from fairway.storage.files import write_atomic

KEYS = {"certificate_authority": "certificateAuthority"}
"""Where a field of `Environment` has another name in its file."""

_APP_TEXT = """\
# What runs. Where it runs, and what differs there, is in environments/; see: fairway env add
# Set params by hand or with: fairway param set [--env=ENV] COMPONENT KEY VALUE
# List them, with their values and where these come from: fairway param list [--env=ENV] [COMPONENT] --all
version: 1
name: {name}

components:
  # A claim for the model. Where you have one already, or an object store, set train's params
  # pvcName, modelDir and exportDir; this one takes no part then.
  storage:
    kind: storage
    params:
      name: {claim}
      size: 1Gi

  # What the others need to know of the model's place, they take from here.
  train:
    kind: train
    params:
      launcher: tfjob  # or, where there is no training operator: job, jobset
      pvcName: {claim}
      modelDir: /mnt
      exportDir: /mnt/export

  # Model servers, one for each place a model may lie in. Without -c, the one that fits takes part.
  mnist-deploy-pvc:
    kind: serving
    params: {{name: mnist-deploy-pvc, storage: pvc}}
  mnist-deploy-gcp:
    kind: serving
    params: {{name: mnist-deploy-gcp, storage: gcp}}
  mnist-deploy-aws:
    kind: serving
    params: {{name: mnist-deploy-aws, storage: aws}}
  mnist-deploy-local:
    kind: serving
    params: {{name: mnist-deploy-local, storage: local}}

  mnist-service:
    kind: mnist-service
  tensorboard:
    kind: tensorboard
  web-ui:
    kind: web-ui
"""


def create_app(directory: Path, name: str | None = None) -> App:
    """Make a directory with the files of a new app.

    Args:
        directory: The directory; it may be there already.
        name: The app's name. Default: the directory's.

    Raises:
        FairwayError: there is an app already, or the directory cannot be written.
        UsageError: the name cannot be one.
    """
    if (directory / APP_FILE).exists():
        raise FairwayError(
            f"there is an app already: {directory / APP_FILE}", hint="Choose another directory."
        )
    name = name or app_name(directory.resolve().name)
    _check_name(name, "an app")
    try:
        (directory / ENVIRONMENTS).mkdir(parents=True, exist_ok=True)
    except OSError as err:
        raise FairwayError(f"cannot make {directory}: {err.strerror}") from err
    write_atomic(directory / APP_FILE, _APP_TEXT.format(name=name, claim=f"{name}-model").encode())
    return load_app(directory)


def app_name(text: str) -> str:
    """Return a text as a name, as far as it can be one: `ks_app` is `ks-app`."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def add_environment(app: App, environment: Environment) -> Path:
    """Write the file of a new environment.

    Raises:
        FairwayError: there is one of that name already, or its file cannot be written.
        UsageError: the name cannot be one.
    """
    _check_name(environment.name, "an environment")
    _check_name(environment.namespace, "a namespace")
    if environment.name in list_environments(app):
        raise FairwayError(
            f"there is an environment {environment.name!r} already",
            hint=f"See: fairway env describe {environment.name}, fairway env set {environment.name}",
        )
    path = app.environment_path(environment.name)
    path.parent.mkdir(exist_ok=True)
    lines = [
        f"{KEYS.get(field, field)}: {value}\n"
        for field in ("context", "server", "certificate_authority", "namespace")
        if (value := getattr(environment, field))
    ]
    write_atomic(path, "".join(lines).encode())
    for component, values in environment.params.items():
        set_params(app, environment.name, component, values)
    return path


def change_environment(app: App, name: str, changes: Mapping[str, str | None]) -> None:
    """Change fields of an environment; `None` removes one.

    Raises:
        FairwayError: there is no environment of that name, or its file cannot be changed.
        UsageError: the namespace cannot be one.
    """
    load_environment(app, name)
    if namespace := changes.get("namespace"):
        _check_name(namespace, "a namespace")

    def change(content: CommentedMap) -> None:
        for field, value in changes.items():
            key = KEYS.get(field, field)
            if value is None:
                content.pop(key, None)
            elif key in content:
                content[key] = value
            else:
                content.insert(0 if key == "context" else min(1, len(content)), key, value)

    _edit(app.environment_path(name), change)


def remove_environment(app: App, name: str) -> None:
    """Delete the file of an environment; what it has in a cluster stays.

    Raises:
        FairwayError: there is no environment of that name, or its file cannot be deleted.
    """
    load_environment(app, name)
    try:
        app.environment_path(name).unlink()
    except OSError as err:
        raise FairwayError(f"cannot delete {app.environment_path(name)}: {err.strerror}") from err


def set_params(app: App, environment: str | None, component: str, values: Mapping[str, Any]) -> None:
    """Set params of a component.

    Args:
        app: The app.
        environment: For which environment; `None`: for all that do not set them.
        component: The component's name.
        values: As the user or another file has them.

    Raises:
        UsageError: a component or a param is unknown, or cannot have its value.
        FairwayError: there is no such environment, or its file cannot be changed.
    """
    spec = app.component(component)
    for name, value in values.items():
        find_param(spec.kind.params, spec.kind.name, name, spec.kind.retired)
        read_value(spec.kind.params, name, value, component)

    def change(content: CommentedMap) -> None:
        params = _params_of(content, environment is not None, component)
        for name, value in values.items():
            params[name] = _plain(value)

    _edit(_file_of(app, environment), change)


def delete_param(app: App, environment: str | None, component: str, name: str) -> None:
    """Remove a param from the file of the app or of an environment.

    Raises:
        UsageError: the component or the param is unknown, or not set there.
        FairwayError: there is no such environment, or its file cannot be changed.
    """
    spec = app.component(component)
    find_param(spec.kind.params, spec.kind.name, name, spec.kind.retired)
    path = _file_of(app, environment)

    def change(content: CommentedMap) -> None:
        params = _params_of(content, environment is not None, component)
        if name not in params:
            raise UsageError(
                f"{name} of {component} is not set in {path}{nearest(name, params)}",
                hint=f"See where its value comes from: fairway param list {component}",
            )
        del params[name]
        if not params:
            parent = content["params"] if environment else content["components"][component]
            del parent[component if environment else "params"]

    _edit(path, change)


def _file_of(app: App, environment: str | None) -> Path:
    if environment is None:
        return app.path
    load_environment(app, environment)
    return app.environment_path(environment)


def _params_of(content: CommentedMap, of_environment: bool, component: str) -> Any:
    """Return the params of a component in a file, made if there are none yet."""
    if of_environment:
        return _child(_child(content, "params"), component)
    return _child(content["components"][component], "params")


def _child(content: Any, key: str) -> Any:
    if content.get(key) is None:
        content[key] = CommentedMap()
    return content[key]


def _plain(value: Any) -> Any:
    """Return a word as YAML would have it, where that is the same word again: 200, true."""
    if not isinstance(value, str):
        return value
    if value in ("true", "false"):
        return value == "true"
    try:
        number = float(value) if "." in value or "e" in value else int(value)
    except ValueError:
        return value
    return number if str(number) == value else value


def _edit(path: Path, change: Callable[[CommentedMap], None]) -> None:
    """Change a file's content and write it at once; a file that was not right stays as it is."""
    try:
        content, indent, offset = load_yaml_guess_indent(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, YAMLError) as err:
        raise FairwayError(f"cannot read {path}: {first_line(err)}") from err
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 4096  # no line of somebody else's is to be wrapped
    yaml.indent(mapping=indent or 2, sequence=(indent or 2) + (offset or 0), offset=offset or 0)
    content = CommentedMap() if content is None else content
    change(content)
    text = io.StringIO()
    yaml.dump(content, text)
    write_atomic(path, text.getvalue().encode())


def _check_name(name: str, what: str) -> None:
    try:
        parse_name(name)
    except ValueError as err:
        raise UsageError(
            f"{name!r} cannot be the name of {what}: {err}", hint="For example: mnist-prod"
        ) from err
