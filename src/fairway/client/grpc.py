"""Asks a model server over TensorFlow Serving's gRPC API."""

from __future__ import annotations

import re
import time
from typing import Any

import grpc
import grpc.aio
import numpy as np
from numpy.typing import NDArray

from fairway.client.address import Address, parse_address
from fairway.client.answers import (
    PREDICT_TIMEOUT_S,
    STATUS_TIMEOUT_S,
    Prediction,
    ServerStatus,
    Target,
    VersionReport,
    judge,
)
from fairway.errors import ServerError
from fairway.tfs.protos import message
from fairway.tfs.signatures import DEFAULT_SIGNATURE
from fairway.tfs.status import RequestError
from fairway.tfs.tensors import from_proto, to_proto

PORT = 9000
_PREDICTION = "PredictionService"
_MODEL = "ModelService"
# A proxy for the outside world must not see requests to the model server.
_OPTIONS = (("grpc.enable_http_proxy", 0),)
# What gRPC says of a connection that failed -> what that means. In the first of them something did answer.
_NOT_GRPC = re.compile(r"HTTP/2|http1|[Tt]rying to connect an http")
_CAUSES = (
    (re.compile(r"Connection refused"), "nothing listens there"),
    (re.compile(r"errors? resolving|lookup|[Dd]omain name|DNS"), "name or service not known"),
    (re.compile(r"WRONG_VERSION_NUMBER"), "it does not speak TLS"),
    (re.compile(r"CERTIFICATE_VERIFY_FAILED"), "its certificate cannot be verified"),
    (re.compile(r"[Hh]ostname verification"), "its certificate is for another name"),
    (re.compile(r"[Hh]andshake|SSL"), "no TLS connection can be made"),
    (
        re.compile(r"[Ss]ocket closed|reset by peer"),
        "it closes the connection; if it wants TLS, say https://",
    ),
)


