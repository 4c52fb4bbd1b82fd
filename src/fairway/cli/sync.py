"""`fairway sync`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from fairway.config import SyncSettings

if TYPE_CHECKING:
    from fairway.storage.exports import Version


def sync(
    source: Annotated[str, Parameter(help="Export directory to copy from: a path, s3://… or gs://…")],
    target: Annotated[str, Parameter(help="Export directory to copy to, likewise.")],
    /,
    settings: SyncSettings = SyncSettings(),  # noqa: B008 - frozen
) -> None:
    """Copy the complete versions that are missing from one export directory to another.

    Each is checked and appears whole, so TARGET can be served meanwhile: with --watch this is what
    lets TensorFlow Serving serve from an object store. Prints the directory of each copied version.
    Given the model directory of a training on this machine, it sends that.

    For example:

        fairway sync mnist/export s3://models/mnist
        fairway sync s3://models/mnist /models/mnist --watch --keep 3 --delete

    See also: fairway serve, fairway models, fairway train
    """
    from fairway.local.sync import run

    def show(version: Version) -> None:
        print(version.uri, flush=True)

    run(source, target, settings, show)
