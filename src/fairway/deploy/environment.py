"""Environments as commands take them: loaded, resolved, tied to a cluster."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from fairway.deploy.apps.app import App, Environment, find_app, load_environment
from fairway.deploy.target import Target, parse_overrides, resolve
from fairway.errors import ClusterError

if TYPE_CHECKING:
    from fairway.deploy.kube.client import Kube
    from fairway.deploy.kube.kubeconfig import Connection

_FINGERPRINT = "sha256:"


def load_target(name: str | None, overrides: Iterable[str] = (), app: App | None = None) -> Target:
    """Return an environment of the app that the current directory belongs to.

    Args:
        name: The environment's name; `None`: the app by itself.
        overrides: `COMPONENT.KEY=VALUE` words, which win over both.
        app: The app, if it was found already.

    Raises:
        FairwayError: there is no app or environment, or its files are not right.
        UsageError: a component or param is unknown, or cannot have its value.
    """
    app = app or find_app()
    environment = load_environment(app, name) if name else Environment("")
    return resolve(app, environment, parse_overrides(app, overrides))


def pin(environment: Environment, context: str | None) -> Environment:
    """Return an environment tied to the cluster that is now behind a context of the kubeconfig.

    Args:
        environment: Its namespace is kept, or taken from the context if it is the default one.
        context: Name of the context; `None`: the current one.

    Raises:
        ClusterError: there is no kubeconfig, or no such context.
    """
    from fairway.deploy.kube.kubeconfig import load_connection

    connection = load_connection(context)
    return replace(
        environment,
        context=connection.context,
        server=connection.server,
        certificate_authority=_authority(connection),
        namespace=connection.namespace if environment.namespace == "default" else environment.namespace,
    )


@asynccontextmanager
async def connect(environment: Environment) -> AsyncIterator[Kube]:
    """Give the API of an environment's cluster.

    Raises:
        ClusterError: it was never said which cluster that is; there is no such context; or another cluster is
            behind it than was written down.
    """
    from fairway.deploy.kube.client import Kube
    from fairway.deploy.kube.kubeconfig import load_connection

    if environment.context is None or environment.server is None:
        # The current context may be anybody's cluster.
        raise ClusterError(
            f"environment {environment.name} is not tied to a cluster yet",
            hint=f"Choose one: fairway env set {environment.name} --context "
            f"{environment.context or 'CONTEXT'}",
        )
    connection = load_connection(environment.context)
    check_pinned(environment, connection)
    async with Kube(connection, environment.namespace) as kube:
        yield kube


def check_pinned(environment: Environment, connection: Connection) -> None:
    """Refuse another cluster than the one that was written down when the environment was made.

    Raises:
        ClusterError: the address or the certificate authority is another one.
    """
    found = {"server": connection.server, "certificate authority": _authority(connection)}
    meant = {"server": environment.server, "certificate authority": environment.certificate_authority}
    for what, value in meant.items():
        if value != found[what]:
            there, expected = found[what] or "not given", value or "not given"
            raise ClusterError(
                f"the context {connection.context} leads to another cluster than the one that "
                f"environment {environment.name} was made for: its {what} is {there}, not {expected}",
                hint=f"If that is meant: fairway env set {environment.name} --context {connection.context}",
            )


def _authority(connection: Connection) -> str | None:
    return f"{_FINGERPRINT}{connection.ca_fingerprint}" if connection.ca_fingerprint else None
