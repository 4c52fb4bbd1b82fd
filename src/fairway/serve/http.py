"""TensorFlow Serving's REST API as an ASGI application, without a framework between."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeVar, TypeVarTuple

import orjson
from numpy.typing import NDArray

from fairway.serve.body import Body, BodyError, Receive, inflate
from fairway.serve.versions.models import Models
from fairway.tfs.request import ModelSpec
from fairway.tfs.rest import RestPredict, error_json, format_predict, parse_predict
from fairway.tfs.routes import Route, parse_route
from fairway.tfs.signatures import metadata_json
from fairway.tfs.status import Code, RequestError
from fairway.tfs.versions import statuses_json

if TYPE_CHECKING:
    from fairway.serve.access import AccessLog
    from fairway.serve.compute.predictor import Predictor
    from fairway.serve.compute.servable import Servable
    from fairway.serve.metrics import Metrics

# What is larger is parsed and written by a thread: it takes the event loop up to a millisecond.
_INLINE_BYTES = 256 * 1024
_RETRY_AFTER_S = 1
# Where a scope's state has what `answer_at_once` has parsed.
_PARSED = "fairway.parsed"

logger = logging.getLogger(__name__)

Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
_Computed = Literal["predict", "classify", "regress"]
_Headers = tuple[tuple[bytes, bytes], ...]
_R = TypeVar("_R")
_Ts = TypeVarTuple("_Ts")

_JSON = (b"content-type", b"application/json")
_PLAIN = (b"content-type", b"text/plain; version=0.0.4; charset=utf-8")
# Source: AddCORSHeaders in tensorflow_serving/model_servers/http_rest_api_util.cc.
_CORS: _Headers = (
    (b"access-control-allow-origin", b"*"),
    (b"access-control-allow-methods", b"POST, GET"),
    (b"access-control-allow-headers", b"Content-Type"),
)


@dataclass(frozen=True)
class HttpOptions:
    """How the REST API behaves.

    Attributes:
        timeout_s: How long a prediction may take, from when its body is there.
        cors: Whether pages of other origins may ask.
        metrics_path: Where Prometheus finds the metrics; `None`: nowhere.
    """

    timeout_s: float
    cors: bool
    metrics_path: str | None


class _Reply(NamedTuple):
    body: bytes
    status: int = 200
    code: Code = Code.OK
    content_type: tuple[bytes, bytes] = _JSON
    headers: _Headers = ()


class _Parsed(NamedTuple):
    """A request that has been parsed, but was not answered at once."""

    servable: Servable
    predict: RestPredict


class _Exchange:
    """One request: what was asked, and what the log and the metrics are told of it."""

    __slots__ = ("gone", "headers", "method", "parsed", "path", "receive", "route", "size")

    def __init__(self, scope: MutableMapping[str, Any], receive: Receive) -> None:
        self.method: str = scope["method"]
        self.path: str = scope["raw_path"].decode("latin-1")
        self.headers: list[tuple[bytes, bytes]] = scope["headers"]
        self.receive = receive
        self.route: Route | None = None
        self.size = 0
        state: Mapping[str, Any] = scope.get("state", {})
        self.gone: Callable[[], bool] = state.get("fairway.gone", _stays)
        self.parsed: _Parsed | None = state.get(_PARSED)


class App:
    """The ASGI application.

    Args:
        models: What is served.
        predictor: Computes.
        metrics: Counts what is asked of models.
        options: How it behaves.
        metrics_text: Returns the page for Prometheus.
        access: Is told of each request.
    """

    def __init__(
        self,
        models: Models,
        predictor: Predictor,
        metrics: Metrics,
        options: HttpOptions,
        metrics_text: Callable[[], Awaitable[bytes]],
        access: AccessLog | None,
    ) -> None:
        self._models = models
        self._predictor = predictor
        self._metrics = metrics
        self._timeout_s = options.timeout_s
        self._metrics_text = metrics_text
        self._access = access
        self._cors = _CORS if options.cors else ()
        self._lines = b"".join([b"%s: %s\r\n" % header for header in (_JSON, *self._cors)])
        self._pages: dict[str, Callable[[], Awaitable[_Reply]]] = {
            "/healthz": self._alive,
            "/readyz": self._ready,
        }
        if options.metrics_path:
            self._pages[options.metrics_path] = self._metrics_page

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Answer one request."""
        start = time.monotonic()
        exchange = _Exchange(scope, receive)
        try:
            reply = await self._answer(exchange)
        except RequestError as err:
            reply = _refusal(err)
        except asyncio.CancelledError:
            reply = _refusal(RequestError(Code.UNAVAILABLE, "the server is ending"))
        except Exception:
            logger.exception("%s %s failed", exchange.method, exchange.path)
            reply = _Reply(error_json("internal error; the server's log has the details"), 500, Code.INTERNAL)
        if reply.code is not Code.CANCELLED:
            await self._send(send, reply)
        size_in, size_out, client = exchange.size, len(reply.body), scope.get("client")
        self._record(
            exchange.method,
            exchange.path,
            exchange.route,
            reply.status,
            reply.code,
            start,
            size_in,
            size_out,
            client[0] if client else "",
        )

    def answer_at_once(
        self,
        target: bytes,
        headers: list[tuple[bytes, bytes]],
        body: bytes,
        peer: str,
        state: MutableMapping[str, Any],
    ) -> tuple[bytes, bytes] | None:
        """Answer a small prediction that needs no thread; see `net.direct`.

        Whatever is not as it should be is left to `__call__`, which finds the words for it.
        """
        if not self._predictor.computes_at_once or len(body) > _INLINE_BYTES:
            return None
        if any(name == b"content-encoding" for name, _ in headers):
            return None
        start = time.monotonic()
        try:
            route = parse_route("POST", target.decode("latin-1"))
            servable = self._models.find(route.spec)
            if route.action != "predict" or not servable.lite:
                return None
            request, row_form = predict = parse_predict(body, servable.signatures)
            outputs = self._predictor.compute_at_once(servable, request)
            if outputs is None or _size(outputs) > _INLINE_BYTES:
                state[_PARSED] = _Parsed(servable, predict)
                return None
            reply = format_predict(outputs, row_form)
        except Exception:  # which `__call__` meets again, and tells the client or the log
            return None
        self._record(
            "POST", target.decode("latin-1"), route, 200, Code.OK, start, len(body), len(reply), peer
        )
        return self._lines, reply

    async def _send(self, send: Send, reply: _Reply) -> None:
        length = (b"content-length", b"%d" % len(reply.body))
        headers = [reply.content_type, length, *reply.headers, *self._cors]
        await send({"type": "http.response.start", "status": reply.status, "headers": headers})
        await send({"type": "http.response.body", "body": reply.body})

    def _record(
        self,
        method: str,
        path: str,
        route: Route | None,
        status: int,
        code: Code,
        start: float,
        size_in: int,
        size_out: int,
        peer: str,
    ) -> None:
        """Tell the metrics and the log of a request; `start` is in the clock of `time.monotonic`."""
        seconds = time.monotonic() - start
        if route:
            self._metrics.request("REST", route.action, route.spec.name, code, seconds)
        if self._access:
            self._access.write(
                api="REST",
                method=method,
                path=path,
                model=route.spec.name if route else "",
                code=status,
                seconds=seconds,
                size_in=size_in,
                size_out=size_out,
                peer=peer,
            )

    async def _answer(self, exchange: _Exchange) -> _Reply:
        if page := self._pages.get(exchange.path):
            if exchange.method in ("GET", "HEAD"):
                return await page()
            text = f"{exchange.method} is not allowed for {exchange.path}; use GET"
            return _Reply(error_json(text), 405, Code.INVALID_ARGUMENT, headers=((b"allow", b"GET, HEAD"),))
        if exchange.method == "OPTIONS" and self._cors and exchange.path[:4].lower() == "/v1/":
            return _Reply(b"")
        route = exchange.route = parse_route(exchange.method, exchange.path)
        if route.action == "status":
            return _Reply(orjson.dumps(statuses_json(self._models.statuses(route.spec))))
        if route.action == "metadata":
            servable = self._models.find(route.spec)
            return _Reply(orjson.dumps(metadata_json(route.spec.name, servable.number, servable.signatures)))
        return _Reply(await self._compute(route.action, route.spec, exchange))

    async def _compute(self, action: _Computed, spec: ModelSpec, exchange: _Exchange) -> bytes:
        content = Body(exchange.headers, exchange.receive)
        with self._predictor.admit(await content.expect()):
            body = await content.read()
            exchange.size = len(body)
            if not content.gzip:
                return await self._infer(action, spec, exchange, body)
            body = await self._predictor.offload(inflate, body)
        with self._predictor.admit(len(body)):
            return await self._infer(action, spec, exchange, body)

    async def _infer(self, action: _Computed, spec: ModelSpec, exchange: _Exchange, body: bytes) -> bytes:
        deadline = time.monotonic() + self._timeout_s
        servable = self._models.find(spec)
        if action != "predict":
            return await self._use_examples(action, servable, exchange, body, deadline)
        if exchange.parsed and exchange.parsed.servable is servable:
            request, row_form = exchange.parsed.predict
        else:
            request, row_form = await self._run(len(body), parse_predict, body, servable.signatures)
        outputs = await self._predictor.predict(servable, request, deadline, exchange.gone)
        return await self._run(_size(outputs), format_predict, outputs, row_form)

    async def _use_examples(
        self,
        action: Literal["classify", "regress"],
        servable: Servable,
        exchange: _Exchange,
        body: bytes,
        deadline: float,
    ) -> bytes:
        # Takes protobuf along, which most servers never need for REST.
        from fairway.tfs.examples import classifications_json, parse_examples, regressions_json

        request = await self._predictor.offload(parse_examples, action, body, servable.signatures)
        outputs = await self._predictor.predict(servable, request, deadline, exchange.gone)
        write = classifications_json if action == "classify" else regressions_json
        return await self._run(_size(outputs), write, outputs, request.rows)

    async def _run(self, size: int, function: Callable[[*_Ts], _R], *args: *_Ts) -> _R:
        if size <= _INLINE_BYTES:
            return function(*args)
        return await self._predictor.offload(function, *args)

    async def _alive(self) -> _Reply:
        return _Reply(b'{"status":"alive"}')

    async def _ready(self) -> _Reply:
        content: dict[str, Any] = {"status": "ready", "models": self._models.serving}
        problems = self._models.problems
        if content["models"] and not problems:  # without any model nothing is answered: gRPC's health, too
            return _Reply(orjson.dumps(content))
        content |= {"status": "not ready", "problems": problems}
        return _Reply(orjson.dumps(content), 503, Code.UNAVAILABLE)

    async def _metrics_page(self) -> _Reply:
        return _Reply(await self._metrics_text(), content_type=_PLAIN)


def _refusal(err: RequestError) -> _Reply:
    status = err.code.http
    headers: _Headers = ()
    if isinstance(err, BodyError):
        status = err.http_status
        headers = ((b"connection", b"close"),) if err.close else ()
    elif status == 503:
        headers = ((b"retry-after", b"%d" % _RETRY_AFTER_S),)
    return _Reply(error_json(err.message), status, err.code, headers=headers)


def _size(outputs: Mapping[str, NDArray[Any]]) -> int:
    return sum([array.nbytes for array in outputs.values()])


def _stays() -> bool:
    """Stand in where the server does not tell whether the client has gone."""
    return False
