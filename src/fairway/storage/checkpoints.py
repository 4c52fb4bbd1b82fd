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
from fairway.storage.files import ABANDONED_S, scratch_directory, storage_errors
from fairway.storage.manifest import check_files, wrong_checksums
from fairway.storage.model_dir import CHECKPOINTS, CONFIG, METRICS
from fairway.storage.stores.store import NotThereError, Store, read_if_there
from fairway.storage.transfer import download_files, in_parallel

STAGING = ".staging"
"""Sub-directory of a model directory for a checkpoint that is on its way."""

_FETCHED = ".fetched-"
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

    What this machine has of the same run stays if it is further than what can be read in the store, and be
    it by records after the last checkpoint: it is what an interrupted training could not send.

    Args:
        store: The model directory in the store.
        directory: The one on this machine; it may hold anything of ours, or nothing.

    Returns:
        The step of its newest checkpoint; 0 if there is none.

    Raises:
        StorageError: the store does not answer; or it has checkpoints, and none can be read.
    """
    config = read_if_there(store, CONFIG)
    metrics = read_if_there(store, METRICS) if config else None
    checkpoints = list_checkpoints(store)
    is_ours = config is not None and is_run_of(directory, config)
    here = max(local_checkpoints(directory), default=0) if is_ours else 0
    _delete_abandoned(store, checkpoints)
    newest = checkpoints[-1] if checkpoints else None
    if newest and newest.step == here and _has_all_of(directory, newest, metrics or b""):
        return here
    # A damaged one stays until its step is written again: perhaps only what arrived here is damaged.
    newest_first = (each for each in reversed(checkpoints) if each.step >= here)
    with (
        scratch_directory(directory.parent, prefix=_FETCHED) as fetched,
        storage_errors("write to", directory),
    ):
        (fetched / CHECKPOINTS).mkdir()
        step = next((each.step for each in newest_first if fetch_checkpoint(store, each, fetched)), 0)
        if here and not step:
            return here
        if not step and (there := list_manifests(store)):
            raise StorageError(
                f"none of the {len(there)} checkpoints in {store.uri} can be read",
                hint="Restore one from a backup, or choose another --model-dir to start afresh.",
            )
        for name, content in ((CONFIG, config), (METRICS, metrics)):
            if content is not None:
                (fetched / name).write_bytes(content)
        shutil.rmtree(directory, ignore_errors=True)
        fetched.rename(directory)
    return step


def _has_all_of(directory: Path, checkpoint: RemoteCheckpoint, metrics: bytes) -> bool:
    """Tell whether a directory on this machine has a checkpoint whole, and the same metrics or more."""
    with storage_errors("read", directory):
        try:
            is_whole = not wrong_checksums(directory / CHECKPOINTS, checkpoint.files)
            return is_whole and (directory / METRICS).read_bytes().startswith(metrics)
        except FileNotFoundError:
            return False


def list_manifests(store: Store) -> list[str]:
    """Return the keys of the manifests of all published checkpoints."""
    keys = [entry.key for entry in store.list(f"{CHECKPOINTS}/")]
    return [key for key in keys if _MANIFEST.fullmatch(key)]


def fetch_checkpoint(store: Store, checkpoint: RemoteCheckpoint, directory: Path) -> bool:
    """Fetch a checkpoint into a model directory; return `False` if it is damaged."""
    staging = directory / STAGING
    make_empty(staging)
    files = checkpoint.files
    try:
        download_files(store, {name: entry["key"] for name, entry in files.items()}, staging)
        wrong = wrong_checksums(staging, files)
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
    """Delete files that no checkpoint names, of writers that ended a day ago or earlier."""
    entries = store.list(f"{CHECKPOINTS}/")
    manifests = {entry.key for entry in entries if _MANIFEST.fullmatch(entry.key)}
    if manifests - {checkpoint.key for checkpoint in checkpoints}:
        return  # nobody knows what one names that could not be read
    used = {entry["key"] for checkpoint in checkpoints for entry in checkpoint.files.values()}
    store.delete(
        entry.key
        for entry in entries
        if entry.key not in used | manifests and time.time() - entry.modified > ABANDONED_S
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


def is_run_of(directory: Path, config: bytes) -> bool:
    """Tell whether a directory on this machine holds the run of a `config.json`."""
    path = directory / CONFIG
    return path.exists() and _run(path.read_bytes()) == _run(config)


def _run(config: bytes) -> Any:
    try:
        return json.loads(config)["run"]
    except (ValueError, KeyError, TypeError):
        return None
