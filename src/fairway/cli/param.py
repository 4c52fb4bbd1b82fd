"""`fairway param`: the params of components."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Parameter

from fairway.cli.output import Output, cell_text, print_result, print_rows, table
from fairway.errors import FairwayError

if TYPE_CHECKING:
    from fairway.deploy.apps.app import App as FoundApp
    from fairway.deploy.target import Component as Resolved
    from fairway.deploy.target import Value

EQUAL, DIFFERENT, ERROR = 0, 1, 2

app = App(
    name="param",
    help="""Params: the settings of components, for all environments or for one.

    See also: fairway component, fairway env, fairway show
    """,
)

Component = Annotated[str, Parameter(help="Name of the component.")]
Key = Annotated[str, Parameter(help="Name of the param.")]
Word = Annotated[str, Parameter(help="Its value.", allow_leading_hyphen=True)]
Env = Annotated[str | None, Parameter(help="For this environment only.")]


@app.command(name="set")
def set_(
    component: Component, key: Key, value: Word, /, *, env: Env = None, output: Output = "table"
) -> None:
    r"""Set a param, in fairway.yaml or, with --env, in the environment's file.

    In a value of the form NAME=VALUE,NAME=VALUE a backslash keeps the next comma: A=1\,2 is one value.
    An empty value, '', means none.

    For example:

        fairway param set train trainSteps 500
        fairway param set --env=prod train numWorkers 2
        fairway param set train secretKeyRefs AWS_ACCESS_KEY_ID=aws.id,AWS_SECRET_ACCESS_KEY=aws.key
    """
    from fairway.deploy.apps.app import find_app
    from fairway.deploy.apps.edits import set_params

    found = find_app()
    set_params(found, env, component, {key: value})
    print_result(_place(found, component, key, env) | {"value": value}, output)


@app.command
def delete(component: Component, key: Key, /, *, env: Env = None, output: Output = "table") -> None:
    """Remove a param from fairway.yaml or, with --env, from the environment's file.

    For example:

        fairway param delete --env=prod train numWorkers
    """
    from fairway.deploy.apps.app import find_app
    from fairway.deploy.apps.edits import delete_param

    found = find_app()
    delete_param(found, env, component, key)
    print_result(_place(found, component, key, env), output)


@app.command(name="list")
def list_(
    component: Annotated[str | None, Parameter(help="Only of this component.")] = None,
    /,
    *,
    env: Annotated[str | None, Parameter(help="As they are in this environment.")] = None,
    all: Annotated[bool, Parameter(negative="", help="Also those that nobody set, and their help.")] = False,
    output: Output = "table",
) -> None:
    """List params: the value of each, and where it comes from.

    For example:

        fairway param list
        fairway param list --env=prod train --all
        fairway param list -o json
    """
    from fairway.deploy.environment import load_target

    target = load_target(env)
    components = target.components
    if component:
        name = target.app.component(component).name
        components = [each for each in components if each.name == name]
    rows = [row for each in components for row in _rows(each, all=all)]
    if all and output == "table":
        _print_described(rows)
    else:
        print_rows(rows, output)


@app.command
def diff(
    first: Annotated[str, Parameter(help="An environment.")],
    second: Annotated[str, Parameter(help="Another one.")],
    /,
    *,
    output: Output = "table",
) -> int:
    """Compare the params of two environments.

    Exit codes: 0 nothing differs, 1 something does, 2 an error.

    For example:

        fairway param diff dev prod
        fairway param diff dev prod -o json
    """
    from fairway.deploy.environment import load_target

    try:
        left, right = load_target(first), load_target(second)
    except FairwayError as err:
        err.exit_code = max(err.exit_code, ERROR)
        raise
    rows = [
        {
            "component": one.name,
            "param": name,
            "first": _written(value),
            "second": _written(other.values[name]),
        }
        for one, other in zip(left.components, right.components, strict=True)
        for name, value in one.values.items()
        if value.read != other.values[name].read
    ]
    if output == "json":
        print_rows(rows, output)
    elif rows:
        header = ["COMPONENT", "PARAM", first, second]
        print(table([header, *([cell_text(cell) for cell in row.values()] for row in rows)]))
    return DIFFERENT if rows else EQUAL


def _place(found: FoundApp, component: str, key: str, env: str | None) -> dict[str, Any]:
    """Return which param was changed, and in which file."""
    path = found.environment_path(env) if env else found.path
    return {"component": component, "param": key, "environment": env, "path": str(path)}


def _rows(component: Resolved, *, all: bool) -> list[dict[str, Any]]:
    """Return a record for each param of a component that is set, or for all, with what they are."""
    from fairway.deploy.params import help_texts, list_params

    params = list_params(component.kind.params)
    texts = help_texts(component.kind.params) if all else {}
    rows = []
    for name, value in component.values.items():
        if all or value.is_set:
            row = {"component": component.name, "param": name, "value": _written(value)}
            row |= {"origin": value.origin}
            if all:
                row |= {"type": params[name].type, "range": params[name].range, "help": texts[name]}
            rows.append(row)
    return rows


def _written(value: Value) -> Any:
    """Return a value as `param set` takes it: a number, a truth, a word, or nothing."""
    from fairway.deploy.languages import write

    return write(value.read)


def _print_described(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print params by component, under each one what it is."""
    width = max((len(row["param"]) for row in rows), default=0)
    for number, row in enumerate(rows):
        if not number or row["component"] != rows[number - 1]["component"]:
            print(f"{chr(10) if number else ''}{row['component']}")
        print(f"  {row['param']:{width}}  {cell_text(row['value'])}  ({row['origin']})")
        allowed = f"{row['type']}, {row['range']}" if row["range"] else row["type"]
        print(
            textwrap.fill(f"{row['help']} [{allowed}]", 98, initial_indent=" " * 6, subsequent_indent=" " * 6)
        )
