"""The gRPC API on loopback, before fake models."""

import asyncio
import datetime
import ipaddress
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import grpc
import numpy as np
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2
from numpy.typing import NDArray

from fairway.errors import FairwayError, UsageError
from fairway.net.ports import reserve
from fairway.serve import rpc
from fairway.serve.grpc import GrpcOptions, GrpcServer, parse_channel_arguments
from fairway.serve.metrics import Metrics
from fairway.tfs.configs import ModelConfig, TlsFiles
from fairway.tfs.protos import message
from fairway.tfs.request import ModelSpec, PredictRequest
from fairway.tfs.signatures import Signature, TensorSpec
from fairway.tfs.status import Code, RequestError
from fairway.tfs.versions import State, VersionStatus

FLOATS = TensorSpec("t:0", "DT_FLOAT", (-1,))
EXAMPLES = {"inputs": TensorSpec("e:0", "DT_STRING", (-1,))}
SIGNATURES = {
    "serving_default": Signature({"x": FLOATS}, {"y": FLOATS, "z": FLOATS}),
    "regress": Signature(
        EXAMPLES, {"outputs": TensorSpec("o:0", "DT_FLOAT", (-1, 1))}, "tensorflow/serving/regress"
    ),
    "classify": Signature(
        EXAMPLES, {"scores": TensorSpec("s:0", "DT_FLOAT", (-1, 2))}, "tensorflow/serving/classify"
    ),
}
WAIT_S = 20.0
_OWN = (("grpc.use_local_subchannel_pool", 1),)  # a connection that no other channel uses
PREDICTION, MODEL = "tensorflow.serving.PredictionService", "tensorflow.serving.ModelService"

Compute = Callable[[PredictRequest, float, Callable[[], bool]], dict[str, NDArray[Any]]]


@dataclass(frozen=True)
class FakeServable:
    model: str = "half"
    number: int = 3
    signatures: Mapping[str, Signature] = field(default_factory=lambda: SIGNATURES)


class FakeModels:
    """One model named `half`, version 3."""

    def __init__(self) -> None:
        self.serving: dict[str, tuple[int, ...]] = {"half": (3,)}
        self.problems: dict[str, str] = {}

    def find(self, spec: ModelSpec) -> FakeServable:
        if spec.name not in self.serving or spec.version not in (None, 3):
            raise RequestError(Code.NOT_FOUND, f"Servable not found for request: {spec}")
        return FakeServable()

    def statuses(self, spec: ModelSpec) -> tuple[VersionStatus, ...]:
        self.find(spec)
        return (VersionStatus(3, State.AVAILABLE), VersionStatus(2, State.END, "damaged"))


def half_plus_two(request: PredictRequest, deadline: float, gone: Callable[[], bool]) -> dict[str, Any]:
    if request.signature_name == "regress":
        return {"outputs": np.full((request.rows, 1), 0.5, np.float32)}
    if request.signature_name == "classify":
        return {"scores": np.full((request.rows, 2), 0.25, np.float32)}
    return {"y": request.inputs["x"] / 2 + 2, "z": request.inputs["x"]}


@dataclass
class FakePredictor:
    compute: Compute = half_plus_two
    pending: int = 0
    admitted: list[int] = field(default_factory=list)
    is_full: bool = False
    offloaded: int = 0

    def admit(self, size: int) -> nullcontext[None]:
        if self.is_full:
            raise RequestError(Code.RESOURCE_EXHAUSTED, "the server is busy; try again later")
        self.admitted.append(size)
        return nullcontext()

    async def predict(
        self, servable: FakeServable, request: PredictRequest, deadline: float, gone: Callable[[], bool]
    ) -> dict[str, NDArray[Any]]:
        if isinstance(self.compute, Gate):  # which blocks, as only a thread may
            return await asyncio.to_thread(self.compute, request, deadline, gone)
        return self.compute(request, deadline, gone)

    async def offload(self, function: Callable[..., Any], *args: Any) -> Any:
        self.offloaded += 1
        return await asyncio.to_thread(function, *args)


class FakeAccess:
    def __init__(self) -> None:
        self.lines: list[dict[str, Any]] = []

    def write(self, **line: Any) -> None:
        self.lines.append(line)


