"""The processes that answer, as the deciding side sees them; here: this one."""

from __future__ import annotations

import weakref
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Protocol

from fairway.config import ServeSettings
from fairway.serve.versions.models import Models
from fairway.serve.versions.table import ModelTable
from fairway.storage.exports import Version

if TYPE_CHECKING:
    from fairway.serve.compute.servable import Servable

Keys = Mapping[str, Mapping[int, int]]
"""By model and version: the key under which it was loaded."""


class Backend(Protocol):
    """Loads versions and answers from them, in one process or several.

    A version that is loaded has a key, as a model may get another base path with the same numbers.
    """

    def load(self, key: int, model: str, version: Version) -> str:
        """Load a version in every process, beside those that serve.

        Returns:
            What computes it.

        Raises:
            FairwayError: a process could not; no process has it then.
        """

    def publish(self, tables: Mapping[str, ModelTable], keys: Keys) -> None:
        """Have every process answer as these tables say; it does when this returns."""

    def drop(self, key: int) -> None:
        """Free a version that is in no table any more, once the requests that hold it are done."""

    def held(self, keys: Collection[int]) -> set[int]:
        """Return which of the dropped versions are still held by requests."""

    def lost(self, keys: Collection[int]) -> dict[int, str]:
        """Return which of the loaded versions no process has any more, and why.

        That is so where processes have died and the version cannot be loaded again. It is to be dropped.
        """


class InProcess:
    """A `Backend` for this process.

    Args:
        models: What the requests here are answered from.
        settings: How versions are warmed up, and how many threads TensorFlow may use.
    """

    def __init__(self, models: Models, settings: ServeSettings) -> None:
        self._models = models
        self._settings = settings
        self._loaded: dict[int, Servable] = {}
        self._dropped: dict[int, weakref.ref[Servable]] = {}

    def load(self, key: int, model: str, version: Version) -> str:
        """Load a version; see `Backend`."""
        # In the thread that loads, beside the rest of the start: it takes 0.1 s.
        from fairway.serve.compute.savedmodel import use_threads
        from fairway.serve.compute.servable import load_servable

        settings = self._settings
        use_threads(settings.tensorflow_intra_op_parallelism, settings.tensorflow_inter_op_parallelism)
        servable = load_servable(version, model, warmup=settings.enable_model_warmup)
        self._loaded[key] = servable
        return "LiteRT" if servable.lite else "TensorFlow"

    def publish(self, tables: Mapping[str, ModelTable], keys: Keys) -> None:
        """Answer as these tables say; see `Backend`."""
        servables = {
            model: {number: self._loaded[key] for number, key in numbers.items()}
            for model, numbers in keys.items()
        }
        self._models.replace(tables, servables)

    def drop(self, key: int) -> None:
        """Let go of a version; see `Backend`."""
        if servable := self._loaded.pop(key, None):
            self._dropped[key] = weakref.ref(servable)

    def held(self, keys: Collection[int]) -> set[int]:
        """Return which of the dropped versions requests hold; see `Backend`."""
        held = {key: ref for key, ref in self._dropped.items() if ref() is not None}
        if len(held) < len(self._dropped):
            from fairway.serve.compute.servable import release_memory

            release_memory()
        self._dropped = held
        return held.keys() & set(keys)

    def lost(self, keys: Collection[int]) -> dict[int, str]:
        """Return nothing: where this process is, its versions are; see `Backend`."""
        return {}
