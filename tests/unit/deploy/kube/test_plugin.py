"""Credential plugins: real programs, and a server that refuses their first token."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from fairway.deploy.kube.client import Kube
from fairway.deploy.kube.kubeconfig import load_connection
from fairway.deploy.kube.plugin import API, Plugin
from fairway.errors import ClusterError
from tests.unit.deploy.kube.api import kubeconfig, serve, status
from tests.unit.deploy.kube.tls import self_signed

V1 = f"{API}/v1"


def script(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "plugin"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def credentials(version: str = V1, **found: str) -> str:
    return json.dumps({"apiVersion": version, "kind": "ExecCredential", "status": found})


def spec(command: object, **more: Any) -> dict[str, Any]:
    return {"apiVersion": V1, "command": str(command), "interactiveMode": "Never", **more}


@pytest.mark.parametrize("version", ["v1", "v1beta1", "v1alpha1"])
def test_every_version_of_the_protocol_is_spoken(tmp_path: Path, version: str) -> None:
    command = script(tmp_path, f"echo '{credentials(f'{API}/{version}', token='t')}'")
    plugin = Plugin(spec(command, apiVersion=f"{API}/{version}"), None, None)
    assert asyncio.run(plugin.run()) == {"token": "t"}


def test_the_plugin_is_told_what_it_asks_for(tmp_path: Path) -> None:
    command = script(
        tmp_path, 'echo "$KUBERNETES_EXEC_INFO $REGION $1" > "$0.told"; ' + f"echo '{credentials(token='t')}'"
    )
    plugin = Plugin(
        spec("./plugin", args=["get-token"], env=[{"name": "REGION", "value": "north"}]),
        {"server": "https://api.example.com"},
        tmp_path,
    )
    asyncio.run(plugin.run())
    info, region, word = (command.parent / "plugin.told").read_text().rsplit(maxsplit=2)
    told = {"interactive": False, "cluster": {"server": "https://api.example.com"}}
    assert json.loads(info) == {"apiVersion": V1, "kind": "ExecCredential", "spec": told}
    assert (region, word) == ("north", "get-token")


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("echo 'token has expired' >&2; exit 3", "failed with exit code 3: token has expired"),
        ("exit 1", "failed with exit code 1$"),
        ("echo hello", "prints no credentials"),
        (f"echo '{credentials()}'", "prints no credentials of version"),
        (f"echo '{credentials(f'{API}/v1beta1', token='t')}'", "prints no credentials of version"),
    ],
)
def test_a_plugin_that_fails_is_said_in_a_sentence(tmp_path: Path, text: str, what: str) -> None:
    plugin = Plugin(spec(script(tmp_path, text)), None, None)
    with pytest.raises(ClusterError, match=what):
        asyncio.run(plugin.run())


def test_a_plugin_that_is_not_installed_says_how_to_get_it() -> None:
    plugin = Plugin(spec("no-such-plugin", installHint="Get it from\n  example.com"), None, None)
    with pytest.raises(ClusterError, match="no-such-plugin cannot be started") as caught:
        asyncio.run(plugin.run())
    assert caught.value.hint == "Get it from example.com"


def test_an_unknown_version_is_refused(tmp_path: Path) -> None:
    plugin = Plugin(spec("x", apiVersion=f"{API}/v9"), None, None)
    with pytest.raises(ClusterError, match="speaks client.authentication.k8s.io/v9"):
        asyncio.run(plugin.run())


def test_a_plugin_that_needs_a_terminal_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plugin = Plugin(spec("x", interactiveMode="Always"), None, None)
    with (tmp_path / "empty").open("w+") as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        with pytest.raises(ClusterError, match="asks for a terminal"):
            asyncio.run(plugin.run())


def test_a_plugin_that_hangs_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fairway.deploy.kube.plugin.TIMEOUT_S", 0.2)
    plugin = Plugin(spec(script(tmp_path, "sleep 20; true")), None, None)
    begun = time.monotonic()
    with pytest.raises(ClusterError, match="has not ended after 0.2 s"):
        asyncio.run(plugin.run())
    assert time.monotonic() - begun < 5


def test_a_refused_token_is_renewed_once_for_all_requests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The token of the second run is the one that counts; ten requests at once need two runs, not eleven."""
    runs = tmp_path / "runs"
    token = credentials(token="TOKEN").replace("TOKEN", f"'$(wc -l < {runs} | tr -d ' ')'")
    command = script(tmp_path, f"echo run >> {runs}; echo '{token}'")

    async def answer(request: Request) -> Response:
        if request.headers["Authorization"] != "Bearer 2":
            return status(401, "Unauthorized")
        return JSONResponse({"gitVersion": "v1.32.0"})

    async def main() -> None:
        async with serve(answer) as url:
            config = kubeconfig(tmp_path / "config", url, {"exec": spec(command)})
            monkeypatch.setenv("KUBECONFIG", str(config))
            async with Kube(load_connection(None), "mine") as kube:
                versions = await asyncio.gather(*(kube.version() for _ in range(10)))
                assert set(versions) == {"v1.32.0"}

    asyncio.run(main())
    assert runs.read_text() == "run\n" * 2


def test_a_client_certificate_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server, client = self_signed(tmp_path / "server.pem"), self_signed(tmp_path / "client.pem")
    printed = tmp_path / "printed"
    printed.write_text(credentials(clientCertificateData=client.pem, clientKeyData=client.key))
    loaded: list[str] = []
    monkeypatch.setattr(
        "ssl.SSLContext.load_cert_chain",
        lambda self, path: loaded.append(Path(path).read_text()),
    )

    async def main() -> None:
        config = kubeconfig(
            tmp_path / "config",
            "https://127.0.0.1:9",
            {"exec": spec(script(tmp_path, f"cat {printed}"))},
            **{"certificate-authority": str(server.path)},
        )
        monkeypatch.setenv("KUBECONFIG", str(config))
        async with Kube(load_connection(None), "mine") as kube:
            with pytest.raises(ClusterError, match="nothing listens there"):
                await kube.version()

    asyncio.run(main())
    assert loaded == [f"{client.pem}\n{client.key}\n"]
