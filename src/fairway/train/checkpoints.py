"""Checkpoints: `<model-dir>/checkpoints/ckpt-<step>`, the newest whole one is resumed from."""

from __future__ import annotations

import errno
import logging
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import tensorflow as tf

from fairway.errors import FairwayError, first_line
from fairway.storage.files import make_directory, storage_errors
from fairway.storage.model_dir import KEPT_CHECKPOINTS, checkpoint_name

log = logging.getLogger(__name__)

_INDEX = re.compile(r"ckpt-(\d+)\.index")


class Checkpoints:
    """Saves and restores the variables of a training.

    TensorFlow writes a checkpoint's index last and by a rename, so one with an index was written to the end.

    Args:
        directory: Is created if need be.
        **state: What is saved, by name: variables, models, optimizers.

    Raises:
        StorageError: the directory cannot be written to.
    """

    def __init__(self, directory: Path, **state: object) -> None:
        make_directory(directory)
        for unfinished in directory.glob("ckpt-*_temp"):
            shutil.rmtree(unfinished, ignore_errors=True)  # left by a kill
        self._directory = directory
        self._checkpoint = tf.train.Checkpoint(**state)

    def restore(self) -> int:
        """Restore the newest checkpoint that can be read and return its step; 0 if there is none.

        Raises:
            FairwayError: checkpoints are there, but none can be read, or they are of another model.
        """
        steps = self._steps()
        for step in reversed(steps):
            path = self._path(step)
            try:
                self._checkpoint.read(path).assert_existing_objects_matched()
            except AssertionError as err:
                raise FairwayError(
                    f"checkpoint {path} does not fit the model", hint="Choose another --model-dir."
                ) from err
            except Exception as err:  # damage shows in many ways, IndexError among them
                log.warning("checkpoint %s is damaged and passed over (%s)", path, first_line(err))
                continue
            return step
        if steps:
            raise FairwayError(
                f"none of the {len(steps)} checkpoints in {self._directory} can be read",
                hint="Restore one from a backup, or choose another --model-dir to start afresh.",
            )
        return 0

    def save(self, step: int) -> None:
        """Write a checkpoint, then remove all but the newest few.

        Raises:
            StorageError: the disk is full or refuses; earlier checkpoints are unharmed.
        """
        with write_errors(self._directory):
            self._checkpoint.write(self._path(step))
        for old in self._steps()[:-KEPT_CHECKPOINTS]:
            Path(f"{self._path(old)}.index").unlink(missing_ok=True)
            for data in self._directory.glob(f"{checkpoint_name(old)}.data-*"):
                data.unlink(missing_ok=True)

    def _steps(self) -> list[int]:
        names = (_INDEX.fullmatch(path.name) for path in self._directory.iterdir())
        return sorted(int(name[1]) for name in names if name)

    def _path(self, step: int) -> str:
        return str(self._directory / checkpoint_name(step))


@contextmanager
def write_errors(path: Path) -> Iterator[None]:
    """Turn errors of the block, TensorFlow's included, into a `StorageError` about a path."""
    with storage_errors("write to", path):
        try:
            yield
        except tf.errors.OpError as err:
            # TensorFlow keeps no error number, only the system's words in the midst of its own.
            number = next((number for number in errno.errorcode if os.strerror(number) in err.message), 0)
            raise OSError(number, err.message.splitlines()[0]) from err
