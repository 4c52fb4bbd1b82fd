"""`fairway init`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from fairway.cli.output import Output, print_result


def init(
    directory: Annotated[Path, Parameter(help="Directory to make; its name becomes the app's.")],
    /,
    *,
    name: Annotated[str | None, Parameter(help="The app's name. Default: the directory's.")] = None,
    output: Output = "table",
) -> None:
    """Make an app: a directory with fairway.yaml, which says what runs, and a place for environments.

    For example:

        fairway init mnist
        cd mnist
        fairway env add dev

    See also: fairway env, fairway param, fairway import
    """
    from fairway.deploy.apps.edits import create_app

    app = create_app(directory, name)
    print_result({"name": app.name, "path": str(app.path)}, output, str(app.path))
