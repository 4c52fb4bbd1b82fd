"""`fairway init`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter


def init(
    directory: Annotated[Path, Parameter(help="Directory to make; its name becomes the app's.")],
    /,
    *,
    name: Annotated[str | None, Parameter(help="The app's name. Default: the directory's.")] = None,
) -> None:
    """Make an app: a directory with fairway.yaml, which says what runs, and a place for environments.

    For example:

        fairway init mnist
        cd mnist
        fairway env add dev

    See also: fairway env, fairway param, fairway import
    """
    from fairway.deploy.apps.edits import create_app

    print(create_app(directory, name).path)
