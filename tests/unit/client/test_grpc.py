"""The gRPC client against a real gRPC server, small enough to misbehave on command."""

from __future__ import annotations

import asyncio
import http.server
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from fairway.client import grpc as module
from fairway.client.answers import NoVersionError, Prediction
from fairway.client.grpc import GrpcClient
from fairway.errors import ServerError, UsageError
from fairway.tfs.protos import message
from fairway.tfs.tensors import from_proto, to_proto
from tests.unit.deploy.kube.tls import self_signed

IMAGE = np.zeros((28, 28), np.float32)
IMAGE[3, 4] = 0.5
PROBABILITIES = np.array([0.01] * 8 + [0.91, 0.01], np.float32)


def new(name: str, **fields: Any) -> Any:
    return message(f"tensorflow.serving.{name}")(**fields)


class RefusalError(Exception):
    """Ends a request with a status."""

    def __init__(self, code: grpc.StatusCode, details: str) -> None:
        self.code, self.details = code, details


class FakeGrpcServer:
    """Serves version 7 of mnist, which sees an 8 in everything; the tests change its attributes."""

    def __init__(self) -> None:
        self.states = {7: 30}
        self.error = (0, "")
        self.inputs = ["x"]
        self.outputs: dict[str, np.ndarray[Any, Any]] = {
            "classes": np.array([8], np.int64),
            "predictions": PROBABILITIES[None],
        }
        self.refusal: RefusalError | None = None
        self.requests: list[Any] = []

    def get_model_metadata(self, request: Any) -> Any:
        self._require_version()
        reply = new("GetModelMetadataResponse")
        signatures = new("SignatureDefMap")
        for name in self.inputs:
            signatures.signature_def["serving_default"].inputs[name].name = f"{name}:0"
        reply.metadata["signature_def"].Pack(signatures)
        return reply

    def predict(self, request: Any) -> Any:
        self._require_version()
        if self.refusal:
            raise self.refusal
        reply = new("PredictResponse")
        reply.model_spec.version.value = max(self.states)
        for name, array in self.outputs.items():
            to_proto(array, reply.outputs[name])
        return reply

    def get_model_status(self, request: Any) -> Any:
        if not self.states:
            raise RefusalError(grpc.StatusCode.NOT_FOUND, "Could not find any versions of model mnist")
        reply = new("GetModelStatusResponse")
        for version, state in self.states.items():
            entry = reply.model_version_status.add(version=version, state=state)
            entry.status.error_code, entry.status.error_message = self.error
        return reply

    def _require_version(self) -> None:
        if 30 not in self.states.values():
            raise RefusalError(grpc.StatusCode.NOT_FOUND, "Servable not found for request: Latest(mnist)")

    def handlers(self) -> Iterator[grpc.GenericRpcHandler]:
        for service, methods in {
            "PredictionService": {"Predict": self.predict, "GetModelMetadata": self.get_model_metadata},
            "ModelService": {"GetModelStatus": self.get_model_status},
        }.items():
            yield grpc.method_handlers_generic_handler(
                f"tensorflow.serving.{service}",
                {name: self._handler(name, answer) for name, answer in methods.items()},
            )

    def _handler(self, name: str, answer: Callable[[Any], Any]) -> grpc.RpcMethodHandler:
        def handle(request: Any, context: grpc.ServicerContext) -> Any:
            self.requests.append(request)
            try:
                return answer(request)
            except RefusalError as refusal:
                context.abort(refusal.code, refusal.details)

        return grpc.unary_unary_rpc_method_handler(
            handle,
            request_deserializer=message(f"tensorflow.serving.{name}Request").FromString,
            response_serializer=lambda reply: reply.SerializeToString(),
        )


@pytest.fixture
def fake() -> FakeGrpcServer:
    return FakeGrpcServer()


@pytest.fixture
def address(fake: FakeGrpcServer) -> Iterator[str]:
    with ThreadPoolExecutor(1) as pool:
        server = grpc.server(pool)
        server.add_generic_rpc_handlers(tuple(fake.handlers()))
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        yield f"127.0.0.1:{port}"
        server.stop(None).wait()


def predict(address: str, times: int = 1, **selection: Any) -> Prediction:
    async def ask() -> Prediction:
        client = GrpcClient(address, "mnist", **selection)
        try:
            return [await client.predict(IMAGE) for _ in range(times)][-1]
        finally:
            await client.close()

    return asyncio.run(ask())


def test_prediction_comes_with_the_version_that_answered(fake: FakeGrpcServer, address: str) -> None:
    fake.states = {3: 30, 12: 30}
    answer = predict(address)
    assert (answer.digit, answer.version) == (8, 12)
    assert np.allclose(answer.probabilities, PROBABILITIES)
    assert 0 < answer.seconds < 10
    image = from_proto(fake.requests[-1].inputs["x"], "x")
    assert image.dtype == np.float32
    assert np.array_equal(image, IMAGE[None])


def test_the_input_is_the_one_that_the_signature_has_and_is_asked_for_once(
    fake: FakeGrpcServer, address: str
) -> None:
    fake.inputs = ["pixels"]
    predict(address, times=3)
    assert [type(request).__name__ for request in fake.requests] == [
        "GetModelMetadataRequest",
        *["PredictRequest"] * 3,
    ]
    assert list(fake.requests[-1].inputs) == ["pixels"]


