"""Which models are served: those of the configuration, which may change while others answer."""

from __future__ import annotations

import itertools
import logging
import threading
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass

from fairway.errors import FairwayError, UsageError
from fairway.serve.versions.backend import Backend
from fairway.serve.versions.cache import Cache, kept_in
from fairway.serve.versions.table import ModelTable
from fairway.serve.versions.versions import Loading, Versions, View
from fairway.storage.outage import explain
from fairway.storage.stores.uri import local_path
from fairway.tfs.configs import ModelConfig
from fairway.tfs.status import Code, RequestError, invalid

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
        self._check_first(configs)
        with ExitStack() as undo:
            for config in configs:
                model = self._open(config)
                undo.push(model.closing)
                self._models[config.name] = model
            undo.pop_all()

    def start(self) -> None:
        """Publish what is known, which is nothing but names, and start to look for versions."""
        self._publish()
        for model in self._models.values():
            model.versions.start()

    def stop(self) -> None:
        """Stop looking; what serves goes on serving. Returns at once."""
        for model in (*self._waiting, *self._models.values()):
            model.versions.stop()

    def close(self) -> None:
        """Wait until nothing is looked for any more, and give back the directories of this machine."""
        self.stop()
        for model in self._models.values():
            model.versions.join()
            model.closing.close()

    def reload(self, configs: tuple[ModelConfig, ...]) -> None:
        """Serve these models, and no other; returns once those that are new answer.

        A model whose base path has changed is loaded beside what serves. Models whose configuration is the
        same are not touched. If anything cannot be done, nothing is.

        Raises:
            RequestError: why not, in TensorFlow Serving's words where it has some.
        """
        with self._reloading:
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
        for config in configs:
            if config.name in stays:
                self._check_labels(config, before[config.name])
        with ExitStack() as undo:
            models = {}
            for config in configs:
                if config.name not in stays:
                    models[config.name] = model = self._open(config)
                    undo.push(model.closing)
                    undo.callback(model.versions.discard)
            self._wait_until_serving(*models.values())
            for model in models.values():
                self._check_labels(model.config, model)
            for config in configs:
                if config.name in stays:
                    models[config.name] = _configured(before[config.name], config)
            undo.pop_all()
        self._replace({config.name: models[config.name] for config in configs})

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
                if problem := model.versions.view.table.problem:
                    text = f"1 model(s) did not become available: {{{model.config.name}: {problem}}}"
                    raise RequestError(Code.UNKNOWN, text)
        finally:
            self._waiting = ()

    def _replace(self, models: dict[str, _Model]) -> None:
        before, self._models = self._models, models
        self._publish()
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
            versions = Versions(config, cache.path, self._poll_s, self._loading, self._publish, cache)
        else:
            if path.exists() and not path.is_dir():
                raise FairwayError(
                    f"model_base_path {path} is a file, but must be a directory of versions",
                    hint="Give the export directory: --model_base_path mnist/export",
                )
            versions = Versions(config, path, self._poll_s, self._loading, self._publish)
        return _Model(config, versions, closing)

    def _check_first(self, configs: tuple[ModelConfig, ...]) -> None:
        try:
            for config in configs:
                self._check_labels(config, None)
        except RequestError as err:
            hint = "Start with --allow_version_labels_for_unavailable_models."
            raise UsageError(err.message, hint=hint) from err

    def _check_labels(self, config: ModelConfig, model: _Model | None) -> None:
        """Refuse labels of versions that do not serve.

        A label that is moved must name a version that serves, whatever the flag says. Source of the rule,
        the code and the text: `UpdateModelVersionLabelMap` in
        tensorflow_serving/model_servers/server_core.cc.
        """
        serving = model.versions.view.table.serving if model else ()
        for label, number in config.labels.items():
            is_moved = model is not None and model.config.labels.get(label, number) != number
            if number not in serving and (is_moved or not self._allow_labels):
                raise RequestError(
                    Code.FAILED_PRECONDITION,
                    f"Request to assign label to version {number} of model {config.name}, "
                    "which is not currently available for inference",
                )

    def _publish(self) -> None:
        """Tell the backend what has changed since the last time."""
        with self._publishing:
            views = {name: model.versions.view for name, model in self._models.items()}
            if views == self._published:
                return
            tables: Mapping[str, ModelTable] = {name: view.table for name, view in views.items()}
            self._backend.publish(tables, {name: view.keys for name, view in views.items()})
            self._published = views


def _is_in_place(config: ModelConfig, model: _Model | None) -> bool:
    """Whether a model is served from the directory that its new configuration names."""
    if model is None:
        return False
    path = local_path(config.base_path)
    return model.versions.directory == (kept_in(config) if path is None else path)


def _configured(model: _Model, config: ModelConfig) -> _Model:
    """Return a model with another policy and other labels, which it takes on."""
    if config == model.config:
        return model
    is_cached = local_path(config.base_path) is None
    cache = Cache(config) if is_cached and config.policy != model.config.policy else None
    model.versions.configure(config, cache)
    return _Model(config, model.versions, model.closing)
