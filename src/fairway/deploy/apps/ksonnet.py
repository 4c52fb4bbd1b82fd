"""Reads an old ksonnet app: `app.yaml`, params of components and of environments. Nothing is changed.

The formats are those of ksonnet 0.11 to 0.13, https://github.com/ksonnet/ksonnet/tree/master/pkg/app.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from fairway.deploy.apps.jsonnet import Evaluator, printable, read_text, resolve_inside
from fairway.errors import DataError, FairwayError, StorageError
from fairway.storage.files import storage_errors

APP_FILE, OVERRIDE_FILE, SPEC_FILE = "app.yaml", "app.override.yaml", "spec.json"
PARAMS_FILE, GLOBALS_FILE = "params.libsonnet", "globals.libsonnet"
KIND = "ksonnet.io/app"
API_VERSIONS = ("0.0.1", "0.1.0", "0.2.0", "0.3.0")
NAMESPACE = "default"
"""What ksonnet takes for an environment without a namespace."""
PARAMS_VARIABLE = "__ksonnet/params"
"""The external variable by which an environment's file gets the params of the components."""
COMPONENT_SUFFIXES = (".jsonnet", ".yaml", ".json")

Params = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class KsonnetEnvironment:
    """One environment, with what it alone sets."""

    name: str
    """May have slashes, as its folder has."""

    server: str | None
    """URL of the cluster; `None` if the app does not say."""

    namespace: str

    kubernetes_version: str | None

    params: Params
    """Component → the params that this environment sets; those it inherits are not among them."""


@dataclass(frozen=True)
class KsonnetApp:
    """An app as its files have it; values keep their types, `'0.01'` stays a text."""

    name: str

    components: Params
    """Component → its params for all environments, in the order of the file."""

    environments: list[KsonnetEnvironment]

    notes: list[str]
    """What is there and not taken over, or not as it was: one sentence each."""


def read_app(directory: Path) -> KsonnetApp:
    """Return the app in a directory.

    Raises:
        DataError: there is no ksonnet app, or one of its files is damaged, has an error, is too large, or
            imports what is not in the directory.
        StorageError: a file cannot be read.
        FairwayError: rjsonnet is not installed.
    """
    root = _find_root(directory)
    spec = _read_spec(root)
    override = _read_mapping(root, root / OVERRIDE_FILE)
    with Evaluator(root) as evaluator:
        return _Reader(root, evaluator).read(spec, override)


class _Loader(yaml.SafeLoader):
    """Refuses aliases: ksonnet writes none, and a few lines of them can stand for gigabytes."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.composer.ComposerError(None, None, "an alias", mark)
        return super().compose_node(parent, index)


def _find_root(directory: Path) -> Path:
    hint = f"Name the directory with ksonnet's {APP_FILE}, as in: fairway import ks_app/"
    name = printable(str(directory))
    with storage_errors("read", directory):
        root = directory.resolve()
        if not root.is_dir():
            raise StorageError(f"{name} is not a directory", hint=hint)
        if not (root / APP_FILE).exists():
            raise DataError(f"{name} is no ksonnet app: it has no {APP_FILE}", hint=hint)
    return root


def _read_spec(root: Path) -> dict[str, Any]:
    """Return `app.yaml`, which must be of a known version."""
    spec = _read_mapping(root, root / APP_FILE)
    if spec.get("kind") != KIND:
        raise DataError(
            f"{APP_FILE} is no ksonnet app: its kind is {_short(spec.get('kind'))}, not {KIND}",
            hint="Name the directory of a ksonnet app.",
        )
    if str(spec.get("apiVersion")) not in API_VERSIONS:
        raise DataError(
            f"{APP_FILE} has the apiVersion {_short(spec.get('apiVersion'))}; "
            f"known are {', '.join(API_VERSIONS)}",
            hint="Bring the app to 0.3.0 with ksonnet's own 'ks upgrade'.",
        )
    return spec


def _read_mapping(root: Path, path: Path) -> dict[str, Any]:
    """Return a file of YAML or JSON; empty if it is not there."""
    if not path.is_symlink() and not path.exists():
        return {}
    name = printable(str(path.relative_to(root)))
    try:
        value = yaml.load(read_text(root, path), _Loader)
    except (yaml.YAMLError, ValueError, RecursionError) as err:
        mark = getattr(err, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        raise DataError(f"{name} is not YAML or JSON{where}", hint="Correct the file.") from err
    return _mapping(value, name)


def _mapping(value: object, what: str) -> dict[str, Any]:
    """Return a value that must be a mapping, or nothing; its keys as text."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise DataError(
            f"{what} is {_short(value)}, not a mapping of names to values", hint="Correct the file."
        )
    return {str(key): item for key, item in value.items()}


def _text(value: object, what: str) -> str | None:
    """Return a scalar as text; `None` for nothing, or an empty one."""
    if value is None or value == "":
        return None
    if isinstance(value, dict | list):
        raise DataError(f"{what} is {_short(value)}, not a text", hint="Correct the file.")
    return str(value)


