"""`fairway param`: the params of components."""

from __future__ import annotations

from typing import Annotated

from cyclopts import App, Parameter

from fairway.cli.output import Output, cell_text, print_rows, table

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
def set_(component: Component, key: Key, value: Word, /, *, env: Env = None) -> None:
    r"""Set a param, in fairway.yaml or, with --env, in the environment's file.

    In a value of the form NAME=VALUE,NAME=VALUE a backslash keeps the next comma: A=1\,2 is one value.

    For example:

        fairway param set train trainSteps 500
        fairway param set --env=prod train numWorkers 2
        fairway param set train secretKeyRefs AWS_ACCESS_KEY_ID=aws.id,AWS_SECRET_ACCESS_KEY=aws.key
    """
    from fairway.deploy.app import find_app
    from fairway.deploy.edits import set_params

    set_params(find_app(), env, component, {key: value})


@app.command
def delete(component: Component, key: Key, /, *, env: Env = None) -> None:
    """Remove a param from fairway.yaml or, with --env, from the environment's file.

    For example:

        fairway param delete --env=prod train numWorkers
    """
    from fairway.deploy.app import find_app
    from fairway.deploy.edits import delete_param

    delete_param(find_app(), env, component, key)


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
    from fairway.deploy.languages import write
    from fairway.deploy.params import help_texts, list_params

    target = load_target(env)
    chosen = [target.app.component(component).name] if component else list(target.app.components)
    rows = []
    for each in target.components:
        if each.name not in chosen:
            continue
        params, texts = list_params(each.kind.params), help_texts(each.kind.params) if all else {}
        for name, value in each.values.items():
            if all or value.is_set:
                row = {"component": each.name, "param": name, "value": write(value.written)}
                row |= {"origin": value.origin}
                if all:
                    row |= {"type": params[name].type, "range": params[name].range, "help": texts[name]}
                rows.append(row)
    print_rows(rows, output)


@app.command
def diff(
    first: Annotated[str, Parameter(help="An environment.")],
    second: Annotated[str, Parameter(help="Another one.")],
    /,
    *,
    output: Output = "table",
) -> None:
    """Compare the params of two environments. Exits with 1 if they differ.

    For example:

        fairway param diff dev prod
    """
    from fairway.deploy.environment import load_target
    from fairway.deploy.languages import write

    left, right = load_target(first), load_target(second)
    rows = []
    for one, other in zip(left.components, right.components, strict=True):
        for name, value in one.values.items():
            values = write(value.written), write(other.values[name].written)
            if value.read != other.values[name].read:
                rows.append({"component": one.name, "param": name, first: values[0], second: values[1]})
    if output == "json":
        print_rows(rows, output)
    elif rows:
        header = ["COMPONENT", "PARAM", first, second]
        print(table([header, *([cell_text(cell) for cell in row.values()] for row in rows)]))
    raise SystemExit(1 if rows else 0)
