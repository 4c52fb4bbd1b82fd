"""The checkpoints of a model directory in an object store, and the way back to a disk to resume from one.

<uri>/checkpoints/<writer>/ckpt-00000400.*     TensorFlow's files, under a name no other writer has
<uri>/checkpoints/ckpt-00000400.json           their sizes and checksums, created once they are there
"""

from __future__ import annotations

import json
import logging
import re
import shutil
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from fairway.errors import StorageError
from fairway.storage.files import ABANDONED_S, sha256, storage_errors
from fairway.storage.manifest import check_files
from fairway.storage.model_dir import CHECKPOINTS, CONFIG, METRICS
from fairway.storage.stores.store import NotThereError, Store
from fairway.storage.transfer import download_files, in_parallel

STAGING = ".staging"
"""Sub-directory of a model directory for a checkpoint that is on its way."""

_INDEX = re.compile(r"(ckpt-(\d+))\.index")
_MANIFEST = re.compile(rf"{CHECKPOINTS}/ckpt-(\d+)\.json")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RemoteCheckpoint:
    """A complete checkpoint in a store.

    Attributes:
        key: Its manifest's.
        files: Name on a disk -> `key`, `size` in bytes and `sha256`.
    """

    step: int
    key: str
    files: dict[str, dict[str, Any]]


def list_checkpoints(store: Store) -> list[RemoteCheckpoint]:
    """Return the published checkpoints of a model directory, oldest first.

    Raises:
        StorageError: the store does not answer or refuses.
    """
    read = in_parallel([partial(_read_checkpoint, store, key) for key in list_manifests(store)])
    return sorted((found for found in read if found), key=lambda checkpoint: checkpoint.step)


def fetch_model_dir(store: Store, directory: Path) -> int:
    """Bring a model directory on this machine to the state from which its training resumes.

    What this machine has of the same run stays if it is further than the store: it is what an interrupted
    training could not send.

    Args:
        store: The model directory in the store.
        directory: The one on this machine; it may hold anything of ours, or nothing.

    Returns:
        The step of its newest checkpoint; 0 if there is none.

    Raises:
        StorageError: the store does not answer; or it has checkpoints, and none can be read.
    """
    config = read_if_there(store, CONFIG)
    checkpoints = list_checkpoints(store)
    newest = max((checkpoint.step for checkpoint in checkpoints), default=0)
    here = max(local_checkpoints(directory), default=0)
    if config and here > newest and is_run_of(directory, config):
        return here
    with storage_errors("clear", directory):
        shutil.rmtree(directory, ignore_errors=True)
        (directory / CHECKPOINTS).mkdir(parents=True)
        for name, content in ((CONFIG, config), (METRICS, read_if_there(store, METRICS) if config else None)):
            if content is not None:
                (directory / name).write_bytes(content)
    _delete_abandoned(store, checkpoints)
    damaged: list[str] = []
    for checkpoint in reversed(checkpoints):
        if _fetch_checkpoint(store, checkpoint, directory):
            store.delete(damaged)  # their steps will be written again
            return checkpoint.step
        damaged.append(checkpoint.key)
    if checkpoints:
        raise StorageError(
            f"none of the {len(checkpoints)} checkpoints in {store.uri} can be read",
            hint="Restore one from a backup, or choose another --model-dir to start afresh.",
        )
    return 0


def list_manifests(store: Store) -> list[str]:
    """Return the keys of the manifests of all published checkpoints."""
    keys = [entry.key for entry in store.list(f"{CHECKPOINTS}/")]
    return [key for key in keys if _MANIFEST.fullmatch(key)]


def _fetch_checkpoint(store: Store, checkpoint: RemoteCheckpoint, directory: Path) -> bool:
    """Fetch a checkpoint; return `False` if it is damaged."""
    staging = directory / STAGING
    make_empty(staging)
    files = checkpoint.files
    try:
        download_files(store, {name: entry["key"] for name, entry in files.items()}, staging)
        wrong = [name for name, entry in files.items() if sha256(staging / name) != entry["sha256"]]
        problem = f"wrong checksum of {', '.join(wrong)}" if wrong else ""
    except NotThereError as err:
        problem = err.message
    if problem:
        log.warning("checkpoint %s/%s is damaged and passed over (%s)", store.uri, checkpoint.key, problem)
        return False
    for name in sorted(files):  # the index comes after the data
        (staging / name).rename(directory / CHECKPOINTS / name)
    staging.rmdir()
    return True


def make_empty(directory: Path) -> None:
    """Make a directory anew."""
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir()


def _delete_abandoned(store: Store, checkpoints: list[RemoteCheckpoint]) -> None:
    """Delete files of checkpoints that were never published, of writers that ended a day ago or earlier."""
    used = {entry["key"] for checkpoint in checkpoints for entry in checkpoint.files.values()}
    store.delete(
        entry.key
        for entry in store.list(f"{CHECKPOINTS}/")
        if entry.key not in used
        and not _MANIFEST.fullmatch(entry.key)
        and time.time() - entry.modified > ABANDONED_S
    )


def local_checkpoints(directory: Path) -> dict[int, list[str]]:
    """Return the files of each whole checkpoint on a disk, by step: TensorFlow writes the index last."""
    try:
        names = [each.name for each in (directory / CHECKPOINTS).iterdir()]
    except FileNotFoundError:
        return {}
    found = [match for match in map(_INDEX.fullmatch, names) if match]
    return {int(match[2]): [n for n in names if n.startswith(f"{match[1]}.")] for match in found}


def _read_checkpoint(store: Store, key: str) -> RemoteCheckpoint | None:
    try:
        content = json.loads(store.read(key))
        files = content["files"]
        check_files(files)
        check_files({entry["key"]: entry for entry in files.values()})
        return RemoteCheckpoint(int(content["step"]), key, files)
    except NotThereError:  # removed since it was listed
        return None
    except (ValueError, KeyError, TypeError, AttributeError) as err:
        log.warning("checkpoint %s/%s is damaged and passed over (%s)", store.uri, key, err)
        return None


def read_if_there(store: Store, key: str) -> bytes | None:
    """Return the content of a file in a store; `None` if it is not there."""
    try:
        return store.read(key)
    except NotThereError:
        return None


def is_run_of(directory: Path, config: bytes) -> bool:
    """Tell whether a directory on this machine holds the run of a `config.json`."""
    path = directory / CONFIG
    return path.exists() and _run(path.read_bytes()) == _run(config)


def _run(config: bytes) -> Any:
    try:
        return json.loads(config)["run"]
    except (ValueError, KeyError, TypeError):
        return None