def _short(value: object) -> str:
    """Return a value for a message, without spelling out a large one."""
    if isinstance(value, dict | list | set):
        return f"a {type(value).__name__}"
    return printable(repr(value) if value is not None else "missing")[:60]


def _names(names: Iterable[object]) -> str:
    return printable(", ".join(name if isinstance(name, str) else _short(name) for name in names))


@dataclass
class _Reader:
    """Reads the parts of one app, and collects the notes."""

    root: Path
    evaluator: Evaluator
    notes: list[str] = field(default_factory=list)
    globals: Any = None
    """`global` of the components' params."""
    modules: list[str] = field(default_factory=list)

    def read(self, spec: Mapping[str, Any], override: Mapping[str, Any]) -> KsonnetApp:
        self._note_packages(spec, override)
        components = self._read_components()
        environments = self._read_environments(spec, override, components)
        name = _text(spec.get("name"), f"name in {APP_FILE}") or self.root.name
        return KsonnetApp(name, components, environments, self.notes)

    def _note_packages(self, *specs: Mapping[str, Any]) -> None:
        for key in ("registries", "libraries"):
            names = [name for spec in specs for name in _mapping(spec.get(key), f"{key} in {APP_FILE}")]
            if names:
                self.notes.append(
                    f"The {key} of {APP_FILE} are not taken over: {_names(dict.fromkeys(names))}."
                )

    # --- components

    @property
    def _params_file(self) -> Path:
        return self.root / "components" / PARAMS_FILE

    def _read_components(self) -> Params:
        """Return what `components/params.libsonnet` has, then components without params there."""
        name = f"components/{PARAMS_FILE}"
        document: dict[str, Any] = {}
        if self._params_file.exists():
            document = _mapping(self.evaluator.evaluate(self._params_file), name)
        else:
            self.notes.append(f"There is no {name}, so no component has params of its own.")
        self.globals = _mapping(document.get("global"), f"global in {name}")
        if self.globals:
            self.notes.append(f"The global params of {name} are not taken over: {_names(self.globals)}.")
        components = _params(document, name)
        files = self._list_component_files()
        if files:
            self.notes.append(
                f"The manifests in components/ are not taken over: {_names(path.name for path in files)}."
            )
        for path in files:
            components.setdefault(path.stem, {})
        return components

    def _list_component_files(self) -> list[Path]:
        """Return the files of components, sorted; note the folders beside them, ksonnet's modules."""
        folder = self.root / "components"
        if not folder.exists():
            return []
        with storage_errors("read", folder):
            entries = sorted(resolve_inside(self.root, folder).iterdir())
            self.modules = [path.name for path in entries if path.is_dir()]
            files = [path for path in entries if path.suffix in COMPONENT_SUFFIXES and path.is_file()]
        self.notes += [
            f"The module components/{printable(module)} is not taken over, nor are its params."
            for module in self.modules
        ]
        return files

    # --- environments

    def _read_environments(
        self, spec: Mapping[str, Any], override: Mapping[str, Any], components: Params
    ) -> list[KsonnetEnvironment]:
        """Return those of `app.yaml`, those of `app.override.yaml`, then those that only have a folder."""
        entries = _merge(_entries(spec, APP_FILE), _entries(override, OVERRIDE_FILE))
        folders = {name: self._folder(name, entry) for name, entry in entries.items()}
        known = set(folders.values())
        for name, folder in self._walk():
            if folder not in known:
                entries.setdefault(name, {})
                folders[name] = folder
                if not (folder / SPEC_FILE).exists():
                    self.notes.append(
                        f"Environment {printable(name)} is not in {APP_FILE}: "
                        "its cluster and namespace are unknown."
                    )
        return [
            self._read_environment(name, entry, folders[name], components) for name, entry in entries.items()
        ]

    def _folder(self, name: str, entry: Mapping[str, Any]) -> Path:
        relative = _text(entry.get("path"), f"path of environment {printable(name)}") or name
        folder = resolve_inside(self.root, self.root / "environments" / relative)
        if ".." in Path(name).parts or not name.strip("/"):
            raise DataError(
                f"{printable(name)!r} in {APP_FILE} is no name for an environment", hint="Correct the file."
            )
        return folder

    def _walk(self) -> Iterator[tuple[str, Path]]:
        """Yield the name and folder of each environment below `environments/`, sorted."""
        top = resolve_inside(self.root, self.root / "environments")
        if not top.exists():
            return
        with storage_errors("read", top):
            for folder, folders, files in os.walk(top, onerror=_fail):
                folders[:] = sorted(name for name in folders if not name.startswith("."))
                path = Path(folder)
                if path != top and {PARAMS_FILE, SPEC_FILE} & set(files):
                    yield path.relative_to(top).as_posix(), path

    def _read_environment(
        self, name: str, entry: Mapping[str, Any], folder: Path, components: Params
    ) -> KsonnetEnvironment:
        what = f"environment {printable(name)}"
        targets = entry.get("targets")
        if isinstance(targets, list) and targets:
            self.notes.append(
                f"The targets of {what} are not taken over: {_names(targets)}; it has every component."
            )
        if libraries := _mapping(entry.get("libraries"), f"libraries of {what}"):
            self.notes.append(f"The libraries of {what} are not taken over: {_names(libraries)}.")
        destination = _mapping(entry.get("destination"), f"destination of {what}") or _read_mapping(
            self.root, folder / SPEC_FILE
        )
        return KsonnetEnvironment(
            name=name,
            server=_text(destination.get("server"), f"server of {what}"),
            namespace=_text(destination.get("namespace"), f"namespace of {what}") or NAMESPACE,
            kubernetes_version=_text(entry.get("k8sVersion"), f"k8sVersion of {what}"),
            params=self._read_params(what, folder, components),
        )

    def _read_params(self, what: str, folder: Path, components: Params) -> Params:
        """Return what an environment sets itself; note what of it is special."""
        path = folder / PARAMS_FILE
        if not path.exists():
            self.notes.append(f"There is no {PARAMS_FILE} for {what}, so it has no params of its own.")
            return {}
        merged = self._evaluate(path, components)
        bare = {}
        with suppress(FairwayError):
            # Fails where a param is computed from one of the components' own; then only values that differ
            # from these are seen to be set.
            bare = self._evaluate(path, {name: {} for name in components}, replace=True)
        own = _own(components, merged, bare)
        self._note_globals(what, folder)
        return self._without_strangers(what, own, merged, components)

    def _evaluate(self, path: Path, components: Params, *, replace: bool = False) -> Params:
        """Return all params of an environment, given those of the components.

        Args:
            path: The environment's file.
            components: Their params, for files that take them from the external variable.
            replace: Whether to give the same to files that import `components/params.libsonnet`.
        """
        code = json.dumps({"global": self.globals, "components": components})
        value = self.evaluator.evaluate(
            path,
            ext_codes={PARAMS_VARIABLE: code},
            replace={self._params_file: code} if replace else None,
        )
        name = str(path.relative_to(self.root))
        return _params(_mapping(value, name), name)

    def _note_globals(self, what: str, folder: Path) -> None:
        path = folder / GLOBALS_FILE
        if path.exists():
            names = _mapping(self.evaluator.evaluate(path), str(path.relative_to(self.root)))
            if names:
                self.notes.append(f"The globals of {what} now belong to each component: {_names(names)}.")

    def _without_strangers(self, what: str, own: Params, merged: Params, components: Params) -> Params:
        """Return the params without those of modules, and note what differs in kind from the components'."""
        kept: Params = {}
        for name, params in own.items():
            if name.partition(".")[0] in self.modules and "." in name:
                self.notes.append(
                    f"The params of {printable(name)} in {what} are of a module: not taken over."
                )
                continue
            kept[name] = params
            if name not in components:
                self.notes.append(f"Component {printable(name)} is only in {what}.")
        for name, params in components.items():
            if name not in merged and params:
                self.notes.append(
                    f"Component {printable(name)} is left out by {what}, which is not taken over."
                )
            elif lost := [key for key in params if key not in merged.get(name, params)]:
                self.notes.append(
                    f"Params of {printable(name)} are removed by {what}, "
                    f"which is not taken over: {_names(lost)}."
                )
        return kept


