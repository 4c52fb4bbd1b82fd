"""`fairway env`: where an app runs."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Annotated, Any

from cyclopts import App, Parameter

from fairway.cli.arguments import EnvironmentName
from fairway.cli.output import Output, print_result, print_rows
from fairway.errors import FairwayError, UsageError

log = logging.getLogger(__name__)

app = App(
    name="env",
    help="""Environments: a cluster and a namespace, and the params that differ there.

    See also: fairway param, fairway apply, fairway doctor
    """,
)

Context = Annotated[str | None, Parameter(help="Context of the kubeconfig.")]
Namespace = Annotated[str | None, Parameter(help="Namespace that its objects go into.")]


@app.command
def add(
    name: EnvironmentName,
    /,
    *,
    context: Context = None,
    namespace: Namespace = None,
    output: Output = "table",
) -> None:
    """Add an environment: a context of the kubeconfig, by default the current one, and a namespace.

    The cluster behind the context is written down; another one under the same name is refused later.

    For example:

        fairway env add dev
        fairway env add prod --context gke_prod --namespace mnist
    """
    from fairway.deploy.apps.app import Environment, find_app
    from fairway.deploy.apps.edits import add_environment
    from fairway.deploy.environment import pin

    _refuse_empty(context=context, namespace=namespace)
    found = find_app()
    pinned = pin(Environment(name), context)
    environment = replace(pinned, namespace=namespace or pinned.namespace)
    path = str(add_environment(found, environment))
    print_result(_record(environment) | {"path": path}, output, path)


@app.command(name="list")
def list_(*, output: Output = "table") -> None:
    """List the environments of the app. Those that cannot be read are named on stderr.

    For example:

        fairway env list
        fairway env list -o json
    """
    from fairway.deploy.apps.app import find_app, list_environments, load_environment

    found = find_app()
    rows = []
    for name in list_environments(found):
        try:
            rows.append(_record(load_environment(found, name)))
        except FairwayError as err:
            log.warning("environment %s is left out: %s", name, err.message)
    print_rows(rows, output, ("name", "context", "namespace", "server"))


@app.command
def describe(name: EnvironmentName, /, *, output: Output = "table") -> None:
    """Show one environment: its cluster, its namespace and its own params.

    For example:

        fairway env describe dev
        fairway env describe dev -o json
    """
    import json

    from fairway.deploy.apps.app import find_app, load_environment

    environment = load_environment(find_app(), name)
    record = _record(environment) | {
        "certificateAuthority": environment.certificate_authority,
        "params": {component: dict(values) for component, values in environment.params.items()},
    }
    if output == "json":
        print(json.dumps(record, indent=2))
    else:
        import yaml

        print(yaml.safe_dump(record, sort_keys=False, allow_unicode=True), end="")


@app.command(name="set")
def set_(
    name: EnvironmentName,
    /,
    *,
    context: Context = None,
    namespace: Namespace = None,
    output: Output = "table",
) -> None:
    """Change the context, and with it the cluster, or the namespace of an environment.

    For example:

        fairway env set dev --namespace mnist-dev
        fairway env set dev --context kind-kind
    """
    from fairway.deploy.apps.app import find_app, load_environment
    from fairway.deploy.apps.edits import change_environment
    from fairway.deploy.environment import pin

    if context is None and namespace is None:
        raise UsageError("nothing to change", hint="Give --context, --namespace or both.")
    _refuse_empty(context=context, namespace=namespace)
    found = find_app()
    changes: dict[str, str | None] = {}
    if context:
        pinned = pin(load_environment(found, name), context)
        changes = {
            "context": pinned.context,
            "server": pinned.server,
            "certificate_authority": pinned.certificate_authority,
        }
    change_environment(found, name, changes | ({"namespace": namespace} if namespace else {}))
    path = str(found.environment_path(name))
    print_result(_record(load_environment(found, name)) | {"path": path}, output)


@app.command
def rm(
    name: EnvironmentName,
    /,
    *,
    yes: Annotated[bool, Parameter(negative="", help="Do not ask.")] = False,
    output: Output = "table",
) -> None:
    """Forget an environment and its params. What it has in the cluster stays: see fairway delete.

    For example:

        fairway env rm dev
    """
    from fairway.cli.confirm import confirm
    from fairway.deploy.apps.app import environment_file, find_app
    from fairway.deploy.apps.edits import remove_environment

    found = find_app()
    path = environment_file(found, name)
    confirm(f"Delete {path}, with the params in it?", yes=yes)
    remove_environment(found, name)
    print_result({"name": name, "path": str(path)}, output)


def _refuse_empty(**flags: str | None) -> None:
    for name, value in flags.items():
        if value == "":
            raise UsageError(f"--{name} is empty", hint="Give it a value, or leave it out.")


def _record(environment: Any) -> dict[str, Any]:
    return {
        "name": environment.name,
        "context": environment.context,
        "server": environment.server,
        "namespace": environment.namespace,
    }
