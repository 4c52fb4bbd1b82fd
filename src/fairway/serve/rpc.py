"""The methods of TensorFlow Serving's gRPC services: a message in, a message out, counted and logged."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeVar, TypeVarTuple
from urllib.parse import unquote

import grpc
import grpc.aio

from fairway.tfs import messages
from fairway.tfs.protos import parse
from fairway.tfs.status import Code, RequestError, invalid

if TYPE_CHECKING:
    from fairway.serve.access import AccessLog
    from fairway.serve.compute.batching import Outputs
    from fairway.serve.compute.predictor import Predictor
    from fairway.serve.compute.servable import Servable
    from fairway.serve.metrics import Metrics
    from fairway.serve.versions.models import Models
    from fairway.tfs.configs import ModelConfig
    from fairway.tfs.request import ModelSpec, PredictRequest

PREDICTION_SERVICE = "tensorflow.serving.PredictionService"
MODEL_SERVICE = "tensorflow.serving.ModelService"

Reload = Callable[[tuple["ModelConfig", ...]], None]
Slots = AbstractAsyncContextManager[None]

# Messages up to this size are read on the event loop: of a million numbers that takes a millisecond or less.
_LARGE_BYTES = 256 * 1024
# Statuses travel as headers, of which clients take 8 KiB; on the way one byte may become three.
_MAX_DETAILS_BYTES = 2000
# grpcio tells of more than any client means where there is no deadline.
_LONGEST_S = 365 * 24 * 3600.0
# A deadline travels with three digits, and its timers round.
_DEADLINE_SHARE, _DEADLINE_MARGIN_S = 0.01, 0.01
# As long as REST waits for a body.
_MESSAGE_S = 60.0
# What a call takes that is on its way, and what it takes to tell clients that the connection ends.
_WAY_S = 0.05

_GRPC_CODES = {code.value[0]: code for code in grpc.StatusCode}

_ExampleAction = Literal["classify", "regress"]
_REPLIES = {"classify": messages.classification_response, "regress": messages.regression_response}

_R = TypeVar("_R")
_Ts = TypeVarTuple("_Ts")

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class _Call:
    """What is known of a call while it is answered.

    Attributes:
        deadline: In the clock of `time.monotonic`; may be infinite.
        late: When the deadline can be why a call was cancelled.
        is_large: Whether its message would hold up the event loop.
        model: The model's name as the client wrote it; empty as long as that was not read.
        is_gone: Whether nobody waits for the reply any more.
    """

    deadline: float
    late: float
    is_large: bool = False
    model: str = ""
    is_gone: bool = False

    def gone(self) -> bool:
        """Tell whether nobody waits for the reply any more; from any thread."""
        return self.is_gone


class UnderWay:
    """The calls that are not answered yet, and those among them whose message has not come yet."""

    def __init__(self) -> None:
        self._count = 0
        self._is_ending = False
        self._is_told = asyncio.Event()
        self._none_left = asyncio.Event()
        self._waiting: dict[asyncio.Task[Any] | None, float] = {}  # since when; the first waits longest

    def begin(self) -> bool:
        """Count a call; return whether it may be answered."""
        if not self._is_ending:
            self._count += 1
        return not self._is_ending

    def end(self) -> None:
        """Count a call no more."""
        self._count -= 1
        if not self._count:
            self._none_left.set()

    async def message(self, context: grpc.aio.ServicerContext) -> bytes:
        """Return the message of a call.

        Raises:
            RequestError: there is none, or it does not come.
        """
        task = asyncio.current_task()
        self._waiting[task] = time.monotonic()
        try:
            data = await context.read()
        except asyncio.CancelledError:
            if task in self._waiting:
                raise
            raise RequestError(
                Code.DEADLINE_EXCEEDED, f"the message did not arrive within {_MESSAGE_S:.0f} seconds"
            ) from None
        finally:
            self._waiting.pop(task, None)
        if not isinstance(data, bytes):
            raise invalid("the call ended without a message")
        return data

    def give_up_late(self) -> None:
        """End the calls whose message is too long in coming."""
        limit = time.monotonic() - _MESSAGE_S
        for task in [task for task, since in self._waiting.items() if since < limit]:
            del self._waiting[task]
            if task:
                task.cancel()

    async def refuse(self, context: grpc.aio.ServicerContext) -> None:
        """Tell a client that the server ends, once it has been told that the connection does.

        If it were told at once, it could call again on the same connection, and find nobody there any more.
        """
        await self._is_told.wait()
        await context.abort(grpc.StatusCode.UNAVAILABLE, "the server is ending")

    async def end_with(self, stop: Awaitable[None]) -> asyncio.Future[None]:
        """Take on no more calls, and begin to stop the server when those have come that are on their way."""
        self._is_ending = True
        await asyncio.sleep(_WAY_S)
        stopped = asyncio.ensure_future(stop)
        await asyncio.sleep(_WAY_S)
        self._is_told.set()
        return stopped

    async def finish(self, limit_s: float) -> None:
        """Return when all are answered, or so many seconds have passed."""
        if self._count:
            self._none_left.clear()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._none_left.wait(), limit_s)


class Method:
    """One method of a service: reads the message of a request, returns that of the reply, as bytes.

    Args:
        path: `/package.Service/Method`.
        request: Name of the request's message.
        answer: Returns the reply's message.
        books: Where calls are counted and logged.
        predictor: Runs what would hold up the event loop.
        under_way: Counts the calls.
        slots: What a call that computes needs one of.
        computes: Whether a call is one of the predictions under way, of which there is a limit.
    """

    def __init__(
        self,
        path: str,
        request: str,
        answer: Callable[[Any, _Call], Awaitable[Any]],
        books: _Books,
        predictor: Predictor,
        under_way: UnderWay,
        slots: Slots,
        *,
        computes: bool,
    ) -> None:
        self.path = path
        self.name = path.rpartition("/")[2]
        self.computes = computes
        self._request = request
        self._answer = answer
        self._books = books
        self._predictor = predictor
        self._under_way = under_way
        self._slots = slots

    async def __call__(self, _messages: object, context: grpc.aio.ServicerContext) -> bytes:
        """Answer one call; a refusal leaves as an exception that grpcio knows."""
        if not self._under_way.begin():
            await self._under_way.refuse(context)
        try:
            return await self._answer_call(context)
        finally:
            self._under_way.end()

    async def _answer_call(self, context: grpc.aio.ServicerContext) -> bytes:
        start = time.perf_counter()
        call = _call(context)
        data, reply, code, details = b"", b"", Code.OK, ""
        try:
            data = await self._under_way.message(context)
            start = time.perf_counter()
            call.is_large = len(data) > _LARGE_BYTES
            with self._predictor.admit(len(data)) if self.computes else nullcontext():
                async with self._slots:
                    reply = await self._answer_bytes(data, call)
        except RequestError as err:
            code, details = err.code, err.message
        except asyncio.CancelledError:  # by grpcio, when the client has gone or the deadline passed
            call.is_gone = True
            code = Code.DEADLINE_EXCEEDED if time.monotonic() >= call.late else Code.CANCELLED
            self._note(call, code, start, data, reply, context)
            raise
        except Exception:
            logger.exception("%s failed", self.path)
            code, details = Code.INTERNAL, "internal error; the server's log has the details"
        self._note(call, code, start, data, reply, context)
        if code is not Code.OK:
            await context.abort(_GRPC_CODES[code.value], _short(details))
        return reply

    async def _answer_bytes(self, data: bytes, call: _Call) -> bytes:
        try:
            request = parse(f"tensorflow.serving.{self._request}", data)
        except ValueError:
            raise invalid(f"the message is not a {self._request}") from None
        reply: bytes = (await self._answer(request, call)).SerializeToString()
        return reply

    def _note(
        self,
        call: _Call,
        code: Code,
        start: float,
        data: bytes,
        reply: bytes,
        context: grpc.aio.ServicerContext,
    ) -> None:
        self._books.note(self, call.model, code, time.perf_counter() - start, len(data), len(reply), context)


class _Books:
    """Where calls are counted and logged."""

    def __init__(self, metrics: Metrics, access: AccessLog | None) -> None:
        self._metrics = metrics
        self._access = access

    def note(
        self,
        method: Method,
        model: str,
        code: Code,
        seconds: float,
        size_in: int,
        size_out: int,
        context: grpc.aio.ServicerContext,
    ) -> None:
        if method.computes:  # TensorFlow Serving counts no others
            self._metrics.request("GRPC", method.name, model, code, seconds)
        if self._access:
            self._access.write(
                api="GRPC",
                method=method.name,
                path=method.path,
                model=model,
                code=code,
                seconds=seconds,
                size_in=size_in,
                size_out=size_out,
                peer=_address(context.peer()),
            )


class Services:
    """PredictionService and ModelService.

    Args:
        models: Knows what serves.
        predictor: Computes.
        metrics: Counts the calls that compute.
        reload: Takes the models of a reload request; blocks.
        access: Where each call is logged; `None` where that is not wanted.
        under_way: Counts the calls.
        at_a_time: How many predictions are computed at a time; `None`: all.
    """

    def __init__(
        self,
        models: Models,
        predictor: Predictor,
        metrics: Metrics,
        reload: Reload,
        access: AccessLog | None,
        under_way: UnderWay,
        at_a_time: int | None,
    ) -> None:
        self._under_way = under_way
        self._models = models
        self._predictor = predictor
        self._reload = reload
        self._slots: Slots = asyncio.Semaphore(at_a_time) if at_a_time else nullcontext()
        self._books = _Books(metrics, access)

    def methods(self) -> tuple[Method, ...]:
        """Return the methods of both services."""
        return (
            self._computing("Predict", "PredictRequest", self._predict),
            self._computing("Classify", "ClassificationRequest", partial(self._use_examples, "classify")),
            self._computing("Regress", "RegressionRequest", partial(self._use_examples, "regress")),
            self._computing("MultiInference", "MultiInferenceRequest", self._multi_inference),
            self._telling(
                f"/{PREDICTION_SERVICE}/GetModelMetadata", "GetModelMetadataRequest", self._metadata
            ),
            self._telling(f"/{MODEL_SERVICE}/GetModelStatus", "GetModelStatusRequest", self._status),
            self._telling(
                f"/{MODEL_SERVICE}/HandleReloadConfigRequest", "ReloadConfigRequest", self._reload_config
            ),
        )

    def _computing(self, name: str, request: str, answer: Callable[[Any, _Call], Awaitable[Any]]) -> Method:
        path = f"/{PREDICTION_SERVICE}/{name}"
        parts = (self._books, self._predictor, self._under_way, self._slots)
        return Method(path, request, answer, *parts, computes=True)

    def _telling(self, path: str, request: str, answer: Callable[[Any, _Call], Awaitable[Any]]) -> Method:
        parts = (self._books, self._predictor, self._under_way, nullcontext())
        return Method(path, request, answer, *parts, computes=False)

    async def _predict(self, request: Any, call: _Call) -> Any:
        spec, servable = self._find(request, call)
        inputs, wanted = await self._run(call, messages.parse_predict, request, servable.signatures)
        outputs = await self._compute(servable, inputs, call)
        if wanted:
            outputs = {name: outputs[name] for name in wanted}
        return messages.predict_response(spec, servable.number, inputs.signature_name, outputs)

    async def _use_examples(self, action: _ExampleAction, request: Any, call: _Call) -> Any:
        spec, servable = self._find(request, call)
        read = partial(messages.parse_examples, action)
        inputs = await self._run(call, read, request, servable.signatures)
        outputs = await self._compute(servable, inputs, call)
        return await self._run(call, _REPLIES[action], spec, servable.number, inputs, outputs)

    async def _multi_inference(self, request: Any, call: _Call) -> Any:
        spec = messages.multi_inference_spec(request)
        call.model = spec.name
        servable = self._models.find(spec)
        tasks = await self._run(call, messages.parse_multi_inference, request, servable.signatures)
        results = [(task, await self._compute(servable, task.request, call)) for task in tasks]
        reply = messages.multi_inference_response
        return await self._run(call, reply, spec, servable.number, results)

    async def _metadata(self, request: Any, call: _Call) -> Any:
        spec, servable = self._find(request, call)
        return messages.metadata_response(spec, servable.number, servable.signatures, request.metadata_field)

    async def _status(self, request: Any, call: _Call) -> Any:
        spec = messages.model_spec(request)
        call.model = spec.name
        return messages.status_response(self._models.statuses(spec))

    async def _reload_config(self, request: Any, call: _Call) -> Any:
        configs = messages.parse_reload(request)
        # Not one of the predictor's threads: it takes as long as loading does.
        await asyncio.to_thread(self._reload, configs)
        return messages.reload_response()

    def _find(self, request: Any, call: _Call) -> tuple[ModelSpec, Servable]:
        spec = messages.model_spec(request)
        call.model = spec.name
        return spec, self._models.find(spec)

    async def _compute(self, servable: Servable, inputs: PredictRequest, call: _Call) -> Outputs:
        return await self._predictor.predict(servable, inputs, call.deadline, call.gone)

    async def _run(self, call: _Call, function: Callable[[*_Ts], _R], *args: *_Ts) -> _R:
        """Run what takes long with a large message, in a thread if this one is large."""
        return await self._predictor.offload(function, *args) if call.is_large else function(*args)


def _call(context: grpc.aio.ServicerContext) -> _Call:
    remaining_s = context.time_remaining()
    if remaining_s is None or remaining_s > _LONGEST_S:
        return _Call(math.inf, math.inf)
    deadline = time.monotonic() + remaining_s
    return _Call(deadline, deadline - remaining_s * _DEADLINE_SHARE - _DEADLINE_MARGIN_S)


def _short(details: str) -> str:
    return details.encode()[:_MAX_DETAILS_BYTES].decode(errors="ignore")


def _address(peer: str) -> str:
    """Return `127.0.0.1:80` for gRPC's `ipv4:127.0.0.1:80`, and nothing for a Unix socket."""
    kind, _, address = unquote(peer).partition(":")
    return address if kind in ("ipv4", "ipv6") else ""
