"""Which models are served: those of the configuration, which may change while others answer."""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import ExitStack
from dataclasses import dataclass

from fairway.errors import FairwayError, UsageError
from fairway.serve.versions.backend import Backend
from fairway.serve.versions.cache import Cache, kept_in
from fairway.serve.versions.table import ModelTable
from fairway.serve.versions.versions import Loading, Versions, View
from fairway.storage.outage import explain
from fairway.storage.stores.uri import local_path
from fairway.tfs.configs import All, ModelConfig, Specific
from fairway.tfs.status import Code, RequestError, invalid

_STOP_S = 5.0

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Model:
    config: ModelConfig
    versions: Versions
    closing: ExitStack
    """Gives back the directory of this machine, where the base path lies in an object store."""


class Decider:
    """Decides which versions of which models serve, and has a backend serve them.

    Args:
        configs: The models at the start, each of another name; they may have no versions yet.
        backend: Loads and answers.
        poll_s: Seconds between two looks for new versions.
        allow_labels: Whether a new label may name a version that does not serve yet.
        record: Is told of each load: model, version, and seconds, or `None` if it failed.

    Raises:
        UsageError: a URI is not one, or a label names a version although it may not.
        FairwayError: a base path is a file, or the extra for its kind of store is not installed.
    """

    def __init__(
        self,
        configs: tuple[ModelConfig, ...],
        backend: Backend,
        *,
        poll_s: float,
        allow_labels: bool,
        record: Callable[[str, int, float | None], None],
    ) -> None:
        self._backend = backend
        self._poll_s = poll_s
        self._allow_labels = allow_labels
        self._loading = Loading(backend, itertools.count(1), threading.Lock(), record)
        self._models: dict[str, _Model] = {}
        self._waiting: tuple[_Model, ...] = ()
        self._published: dict[str, View] | None = None
        self._publishing = threading.RLock()
        self._reloading = threading.Lock()
        self._is_closed = False
        self._check_first(configs)
        with ExitStack() as undo:
            for config in configs:
                model = self._open(config)
                undo.push(model.closing)
                self._models[config.name] = model
            undo.pop_all()

    def start(self) -> None:
        """Publish what is known, which is nothing but names, and start to look for versions."""
        self.publish()
        for model in self._models.values():
            model.versions.start()

    def stop(self) -> None:
        """Stop looking; what serves goes on serving. Returns at once."""
        for model in (*self._waiting, *self._models.values()):
            model.versions.stop()

    def close(self) -> None:
        """Wait until nothing is looked for any more, and give back the directories of this machine.

        What is being loaded is waited for, but for all models no longer than `_STOP_S`.
        """
        end = time.monotonic() + _STOP_S
        self._is_closed = True
        self.stop()
        if self._reloading.acquire(timeout=_STOP_S):
            self._reloading.release()
        self.stop()  # what has been taken up meanwhile, too
        for model in self._models.values():
            model.versions.join(max(0.0, end - time.monotonic()))
            model.closing.close()

    def reload(self, configs: tuple[ModelConfig, ...]) -> None:
        """Serve these models, and no other; returns once those that are new answer.

        A model whose base path has changed is loaded beside what serves. Models whose configuration is the
        same are not touched. If anything cannot be done, nothing is.

        Raises:
            RequestError: why not, in TensorFlow Serving's words where it has some.
        """
        with self._reloading:
            if self._is_closed:
                raise RequestError(Code.UNAVAILABLE, "the server is ending")
            try:
                self._reload(configs)
            except RequestError:
                raise
            except UsageError as err:
                raise invalid(explain(err)) from err
            except FairwayError as err:
                raise RequestError(Code.FAILED_PRECONDITION, explain(err)) from err

    def _reload(self, configs: tuple[ModelConfig, ...]) -> None:
        before = self._models
        stays = {config.name for config in configs if _is_in_place(config, before.get(config.name))}
        with ExitStack() as undo:
            models = {}
            for config in configs:
                if config.name not in stays:
                    models[config.name] = model = self._open(config)
                    undo.push(model.closing)
                    undo.callback(model.versions.discard)
            # All that can be known before anything is loaded, which may take minutes.
            for config in configs:
                self._check_what_is_there(config, models.get(config.name), before.get(config.name))
            self._wait_until_serving(*models.values())
            for model in models.values():
                self._check_labels(model.config, model)
            with ExitStack() as held:
                for config in configs:
                    if config.name in stays and (ahead := self._unavailable(config, before[config.name])):
                        held.enter_context(before[config.name].versions.ahead(ahead))
                        self._check_labels(config, before[config.name])
                for config in configs:
                    if config.name in stays:
                        models[config.name] = _configured(before[config.name], config)
            undo.pop_all()
        self._replace({config.name: models[config.name] for config in configs})

    def _check_what_is_there(self, config: ModelConfig, new: _Model | None, old: _Model | None) -> None:
        """Refuse a model without versions, and labels of versions that are not there or not wanted.

        Nothing is known of the versions of a new model in an object store.

        Args:
            config: As it is to be.
            new: Where it is to be loaded beside what serves.
            old: What serves under its name.
        """
        if new and local_path(config.base_path) is not None:
            found = new.versions.found(config)
            if not found:
                raise _did_not_become_available(new)
            self._check_labels(config, new, found)
        elif old and not new and self._unavailable(config, old):
            self._check_labels(config, old, old.versions.wanted(config))

    def _wait_until_serving(self, *models: _Model) -> None:
        """Load new models, one after the other.

        Raises:
            RequestError: one does not serve after that, which would take nothing down but help no one.
        """
        self._waiting = models
        try:
            for model in models:
                model.versions.poll()
                while model.versions.has_more and not model.versions.view.table.serving:
                    model.versions.poll()
                if model.versions.view.table.problem:
                    raise _did_not_become_available(model)
        finally:
            self._waiting = ()

    def _replace(self, models: dict[str, _Model]) -> None:
        before, self._models = self._models, models
        self.publish()
        for name, model in before.items():
            if name not in models:
                logger.info("%s is not served any more", name)
            if name not in models or models[name].versions is not model.versions:
                model.versions.discard()
                model.closing.close()
        for name, model in models.items():
            if name not in before or before[name].versions is not model.versions:
                model.versions.start()

    def _open(self, config: ModelConfig) -> _Model:
        path, closing = local_path(config.base_path), ExitStack()
        if path is None:
            cache = closing.enter_context(Cache(config))
            versions = Versions(config, cache.path, self._poll_s, self._loading, self.publish, cache)
        else:
            if path.exists() and not path.is_dir():
                raise FairwayError(
                    f"the base path {path} of model '{config.name}' is a file,"
                    " but must be a directory of versions",
                    hint="Give the model's export directory, not a file.",
                )
            versions = Versions(config, path, self._poll_s, self._loading, self.publish)
        return _Model(config, versions, closing)

    def _check_first(self, configs: tuple[ModelConfig, ...]) -> None:
        try:
            for config in configs:
                self._check_labels(config, None, _named(config))
        except RequestError as err:
            hint = (
                "Have a specific policy name the version,"
                " or start with --allow_version_labels_for_unavailable_models."
            )
            raise UsageError(err.message, hint=hint) from err

    def _check_labels(
        self, config: ModelConfig, model: _Model | None, expected: Collection[int] = ()
    ) -> None:
        """Refuse labels of versions that do not serve.

        Args:
            config: With the labels.
            model: What serves under its name.
            expected: Versions that are to serve, and whose labels are for that not refused.
        """
        for number in self._unavailable(config, model):
            if number not in expected:
                statuses = model.versions.view.table.statuses if model else ()
                error = next((each.error for each in statuses if each.number == number), "")
                raise RequestError(
                    Code.FAILED_PRECONDITION,
                    f"Request to assign label to version {number} of model {config.name}, "
                    "which is not currently available for inference"
                    f": {error or 'first have its policy serve it, then give it the label'}",
                )

    def _unavailable(self, config: ModelConfig, model: _Model | None) -> list[int]:
        """Return the versions that have a label in a configuration, but must serve before they may.

        A label that is moved must name a version that serves, whatever the flag says. Source of the rule,
        the code and the text: `UpdateModelVersionLabelMap` in
        tensorflow_serving/model_servers/server_core.cc.
        """
        serving = model.versions.view.table.serving if model else ()
        before = model.config.labels if model else {}
        return [
            number
            for label, number in config.labels.items()
            if number not in serving and (before.get(label, number) != number or not self._allow_labels)
        ]

    def publish(self) -> None:
        """Tell the backend what has changed since the last time."""
        with self._publishing:
            views = {name: model.versions.view for name, model in self._models.items()}
            if views == self._published:
                return
            tables: Mapping[str, ModelTable] = {name: view.table for name, view in views.items()}
            self._backend.publish(tables, {name: view.keys for name, view in views.items()})
            self._published = views


def _did_not_become_available(model: _Model) -> RequestError:
    text = (
        f"1 model(s) did not become available: {{{model.config.name}: {model.versions.view.table.problem}}}"
    )
    return RequestError(Code.UNKNOWN, text)


def _is_in_place(config: ModelConfig, model: _Model | None) -> bool:
    """Whether a model is served from the directory that its new configuration names."""
    if model is None:
        return False
    path = local_path(config.base_path)
    return model.versions.directory == (kept_in(config) if path is None else path)


def _named(config: ModelConfig) -> Collection[int]:
    """Return the versions with labels that a policy wants for certain, whatever else will be there."""
    if isinstance(config.policy, Specific):
        return config.policy.numbers
    return config.labels.values() if isinstance(config.policy, All) else ()


def _configured(model: _Model, config: ModelConfig) -> _Model:
    """Return a model with another policy and other labels, which it takes on."""
    if config == model.config:
        return model
    is_cached = local_path(config.base_path) is None
    cache = Cache(config) if is_cached and config.policy != model.config.policy else None
    model.versions.configure(config, cache)
    return _Model(config, model.versions, model.closing)
