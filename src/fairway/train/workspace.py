"""Where a training works: in the directories it was given, or on this machine while these lie in a store."""

from __future__ import annotations

import logging
import shlex
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fairway.errors import StorageError, StoreAwayError
from fairway.storage.cache import cache_path
from fairway.storage.checkpoints import fetch_model_dir
from fairway.storage.exports import Version, list_versions, next_version, read_version
from fairway.storage.files import lock_directory, make_directory, storage_errors
from fairway.storage.mirror import PATIENCE_S, ConflictError, Mirror
from fairway.storage.publish import TakenError, is_claimed, publish_version
from fairway.storage.stores.uri import local_path, open_store

_RETRY_S = 1.0
_PROBE = ".probe"

log = logging.getLogger(__name__)


class Workspace:
    """The directories of one training on this machine.

    Attributes:
        model_dir: Its model directory, which is mirrored if the training's own is in an object store.
        export_dir: Gets the version, which `publish` then brings to the training's own directory.
    """

    def __init__(self, model_dir: Path, export_dir: Path, export_uri: str, mirror: Mirror | None) -> None:
        self.model_dir = model_dir
        self.export_dir = export_dir
        self._export_uri = export_uri
        self._mirror = mirror

    def start(self) -> None:
        """Begin to mirror, after `config.json` has been written.

        Raises:
            StorageError: the store does not take it.
        """
        if self._mirror:
            self._mirror.start()
            log.info("mirroring the training to %s", self._mirror.uri)

    def check(self) -> None:
        """Raise a `StorageError` if another training writes to the same store."""
        if self._mirror:
            self._mirror.check()

    def publish_left(self) -> None:
        """Publish what an earlier training has exported here and could not, or was killed before it could.

        Raises:
            StorageError: as `publish` does.
        """
        if local_path(self._export_uri) is not None:
            return
        left = [version for version in list_versions(self.export_dir) if not version.problem]
        there = [version.manifest for version in list_versions(self._export_uri)] if left else []
        for version in left:
            if version.manifest not in there:  # where `fairway sync` may have brought it
                published = self.publish(version)
                log.info("version %d of an earlier training is in %s now", published.number, self._export_uri)
        shutil.rmtree(self.export_dir, ignore_errors=True)
        make_directory(self.export_dir)

    def publish(self, version: Version) -> Version:
        """Bring a version that was written to `export_dir` to where it belongs.

        Raises:
            StorageError: the store does not take it, for a minute; the version is kept on this machine.
        """
        if local_path(self._export_uri) is not None:
            return version
        deadline = time.monotonic() + PATIENCE_S
        is_taken, said = False, False
        while True:
            try:
                # What was begun is completed, or each start would leave another half of it there.
                if is_taken or not is_claimed(version, self._export_uri):
                    version = _renumber(version, max(version.number, next_version(self._export_uri)))
                is_taken = False
                return publish_version(version, self._export_uri)
            except TakenError:
                is_taken = True
            except StorageError as err:
                if time.monotonic() > deadline:
                    raise _kept(err, self.export_dir, self._export_uri) from err
                if not said:
                    log.warning("%s; trying again for a minute", err.message)
                said = True
                time.sleep(_RETRY_S)


@contextmanager
def open_workspace(model_uri: str, export_uri: str) -> Iterator[Workspace]:
    """Give the directories to train in, brought to the state from which the training resumes.

    At the end the final state is sent. If the store does not take it, it stays on this machine, and the
    error tells the command that sends it.

    Args:
        model_uri: The training's model directory, a path or a URI.
        export_uri: Its export directory.

    Raises:
        UsageError: a URI is not one.
        StorageError: a directory or store cannot be read or written, or another training uses it.
    """
    with (
        _open_model_dir(model_uri) as (model_dir, mirror),
        _open_export_dir(model_uri, export_uri) as export_dir,  # for which the model directory is locked
    ):
        workspace = Workspace(model_dir, export_dir, export_uri, mirror)
        workspace.publish_left()
        yield workspace


@contextmanager
def _open_export_dir(model_uri: str, uri: str) -> Iterator[Path]:
    path = local_path(uri)
    if path is not None:
        make_directory(path)
        yield path
        return
    _check_writable(uri)
    scratch = cache_path("trainings", uri, "export", _identity(model_uri))
    make_directory(scratch)
    yield scratch
    shutil.rmtree(scratch, ignore_errors=True)


@contextmanager
def _open_model_dir(uri: str) -> Iterator[tuple[Path, Mirror | None]]:
    path = local_path(uri)
    if path is not None:
        make_directory(path)
        with lock_directory(path, "train"):
            yield path, None
        return
    scratch = cache_path("trainings", uri)
    make_directory(scratch)
    with lock_directory(scratch, "train"):
        directory = scratch / "model"
        store = open_store(uri)
        fetch_model_dir(store, directory)
        mirror = Mirror(directory, store)
        try:
            yield directory, mirror
        except BaseException:
            if mirror.has_started:  # else nothing is new, and the store may be further by now
                _close_after_error(mirror, directory, uri)
            raise
        try:
            mirror.close()
        except StorageError as err:
            raise _kept(err, directory, uri) from err
        shutil.rmtree(directory, ignore_errors=True)


def _close_after_error(mirror: Mirror, model_dir: Path, uri: str) -> None:
    """Send what can be sent without waiting; the training ends with its own error."""
    try:
        mirror.close(patience_s=0)
        shutil.rmtree(model_dir, ignore_errors=True)
    except StorageError as err:
        kept = _kept(err, model_dir, uri)
        log.warning("%s\n  %s", kept.message, kept.hint)


def _kept(err: StorageError, directory: Path, uri: str) -> StorageError:
    # What another training has written there is not to be replaced.
    target = "ANOTHER-URI" if isinstance(err, ConflictError) else uri
    command = shlex.join(["fairway", "sync", str(directory), target])
    kind = StoreAwayError if isinstance(err, StoreAwayError) else StorageError
    return kind(
        f"the results could not be written: {err.message}",
        hint=f"They are kept in {directory}. Send them with: {command}",
    )


def _renumber(version: Version, number: int) -> Version:
    if number == version.number:
        return version
    target = version.path.with_name(str(number))
    with storage_errors("rename", version.path):
        version.path.rename(target)
    return read_version(target)


def _check_writable(uri: str) -> None:
    """Find out at the start, not after the training, whether a store takes an export."""
    store = open_store(uri)
    store.write(_PROBE, b"")
    store.delete([_PROBE])


def _identity(uri: str) -> str:
    path = local_path(uri)
    return uri if path is None else str(path.resolve())
