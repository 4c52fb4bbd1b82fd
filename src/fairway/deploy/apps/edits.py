"""Changes to the app's files: what people wrote there, its order and its comments, stays as it is."""

from __future__ import annotations

import fcntl
import os
import re
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fairway.deploy.apps.app import (
    APP_FILE,
    ENVIRONMENTS,
    App,
    Environment,
    environment_file,
    list_environments,
    load_app,
    load_environment,
    read_document,
)
from fairway.deploy.apps.documents import DocumentError, delete_entry, parse, set_entry
from fairway.deploy.languages import parse_name
from fairway.deploy.params import find_param, read_value
from fairway.errors import FairwayError, UsageError
from fairway.storage.files import storage_errors, write_atomic

_FIELDS = {
    "context": "context",
    "server": "server",
    "certificate_authority": "certificateAuthority",
    "namespace": "namespace",
}
"""Fields of `Environment` and their names in its file, in the file's order."""

_APP_TEXT = """\
# What runs. Where it runs, and what differs there, is in environments/; see: fairway env add
# Set params by hand or with: fairway param set [--env=ENV] COMPONENT KEY VALUE
# List them, with their values and where these come from: fairway param list [--env=ENV] [COMPONENT] --all
version: 1
name:

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
    with storage_errors("create", directory):
        exists = os.path.lexists(directory / APP_FILE)
        name = name or app_name(directory.resolve().name)
    if exists:
        raise FairwayError(
            f"there is an app already: {directory / APP_FILE}", hint="Choose another directory."
        )
    _check_name(name, "an app", hint="Give it another one with --name, for example: --name mnist")
    with storage_errors("create", directory):
        (directory / ENVIRONMENTS).mkdir(parents=True, exist_ok=True)
    text = set_entry(_APP_TEXT.format(claim=f"{name}-model"), ["name"], name)  # `null` needs quotes
    write_atomic(directory / APP_FILE, text.encode())
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
    text = ""
    for field, key in _FIELDS.items():
        if value := getattr(environment, field):
            text = set_entry(text, [key], value)
    for component, values in environment.params.items():
        for name, value in _checked(app, component, values).items():
            text = set_entry(text, ["params", component, name], value)
    with storage_errors("create", path.parent):
        path.parent.mkdir(exist_ok=True)
    write_atomic(path, text.encode())
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

    def change(text: str) -> str:
        there = parse(text) or {}
        for field, key in reversed(_FIELDS.items()):
            if field not in changes:
                continue
            if (value := changes[field]) is not None:
                text = set_entry(text, [key], value, first=True)
            elif key in there:
                text = delete_entry(text, [key])
        return text

    _edit(app.environment_path(name), change)


def remove_environment(app: App, name: str) -> None:
    """Delete the file of an environment, whatever is in it; what it has in a cluster stays.

    Raises:
        FairwayError: there is no environment of that name, or its file cannot be deleted.
    """
    path = environment_file(app, name)
    with storage_errors("delete", path):
        try:
            path.unlink()
        except IsADirectoryError as err:
            raise FairwayError(f"{path} is a directory", hint="Move it elsewhere, or delete it.") from err


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
    checked = _checked(app, component, values)
    place = _place(environment, component)

    def change(text: str) -> str:
        for name, value in checked.items():
            text = set_entry(text, [*place, name], value)
        return text

    _edit(_file_of(app, environment), change)


def delete_param(app: App, environment: str | None, component: str, name: str) -> None:
    """Remove a param from the file of the app or of an environment.

    Raises:
        UsageError: the component or the param is unknown, or not set there.
        FairwayError: there is no such environment, or its file cannot be changed.
    """
    spec = app.component(component)
    find_param(spec.kind.params, spec.kind.name, name, spec.kind.retired)
    path, place = _file_of(app, environment), _place(environment, component)

    def change(text: str) -> str:
        params = parse(text) or {}
        for key in place:
            params = params.get(key) or {}
        if name not in params:
            raise UsageError(
                f"{name} of {component} is not set in {path}",
                hint=f"See where its value comes from: {_list_command(environment, component)}",
            )
        return delete_entry(text, [*place, name])

    _edit(path, change)


def _checked(app: App, component: str, values: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return params that the component can have."""
    spec = app.component(component)
    for name, value in values.items():
        find_param(spec.kind.params, spec.kind.name, name, spec.kind.retired)
        read_value(spec.kind.params, name, value, component)
        if isinstance(value, str) and not value.isprintable():
            _check_encodable(component, name, value)
    return values


def _check_encodable(component: str, name: str, value: str) -> None:
    try:
        value.encode()
    except UnicodeEncodeError as err:
        raise UsageError(
            f"{component}: {name} is {value!r}, which is no text in UTF-8", hint="Write it in UTF-8."
        ) from err


def _file_of(app: App, environment: str | None) -> Path:
    if environment is None:
        return app.path
    load_environment(app, environment)
    return app.environment_path(environment)


def _place(environment: str | None, component: str) -> list[str]:
    """Return where in its file a component's params are."""
    return ["components", component, "params"] if environment is None else ["params", component]


def _list_command(environment: str | None, component: str) -> str:
    return f"fairway param list {f'--env={environment} ' if environment else ''}{component} --all"


def _edit(path: Path, change: Callable[[str], str]) -> None:
    """Change a file's text, at once and only if it can be read again afterwards."""
    with _locked(path):
        before = read_document(path)
        try:
            after = change(before)
        except DocumentError as err:
            raise FairwayError(f"{path}: {err}", hint="Change it by hand.") from err
        if after == before:
            return
        with storage_errors("write", path):
            path = path.resolve()  # a link stays one
            mode = path.stat().st_mode
        write_atomic(path, after.encode())
        with storage_errors("write", path):
            path.chmod(stat.S_IMODE(mode))


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a file for one change at a time; a lock file beside it would get into people's repositories."""
    while True:
        with storage_errors("change", path), path.open("r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            # A change that went before has put another file in its place: that one is to be held.
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                yield
                return


def _check_name(name: str, what: str, *, hint: str = "For example: mnist-prod") -> None:
    try:
        parse_name(name)
    except ValueError as err:
        raise UsageError(f"{what} cannot have that name: {err}", hint=hint) from err
