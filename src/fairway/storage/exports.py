"""The layout of an export directory, TensorFlow Serving's with a manifest beside each model.

    <export>/<version>/saved_model.pb, variables/          the SavedModel
    <export>/<version>/model.tflite                        the same model for LiteRT
    <export>/<version>/assets.extra/tf_serving_warmup_requests
    <export>/<version>/assets.extra/metrics.jsonl          the curves of the training that made it
    <export>/<version>/fairway.json                        the manifest

A version is a whole number, a Unix time, always rising and never used twice. A directory with a manifest
is complete if every file in it has the recorded size; one without (another program's SavedModel) is
complete if it holds `saved_model.pb`.
"""

from __future__ import annotations

import json
import re
import time
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Self

from fairway.errors import StorageError
from fairway.storage.files import sha256, storage_errors

MANIFEST = "fairway.json"
SAVED_MODEL = "saved_model.pb"
TFLITE = "model.tflite"
EXTRA = "assets.extra"
WARMUP = f"{EXTRA}/tf_serving_warmup_requests"
CURVES = f"{EXTRA}/metrics.jsonl"

_VERSION = re.compile(r"[0-9]{1,18}")


@dataclass(frozen=True, kw_only=True)
class DatasetRecord:
    """What a model was trained and measured on."""

    name: str
    """`mnist` or `embedded`."""
    source: str
    """Where it was read from."""
    train_images: int
    test_images: int
    test_name: str
    """What the test images are, in words: "the MNIST test set"."""
    sha256: dict[str, str]
    """Checksum of each file that was read."""


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What `fairway.json` says of one version."""

    workload: str
    model_type: str
    run: str
    """Identifies the training run; a run exports once."""
    step: int
    created: str
    """ISO 8601, UTC."""
    settings: dict[str, Any]
    """The resolved settings of the training."""
    dataset: DatasetRecord
    metrics: dict[str, float]
    """`test_accuracy` (0..1), `test_loss` (nats), `train_seconds`, `parameters` …"""
    software: dict[str, str]
    """Versions of what made it."""
    signatures: dict[str, Any]
    """As `tfs.signatures` writes them: name -> inputs, outputs, method."""
    tflite: dict[str, Any]
    """`signature`, `saved_model_sha256`, `max_abs_difference` of `model.tflite`; empty without one."""
    files: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Relative path -> `size` in bytes and `sha256`, for every file but the manifest."""
    format: int = 1

    def to_json(self) -> bytes:
        """Return the manifest as indented JSON."""
        return json.dumps(asdict(self), indent=2).encode() + b"\n"

    @classmethod
    def from_json(cls, data: bytes) -> Self:
        """Read a manifest; unknown keys are ignored, so that an older fairway reads a newer one's.

        Raises:
            ValueError: it is not JSON, or a field is missing or of the wrong kind.
        """
        content = json.loads(data)
        try:
            known = {f.name: content[f.name] for f in fields(cls) if f.name in content}
            dataset = known.pop("dataset")
            known["dataset"] = DatasetRecord(
                **{f.name: dataset[f.name] for f in fields(DatasetRecord) if f.name in dataset}
            )
            return cls(**known)
        except (TypeError, KeyError, AttributeError) as err:
            raise ValueError(f"not a manifest: {err}") from err


@dataclass(frozen=True)
class Version:
    """One version in an export directory."""

    number: int
    path: Path
    manifest: Manifest | None
    """`None` for a SavedModel that fairway did not write."""
    problem: str = ""
    """Why it cannot be used; empty for a complete version."""


def version_paths(export_dir: Path) -> list[Path]:
    """Return the directories of all versions, oldest first, without reading them.

    Raises:
        StorageError: the export directory cannot be read; one that does not exist has no versions.
    """
    with storage_errors("read", export_dir):
        try:
            paths = [path for path in export_dir.iterdir() if _VERSION.fullmatch(path.name)]
        except FileNotFoundError:
            return []
    return sorted(paths, key=lambda path: int(path.name))


def list_versions(export_dir: Path) -> list[Version]:
    """Return all versions, oldest first, complete or not; none if the directory does not exist.

    Raises:
        StorageError: the directory cannot be read.
    """
    return [read_version(path) for path in version_paths(export_dir)]


def read_version(path: Path) -> Version:
    """Return one version's manifest, or the reason why it is not complete (sizes only; no checksums)."""
    number = int(path.name)
    try:
        manifest = Manifest.from_json((path / MANIFEST).read_bytes())
        return Version(number, path, manifest, _missing(path, manifest))
    except FileNotFoundError:
        return Version(number, path, None, "" if (path / SAVED_MODEL).is_file() else f"no {SAVED_MODEL}")
    except (ValueError, OSError) as err:
        return Version(number, path, None, f"{MANIFEST} cannot be read: {err}")


def find_version(export_dir: Path, number: int | None = None) -> Version:
    """Return a complete version, the newest if no number is given.

    Raises:
        StorageError: there is none, or it is not complete.
    """
    versions = list_versions(export_dir)
    if number is None:
        complete = [version for version in versions if not version.problem]
        if not complete:
            raise StorageError(f"no model in {export_dir}", hint="Train one with: fairway train")
        return complete[-1]
    for version in versions:
        if version.number == number:
            if version.problem:
                raise StorageError(f"version {number} in {export_dir} is damaged: {version.problem}")
            return version
    have = ", ".join(str(version.number) for version in versions) or "none"
    raise StorageError(f"version {number} not found in {export_dir}; have: {have}")


def next_version(export_dir: Path) -> int:
    """Return the number for a new version: the Unix time, or one above the highest there is."""
    taken = [version.number for version in list_versions(export_dir)]
    return max([int(time.time()), *(number + 1 for number in taken)])


def describe_files(directory: Path) -> dict[str, dict[str, Any]]:
    """Return size and sha256 of every file below a directory but the manifest, by relative path."""
    return {
        path.relative_to(directory).as_posix(): {"size": path.stat().st_size, "sha256": sha256(path)}
        for path in sorted(directory.rglob("*"))
        if path.is_file() and path.name != MANIFEST
    }


def damaged_files(version: Version) -> list[str]:
    """Return the files whose content is not what the manifest says: the full check, by checksum."""
    recorded = version.manifest.files if version.manifest else {}
    return [
        name
        for name, entry in recorded.items()
        if not (version.path / name).is_file() or sha256(version.path / name) != entry["sha256"]
    ]


def _missing(path: Path, manifest: Manifest) -> str:
    for name, entry in manifest.files.items():
        try:
            size = (path / name).stat().st_size
        except OSError:
            return f"{name} is missing"
        if size != entry["size"]:
            return f"{name} has {size} bytes instead of {entry['size']}"
    return ""
