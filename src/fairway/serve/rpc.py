"""The methods of TensorFlow Serving's gRPC services: a message in, a message out, counted and logged."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, TypeVarTuple
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

_GRPC_CODES = {code.value[0]: code for code in grpc.StatusCode}

_R = TypeVar("_R")
_Ts = TypeVarTuple("_Ts")

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class _Call:
    """What is known of a call while it is answered.

    Attributes:
        deadline: In the clock of `time.monotonic`; may be infinite.
        is_large: Whether its message would hold up the event loop.
        model: The model's name as the client wrote it; empty as long as that was not read.
        is_gone: Whether nobody waits for the reply any more.
    """

    deadline: float
    is_large: bool
    model: str = ""
    is_gone: bool = False

    def gone(self) -> bool:
        """Tell whether nobody waits for the reply any more; from any thread."""
        return self.is_gone


class Method:
    """One method of a service: called with the message of a request, returns that of the reply, as bytes.

    Args:
        path: `/package.Service/Method`.
        request: Name of the request's message.
        answer: Returns the reply's message.
        books: Where calls are counted and logged.
        predictor: Runs what would hold up the event loop.
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
        self._slots = slots

    async def __call__(self, data: bytes, context: grpc.aio.ServicerContext) -> bytes:
        """Answer one call; a refusal leaves as an exception that grpcio knows."""
        start = time.perf_counter()
        call = _Call(_deadline(context), len(data) > _LARGE_BYTES)
        reply, code, details = b"", Code.OK, ""
        try:
            with self._predictor.admit(len(data)) if self.computes else nullcontext():
                async with self._slots:
                    reply = await self._answer_bytes(data, call)
        except RequestError as err:
            code, details = err.code, err.message
        except asyncio.CancelledError:  # by grpcio, when the client has gone or the deadline passed
            call.is_gone = True
            self._note(call, Code.CANCELLED, start, data, reply, context)
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
        at_a_time: How many predictions are computed at a time; `None`: all.
    """

    def __init__(
        self,
        models: Models,
        predictor: Predictor,
        metrics: Metrics,
        reload: Reload,
        access: AccessLog | None,
        at_a_time: int | None,
    ) -> None:
        self._models = models
        self._predictor = predictor
        self._reload = reload
        self._slots: Slots = asyncio.Semaphore(at_a_time) if at_a_time else nullcontext()
        self._books = _Books(metrics, access)

    def methods(self) -> tuple[Method, ...]:
        """Return the methods of both services."""
        return (
            self._computing("Predict", "PredictRequest", self._predict),
            self._computing("Classify", "ClassificationRequest", self._classify),
            self._computing("Regress", "RegressionRequest", self._regress),
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
        return Method(path, request, answer, self._books, self._predictor, self._slots, computes=True)

    def _telling(self, path: str, request: str, answer: Callable[[Any, _Call], Awaitable[Any]]) -> Method:
        return Method(path, request, answer, self._books, self._predictor, nullcontext(), computes=False)

    async def _predict(self, request: Any, call: _Call) -> Any:
        spec, servable = self._find(request, call)
        inputs, wanted = await self._run(call, messages.parse_predict, request, servable.signatures)
        outputs = await self._compute(servable, inputs, call)
        if wanted:
            outputs = {name: outputs[name] for name in wanted}
        return messages.predict_response(spec, servable.number, inputs.signature_name, outputs)

    async def _classify(self, request: Any, call: _Call) -> Any:
        spec, servable = self._find(request, call)
        read = partial(messages.parse_examples, "classify")
        inputs = await self._run(call, read, request, servable.signatures)
        outputs = await self._compute(servable, inputs, call)
        reply = messages.classification_response
        return await self._run(call, reply, spec, servable.number, inputs, outputs)

    async def _regress(self, request: Any, call: _Call) -> Any:
        spec, servable = self._find(request, call)
        read = partial(messages.parse_examples, "regress")
        inputs = await self._run(call, read, request, servable.signatures)
        outputs = await self._compute(servable, inputs, call)
        reply = messages.regression_response
        return await self._run(call, reply, spec, servable.number, inputs, outputs)

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


def _deadline(context: grpc.aio.ServicerContext) -> float:
    remaining_s = context.time_remaining()
    is_limited = remaining_s is not None and remaining_s < _LONGEST_S
    return time.monotonic() + remaining_s if is_limited else math.inf


def _short(details: str) -> str:
    return details.encode()[:_MAX_DETAILS_BYTES].decode(errors="ignore")


def _address(peer: str) -> str:
    """Return `127.0.0.1:80` for gRPC's `ipv4:127.0.0.1:80`, and nothing for a Unix socket."""
    kind, _, address = unquote(peer).partition(":")
    return address if kind in ("ipv4", "ipv6") else ""
