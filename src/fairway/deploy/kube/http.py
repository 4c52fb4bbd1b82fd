"""HTTP to an API server: TLS and credentials of a context, proxy, keep-alive."""

from __future__ import annotations

import socket
import ssl
from typing import Any

import httpx2
from lightkube.config.client_adapter import user_auth, verify_cluster
from lightkube.config.models import User

from fairway.deploy.kube.kubeconfig import Connection
from fairway.deploy.kube.plugin import PluginAuth
from fairway.errors import ClusterError

_KEEPALIVE = [
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, getattr(socket, "TCP_KEEPIDLE", getattr(socket, "TCP_KEEPALIVE", 0)), 30),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
]
"""A log may be silent for hours; so TCP itself finds out in a minute that nobody is there any more."""


def new_client(connection: Connection) -> httpx2.AsyncClient:
    """Return a client whose paths are relative to the API server's URL.

    Raises:
        ClusterError: a certificate, a key or the proxy's URL cannot be used.
    """
    user = connection.config.user or User()
    try:
        tls = verify_cluster(connection.config.cluster, user, connection.config.abs_file)
        auth = PluginAuth(connection.plugin, tls) if connection.plugin else user_auth(user)
    except (OSError, ValueError) as err:  # a file that is not there; no certificate, no base64
        raise ClusterError(
            f"the certificates of context {connection.context} cannot be read: {err}",
            hint="Get its kubeconfig anew.",
        ) from err
    # Python 3.13 sets it; clusters' own CAs often lack an extension that it asks for, and kubectl does not.
    tls.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return httpx2.AsyncClient(
        base_url=connection.server,
        auth=auth,
        transport=_transport(connection, tls),
        trust_env=False,  # see proxy.py
        event_hooks={"request": [_name_server(connection)], "response": [_read_refusal]},
    )


def _transport(connection: Connection, tls: ssl.SSLContext) -> httpx2.AsyncHTTPTransport:
    try:
        return httpx2.AsyncHTTPTransport(
            verify=tls,
            proxy=connection.proxy,
            # Each forwarded connection and each log holds one.
            limits=httpx2.Limits(max_connections=None, max_keepalive_connections=20),
            socket_options=_KEEPALIVE,
        )
    except (ImportError, ValueError, httpx2.InvalidURL) as err:
        proxy = _without_password(connection.proxy)
        raise ClusterError(
            f"the proxy of context {connection.context} cannot be used: {proxy}",
            hint="Proxies for HTTP are supported; see proxy-url in the kubeconfig, HTTPS_PROXY and NO_PROXY.",
        ) from err


def _without_password(url: str | None) -> str:
    """Return a URL without the user and the password in it."""
    before, at, after = (url or "").rpartition("@")
    return f"{before.partition('://')[0]}://{after}" if at and "://" in before else after


def _name_server(connection: Connection) -> Any:
    async def name_server(request: httpx2.Request) -> None:
        if connection.tls_server_name:
            request.extensions["sni_hostname"] = connection.tls_server_name

    return name_server


async def _read_refusal(response: httpx2.Response) -> None:
    """Have the body there also where the answer is a stream or a WebSocket."""
    if response.is_error:
        await response.aread()