class World:
    """A server, what it stands on, and a channel to it."""

    def __init__(self, options: GrpcOptions, host: str = "127.0.0.1", port: int = 0) -> None:
        self.models = FakeModels()
        self.predictor = FakePredictor()
        self.metrics = Metrics()
        self.access = FakeAccess()
        self.reloaded: list[tuple[ModelConfig, ...]] = []
        self.server = GrpcServer(
            cast(Any, self.models),
            cast(Any, self.predictor),
            self.metrics,
            options,
            self.reload,
            cast(Any, self.access),
        )
        self.port = self.server.start(host, port)
        self.stack = ExitStack()
        self.channel = self.open(f"127.0.0.1:{self.port}")

    def reload(self, configs: tuple[ModelConfig, ...]) -> None:
        if any(config.name == "bad" for config in configs):
            raise RequestError(Code.FAILED_PRECONDITION, "no such directory")
        self.reloaded.append(configs)

    def open(self, target: str, credentials: grpc.ChannelCredentials | None = None) -> grpc.Channel:
        unlimited = (("grpc.max_send_message_length", -1),)
        if credentials:
            return self.stack.enter_context(grpc.secure_channel(target, credentials, unlimited))
        return self.stack.enter_context(grpc.insecure_channel(target, unlimited))

    def call(self, path: str, request: Any, timeout: float = WAIT_S) -> Any:
        """Return the bytes of the reply."""
        data = request if isinstance(request, bytes) else request.SerializeToString()
        return self.channel.unary_unary(path)(data, timeout=timeout)

    def predict(self, request: Any = None, **options: Any) -> Any:
        reply = self.call(f"/{PREDICTION}/Predict", request or predict_request(), **options)
        return message("tensorflow.serving.PredictResponse").FromString(reply)

    def health(self, service: str = "") -> int:
        request = health_pb2.HealthCheckRequest(service=service)
        reply = self.call("/grpc.health.v1.Health/Check", request)
        return int(health_pb2.HealthCheckResponse.FromString(reply).status)

    def __enter__(self) -> "World":
        return self

    def __exit__(self, *_: object) -> None:
        self.stack.close()
        self.server.stop(WAIT_S)


@pytest.fixture
def world() -> Iterator[World]:
    with World(GrpcOptions()) as world:
        yield world


def predict_request(*values: float, model: str = "half", **fields: Any) -> Any:
    request = message("tensorflow.serving.PredictRequest")(**fields)
    request.model_spec.name = model
    tensor = request.inputs["x"]
    tensor.dtype = 1
    tensor.float_val.extend(values or (1.0, 2.0))
    tensor.tensor_shape.dim.add(size=len(values) or 2)
    return request


def with_examples(name: str, signature: str) -> Any:
    request = message(f"tensorflow.serving.{name}")()
    request.model_spec.name, request.model_spec.signature_name = "half", signature
    add_examples(request)
    return request


def add_examples(request: Any) -> None:
    for value in (1.0, 2.0):
        features = request.input.example_list.examples.add().features
        features.feature["x"].float_list.value.append(value)


@contextmanager
def refused(code: Code, words: str = "") -> Iterator[None]:
    with pytest.raises(grpc.RpcError) as caught:
        yield
    error = cast(grpc.Call, caught.value)
    assert error.code().value[0] == code.value
    assert words in error.details()


def counted(world: World, *key: str) -> int:
    return int(world.metrics.snapshot()["counters"].get((":tensorflow:serving:request_count", *key), 0))


