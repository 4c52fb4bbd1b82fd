"""The layout of a model directory: what a training leaves, and its watchers read.

<model>/config.json      what is trained: run, train_steps, model_type, dataset, settings
<model>/metrics.jsonl    a JSON object per line, see `train.records`
<model>/events/          TensorBoard's
<model>/checkpoints/
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fairway.errors import StorageError
from fairway.storage.files import storage_errors, write_atomic

METRICS = "metrics.jsonl"
CONFIG = "config.json"
EVENTS = "events"
CHECKPOINTS = "checkpoints"
KEPT_CHECKPOINTS = 3


def checkpoint_name(step: int) -> str:
    """Return the name of a checkpoint, which its files have different endings of."""
    return f"ckpt-{step:08d}"


def write_config(model_dir: Path, config: dict[str, Any]) -> None:
    """Write what is trained, for the next run and for watchers.

    Raises:
        StorageError: the directory cannot be written to.
    """
    write_atomic(model_dir / CONFIG, json.dumps(config, indent=2).encode() + b"\n")


def read_config(model_dir: Path) -> dict[str, Any] | None:
    """Return what an earlier run wrote; `None` if there was none.

    Raises:
        StorageError: the file cannot be read or is damaged.
    """
    path = model_dir / CONFIG
    with storage_errors("read", path):
        try:
            config = json.loads(path.read_bytes())
        except FileNotFoundError:
            return None
        except ValueError as err:
            raise StorageError(
                f"{path} is damaged: {err}", hint="Restore it, or choose another --model-dir to start afresh."
            ) from err
    return dict(config)