def test_the_wanted_version_is_asked(fake: FakeGrpcServer, address: str) -> None:
    predict(address)
    predict(address, version=7)
    predict(address, label="stable")
    specs = [request.model_spec for request in fake.requests]
    assert {spec.name for spec in specs} == {"mnist"}
    assert [spec.WhichOneof("version_choice") for spec in specs[::2]] == [None, "version", "version_label"]
    assert (specs[2].version.value, specs[4].version_label) == (7, "stable")


@pytest.mark.parametrize(
    ("states", "error", "words"),
    [
        ({}, (0, ""), "no version of mnist yet: Could not find any versions"),
        ({3: 20}, (0, ""), "is loading version 3 of mnist"),
        ({3: 50}, (3, "no such op"), "could not load version 3 of mnist: no such op"),
        ({3: 50}, (3, ""), "could not load version 3 of mnist: INVALID_ARGUMENT"),
    ],
)
def test_no_version_is_an_error_that_says_why(
    fake: FakeGrpcServer, address: str, states: dict[int, int], error: tuple[int, str], words: str
) -> None:
    fake.states, fake.error = states, error
    with pytest.raises(NoVersionError, match=words) as raised:
        predict(address)
    assert raised.value.hint


def test_a_version_that_is_not_there_is_named(fake: FakeGrpcServer, address: str) -> None:
    fake.states = {}
    with pytest.raises(NoVersionError, match="has no version 4 of mnist: Could not find"):
        predict(address, version=4)
    with pytest.raises(NoVersionError, match="has no label 'x' of mnist: Could not find"):
        predict(address, label="x")


@pytest.mark.parametrize(
    "outputs",
    [
        {},
        {"classes": np.array([8])},
        {"classes": np.array([8]), "predictions": PROBABILITIES[:9]},
        {"classes": np.array([10]), "predictions": PROBABILITIES},
        {"classes": np.array([8, 8]), "predictions": PROBABILITIES},
        {"classes": np.array([8]), "predictions": np.full(10, np.nan, np.float32)},
        {"classes": np.array([b"8"], object), "predictions": np.array([b"p"] * 10, object)},
    ],
)
def test_another_models_answer_is_not_shown(
    fake: FakeGrpcServer, address: str, outputs: dict[str, np.ndarray[Any, Any]]
) -> None:
    fake.outputs = outputs
    with pytest.raises(ServerError, match="ten probabilities") as raised:
        predict(address)
    assert "--model-name" in raised.value.hint


@pytest.mark.parametrize("inputs", [[], ["a", "b"]])
def test_a_model_with_other_inputs_is_not_asked(
    fake: FakeGrpcServer, address: str, inputs: list[str]
) -> None:
    fake.inputs = inputs
    with pytest.raises(ServerError, match="ten probabilities"):
        predict(address)
    assert len(fake.requests) == 1


@pytest.mark.parametrize(
    ("code", "details", "words"),
    [
        (grpc.StatusCode.INVALID_ARGUMENT, "wrong shape", "refuses: wrong shape"),
        (grpc.StatusCode.NOT_FOUND, "gone for a moment", "refuses: gone for a moment"),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "", "refuses: RESOURCE_EXHAUSTED"),
        (grpc.StatusCode.DEADLINE_EXCEEDED, "too late", "no answer within 10 s"),
        (grpc.StatusCode.UNIMPLEMENTED, "Method not found!", "not as a model server does"),
    ],
)
def test_a_refusal_is_passed_on(
    fake: FakeGrpcServer, address: str, code: grpc.StatusCode, details: str, words: str
) -> None:
    fake.refusal = RefusalError(code, details)
    with pytest.raises(ServerError, match=words):
        predict(address)


def test_nothing_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(
        ServerError, match=f"127.0.0.1:{port} does not answer: nothing listens there"
    ) as raised:
        predict(f"127.0.0.1:{port}")
    assert "fairway serve" in raised.value.hint


def test_a_name_that_does_not_exist() -> None:
    with pytest.raises(ServerError, match="nowhere.invalid:9000 does not answer: name or service not known"):
        predict("nowhere.invalid")


def test_a_server_that_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STATUS_TIMEOUT_S", 0.2)
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        pytest.raises(ServerError, match="does not answer: no answer within 0.2 s"),
    ):
        predict(f"127.0.0.1:{silent.getsockname()[1]}")


def test_a_rest_port_is_recognised() -> None:
    class Quiet(http.server.BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Quiet) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        with pytest.raises(ServerError, match=r"answers \(not in HTTP/2\)") as raised:
            predict(f"127.0.0.1:{server.server_port}")
        server.shutdown()
    assert "9000" in raised.value.hint


def test_tls_where_there_is_none(address: str) -> None:
    with pytest.raises(ServerError, match="TLS"):
        predict(f"https://{address}")


@pytest.mark.parametrize(
    ("scheme", "words"),
    [("https://", "its certificate cannot be verified"), ("", "if it wants TLS, say https://")],
)
def test_a_server_with_tls(fake: FakeGrpcServer, tmp_path: Path, scheme: str, words: str) -> None:
    certificate = self_signed(tmp_path / "certificate.pem")
    pair = (certificate.key.encode(), certificate.pem.encode())
    with ThreadPoolExecutor(1) as pool:
        server = grpc.server(pool)
        server.add_generic_rpc_handlers(tuple(fake.handlers()))
        port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([pair]))
        server.start()
        with pytest.raises(ServerError, match=words):
            predict(f"{scheme}127.0.0.1:{port}")
        server.stop(None).wait()


def test_what_is_no_address_is_refused_at_the_start() -> None:
    with pytest.raises(UsageError, match="HOST:PORT") as raised:
        predict("a b")
    assert "9000" in raised.value.hint