class TestPrediction:
    def test_predict(self, world: World) -> None:
        reply = world.predict()
        assert list(reply.outputs["y"].float_val) == [2.5, 3.0]
        assert set(reply.outputs) == {"y", "z"}
        assert (reply.model_spec.name, reply.model_spec.version.value) == ("half", 3)
        assert reply.model_spec.signature_name == "serving_default"
        assert world.predictor.admitted == [predict_request().ByteSize()]
        assert counted(world, "half", "OK") == 1

    def test_output_filter(self, world: World) -> None:
        assert set(world.predict(predict_request(output_filter=["z"])).outputs) == {"z"}

    def test_classify(self, world: World) -> None:
        data = world.call(f"/{PREDICTION}/Classify", with_examples("ClassificationRequest", "classify"))
        reply = message("tensorflow.serving.ClassificationResponse").FromString(data)
        scores = [[each.score for each in row.classes] for row in reply.result.classifications]
        assert scores == [[0.25, 0.25], [0.25, 0.25]]
        assert reply.model_spec.version.value == 3

    def test_regress(self, world: World) -> None:
        data = world.call(f"/{PREDICTION}/Regress", with_examples("RegressionRequest", "regress"))
        reply = message("tensorflow.serving.RegressionResponse").FromString(data)
        assert [each.value for each in reply.result.regressions] == [0.5, 0.5]

    def test_multi_inference(self, world: World) -> None:
        request = message("tensorflow.serving.MultiInferenceRequest")()
        for name in ("regress", "classify"):
            task = request.tasks.add(method_name=f"tensorflow/serving/{name}")
            task.model_spec.name, task.model_spec.signature_name = "half", name
        add_examples(request)
        data = world.call(f"/{PREDICTION}/MultiInference", request)
        reply = message("tensorflow.serving.MultiInferenceResponse").FromString(data)
        assert len(reply.results[0].regression_result.regressions) == 2
        assert len(reply.results[1].classification_result.classifications) == 2

    def test_metadata(self, world: World) -> None:
        request = message("tensorflow.serving.GetModelMetadataRequest")(metadata_field=["signature_def"])
        request.model_spec.name = "half"
        data = world.call(f"/{PREDICTION}/GetModelMetadata", request)
        reply = message("tensorflow.serving.GetModelMetadataResponse").FromString(data)
        definitions = message("tensorflow.serving.SignatureDefMap")()
        assert reply.metadata["signature_def"].Unpack(definitions)
        assert set(definitions.signature_def) == set(SIGNATURES)
        assert counted(world, "half", "OK") == 0  # TensorFlow Serving counts predictions only

    def test_the_access_log_has_a_line(self, world: World) -> None:
        world.predict()
        with refused(Code.NOT_FOUND):
            world.predict(predict_request(model="other"))
        first, second = world.access.lines
        assert first["path"] == f"/{PREDICTION}/Predict"
        assert (first["api"], first["method"], first["model"]) == ("GRPC", "Predict", "half")
        assert (first["code"], second["code"]) == (Code.OK, Code.NOT_FOUND)
        assert first["size_in"] == predict_request().ByteSize()
        assert first["size_out"] > second["size_out"] == 0
        assert first["peer"].startswith("127.0.0.1:")


class TestModelService:
    def test_status(self, world: World) -> None:
        request = message("tensorflow.serving.GetModelStatusRequest")()
        request.model_spec.name = "half"
        data = world.call(f"/{MODEL}/GetModelStatus", request)
        reply = message("tensorflow.serving.GetModelStatusResponse").FromString(data)
        found = [(each.version, each.state, each.status.error_message) for each in reply.model_version_status]
        assert found == [(3, 30, ""), (2, 50, "damaged")]

    def test_reload(self, world: World) -> None:
        request = message("tensorflow.serving.ReloadConfigRequest")()
        request.config.model_config_list.config.add(
            name="new", base_path="/models/new", model_platform="tensorflow"
        )
        data = world.call(f"/{MODEL}/HandleReloadConfigRequest", request)
        assert message("tensorflow.serving.ReloadConfigResponse").FromString(data).status.error_code == 0
        assert [config.name for config in world.reloaded[0]] == ["new"]

    def test_a_reload_that_is_refused(self, world: World) -> None:
        request = message("tensorflow.serving.ReloadConfigRequest")()
        request.config.model_config_list.config.add(
            name="bad", base_path="/models/bad", model_platform="tensorflow"
        )
        with refused(Code.FAILED_PRECONDITION, "no such directory"):
            world.call(f"/{MODEL}/HandleReloadConfigRequest", request)


