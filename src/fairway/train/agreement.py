"""What the tasks of a job must have in common: settings, data, and directories that all of them see."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

from fairway.config import TrainSettings
from fairway.errors import DataError, UsageError
from fairway.storage.files import storage_errors
from fairway.storage.stores.uri import local_path
from fairway.workloads.base import Dataset

OWN = ("data_dir", "data_url", "peer_wait_seconds", "keep", "profile")
"""Settings in which tasks may differ."""
DIRECTORIES = ("model_dir", "export_dir")
LISTING_S = 5.0
"""How long a shared disk may take to show a new file: NFS keeps a directory for some seconds."""


@contextmanager
def offered(settings: TrainSettings, dataset: Dataset, run: str) -> Iterator[dict[str, Any]]:
    """Give what the lead tells the others, for as long as they may join.

    Args:
        settings: Resolved.
        dataset: The lead's.
        run: The run's id.

    Raises:
        StorageError: a directory cannot be written to.
    """
    with ExitStack() as probes:
        found = {
            name: probes.enter_context(_probe(getattr(settings, name), f".probe-{run}"))
            for name in DIRECTORIES
        }
        yield {"settings": asdict(settings), "sha256": dataset.sha256, "probes": found}


@contextmanager
def _probe(directory: str, name: str) -> Iterator[dict[str, str] | None]:
    """Write a file that is seen where the directory is shared, and give its name and content.

    An object store always is. The name is the same after a kill, so that nothing is left for ever.
    """
    path = local_path(directory)
    if path is None:
        yield None
        return
    probe, content = path / name, uuid.uuid4().hex
    with storage_errors("write", path):
        probe.write_text(content)
    try:
        yield {"name": name, "content": content}
    finally:
        probe.unlink(missing_ok=True)


def agree(settings: TrainSettings, offer: dict[str, Any]) -> TrainSettings:
    """Return the settings as the lead has resolved them.

    Args:
        settings: This task's.
        offer: The lead's.

    Raises:
        UsageError: they differ, or a directory is another one here.
    """
    theirs = offer["settings"]
    resolved: dict[str, Any] = {}
    for name in (field.name for field in fields(settings) if field.name not in OWN):
        mine, lead = getattr(settings, name), theirs.get(name)
        if mine not in (None, "auto", lead):
            raise UsageError(
                f"{name} is {mine!r} here, but {lead!r} at the lead of the training",
                hint="Give all tasks the same settings.",
            )
        resolved[name] = lead
    for name in DIRECTORIES:
        _check_shared(name, theirs[name], offer["probes"][name])
    return replace(settings, **resolved)


def check_data(dataset: Dataset, offer: dict[str, Any]) -> None:
    """Check that a task has the lead's data.

    Raises:
        DataError: it has not.
    """
    if dataset.sha256 != offer["sha256"]:
        raise DataError(
            f"the data in {dataset.source} is not the lead's: its files have other checksums",
            hint="Give all tasks the same data with --data-dir or --dataset.",
        )


def _check_shared(name: str, directory: str, probe: dict[str, str] | None) -> None:
    if probe is None:
        return
    path, deadline = Path(local_path(directory) or directory), time.monotonic() + LISTING_S
    while not _holds(path / probe["name"], probe["content"]):
        if time.monotonic() > deadline:
            raise UsageError(
                f"{name} {directory} is not the lead's directory: its files are not seen from here",
                hint=f"Set --{name.replace('_', '-')} to a disk that all tasks share, or to s3:// or gs://.",
            )
        time.sleep(0.1)


def _holds(path: Path, content: str) -> bool:
    try:
        return path.read_text() == content
    except OSError:
        return False
