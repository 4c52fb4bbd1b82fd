"""`fairway component`: what an app consists of."""

from __future__ import annotations

from typing import Annotated

from cyclopts import App, Parameter

from fairway.cli.output import Output, print_rows

app = App(
    name="component",
    help="""Components: what an app consists of.

    See also: fairway param, fairway show
    """,
)


@app.command(name="list")
def list_(
    *,
    env: Annotated[str | None, Parameter(help="As they are in this environment.")] = None,
    output: Output = "table",
) -> None:
    """List the components, and whether each takes part where none is named with -c.

    For example:

        fairway component list
        fairway component list --env=prod -o json
    """
    from fairway.deploy.environment import load_target

    rows = [
        {
            "component": each.name,
            "kind": each.kind.name,
            "name": each.params.name,
            "takes_part": each.takes_part,
        }
        for each in load_target(env).components
    ]
    print_rows(rows, output)
