"""`fairway import`."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from fairway.cli.output import Output, print_result

log = logging.getLogger(__name__)


def import_(
    ksonnet_app: Annotated[Path, Parameter(help="Directory of the old app, with app.yaml.")],
    directory: Annotated[
        Path | None, Parameter(help="Directory to make. Default: ./NAME of the app.")
    ] = None,
    /,
    *,
    name: Annotated[str | None, Parameter(help="The new app's name. Default: the directory's.")] = None,
    output: Output = "table",
) -> None:
    """Make an app from an old ksonnet app: its components, their params, and its environments.

    The old app stays as it is. What cannot be taken over is said, one line each.

    For example:

        fairway import ks_app/
        fairway import ks_app/ mnist

    See also: fairway init, fairway env
    """
    from fairway.deploy.apps.takeover import take_over

    app, notes = take_over(ksonnet_app, directory, name)
    for note in notes:
        log.warning("%s", note)
    print_result({"name": app.name, "path": str(app.path), "notes": notes}, output, str(app.path))
