"""A model directory in an object store, mirrored while a training writes it.

    <uri>/config.json, metrics.jsonl, events/…     as on a disk, written anew every few seconds
    <uri>/checkpoints/…                            see `checkpoints`

The training itself works on a disk of its machine and never waits for the store.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

from fairway.errors import StorageError
from fairway.storage.checkpoints import (
    STAGING,
    RemoteCheckpoint,
    is_run_of,
    list_checkpoints,
    list_manifests,
    local_checkpoints,
    make_empty,
)
from fairway.storage.files import storage_errors
from fairway.storage.manifest import describe_files
from fairway.storage.model_dir import CHECKPOINTS, CONFIG, EVENTS, KEPT_CHECKPOINTS, METRICS, checkpoint_name
from fairway.storage.outage import Outage
from fairway.storage.stores.store import ExistsError, Store, read_if_there
from fairway.storage.stores.uri import open_store
from fairway.storage.transfer import in_parallel, upload_files

INTERVAL_S = 5.0
"""Seconds between two looks for something new: what a watcher in the cloud lags behind."""
PATIENCE_S = 60.0
"""How long the final state is tried to be written to a store that is away."""

log = logging.getLogger(__name__)


class ConflictError(StorageError):
    """Another training writes to the same model directory."""


class Mirror:
    """Sends what is new in a model directory to its store, in a thread.

    Args:
        directory: The model directory on this machine.
        store: Where it is mirrored.
        interval_s: Seconds between two looks.
    """

    def __init__(self, directory: Path, store: Store, interval_s: float = INTERVAL_S) -> None:
        self._directory = directory
        self._store = store
        self._interval_s = interval_s
        self._writer = uuid.uuid4().hex[:8]
        self._sent: dict[str, tuple[int, int]] = {}
        self._known = set(list_manifests(store))
        self._checkpoints = list_checkpoints(store)
        here = max(local_checkpoints(directory), default=-1)
        # What is further was passed over as damaged: its steps are done again, and written again.
        self._published = max((each.step for each in self._checkpoints if each.step <= here), default=-1)
        self._has_published = False
        self._config_there: bytes | None = None
        self._events_there: set[str] | None = None  # None: nothing was sent yet
        self._error: StorageError | None = None
        self._outage = Outage(f"{store.uri} takes results again")
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="mirror", daemon=True)

    @property
    def uri(self) -> str:
        """Where it is mirrored."""
        return self._store.uri

    @property
    def has_started(self) -> bool:
        """Whether `start` has succeeded."""
        return self._thread.ident is not None

    def start(self) -> None:
        """Write what there is once, so that a store which refuses is known at once; then go on in a thread.

        Raises:
            StorageError: the store does not take it.
        """
        self.look()
        self._thread.start()

    def check(self) -> None:
        """Raise a `ConflictError` if another training writes to this store; other trouble may pass."""
        if isinstance(self._error, ConflictError):
            raise self._error

    def close(self, patience_s: float = PATIENCE_S) -> None:
        """Write the final state and end the thread.

        Args:
            patience_s: How long to try while the store does not take it; 0 asks a store that is known
                to be away no more.

        Raises:
            StorageError: it could not be written; the directory on this machine has it.
        """
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
        if self._error and not patience_s:
            raise self._error
        deadline = time.monotonic() + patience_s
        while not self._try_look():
            self.check()
            if time.monotonic() > deadline and self._error:
                raise self._error
            time.sleep(min(self._interval_s, 1.0))

    def look(self) -> bool:
        """Send what has changed since the last look; return whether anything had.

        Raises:
            ConflictError: another training has written a checkpoint there, or began there with another run.
            StorageError: the store does not take it.
        """
        # The checkpoint is taken first and published last: the records up to its step are there before it.
        step = self._stage_checkpoint()
        changed = [name for name in self._records() if self._sent.get(name) != self._state(name)]
        if not changed and step is None:
            return False
        try:
            self._refuse_others()
            in_parallel([partial(self._send, name) for name in changed])
            if step is not None:
                self._publish(step)
        except ConflictError:
            self._take_back()
            raise
        return True

    def _watch(self) -> None:
        while not self._stop.wait(self._interval_s):
            self._try_look()

    def _try_look(self) -> bool:
        with self._outage.noted("the training goes on, and its results wait on this machine"):
            try:
                self.look()
            except ConflictError as err:
                self._error = err  # `check` raises it
                return False
            except StorageError as err:
                self._error = err
                raise
            except Exception as err:  # the thread must live, and the end must know
                log.debug("mirroring %s", self._directory, exc_info=True)
                self._error = StorageError(f"cannot mirror {self._directory}: {type(err).__name__}: {err}")
                raise self._error from err
            self._error = None
        return self._error is None

    def _records(self) -> Iterator[str]:
        for name in (CONFIG, METRICS):
            if (self._directory / name).exists():
                yield name
        for parent, _, names in os.walk(self._directory / EVENTS):
            for name in names:
                yield (Path(parent) / name).relative_to(self._directory).as_posix()

    def _state(self, name: str) -> tuple[int, int]:
        found = (self._directory / name).stat()
        return found.st_size, found.st_mtime_ns

    def _send(self, name: str) -> None:
        state = self._state(name)  # of before: what is written meanwhile is sent the next time
        if name == METRICS:
            content = (self._directory / name).read_bytes()
            self._store.write(name, content[: content.rfind(b"\n") + 1])  # whole lines
        else:
            self._store.upload(self._directory / name, name)
        self._sent[name] = state

    def _stage_checkpoint(self) -> int | None:
        """Give the newest checkpoint, if it is not published, second names; return its step.

        They keep its files when the training removes old checkpoints meanwhile.
        """
        found = local_checkpoints(self._directory)
        if not found or max(found) <= self._published:
            return None
        step, staging = max(found), self._directory / STAGING
        with storage_errors("write to", staging):
            make_empty(staging)
            try:
                for name in found[step]:
                    os.link(self._directory / CHECKPOINTS / name, staging / name)
            except FileNotFoundError:
                return None  # removed already: there is a newer one, which comes next
        return step

    def _refuse_others(self) -> None:
        """Raise a `ConflictError` if another training is at work, before anything of it is written over."""
        if self._events_there is None:
            config = read_if_there(self._store, CONFIG)
            if config is not None and not is_run_of(self._directory, config):
                raise self._conflict(CONFIG)
            self._config_there = config
            self._events_there = {entry.key for entry in self._store.list(f"{EVENTS}/")}
        for key in set(list_manifests(self._store)) - self._known:
            if not self._is_ours(key):
                raise self._conflict(key)
            self._known.add(key)

    def _take_back(self) -> None:
        """Undo what was sent, unless a checkpoint was: without one the directory was another training's.

        That one writes its metrics anew with its next line, but never its `config.json`.
        """
        if self._has_published or self._events_there is None:
            return
        with suppress(StorageError):  # the conflict is what is to be told
            self._store.delete(
                name for name in self._records() if name not in {CONFIG, METRICS, *self._events_there}
            )
            there = self._config_there
            if there and read_if_there(self._store, CONFIG) == (self._directory / CONFIG).read_bytes():
                self._store.write(CONFIG, there)

    def _publish(self, step: int) -> None:
        staging = self._directory / STAGING
        prefix = f"{CHECKPOINTS}/{self._writer}/"
        files = {name: entry | {"key": prefix + name} for name, entry in describe_files(staging).items()}
        upload_files(staging, files, self._store, prefix)
        checkpoint = RemoteCheckpoint(step, f"{CHECKPOINTS}/{checkpoint_name(step)}.json", files)
        content = json.dumps({"step": step, "files": files}, indent=2).encode() + b"\n"
        try:
            if checkpoint.key in self._known:  # of a damaged one, or ours whose answer was lost
                self._store.write(checkpoint.key, content)
            else:
                self._store.create(checkpoint.key, content)
        except ExistsError as err:
            raise self._conflict(checkpoint.key) from err
        self._known.add(checkpoint.key)
        shutil.rmtree(staging, ignore_errors=True)
        self._published, self._has_published = step, True
        others = (each for each in self._checkpoints if each.step != step)
        self._checkpoints = sorted([*others, checkpoint], key=lambda each: each.step)
        while len(self._checkpoints) > KEPT_CHECKPOINTS:
            self._delete(self._checkpoints[0])
            self._checkpoints.pop(0)

    def _is_ours(self, key: str) -> bool:
        """Tell whether a manifest is this mirror's: its answer may have been lost, though it was written."""
        content = read_if_there(self._store, key)
        return content is not None and f'"{CHECKPOINTS}/{self._writer}/'.encode() in content

    def _conflict(self, key: str) -> ConflictError:
        return ConflictError(
            f"another training has written {self._store.uri}/{key}",
            hint="Let one of them end, and give the other another --model-dir.",
        )

    def _delete(self, checkpoint: RemoteCheckpoint) -> None:
        self._store.delete([checkpoint.key])
        self._store.delete(entry["key"] for entry in checkpoint.files.values())


def send_model_dir(directory: Path, uri: str) -> None:
    """Send a model directory whose training could not do so itself.

    Raises:
        ConflictError: another training is further, or has written the same step.
        StorageError: the store does not take it.
    """
    store = open_store(uri)
    config = read_if_there(store, CONFIG)
    if config and not is_run_of(directory, config):
        raise ConflictError(f"{uri} holds another training than {directory}", hint="Choose another URI.")
    here = max(local_checkpoints(directory), default=0)
    there = max((checkpoint.step for checkpoint in list_checkpoints(store)), default=0)
    if there > here:
        raise ConflictError(
            f"{uri} is at step {there} already, {directory} at step {here}",
            hint="Nothing has to be sent: the same fairway train goes on from there.",
        )
    Mirror(directory, store).look()
