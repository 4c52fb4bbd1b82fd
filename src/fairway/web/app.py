"""The web UI as an ASGI application: the page, and the three questions it asks."""

from __future__ import annotations

import base64
import hashlib
import logging
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx
import orjson
from anyio.to_thread import run_sync
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from fairway.client.answers import Prediction
from fairway.client.pictures import scaled, see
from fairway.client.rest import RestClient
from fairway.config import WebSettings
from fairway.errors import DataError, FairwayError, ServerError
from fairway.web.files import Files
from fairway.web.middleware import PathPrefix, ResponseHeaders, SameOrigin, clean_prefix
from fairway.web.pictures import png_data_url
from fairway.web.samples import Samples
from fairway.web.state import describe_files, describe_server, for_visitors, with_training

log = logging.getLogger(__name__)

STATIC = Path(__file__).parent / "static"
# The largest file that a visitor may send.
MAX_BYTES = 5 * 1024 * 1024
# Pictures decoded at a time: each may take 16 million pixels of memory.
_DECODERS = 2


def build_app(settings: WebSettings, transport: httpx.AsyncBaseTransport | None = None) -> Starlette:
    """Return the application.

    Args:
        settings: The model server, the directories and the path prefix.
        transport: Replaces the network to the model server, for tests.

    Raises:
        UsageError: the server's address, a directory's URI or the path prefix is not one.
    """
    pages = Pages(settings, RestClient(settings.server, settings.model_name, transport=transport))
    prefix = clean_prefix(settings.path_prefix)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        await pages.server.close()

    return Starlette(
        routes=[
            Route("/", pages.index),
            Route("/healthz", pages.health),
            Route("/api/state", pages.state),
            Route("/api/predict", pages.predict, methods=["POST"]),
            Route("/api/random", pages.random, methods=["POST"]),
            Mount("/static", StaticFiles(directory=STATIC)),
        ],
        middleware=[
            Middleware(ResponseHeaders, headers=_headers(pages.page)),
            Middleware(PathPrefix, prefix=prefix),
            Middleware(SameOrigin),
        ],
        exception_handlers={FairwayError: _refuse, HTTPException: _refuse_http},
        lifespan=lifespan,
    )


class Pages:
    """What is answered to each path.

    Args:
        settings: Where the data and the directories are.
        server: The model server.
    """

    def __init__(self, settings: WebSettings, server: RestClient) -> None:
        self.server = server
        self.page = (STATIC / "index.html").read_bytes()
        self._settings = settings
        self._samples = Samples(settings)
        self._model_dir, self._export_dir = Files(settings.model_dir), Files(settings.export_dir)
        self._decoders = anyio.CapacityLimiter(_DECODERS)
        self._readers = anyio.CapacityLimiter(1)  # those who wait for a slow store take no other's thread

    async def index(self, request: Request) -> Response:
        """Return the page."""
        return Response(self.page, media_type="text/html")

    async def health(self, request: Request) -> Response:
        """Say that this process answers; the model server has its own."""
        return PlainTextResponse("ok\n")

    async def state(self, request: Request) -> Response:
        """Return the state of the server, the training and the record, or 304 if nothing has changed."""
        server = await describe_server(self.server)
        files = await run_sync(
            describe_files, self._settings, self._model_dir, self._export_dir, server["version"]
        )
        body = orjson.dumps({"server": with_training(server, files["training"]), **files})
        etag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
        # A proxy that compresses makes the tag a weak one.
        if request.headers.get("if-none-match", "").removeprefix("W/") == etag:
            return Response(status_code=304, headers={"etag": etag})
        return Response(body, media_type="application/json", headers={"etag": etag})

    async def predict(self, request: Request) -> Response:
        """Return the model's answer to a picture, and what the model saw."""
        try:
            body = await _read(request)
        except ClientDisconnect:
            return Response(status_code=400)
        seen = await run_sync(see, body, limiter=self._decoders)
        prediction = await self.server.predict(scaled(seen))
        return _json(_answer(prediction) | {"seen": png_data_url(seen)})

    async def random(self, request: Request) -> Response:
        """Return the model's answer to a random image of the test set, and the truth."""
        try:
            sample = await run_sync(self._samples.draw, limiter=self._readers)
        except FairwayError as err:
            log.warning("no random image: %s", err.message)
            return _json(for_visitors(err), 404)
        prediction = await self.server.predict(scaled(sample.image))
        where = {"index": sample.index, "source": sample.source, "truth": sample.truth}
        return _json(_answer(prediction) | where | {"image": png_data_url(sample.image)})


async def _read(request: Request) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BYTES:
            raise HTTPException(413, f"the picture is larger than {MAX_BYTES // 2**20} MB")
    return bytes(body)


def _answer(prediction: Prediction) -> dict[str, Any]:
    return {
        "digit": prediction.digit,
        "probabilities": prediction.probabilities,
        "version": prediction.version,
        "ms": round(1000 * prediction.seconds, 1),
    }


def _json(content: Any, status: int = 200) -> Response:
    return Response(orjson.dumps(content), status, media_type="application/json")


async def _refuse(request: Request, error: Exception) -> Response:
    assert isinstance(error, FairwayError)
    status = 400 if isinstance(error, DataError) else 503 if isinstance(error, ServerError) else 500
    return _json({"error": error.message, "hint": error.hint}, status)


async def _refuse_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    hints = {
        404: "If a proxy shows the page under a path and passes the path on, name it with --path-prefix.",
        413: "Scale the picture down and try again.",
    }
    content = {"error": error.detail, "hint": hints.get(error.status_code, "")}
    response = _json(content, error.status_code)
    response.headers.update(error.headers or {})
    return response


def _headers(page: bytes) -> dict[str, str]:
    """Return the security headers; the page's one inline script is allowed by its hash."""
    scripts = re.findall(rb"<script>(.*?)</script>", page, re.DOTALL)
    hashes = [f"'sha256-{base64.b64encode(hashlib.sha256(s).digest()).decode()}'" for s in scripts]
    policy = {
        "default-src": "'none'",
        "script-src": " ".join(["'self'", *hashes]),
        "style-src": "'self'",
        "img-src": "'self' data:",
        "connect-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'self'",  # dashboards show it in a frame
    }
    return {
        "content-security-policy": "; ".join(f"{name} {value}" for name, value in policy.items()),
        "x-content-type-options": "nosniff",
        "referrer-policy": "no-referrer",
        "cross-origin-opener-policy": "same-origin",
        "cross-origin-resource-policy": "same-origin",
        "permissions-policy": "camera=(), geolocation=(), microphone=()",
        "cache-control": "no-cache",
    }
