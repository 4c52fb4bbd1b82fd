"""The methods of TensorFlow Serving's gRPC services: a message in, a message out, counted and logged."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import grpc

from fairway.serve.body import MAX_BODY_BYTES
from fairway.tfs import messages
from fairway.tfs.protos import parse
from fairway.tfs.status import Code, RequestError, invalid

if TYPE_CHECKING:
    from fairway.serve.access import AccessLog
    from fairway.serve.batching import Outputs
    from fairway.serve.metrics import Metrics
    from fairway.serve.models import Models
    from fairway.serve.predictor import Predictor
    from fairway.serve.servable import Servable
    from fairway.tfs.configs import ModelConfig
    from fairway.tfs.request import ModelSpec, PredictRequest

PREDICTION_SERVICE = "tensorflow.serving.PredictionService"
MODEL_SERVICE = "tensorflow.serving.ModelService"

Reload = Callable[[tuple["ModelConfig", ...]], None]

# How long a call may be without its message.
_PATIENCE_S = 60.0
# Statuses travel as headers, of which clients take 8 KiB; on the way one byte may become three.
_MAX_DETAILS_BYTES = 2000
# grpcio tells of more than any client means where there is no deadline.
_LONGEST_S = 365 * 24 * 3600.0

_GRPC_CODES = {code.value[0]: code for code in grpc.StatusCode}

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class _Call:
    """What is known of a call while it is answered.

    Attributes:
        deadline: In the clock of `time.monotonic`; may be infinite.
        gone: Whether nobody waits for the reply any more.
        model: The model's name as the client wrote it; empty as long as that was not read.
    """

    deadline: float
    gone: Callable[[], bool]
    model: str = ""


class Arrivals:
    """The calls whose message has not come yet: each holds a thread, and its client may have died."""

    def __init__(self) -> None:
        self._since: dict[grpc.ServicerContext, float] = {}

    def wait(self, requests: Iterator[bytes], context: grpc.ServicerContext) -> bytes | None:
        """Return the message of a call; `None` if it ends without one, or with one that is too large."""
        self._since[context] = time.monotonic()
        try:
            return next(requests, None)
        finally:
            self._since.pop(context, None)

    def give_up(self) -> None:
        """Cancel the calls that have waited too long."""
        patience_ends = time.monotonic() - _PATIENCE_S
        for context, since in list(self._since.items()):
            if since < patience_ends:
                context.cancel()


class Method:
    """One method of a service: called with the message of a request, returns that of the reply, as bytes.

    To grpcio it is one that takes a stream, of which it reads one message. Such a method is called before
    the message has come, so that it can refuse the call or give up; and it takes less CPU time.

    Args:
        path: `/package.Service/Method`.
        request: Name of the request's message.
        answer: Returns the reply's message.
        arrivals: Waits for the message.
        books: Where calls are counted and logged.
        predictor: Admits the call to the predictions under way; `None` for a method that computes nothing.
    """

    def __init__(
        self,
        path: str,
        request: str,
        answer: Callable[[Any, _Call], Any],
        arrivals: Arrivals,
        books: _Books,
        predictor: Predictor | None,
    ) -> None:
        self.path = path
        self.name = path.rpartition("/")[2]
        self.predictor = predictor
        self._request = request
        self._answer = answer
        self._arrivals = arrivals
        self._books = books

    def __call__(self, requests: Iterator[bytes], context: grpc.ServicerContext) -> bytes:
        """Answer one call; a refusal leaves as an exception that grpcio knows."""
        start = time.perf_counter()
        data = self._arrivals.wait(requests, context)
        call = _Call(_deadline(context), lambda: not context.is_active())
        reply, code, details = b"", Code.OK, ""
        try:
            reply = self._admitted(data, call)
        except RequestError as err:
            code, details = err.code, err.message
        except Exception:
            logger.exception("%s failed", self.path)
            code, details = Code.INTERNAL, "internal error; the server's log has the details"
        seconds = time.perf_counter() - start
        self._books.note(self, call.model, code, seconds, len(data or b""), len(reply), context)
        if code is not Code.OK:
            context.abort(_GRPC_CODES[code.value], _short(details))
        return reply

    def refuse(self, _: Iterator[bytes], context: grpc.ServicerContext) -> bytes:
        """Refuse one call: too many others wait."""
        self._books.note(self, "", Code.RESOURCE_EXHAUSTED, 0.0, 0, 0, context)
        context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "the server is busy; try again later")
        return b""

    def _admitted(self, data: bytes | None, call: _Call) -> bytes:
        if data is None:
            raise RequestError(
                Code.RESOURCE_EXHAUSTED,
                f"the call has no message, or one larger than the limit of {MAX_BODY_BYTES} bytes (64 MiB)",
            )
        if self.predictor is None:
            return self._answer_bytes(data, call)
        with self.predictor.admit(len(data)):
            return self._answer_bytes(data, call)

    def _answer_bytes(self, data: bytes, call: _Call) -> bytes:
        try:
            request = parse(f"tensorflow.serving.{self._request}", data)
        except ValueError:
            raise invalid(f"the message is not a {self._request}") from None
        reply: bytes = self._answer(request, call).SerializeToString()
        return reply


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
        context: grpc.ServicerContext,
    ) -> None:
        if method.predictor:  # TensorFlow Serving counts no others
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

    Attributes:
        arrivals: The calls whose message has not come yet.
    """

    def __init__(
        self,
        models: Models,
        predictor: Predictor,
        metrics: Metrics,
        reload: Reload,
        access: AccessLog | None,
    ) -> None:
        self._models = models
        self._predictor = predictor
        self._reload = reload
        self.arrivals = Arrivals()
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

    def _computing(self, name: str, request: str, answer: Callable[[Any, _Call], Any]) -> Method:
        return Method(
            f"/{PREDICTION_SERVICE}/{name}", request, answer, self.arrivals, self._books, self._predictor
        )

    def _telling(self, path: str, request: str, answer: Callable[[Any, _Call], Any]) -> Method:
        return Method(path, request, answer, self.arrivals, self._books, None)

    def _predict(self, request: Any, call: _Call) -> Any:
        spec, servable = self._find(request, call)
        inputs, wanted = messages.parse_predict(request, servable.signatures)
        outputs = self._compute(servable, inputs, call)
        if wanted:
            outputs = {name: outputs[name] for name in wanted}
        return messages.predict_response(spec, servable.number, inputs.signature_name, outputs)

    def _classify(self, request: Any, call: _Call) -> Any:
        spec, servable = self._find(request, call)
        inputs = messages.parse_examples("classify", request, servable.signatures)
        outputs = self._compute(servable, inputs, call)
        return messages.classification_response(spec, servable.number, inputs, outputs)

    def _regress(self, request: Any, call: _Call) -> Any:
        spec, servable = self._find(request, call)
        inputs = messages.parse_examples("regress", request, servable.signatures)
        outputs = self._compute(servable, inputs, call)
        return messages.regression_response(spec, servable.number, inputs, outputs)

    def _multi_inference(self, request: Any, call: _Call) -> Any:
        spec = messages.multi_inference_spec(request)
        call.model = spec.name
        servable = self._models.find(spec)
        tasks = messages.parse_multi_inference(request, servable.signatures)
        results = [(task, self._compute(servable, task.request, call)) for task in tasks]
        return messages.multi_inference_response(spec, servable.number, results)

    def _metadata(self, request: Any, call: _Call) -> Any:
        spec, servable = self._find(request, call)
        return messages.metadata_response(spec, servable.number, servable.signatures, request.metadata_field)

    def _status(self, request: Any, call: _Call) -> Any:
        spec = messages.model_spec(request)
        call.model = spec.name
        return messages.status_response(self._models.statuses(spec))

    def _reload_config(self, request: Any, call: _Call) -> Any:
        self._reload(messages.parse_reload(request))
        return messages.reload_response()

    def _find(self, request: Any, call: _Call) -> tuple[ModelSpec, Servable]:
        spec = messages.model_spec(request)
        call.model = spec.name
        return spec, self._models.find(spec)

    def _compute(self, servable: Servable, inputs: PredictRequest, call: _Call) -> Outputs:
        return self._predictor.predict_now(servable, inputs, call.deadline, call.gone)


def _deadline(context: grpc.ServicerContext) -> float:
    remaining_s = context.time_remaining()
    return time.monotonic() + remaining_s if remaining_s < _LONGEST_S else math.inf


def _short(details: str) -> str:
    return details.encode()[:_MAX_DETAILS_BYTES].decode(errors="ignore")


def _address(peer: str) -> str:
    """Return `127.0.0.1:80` for gRPC's `ipv4:127.0.0.1:80`, and nothing for a Unix socket."""
    kind, _, address = unquote(peer).partition(":")
    return address if kind in ("ipv4", "ipv6") else ""
