"""TensorFlow Serving's REST API as an ASGI application, without a framework between."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from concurrent.futures import Executor
from typing import Any

import orjson

from fairway.serve.body import BodyError, ClientGoneError, Receive, read_body
from fairway.serve.servable import Servable
from fairway.serve.versions import Versions, VersionStatus
from fairway.tfs.rest import error_json, format_predict, parse_predict
from fairway.tfs.routes import Route, parse_route
from fairway.tfs.signatures import metadata_json
from fairway.tfs.status import Code, RequestError

# Small requests are answered on the event loop: handing one to a thread takes 30 to 40 µs of CPU, half of
# what the answer to one image takes. These limits are how long the others may be held up by one.
_INLINE_BODY_BYTES = 128 * 1024
_INLINE_SECONDS = 0.002

logger = logging.getLogger(__name__)

Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Reply = tuple[int, bytes]


class App:
    """The ASGI application for one model.

    Args:
        name: Under which the model is served.
        versions: Which version serves.
        executor: Runs what would hold up the event loop.
    """

    def __init__(self, name: str, versions: Versions, executor: Executor) -> None:
        self._name = name
        self._versions = versions
        self._executor = executor

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Answer one request."""
        close = False
        try:
            status, body = await self._answer(scope, receive)
        except ClientGoneError:
            return
        except RequestError as err:
            status, body = err.code.http, error_json(err.message)
        except BodyError as err:
            status, body, close = err.http_status, error_json(err.message), err.close
        except Exception:
            logger.exception("%s %s failed", scope["method"], scope["path"])
            status, body = 500, error_json("internal error; the server's log has the details")
        await _send(send, status, body, close=close)

    async def _answer(self, scope: MutableMapping[str, Any], receive: Receive) -> Reply:
        method, path = scope["method"], scope["raw_path"].decode("latin-1")
        if path in ("/healthz", "/readyz"):
            return self._probe(method, path)
        route = parse_route(method, path)
        if route.action == "status":
            return self._status(route)
        if route.action == "metadata":
            servable = self._find(route)
            return 200, orjson.dumps(metadata_json(route.model, servable.number, servable.signatures))
        body = await read_body(scope["headers"], receive)
        return 200, await self._predict(self._find(route), body)

    async def _predict(self, servable: Servable, body: bytes) -> bytes:
        run = asyncio.get_running_loop().run_in_executor
        if len(body) > _INLINE_BODY_BYTES:
            return await run(self._executor, _answer_whole, servable, body)
        request = parse_predict(body, servable.signatures)
        if servable.seconds(request) < _INLINE_SECONDS:
            outputs = servable.run(request)
        else:
            outputs = await run(self._executor, servable.run, request)
        return format_predict(request, outputs)

    def _find(self, route: Route) -> Servable:
        servable = self._versions.current
        if route.model == self._name and servable and route.version in (None, servable.number):
            return servable
        raise RequestError(Code.NOT_FOUND, f"Servable not found for request: {route.servable_text()}")

    def _status(self, route: Route) -> Reply:
        statuses = self._versions.statuses if route.model == self._name else []
        if route.version is not None:
            statuses = [status for status in statuses if status.number == route.version]
            if not statuses:
                raise RequestError(
                    Code.NOT_FOUND, f"Could not find version {route.version} of model {route.model}"
                )
        if not statuses:
            raise RequestError(Code.NOT_FOUND, f"Could not find any versions of model {route.model}")
        return 200, orjson.dumps({"model_version_status": [_status_json(status) for status in statuses]})

    def _probe(self, method: str, path: str) -> Reply:
        if method not in ("GET", "HEAD"):
            return 405, error_json(f"{method} is not allowed for {path}; use GET")
        if path == "/healthz":
            return 200, b'{"status":"alive"}'
        if servable := self._versions.current:
            return 200, orjson.dumps({"status": "ready", "model": self._name, "version": servable.number})
        return 503, orjson.dumps(
            {"status": "not ready", "model": self._name, "error": self._versions.problem}
        )


def _answer_whole(servable: Servable, body: bytes) -> bytes:
    request = parse_predict(body, servable.signatures)
    return format_predict(request, servable.run(request))


def _status_json(status: VersionStatus) -> dict[str, Any]:
    return {
        "version": str(status.number),  # protobuf's JSON writes 64-bit integers as strings
        "state": status.state.value,
        "status": {
            "error_code": "UNKNOWN" if status.error else "OK",
            "error_message": status.error,
        },
    }


async def _send(send: Send, status: int, body: bytes, *, close: bool) -> None:
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    if status == 405:
        headers.append((b"allow", b"GET, HEAD"))
    if close:
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
