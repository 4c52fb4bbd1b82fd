"""Credentials from a program that the kubeconfig names, as cloud providers have it.

Source: https://kubernetes.io/docs/reference/access-authn-authz/authentication/#client-go-credential-plugins
lightkube's own support ends at v1beta1, without client certificates and without KUBERNETES_EXEC_INFO.
"""

from __future__ import annotations

import asyncio
import json
import os
import ssl
import sys
import tempfile
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from pathlib import Path
from signal import SIGKILL
from typing import Any

import httpx2

from fairway.errors import ClusterError

API = "client.authentication.k8s.io"
VERSIONS = ("v1", "v1beta1", "v1alpha1")
# A plugin that asks nobody anything, but waits for a server of its own.
TIMEOUT_S = 60.0


@dataclass(frozen=True)
class Plugin:
    """A program that prints credentials.

    Attributes:
        spec: `users[].user.exec` of the kubeconfig.
        cluster: The cluster as the program is told of it, where it asks for that; without, None.
        folder: Of the kubeconfig: a relative command is relative to it. None: there is no such file.
    """

    spec: Mapping[str, Any]
    cluster: Mapping[str, Any] | None
    folder: Path | None

    @property
    def command(self) -> str:
        """The program; with a slash in it, as an absolute path."""
        command = str(self.spec.get("command", ""))
        return str(self.folder / command) if self.folder and "/" in command else command

    async def run(self) -> dict[str, str]:
        """Return the `status` of the credentials: `token`, or client certificate and key, or all of them.

        Raises:
            ClusterError: it cannot be started, fails, or prints something else.
        """
        interactive = self._is_interactive()
        output = await self._output(interactive)
        try:
            credential = json.loads(output)
            status = credential["status"]
            usable = credential["apiVersion"] == self._api_version() and (
                status.get("token") or status.get("clientCertificateData")
            )
        except (ValueError, KeyError, TypeError, AttributeError) as err:
            raise self._error("prints no credentials") from err
        if not usable:
            raise self._error(f"prints no credentials of version {self._api_version()}")
        return dict(status)

    async def _output(self, interactive: bool) -> bytes:
        command = [self.command, *map(str, self.spec.get("args") or ())]
        stdin, stderr = (None, None) if interactive else (DEVNULL, PIPE)
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                env=self._environment(interactive),
                stdin=stdin,
                stdout=PIPE,
                stderr=stderr,
                start_new_session=not interactive,  # to be ended with its children, which hold its pipes
            )
        except OSError as err:
            raise self._error(f"cannot be started ({err.strerror})") from err
        try:
            async with asyncio.timeout(None if interactive else TIMEOUT_S):
                output, complaint = await process.communicate()
        except TimeoutError as err:
            raise self._error(f"has not ended after {TIMEOUT_S:g} s") from err
        finally:
            if process.returncode is None:
                os.kill(process.pid, SIGKILL) if interactive else os.killpg(process.pid, SIGKILL)
                await process.wait()
        if process.returncode:
            lines = (complaint or b"").decode(errors="replace").split("\n")
            said = next((line.strip() for line in reversed(lines) if line.strip()), "")
            raise self._error(f"failed with exit code {process.returncode}{said and ': '}{said}")
        return output

    def _environment(self, interactive: bool) -> dict[str, str]:
        added = {str(each["name"]): str(each["value"]) for each in self.spec.get("env") or ()}
        info: dict[str, Any] = {"interactive": interactive}
        if self.cluster is not None:
            info["cluster"] = self.cluster
        request = {"apiVersion": self._api_version(), "kind": "ExecCredential", "spec": info}
        return os.environ | added | {"KUBERNETES_EXEC_INFO": json.dumps(request)}

    def _is_interactive(self) -> bool:
        mode = self.spec.get("interactiveMode") or "IfAvailable"
        if mode == "Always" and not sys.stdin.isatty():
            raise self._error("asks for a terminal, and there is none")
        return mode != "Never" and sys.stdin.isatty()

    def _api_version(self) -> str:
        version = str(self.spec.get("apiVersion"))
        if version not in [f"{API}/{each}" for each in VERSIONS]:
            raise self._error(f"speaks {version}, which fairway does not")
        return version

    def _error(self, what: str) -> ClusterError:
        install = " ".join(str(self.spec.get("installHint") or "").split())
        return ClusterError(
            f"the kubeconfig's credential plugin {self.command} {what}",
            hint=install
            or "Log in to the cluster again as its provider has it; kubectl runs the same plugin.",
        )


class PluginAuth(httpx2.Auth):
    """Signs requests with what a plugin prints; runs it at the first request and when that is refused.

    Args:
        plugin: The program.
        tls: Gets the client certificates, which new connections then use.
    """

    def __init__(self, plugin: Plugin, tls: ssl.SSLContext) -> None:
        self._plugin, self._tls = plugin, tls
        self._lock = asyncio.Lock()
        self._credentials: dict[str, str] | None = None

    async def async_auth_flow(
        self, request: httpx2.Request
    ) -> AsyncGenerator[httpx2.Request, httpx2.Response]:
        """Add the token; with a 401 ask the plugin again, once."""
        used = await self._renew(None)
        self._sign(request, used)
        response = yield request
        if response.status_code == httpx2.codes.UNAUTHORIZED:
            self._sign(request, await self._renew(used))
            yield request

    async def _renew(self, refused: dict[str, str] | None) -> dict[str, str]:
        """Return credentials other than those refused; requests at the same time share one run."""
        async with self._lock:
            if self._credentials is refused:
                self._credentials = await self._plugin.run()
                _load_certificate(self._tls, self._credentials)
            assert self._credentials is not None
            return self._credentials

    def _sign(self, request: httpx2.Request, credentials: Mapping[str, str]) -> None:
        if token := credentials.get("token"):
            request.headers["Authorization"] = f"Bearer {token}"


def _load_certificate(tls: ssl.SSLContext, credentials: Mapping[str, str]) -> None:
    certificate, key = credentials.get("clientCertificateData"), credentials.get("clientKeyData")
    if not certificate or not key:
        return
    with tempfile.NamedTemporaryFile("w", suffix=".pem") as file:  # the ssl module reads only files
        file.write(f"{certificate}\n{key}\n")
        file.flush()
        try:
            tls.load_cert_chain(file.name)
        except ssl.SSLError as err:
            raise ClusterError("the kubeconfig's credential plugin prints a broken certificate") from err
