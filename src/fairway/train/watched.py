"""A training as it is seen from outside: by its model directory, to which only event files are added."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, NamedTuple

from fairway.config import TrainSettings, cache_dir
from fairway.errors import StorageError
from fairway.storage.checkpoints import fetch_checkpoint, list_checkpoints, make_empty
from fairway.storage.files import scratch_directory, storage_errors
from fairway.storage.mirror import INTERVAL_S, PATIENCE_S
from fairway.storage.model_dir import CHECKPOINTS, CONFIG, EVENTS, METRICS, checkpoint_name
from fairway.storage.stores.store import Entry, Store, read_if_there
from fairway.storage.stores.uri import local_path, open_store
from fairway.train.agreement import DIRECTORIES, LISTING_S, OWN

POLL_S = 1.0
"""Seconds between two looks at a disk; a store gets something new every `INTERVAL_S`."""
EVENT_DIR = f"{EVENTS}/evaluator"

_CHECKPOINT = re.compile(rf"{CHECKPOINTS}/ckpt-(\d+)\.(?:index|json)")


class Checkpoint(NamedTuple):
    """One that is complete.

    Attributes:
        step: Steps trained.
        tag: Changes when it is written anew, as after a damage.
    """

    step: int
    tag: str


@dataclass(frozen=True)
class Training:
    """What `config.json` says.

    Attributes:
        run: The run's id.
        total: Steps to train for.
        settings: Resolved; directories and waits are this task's.
        dataset: The record of the lead's data.
    """

    run: str
    total: int
    settings: TrainSettings
    dataset: dict[str, Any]


@dataclass(frozen=True)
class Sight:
    """What is to be seen of a training at one moment; two that differ are a sign of life.

    Attributes:
        config: Content of `config.json`; `None` before there is one.
        metrics: Size and time of `metrics.jsonl`, or what changes like them.
        checkpoints: In any order.
    """

    config: bytes | None = None
    metrics: Entry | None = None
    checkpoints: frozenset[Checkpoint] = frozenset()


def find_checkpoints(entries: Iterable[Entry]) -> frozenset[Checkpoint]:
    """Return the checkpoints among the files of a model directory: what comes last of each tells.

    That is the index on a disk, and the manifest in an object store.
    """
    found = ((_CHECKPOINT.fullmatch(entry.key), entry.tag) for entry in entries)
    return frozenset(Checkpoint(int(match[1]), tag) for match, tag in found if match)


def read_training(config: bytes, settings: TrainSettings) -> Training:
    """Return what is trained.

    Args:
        config: Content of `config.json`, perhaps of a training that the lead is about to go on with: so
            more `train_steps` of this task win.
        settings: This task's.

    Raises:
        StorageError: it is damaged.
        UsageError: a setting is out of its range.
    """
    own = (*OWN, *DIRECTORIES, "train_steps")
    try:
        content = json.loads(config)
        common = {
            field.name: content["settings"][field.name] for field in fields(settings) if field.name not in own
        }
        total = max(int(content["train_steps"]), settings.train_steps or 0)
        return Training(str(content["run"]), total, replace(settings, **common), dict(content["dataset"]))
    except (ValueError, KeyError, TypeError) as err:
        raise StorageError(f"{CONFIG} in {settings.model_dir} is damaged ({err!r})") from err


class WatchedDir:
    """A model directory, as one has it who only reads it and adds event files.

    Attributes:
        uri: As the user gave it.
        events: Directory of this machine for the event files.
        poll_s: Seconds between two looks.
        settle_s: Seconds after an export within which a last checkpoint may yet be seen.

    Args:
        store: The directory as a store.
        path: Where it is on this machine, or where copies are.
        is_remote: These are copies.
    """

    def __init__(self, store: Store, path: Path, is_remote: bool) -> None:
        self._store, self._path, self._is_remote = store, path, is_remote
        self._sent: dict[str, int] = {}
        self.uri = store.uri
        self.events = path / EVENT_DIR
        self.poll_s = INTERVAL_S if is_remote else POLL_S
        # The lead sends its version before the last checkpoint; a shared disk may show a file late.
        self.settle_s = PATIENCE_S if is_remote else LISTING_S

    def look(self) -> Sight:
        """Return what is to be seen.

        Raises:
            StorageError: it cannot be read.
        """
        config, metrics = read_if_there(self._store, CONFIG), self._store.stat(METRICS)
        return Sight(config, metrics, find_checkpoints(self._store.list(f"{CHECKPOINTS}/")))

    def fetch(self, step: int) -> Path | None:
        """Return the path of a checkpoint, as TensorFlow takes it; `None` if it is damaged or gone.

        Raises:
            StorageError: the store does not answer, or the copy cannot be written.
        """
        path = self._path / CHECKPOINTS / checkpoint_name(step)
        if not self._is_remote:
            return path
        found = next((each for each in list_checkpoints(self._store) if each.step == step), None)
        with storage_errors("write to", self._path):
            make_empty(path.parent)
            return path if found and fetch_checkpoint(self._store, found, self._path) else None

    def send_events(self) -> None:
        """Bring event files that have grown to the store.

        Raises:
            StorageError: it does not take them.
        """
        for path in self.events.glob("*") if self._is_remote else ():
            size = path.stat().st_size
            if size != self._sent.get(path.name):
                self._store.upload(path, f"{EVENT_DIR}/{path.name}")
                self._sent[path.name] = size


@contextmanager
def open_watched(uri: str) -> Iterator[WatchedDir]:
    """Give a model directory, a path or a URI; nothing is asked of it yet.

    Raises:
        UsageError: the URI is not one.
    """
    store, path = open_store(uri), local_path(uri)
    if path is not None:
        yield WatchedDir(store, path, is_remote=False)
        return
    with scratch_directory(cache_dir() / "evaluations", prefix="model-") as scratch:
        yield WatchedDir(store, scratch, is_remote=True)
