"""What `fairway.json` says of one version, and the names of the files beside it.

saved_model.pb, variables/                      the SavedModel
model.tflite                                    the same model for LiteRT
assets.extra/tf_serving_warmup_requests
assets.extra/metrics.jsonl                      the curves of the training that made it
fairway.json                                    the manifest
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path, PurePosixPath
from typing import Any, Self

from fairway.storage.files import sha256

MANIFEST = "fairway.json"
SAVED_MODEL = "saved_model.pb"
TFLITE = "model.tflite"
EXTRA = "assets.extra"
WARMUP = f"{EXTRA}/tf_serving_warmup_requests"
CURVES = f"{EXTRA}/metrics.jsonl"

_OBJECTS = {"settings", "metrics", "software", "signatures", "tflite", "files"}


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
            for name in _OBJECTS & known.keys():
                if not isinstance(known[name], dict):
                    raise TypeError(f"{name} is no object")
            check_files(known.get("files", {}))
            return cls(**known)
        except (TypeError, KeyError, AttributeError) as err:
            raise ValueError(f"not a manifest: {err}") from err


def check_files(files: Mapping[str, Mapping[str, Any]]) -> None:
    """Raise a `ValueError` if a record of files is not one, or names a file outside its directory."""
    for name, entry in files.items():
        path = PurePosixPath(name)
        leads_out = path.is_absolute() or ".." in path.parts or "\\" in name
        if leads_out or str(path) != name or name == MANIFEST:
            raise ValueError(f"not the name of a file in a version: {name!r}")
        if not (isinstance(entry["size"], int) and isinstance(entry["sha256"], str)):
            raise ValueError(f"no size and sha256 of {name}")


def describe_files(directory: Path) -> dict[str, dict[str, Any]]:
    """Return size and sha256 of every file below a directory but the manifest, by relative path."""
    return {
        path.relative_to(directory).as_posix(): {"size": path.stat().st_size, "sha256": sha256(path)}
        for path in sorted(directory.rglob("*"))
        if path.is_file() and path != directory / MANIFEST
    }


def wrong_checksums(directory: Path, files: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the files that are not in a directory with the content that a record of them says."""
    return [
        name
        for name, entry in files.items()
        if not (directory / name).is_file() or sha256(directory / name) != entry["sha256"]
    ]