class GrpcClient:
    """A model at a model server.

    The server chooses the version where none is asked for, and names the one that answered. The first
    question is preceded by one for the signature, which says what the input is called.

    Args:
        address: HOST:PORT, or a URL; TLS is used for one with scheme https.
        model_name: Name of the model there.
        version: The version to ask; `None`: the newest one.
        label: The label of the version to ask; empty: none.

    Raises:
        UsageError: that is not an address.
    """

    def __init__(self, address: str, model_name: str, *, version: int | None = None, label: str = "") -> None:
        place = parse_address(address, PORT)
        self.target = Target(place.text, model_name, version, label, "gRPC")
        self._channel = _open_channel(place)
        self._input = ""

    async def close(self) -> None:
        """Close the connection."""
        await self._channel.close()

    async def predict(self, image: NDArray[np.float32]) -> Prediction:
        """Return the asked version's answer to an image, float32 [28, 28] in 0..1.

        Raises:
            NoVersionError: no such version is served.
            ServerError: the server does not answer, or refuses.
        """
        if not self._input:
            self._input = await self._input_name()
        request = message("tensorflow.serving.PredictRequest")(model_spec=self._spec())
        to_proto(image[None], request.inputs[self._input])
        started = time.perf_counter()
        reply = await self._ask(_PREDICTION, "Predict", request, "PredictResponse", PREDICT_TIMEOUT_S)
        seconds = time.perf_counter() - started
        try:
            digit = int(_tensor(reply, "classes").item())
            # The shortest numbers that are these float32, as REST has them.
            probabilities = [float(str(p)) for p in _tensor(reply, "predictions").reshape(-1)]
        except (KeyError, TypeError, ValueError, RequestError) as err:
            raise self.target.not_this_model() from err
        return self.target.read(digit, probabilities, reply.model_spec.version.value, seconds)

    async def _input_name(self) -> str:
        """Return what the model's default signature calls its one input."""
        request = message("tensorflow.serving.GetModelMetadataRequest")(
            model_spec=self._spec(), metadata_field=["signature_def"]
        )
        reply = await self._ask(
            _PREDICTION, "GetModelMetadata", request, "GetModelMetadataResponse", STATUS_TIMEOUT_S
        )
        packed = reply.metadata["signature_def"].value
        signatures = message("tensorflow.serving.SignatureDefMap").FromString(packed).signature_def
        inputs = list(signatures[DEFAULT_SIGNATURE].inputs) if DEFAULT_SIGNATURE in signatures else []
        if len(inputs) != 1:
            raise self.target.not_this_model()
        return str(inputs[0])

    async def _status(self) -> ServerStatus:
        """Return why no version answers."""
        request = message("tensorflow.serving.GetModelStatusRequest")(model_spec=self._spec())
        try:
            reply = await self._call(
                _MODEL, "GetModelStatus", request, "GetModelStatusResponse", STATUS_TIMEOUT_S
            )
        except grpc.aio.AioRpcError as err:
            if err.code() is grpc.StatusCode.NOT_FOUND:
                return ServerStatus("empty", detail=err.details() or "")
            raise self._error(err, STATUS_TIMEOUT_S) from err
        return judge({entry.version: _report(entry) for entry in reply.model_version_status})

    def _spec(self) -> Any:
        spec = message("tensorflow.serving.ModelSpec")(name=self.target.model_name)
        if self.target.version is not None:
            spec.version.value = self.target.version
        elif self.target.label:
            spec.version_label = self.target.label
        return spec

    async def _ask(self, service: str, method: str, request: Any, reply: str, timeout_s: float) -> Any:
        try:
            return await self._call(service, method, request, reply, timeout_s)
        except grpc.aio.AioRpcError as err:
            if err.code() is grpc.StatusCode.NOT_FOUND:
                status = await self._status()
                if status.state != "serving":
                    raise self.target.no_version(status) from err
            raise self._error(err, timeout_s) from err

    async def _call(self, service: str, method: str, request: Any, reply: str, timeout_s: float) -> Any:
        call = self._channel.unary_unary(
            f"/tensorflow.serving.{service}/{method}",
            request_serializer=type(request).SerializeToString,
            response_deserializer=message(f"tensorflow.serving.{reply}").FromString,
        )
        return await call(request, timeout=timeout_s)

    def _error(self, error: grpc.aio.AioRpcError, timeout_s: float) -> ServerError:
        details = error.details() or ""
        match error.code():
            case grpc.StatusCode.DEADLINE_EXCEEDED:
                return self.target.away(f"no answer within {timeout_s:g} s")
            case grpc.StatusCode.UNIMPLEMENTED:
                return self.target.not_a_model_server(details)
            case grpc.StatusCode.UNAVAILABLE if _NOT_GRPC.search(details):
                return self.target.not_a_model_server("not in HTTP/2")
            case grpc.StatusCode.UNAVAILABLE:
                return self.target.away(_cause(details))
        return self.target.refused(details or error.code().name)


def _open_channel(place: Address) -> grpc.aio.Channel:
    host = f"[{place.url.host}]" if ":" in place.url.host else place.url.host
    is_tls = place.url.scheme == "https"
    target = f"{host}:{place.url.port or (443 if is_tls else 80)}"
    if is_tls:
        return grpc.aio.secure_channel(target, grpc.ssl_channel_credentials(), _OPTIONS)
    return grpc.aio.insecure_channel(target, _OPTIONS)


def _tensor(reply: Any, name: str) -> NDArray[Any]:
    """Return an output, in the dtype and shape that it has; `KeyError`: there is none of that name."""
    if name not in reply.outputs:  # to look it up would make one
        raise KeyError(name)
    return from_proto(reply.outputs[name], name)


def _report(entry: Any) -> VersionReport:
    states = entry.DESCRIPTOR.fields_by_name["state"].enum_type.values_by_number
    codes = entry.status.DESCRIPTOR.fields_by_name["error_code"].enum_type.values_by_number
    code = entry.status.error_code
    error = entry.status.error_message or codes[code].name if code else ""
    return VersionReport(states[entry.state].name, error)


def _cause(details: str) -> str:
    for pattern, cause in _CAUSES:
        if pattern.search(details):
            return cause
    return details.rpartition(": ")[2].rstrip(".").lower() or "the connection broke"
