"""A backend without models, for tests of what decides."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from fairway.serve.versions.backend import Keys
from fairway.serve.versions.cache import Cache
from fairway.serve.versions.table import ModelTable
from fairway.serve.versions.versions import Loading, Versions
from fairway.storage.exports import Version
from fairway.storage.manifest import SAVED_MODEL
from fairway.tfs.configs import All, Latest, ModelConfig, Specific
from fairway.tfs.versions import State


@dataclass
class FakeBackend:
    """Loads any version but the broken ones, and remembers what it was asked for."""

    broken: dict[int, Exception] = field(default_factory=dict)
    asked: list[int] = field(default_factory=list)
    loaded: dict[int, tuple[str, Version]] = field(default_factory=dict)
    in_flight: set[int] = field(default_factory=set)
    """Versions that requests hold."""
    gone: dict[int, str] = field(default_factory=dict)
    """Versions that no process has any more, and why."""
    tables: Mapping[str, ModelTable] = field(default_factory=dict)
    keys: Keys = field(default_factory=dict)
    published: list[Mapping[str, ModelTable]] = field(default_factory=list)
    now: float = 0.0
    while_loading: Callable[[], None] = lambda: None
    _dropped: dict[int, int] = field(default_factory=dict)

    def load(self, key: int, model: str, version: Version) -> str:
        self.asked.append(version.number)
        self.while_loading()
        if version.number in self.broken:
            raise self.broken[version.number]
        self.loaded[key] = (model, version)
        return "LiteRT"

    def publish(self, tables: Mapping[str, ModelTable], keys: Keys) -> None:
        for numbers in keys.values():
            assert self.loaded.keys() >= set(numbers.values()), "a table names what is not loaded"
        self.tables, self.keys = tables, keys
        self.published.append(tables)

    def drop(self, key: int) -> None:
        assert key not in {each for numbers in self.keys.values() for each in numbers.values()}
        self._dropped[key] = self.loaded.pop(key)[1].number

    def held(self, keys: Collection[int]) -> set[int]:
        return {key for key in keys if self._dropped[key] in self.in_flight}

    def lost(self, keys: Collection[int]) -> dict[int, str]:
        return {key: self.gone[number] for key in keys if (number := self.loaded[key][1].number) in self.gone}

    def clock(self) -> float:
        return self.now

    def loading(self, record: Callable[[str, int, float | None], None] = lambda *_: None) -> Loading:
        return Loading(self, itertools.count(1), threading.Lock(), record, self.clock)


class OneModel:
    """A model named m whose view is published as it changes."""

    def __init__(
        self,
        backend: FakeBackend,
        directory: Path,
        policy: Latest | All | Specific = Latest(),  # noqa: B008 - frozen
        *,
        cache: Cache | None = None,
        poll_s: float = 1,
    ) -> None:
        self._backend = backend
        config = ModelConfig("m", str(directory), policy, {})
        self.versions = Versions(config, directory, poll_s, backend.loading(), self._publish, cache)

    @property
    def table(self) -> ModelTable:
        return self.versions.view.table

    @property
    def states(self) -> dict[int, State]:
        return {status.number: status.state for status in self.table.statuses}

    def poll(self) -> tuple[int, ...]:
        self.versions.poll()
        return self.table.serving

    def _publish(self) -> None:
        view = self.versions.view
        self._backend.publish({"m": view.table}, {"m": view.keys})


def publish(export_dir: Path, number: int, content: str = "model") -> Path:
    """Write a version that nothing but a fake can load."""
    path = export_dir / str(number)
    path.mkdir(parents=True, exist_ok=True)
    (path / SAVED_MODEL).write_text(content)
    return path
