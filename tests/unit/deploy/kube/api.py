"""A small server in place of an API server: real HTTP, TLS and WebSockets, answers from the test."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import uvicorn
import yaml
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket

from fairway.deploy.kube.client import Kube
from fairway.deploy.kube.kubeconfig import load_connection
from tests.unit.deploy.kube.tls import Certificate

Answer = Callable[[Request], Awaitable[Response]]
Accept = Callable[[WebSocket], Awaitable[None]]


def status(code: int, message: str, *causes: dict[str, str], **details: Any) -> JSONResponse:
    """Return a refusal as an API server writes it."""
    return JSONResponse(status_body(code, message, *causes, **details), status_code=code)


def status_body(code: int, message: str, *causes: dict[str, str], **details: Any) -> dict[str, Any]:
    found = {**details, **({"causes": list(causes)} if causes else {})}
    body = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure"}
    return {**body, "message": message, "details": found, "code": code}


def pod(name: str, version: str, **more: Any) -> dict[str, Any]:
    """Return a pod as a list or a watch has it."""
    return {"metadata": {"name": name, "uid": f"uid-{name}", "resourceVersion": version, **more}}


def kubeconfig(path: Path, server: str, user: dict[str, Any] | None = None, **cluster: Any) -> Path:
    """Write a kubeconfig with one context, `test`."""
    content = {
        "current-context": "test",
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
        "clusters": [{"name": "test", "cluster": {"server": server, **cluster}}],
        "users": [{"name": "test", "user": user or {"token": "secret-token"}}],
    }
    path.write_text(yaml.safe_dump(content))
    return path


@asynccontextmanager
async def serve(
    answer: Answer | None = None, *, accept: Accept | None = None, certificate: Certificate | None = None
) -> AsyncIterator[str]:
    """Serve on a free port; yield the URL."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            assert accept is not None
            await accept(WebSocket(scope, receive, send))
        else:
            assert answer is not None
            response = await answer(Request(scope, receive))
            await response(scope, receive, send)

    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        app,
        lifespan="off",
        log_config=None,
        ws="wsproto",
        timeout_graceful_shutdown=1,
        ssl_certfile=certificate.path if certificate else None,
        ssl_keyfile=certificate.path if certificate else None,
    )
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        yield f"{'https' if certificate else 'http'}://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        await task


@asynccontextmanager
async def kube(
    tmp_path: Path, monkeypatch: Any, answer: Answer | None = None, accept: Accept | None = None
) -> AsyncIterator[Kube]:
    """Yield a client of a server that answers so, in the namespace `mine`."""
    async with serve(answer, accept=accept) as url:
        monkeypatch.setenv("KUBECONFIG", str(kubeconfig(tmp_path / "config", url)))
        async with Kube(load_connection(None), "mine") as client:
            yield client