def _fail(err: OSError) -> None:
    raise err


def _entries(spec: Mapping[str, Any], name: str) -> Params:
    """Return the environments of a file; ksonnet passes over an empty one, and so is it done here."""
    environments = _mapping(spec.get("environments"), f"environments in {name}")
    return {
        key: _mapping(entry, f"environment {printable(key)} in {name}")
        for key, entry in environments.items()
        if entry is not None
    }


def _merge(entries: Params, overrides: Params) -> Params:
    """Return the environments of `app.yaml` with what `app.override.yaml` says of them, and its own."""
    merged = dict(entries)
    for name, override in overrides.items():
        stated = {key: value for key, value in override.items() if value not in (None, "")}
        merged[name] = merged.get(name, {}) | stated
    return merged


def _params(document: Mapping[str, Any], name: str) -> Params:
    components = _mapping(document.get("components"), f"components in {name}")
    return {
        component: _mapping(params, f"component {printable(component)} in {name}")
        for component, params in components.items()
    }


def _own(base: Params, merged: Params, bare: Params) -> Params:
    """Return the params that an environment sets, in the order of the components.

    Args:
        base: Params of the components.
        merged: Params of the environment.
        bare: Params of the environment if no component had any: their names are what it sets, also where the
            value is the same; empty if that cannot be had.
    """
    own: Params = {}
    for name in [*(name for name in base if name in merged), *(name for name in merged if name not in base)]:
        params, inherited = merged[name], base.get(name)
        set_here = [key for key in bare.get(name, {}) if key in params]
        differing = [
            key for key, value in params.items() if inherited is None or not _same(value, inherited.get(key))
        ]
        keys = dict.fromkeys([*set_here, *differing])
        if keys or inherited is None:
            own[name] = {key: params[key] for key in keys}
    return own


def _same(one: object, other: object) -> bool:
    """Tell whether two values are equal in type too: 1 is not true."""
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