class TestRefusals:
    @pytest.mark.parametrize("code", [code for code in Code if code is not Code.OK])
    def test_every_code(self, world: World, code: Code) -> None:
        def fail(*_: object) -> dict[str, Any]:
            raise RequestError(code, "because ünicode")

        world.predictor.compute = fail
        with refused(code, "because ünicode"):
            world.predict()

    def test_a_mistake_of_ours_is_logged_and_not_told(
        self, world: World, caplog: pytest.LogCaptureFixture
    ) -> None:
        def fail(*_: object) -> dict[str, Any]:
            raise ZeroDivisionError("secret")

        world.predictor.compute = fail
        with refused(Code.INTERNAL, "internal error; the server's log has the details"):
            world.predict()
        assert [record.levelno for record in caplog.records] == [logging.ERROR]
        assert "ZeroDivisionError: secret" in caplog.text

    def test_a_model_that_there_is_not(self, world: World) -> None:
        with refused(Code.NOT_FOUND, "Servable not found for request: Latest(other)"):
            world.predict(predict_request(model="other"))
        assert counted(world, "", "NOT_FOUND") == 1

    @pytest.mark.parametrize("data", [b"\xff" * 40, b"\x0a\xff", b"{}"])
    def test_what_is_no_message(self, world: World, data: bytes) -> None:
        with refused(Code.INVALID_ARGUMENT, "the message is not a PredictRequest"):
            world.predict(data)

    def test_an_empty_message(self, world: World) -> None:
        with refused(Code.INVALID_ARGUMENT, "Missing ModelSpec"):
            world.call(f"/{PREDICTION}/Predict", b"")

    def test_no_message_at_all(self, world: World) -> None:
        call = world.channel.stream_unary(f"/{PREDICTION}/Predict")
        with refused(Code.INVALID_ARGUMENT, "the call ended without a message"):
            call(iter(()), timeout=WAIT_S)
        assert world.predict()

    def test_a_message_that_does_not_come(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(rpc, "_MESSAGE_S", 0.0)
        never = threading.Event()
        call = world.channel.stream_unary(f"/{PREDICTION}/Predict")
        with refused(Code.DEADLINE_EXCEEDED, "the message did not arrive within 0 seconds"):
            call(iter(never.wait, True), timeout=WAIT_S)
        never.set()
        monkeypatch.undo()
        assert world.predict()

    def test_a_connection_cannot_open_calls_without_end(self) -> None:
        with World(GrpcOptions(max_pending=1)) as world:
            health = health_pb2.HealthCheckRequest().SerializeToString()

            async def fill() -> None:
                async with grpc.aio.insecure_channel(f"127.0.0.1:{world.port}") as channel:
                    path = "/grpc.health.v1.Health/Check"
                    await channel.unary_unary(path)(health, timeout=WAIT_S)
                    calls = [channel.stream_unary(f"/{PREDICTION}/Predict")() for _ in range(101)]
                    with refused(Code.DEADLINE_EXCEEDED):
                        await channel.unary_unary(path)(health, timeout=0.2)
                    assert await asyncio.to_thread(world.predict)
                    for call in calls:
                        call.cancel()

            asyncio.run(fill())

    @pytest.mark.parametrize("path", [f"/{PREDICTION}/Preddict", "/Predict", f"/{MODEL}/Predict"])
    def test_a_method_that_there_is_not(self, world: World, path: str) -> None:
        with refused(Code.UNIMPLEMENTED, "Method not found"):
            world.call(path, b"")

    def test_a_message_that_is_too_large(self, world: World) -> None:
        with refused(Code.RESOURCE_EXHAUSTED, "67108864"):
            world.predict(bytes(65 * 1024 * 1024))
        assert world.predict()

    def test_a_long_message_fits_into_the_headers(self, world: World) -> None:
        def fail(*_: object) -> dict[str, Any]:
            raise RequestError(Code.INVALID_ARGUMENT, "ü" * 100_000)

        world.predictor.compute = fail
        with refused(Code.INVALID_ARGUMENT, "ü" * 1000):
            world.predict()


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline


class Gate:
    """A computation that goes on when the test says so."""

    def __init__(self) -> None:
        self.entered = threading.Semaphore(0)
        self.open = threading.Event()
        self.gone: list[Callable[[], bool]] = []

    def __call__(
        self, request: PredictRequest, deadline: float, gone: Callable[[], bool]
    ) -> dict[str, NDArray[Any]]:
        self.gone.append(gone)
        self.entered.release()
        assert self.open.wait(WAIT_S)
        return half_plus_two(request, deadline, gone)


@pytest.fixture
def gate(world: World) -> Iterator[Gate]:
    gate = Gate()
    world.predictor.compute = gate
    yield gate
    gate.open.set()


class TestTime:
    def test_the_deadline_is_handed_on(self, world: World) -> None:
        seen: list[float] = []

        def note(request: PredictRequest, deadline: float, gone: Callable[[], bool]) -> dict[str, Any]:
            seen.append(deadline - time.monotonic())
            return half_plus_two(request, deadline, gone)

        world.predictor.compute = note
        world.predict(timeout=100)
        world.channel.unary_unary(f"/{PREDICTION}/Predict")(predict_request().SerializeToString())
        assert 80 < seen[0] < 101  # the clocks of both sides round
        assert seen[1] == float("inf")

    def test_a_call_that_expires(self, world: World, gate: Gate) -> None:
        with refused(Code.DEADLINE_EXCEEDED):
            world.predict(timeout=0.1)
        until(gate.gone[0])
        until(lambda: counted(world, "", "DEADLINE_EXCEEDED") == 1)
        assert world.access.lines[-1]["code"] is Code.DEADLINE_EXCEEDED

    def test_a_cancelled_call_is_seen(self, world: World, gate: Gate) -> None:
        future = world.channel.unary_unary(f"/{PREDICTION}/Predict").future(
            predict_request().SerializeToString(), timeout=WAIT_S
        )
        assert gate.entered.acquire(timeout=WAIT_S)
        future.cancel()
        until(gate.gone[0])
        until(lambda: counted(world, "", "CANCELLED") == 1)

    def test_messages_that_do_not_come_hold_up_nobody(self, world: World) -> None:
        release = threading.Event()

        def never() -> Iterator[bytes]:
            release.wait(WAIT_S)
            yield b""

        open_call = world.channel.stream_unary(f"/{PREDICTION}/Predict").future
        calls = [open_call(never(), timeout=WAIT_S) for _ in range(20)]
        assert world.predict()
        for call in calls:
            call.cancel()
        release.set()


class TestAdmission:
    def test_only_so_many_are_computed_at_a_time(self) -> None:
        with World(GrpcOptions(at_a_time=1)) as world:
            world.predictor.compute = gate = Gate()
            call = world.channel.unary_unary(f"/{PREDICTION}/Predict")
            calls = [call.future(predict_request().SerializeToString(), timeout=WAIT_S) for _ in range(2)]
            assert gate.entered.acquire(timeout=WAIT_S)
            world.health()  # by which the second call has come, too
            assert not gate.entered.acquire(blocking=False)
            gate.open.set()
            assert all(call.result() for call in calls)
            assert gate.entered.acquire(timeout=WAIT_S)

    def test_what_the_predictor_refuses_is_never_read(self, world: World) -> None:
        world.predictor.is_full = True
        with refused(Code.RESOURCE_EXHAUSTED, "try again later"):
            world.predict()
        assert counted(world, "", "RESOURCE_EXHAUSTED") == 1
        assert world.health() == 1
        world.predictor.is_full = False
        assert world.predict()

    def test_pending_predictions_are_told(self, world: World) -> None:
        world.predictor.pending = 3
        assert world.metrics.snapshot()["pending"] == 3

    def test_a_large_message_is_read_in_a_thread(self, world: World) -> None:
        reply = world.predict(predict_request(*range(200_000)))
        assert len(reply.outputs["y"].float_val) == 200_000
        assert world.predictor.offloaded == 1


class TestHealth:
    def test_check(self, world: World) -> None:
        assert [world.health(name) for name in ("", PREDICTION, "half")] == [1, 1, 1]
        world.models.problems = {"half": "version 3 is loading"}
        assert [world.health(name) for name in ("", PREDICTION, "half")] == [2, 2, 2]

    def test_one_of_two_models(self, world: World) -> None:
        world.models.serving = {"half": (3,), "other": ()}
        world.models.problems = {"other": "no version yet"}
        assert [world.health(name) for name in ("", "half", "other")] == [2, 1, 2]

    def test_without_models(self, world: World) -> None:
        world.models.serving = {}
        assert world.health() == 2

    def test_a_service_that_there_is_not(self, world: World) -> None:
        with refused(Code.NOT_FOUND):
            world.health("other")

    def test_watch(self, world: World) -> None:
        request = health_pb2.HealthCheckRequest(service="half").SerializeToString()
        stream = world.channel.unary_stream("/grpc.health.v1.Health/Watch")(request, timeout=WAIT_S)
        statuses = (health_pb2.HealthCheckResponse.FromString(data).status for data in stream)
        assert next(statuses) == health_pb2.HealthCheckResponse.SERVING
        world.models.problems = {"half": "gone"}
        assert next(statuses) == health_pb2.HealthCheckResponse.NOT_SERVING
        world.models.problems, world.models.serving = {}, {}
        assert next(statuses) == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
        stream.cancel()

    def test_at_the_end_watchers_are_told_before_calls_are_refused(self) -> None:
        world = World(GrpcOptions())
        gate = Gate()
        world.predictor.compute = gate
        request = health_pb2.HealthCheckRequest().SerializeToString()
        stream = world.channel.unary_stream("/grpc.health.v1.Health/Watch")(request, timeout=WAIT_S)
        statuses = (health_pb2.HealthCheckResponse.FromString(data).status for data in stream)
        assert next(statuses) == health_pb2.HealthCheckResponse.SERVING
        call = world.channel.unary_unary(f"/{PREDICTION}/Predict").future(
            predict_request().SerializeToString(), timeout=WAIT_S
        )
        assert gate.entered.acquire(timeout=WAIT_S)
        stop = threading.Thread(target=world.server.stop, args=(WAIT_S,))
        stop.start()
        assert next(statuses) == health_pb2.HealthCheckResponse.NOT_SERVING
        gate.open.set()
        assert call.result(WAIT_S)  # what was asked is answered
        stream.cancel()
        stop.join(WAIT_S)
        world.stack.close()
        assert not stop.is_alive()


class TestEnd:
    def test_calls_that_come_meanwhile_are_answered_or_told(self) -> None:
        world = World(GrpcOptions())
        codes: set[Any] = set()
        stopped = threading.Event()
        answered = threading.Semaphore(0)

        def ask() -> None:
            with grpc.insecure_channel(f"127.0.0.1:{world.port}", _OWN) as channel:
                predict = channel.unary_unary(f"/{PREDICTION}/Predict")
                request = predict_request().SerializeToString()
                while not stopped.is_set():  # also after a refusal, at once
                    try:
                        assert predict(request, timeout=WAIT_S)
                        answered.release()
                    except grpc.RpcError as err:
                        codes.add(cast(grpc.Call, err).code())

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        for _ in range(20):
            assert answered.acquire(timeout=WAIT_S)
        world.server.stop(WAIT_S)
        stopped.set()
        for thread in threads:
            thread.join(WAIT_S)
        world.stack.close()
        assert codes == {grpc.StatusCode.UNAVAILABLE}

    def test_what_waits_for_nothing_does_not_hold_it_up(self) -> None:
        world = World(GrpcOptions())
        health = health_pb2.HealthCheckRequest().SerializeToString()
        watch = world.channel.unary_stream("/grpc.health.v1.Health/Watch")(health, timeout=WAIT_S)
        assert next(watch)
        release = threading.Event()

        def requests() -> Iterator[bytes]:
            yield reflection_pb2.ServerReflectionRequest(list_services="").SerializeToString()
            release.wait(WAIT_S)

        path = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
        reflect = world.channel.stream_stream(path)(requests(), timeout=WAIT_S)
        assert next(reflect)
        with socket.create_connection(("127.0.0.1", world.port)):
            start = time.monotonic()
            world.server.stop(WAIT_S)
            assert time.monotonic() - start < 1
        release.set()
        world.stack.close()


class TestReflection:
    def ask(self, world: World, **request: str) -> Any:
        ask = world.channel.stream_stream("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo")
        data = reflection_pb2.ServerReflectionRequest(**request).SerializeToString()
        (reply,) = ask(iter((data,)), timeout=WAIT_S)
        return reflection_pb2.ServerReflectionResponse.FromString(reply)

    def test_services(self, world: World) -> None:
        services = self.ask(world, list_services="").list_services_response.service
        assert [service.name for service in services] == [
            "grpc.health.v1.Health",
            "grpc.reflection.v1alpha.ServerReflection",
            MODEL,
            PREDICTION,
        ]

    @pytest.mark.parametrize(
        "symbol", [PREDICTION, MODEL, "grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"]
    )
    def test_a_client_can_build_all_messages(self, world: World, symbol: str) -> None:
        from google.protobuf.descriptor_pb2 import FileDescriptorProto
        from google.protobuf.descriptor_pool import DescriptorPool

        reply = self.ask(world, file_containing_symbol=symbol).file_descriptor_response
        files = {file.name: file for file in map(FileDescriptorProto.FromString, reply.file_descriptor_proto)}
        pool = DescriptorPool()
        added: set[str] = set()

        def add(name: str) -> None:
            if name not in added:
                added.add(name)
                for dependency in files[name].dependency:
                    add(dependency)
                pool.Add(files[name])

        for name in files:
            add(name)
        assert pool.FindServiceByName(symbol).methods[0].input_type

    def test_open_streams_do_not_stop_predictions(self) -> None:
        with World(GrpcOptions()) as world:
            release = threading.Event()

            def requests() -> Iterator[bytes]:
                yield reflection_pb2.ServerReflectionRequest(list_services="").SerializeToString()
                release.wait(WAIT_S)

            ask = world.channel.stream_stream(
                "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
            )
            stream = ask(requests(), timeout=WAIT_S)
            assert next(stream)
            assert world.predict()
            release.set()
            assert list(stream) == []


@pytest.fixture(scope="module")
def authority() -> "Authority":
    return Authority("fairway test authority")


class Authority:
    """Signs certificates for loopback."""

    def __init__(self, name: str) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.cert = self._sign(self.name, self.key, is_authority=True)

    def issue(self, name: str) -> tuple[str, str]:
        """Return a key and its certificate as PEM texts."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        return key.private_bytes(*form).decode(), self._sign(subject, key, is_authority=False)

    def _sign(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, *, is_authority: bool) -> str:
        now = datetime.datetime.now(datetime.UTC)
        loopback = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        certificate = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(hours=1))
            .add_extension(x509.SubjectAlternativeName(loopback), critical=False)
            .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
            .sign(self.key, hashes.SHA256())
        )
        return certificate.public_bytes(serialization.Encoding.PEM).decode()


def tls_world(
    authority: Authority, *, client_verify: bool = False, custom_ca: str | None = None, **wrong: str
) -> World:
    key, cert = authority.issue("server")
    ca = authority.cert if custom_ca is None else custom_ca
    texts = {"server_key": key, "server_cert": cert, "custom_ca": ca} | wrong
    return World(GrpcOptions(tls=TlsFiles(client_verify=client_verify, **texts)))


def credentials(authority: Authority, client: tuple[str, str] | None = None) -> grpc.ChannelCredentials:
    key, cert = client or (None, None)
    return grpc.ssl_channel_credentials(authority.cert.encode(), key and key.encode(), cert and cert.encode())


class TestTls:
    def test_a_client_that_knows_the_authority(self, authority: Authority) -> None:
        with tls_world(authority) as world:
            world.channel = world.open(f"127.0.0.1:{world.port}", credentials(authority))
            assert world.predict()

    def test_without_tls_there_is_no_answer(self, authority: Authority) -> None:
        with tls_world(authority) as world, refused(Code.UNAVAILABLE):
            world.predict()

    def test_clients_certificates(self, authority: Authority) -> None:
        with tls_world(authority, client_verify=True) as world:
            target = f"127.0.0.1:{world.port}"
            world.channel = world.open(target, credentials(authority, authority.issue("client")))
            assert world.predict()
            world.channel = world.open(target, credentials(authority))
            with refused(Code.UNAVAILABLE):
                world.predict()
            stranger = Authority("stranger").issue("client")
            world.channel = world.open(target, credentials(authority, stranger))
            with refused(Code.UNAVAILABLE):
                world.predict()

    @pytest.mark.parametrize("name", ["server_key", "server_cert", "custom_ca"])
    def test_a_text_that_is_no_pem(self, authority: Authority, name: str) -> None:
        with pytest.raises(FairwayError, match="SSLConfig cannot be used"):
            tls_world(authority, client_verify=True, **{name: "no PEM"})

    def test_a_text_that_is_no_pem_on_a_port_that_is_kept_for_workers(self, authority: Authority) -> None:
        key, cert = "no PEM", authority.cert
        with reserve("127.0.0.1", 0, "--port") as kept:
            options = GrpcOptions(tls=TlsFiles(key, cert), reuse_port=True)
            with pytest.raises(FairwayError, match="SSLConfig cannot be used"):
                World(options, port=kept.getsockname()[1])

    def test_a_key_of_another_certificate(self, authority: Authority) -> None:
        other, _ = authority.issue("other")
        with pytest.raises(FairwayError, match="SSLConfig cannot be used"):
            tls_world(authority, server_key=other)

    def test_clients_certificates_without_an_authority(self, authority: Authority) -> None:
        with pytest.raises(FairwayError, match="no custom_ca"):
            tls_world(authority, client_verify=True, custom_ca="")


class TestPorts:
    def test_a_port_that_is_taken(self, world: World) -> None:
        with pytest.raises(FairwayError, match=f"port {world.port} on 127.0.0.1 is taken") as caught:
            World(GrpcOptions(), port=world.port)
        assert "--port" in caught.value.hint
        assert world.predict()

    def test_a_name_of_which_one_address_is_taken(self, world: World) -> None:
        with pytest.raises(FairwayError, match=f"port {world.port} on localhost is taken"):
            World(GrpcOptions(), host="localhost", port=world.port)

    def test_several_processes_on_one_port(self) -> None:
        options = GrpcOptions(reuse_port=True)
        with World(options) as first, World(options, port=first.port) as second:
            assert first.port == second.port
            assert second.predict()

    def test_a_port_that_a_stranger_holds(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as stranger:
            port = stranger.getsockname()[1]
            with pytest.raises(FairwayError, match=f"port {port} on 127.0.0.1 is taken"):
                World(GrpcOptions(reuse_port=True), port=port)

    def test_a_host_that_there_is_not(self) -> None:
        with pytest.raises(FairwayError, match="cannot listen on host no.such.host.invalid"):
            World(GrpcOptions(), host="no.such.host.invalid")

    def test_an_address_of_another_machine(self) -> None:
        with pytest.raises(FairwayError, match="cannot listen on 192.0.2.1:0"):
            World(GrpcOptions(), host="192.0.2.1")


class TestUnixSocket:
    def test_both_ways(self, tmp_path: Path) -> None:
        path = tmp_path / "socket"
        with World(GrpcOptions(socket_path=str(path))) as world:
            assert world.predict()
            world.channel = world.open(f"unix:{path}")
            assert world.predict()
            assert world.access.lines[-1]["peer"] == ""
        assert not path.exists()

    def test_one_that_is_in_use(self, tmp_path: Path) -> None:
        options = GrpcOptions(socket_path=str(tmp_path / "socket"))
        with World(options) as world:
            with pytest.raises(FairwayError, match="another process listens on the Unix socket"):
                World(options)
            world.channel = world.open(f"unix:{options.socket_path}")
            assert world.predict()

    def test_one_that_a_crash_has_left(self, tmp_path: Path) -> None:
        path = tmp_path / "socket"
        with socket.socket(socket.AF_UNIX) as crashed:
            crashed.bind(str(path))
        with World(GrpcOptions(socket_path=str(path))) as world:
            world.channel = world.open(f"unix:{path}")
            assert world.predict()

    @pytest.mark.parametrize("name", ["no/such/directory", "x" * 200, "file"])
    def test_one_that_cannot_be(self, tmp_path: Path, name: str) -> None:
        (tmp_path / "file").write_text("keep me")
        with pytest.raises(FairwayError, match="cannot listen on the Unix socket") as caught:
            World(GrpcOptions(socket_path=str(tmp_path / name)))
        assert "--grpc_socket_path" in caught.value.hint
        assert (tmp_path / "file").read_text() == "keep me"


class TestChannelArguments:
    def test_numbers_and_words(self) -> None:
        assert parse_channel_arguments("grpc.max_connection_age_ms=2000,grpc.x=-1, grpc.name=a=b") == (
            ("grpc.max_connection_age_ms", 2000),
            ("grpc.x", -1),
            ("grpc.name", "a=b"),
        )
        assert parse_channel_arguments("") == ()

    @pytest.mark.parametrize("text", ["grpc.x", "=1", "grpc.x=1,2"])
    def test_what_is_none(self, text: str) -> None:
        with pytest.raises(UsageError, match="grpc_channel_arguments"):
            parse_channel_arguments(text)

    def test_they_win(self) -> None:
        arguments = (("grpc.max_receive_message_length", 100),)
        with (
            World(GrpcOptions(channel_arguments=arguments)) as world,
            refused(Code.RESOURCE_EXHAUSTED),
        ):
            world.predict(predict_request(*range(100)))


def test_nothing_is_left(world: World) -> None:
    with World(GrpcOptions()) as other:
        before = set(threading.enumerate()) - {other.server._thread}
        other.predict()
        assert other.health() == 1
    until(lambda: not {thread for thread in threading.enumerate() if thread.name.startswith("grpc")} - before)
