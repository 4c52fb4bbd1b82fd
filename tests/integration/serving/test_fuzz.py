"""Thousands of requests that go wrong: each gets an answer, none costs the server anything that lasts."""

from __future__ import annotations

import json
import math
import random
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fairway.tfs.protos import message
from tests.integration.serving.mutations import Rest, mutate
from tests.integration.serving.wire import Reply, Wire, request

# Of what was allocated since the warm-up: allocators keep some of what they have had.
GROWTH_MB = 16
CONNECTIONS = 2
PREDICT = "/tensorflow.serving.PredictionService/Predict"
GRPC_METHODS = {
    PREDICT: "PredictRequest",
    "/tensorflow.serving.PredictionService/Classify": "ClassificationRequest",
    "/tensorflow.serving.PredictionService/Regress": "RegressionRequest",
    "/tensorflow.serving.PredictionService/MultiInference": "MultiInferenceRequest",
    "/tensorflow.serving.PredictionService/GetModelMetadata": "GetModelMetadataRequest",
    "/tensorflow.serving.ModelService/GetModelStatus": "GetModelStatusRequest",
    "/tensorflow.serving.PredictionService/NoSuchMethod": "PredictRequest",
}
# What a server may say to a client whose request is wrong.
REFUSALS = {
    grpc.StatusCode.OK,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.OUT_OF_RANGE,
    grpc.StatusCode.UNIMPLEMENTED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
}


@pytest.fixture
def server(publish: Callable[[str, int], Path], serve: Callable[..., Any]) -> Any:
    publish("digits", 1)
    server = serve()
    server.wait_for_version(1)
    return server


@pytest.fixture
def bodies(expected: dict[str, Any]) -> list[bytes]:
    """Bodies that are answered with 200."""
    pixels = [np.round(image / 255, 2).tolist() for image in expected["images"][:3]]
    return [
        json.dumps(content).encode()
        for content in (
            {"instances": pixels[:1]},
            {"instances": [{"x": image} for image in pixels[:2]]},
            {"inputs": pixels},
            {"signature_name": "serving_default", "inputs": {"x": pixels[:1]}},
        )
    ]


@pytest.mark.parametrize("count", [4000, pytest.param(150_000, marks=pytest.mark.slow)])
@pytest.mark.timeout(1800)
def test_rest(server: Any, bodies: list[bytes], expected: dict[str, Any], count: int) -> None:
    send_rest(server, bodies, seed=1, count=1000)
    before = memory_mb(server)
    statuses = send_rest(server, bodies, seed=2, count=count)
    grown = memory_mb(server) - before

    assert [status for status in statuses if status >= 500 and status != 503] == []
    assert statuses[200] > count / 20, statuses
    assert statuses[400] > count / 5, statuses
    assert grown < GROWTH_MB, f"{grown:.1f} MB more after {count} requests"
    check_health(server, expected)


@pytest.mark.parametrize("count", [1000, pytest.param(50_000, marks=pytest.mark.slow)])
@pytest.mark.timeout(900)
def test_grpc(server: Any, expected: dict[str, Any], count: int) -> None:
    send_grpc(server, seed=1, count=300)
    before = memory_mb(server)
    codes = send_grpc(server, seed=2, count=count)
    grown = memory_mb(server) - before

    assert codes[grpc.StatusCode.OK] > count / 20, codes
    assert codes[grpc.StatusCode.INVALID_ARGUMENT] > count / 10, codes
    assert grown < GROWTH_MB, f"{grown:.1f} MB more after {count} requests"
    check_health(server, expected)


NUMBERS = st.floats(width=32) | st.integers(-(2**31), 2**31) | st.booleans() | st.none() | st.text(max_size=3)
VALUES = st.recursive(
    NUMBERS,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["x", "b64", "y"]), inner, max_size=2)
    ),
    max_leaves=12,
)


def test_any_json_gets_the_right_answer(
    publish: Callable[[str, int], Path], serve: Callable[..., Any]
) -> None:
    publish("half_plus_two", 1)
    server = serve()
    server.wait_for_version(1)

    with Wire(server.root) as wire:

        @settings(max_examples=400, derandomize=True, suppress_health_check=list(HealthCheck))
        @given(VALUES)
        def ask(value: Any) -> None:
            wire.send(request("/v1/models/m:predict", json.dumps({"inputs": value}).encode()))
            reply = wire.reply()
            assert reply
            wanted = half_plus_two(value)
            if wanted is None:
                assert reply.status == 400, (value, reply)
                assert set(json.loads(reply.body)) == {"error"}
            else:
                assert reply.status == 200, (value, reply)
                answer = np.asarray(json.loads(reply.body)["outputs"], np.float32)
                np.testing.assert_array_equal(answer, np.asarray(wanted, np.float32))

        ask()


def half_plus_two(value: Any) -> list[float] | None:
    """Return what the model says of a value for its input of shape [-1]; `None`: nothing."""
    if isinstance(value, dict) and set(value) == {"x"}:
        value = value["x"]
    if not isinstance(value, list) or not all(type(number) in (int, float) for number in value):
        return None
    if any(type(number) is int and abs(number) >= 2**24 for number in value):
        return None  # as TensorFlow Serving, which takes no integer that a float might not hold
    return [float(number) for number in np.asarray(value, np.float32) / 2 + np.float32(2)]


def send_rest(server: Any, bodies: list[bytes], seed: int, count: int) -> Counter[int]:
    """Send requests over some connections at a time and return how many got which status."""
    with ThreadPoolExecutor(CONNECTIONS) as executor:
        parts = [
            executor.submit(
                _send_rest, server.root, Rest(seed * 100 + each, server.name, bodies), count // CONNECTIONS
            )
            for each in range(CONNECTIONS)
        ]
        return sum((part.result() for part in parts), Counter())


def _send_rest(root: str, requests: Rest, count: int) -> Counter[int]:
    statuses: Counter[int] = Counter()
    wire = Wire(root)
    for number in range(count):
        if number % 10 == 0:
            broken = _send_broken(root, requests.broken_request())
            statuses[broken] += 1
            continue
        method, data = requests.request()
        wire.send(data)
        reply = wire.reply(method)
        assert reply, f"no reply to {data[:1000]!r}"
        check_reply(method, data, reply)
        statuses[reply.status] += 1
        if reply.headers.get("connection") == "close":
            wire.close()
            wire = Wire(root)
    wire.close()
    return statuses


def check_reply(method: str, data: bytes, reply: Reply) -> None:
    """Check what every reply has, whatever the request."""
    assert reply.status < 500 or reply.status == 503, f"{reply} to {data[:1000]!r}"
    if reply.headers.get("content-type", "").startswith("application/json") and method != "HEAD":
        content = json.loads(reply.body)
        assert reply.status == 200 or "error" in content or "status" in content, f"{reply} to {data[:1000]!r}"


def _send_broken(root: str, data: bytes) -> int:
    """Send bytes on a connection of their own; return the status, 0 if the server hung up without one."""
    with Wire(root) as wire:
        wire.send(data + request("/healthz", method="GET", connection="close"))
        # The broken one may have swallowed the good one: then the server waits for more.
        wire.socket.shutdown(1)
        reply = wire.reply("HEAD" if data.startswith(b"HEAD") else "POST")
        return reply.status if reply else 0


def send_grpc(server: Any, seed: int, count: int) -> Counter[grpc.StatusCode]:
    """Send mutated messages to every method and return how many got which code."""
    chance = random.Random(seed)
    messages = {name: valid_messages(name, server.name) for name in set(GRPC_METHODS.values())}
    codes: Counter[grpc.StatusCode] = Counter()
    with grpc.insecure_channel(server.grpc) as channel:
        for _ in range(count):
            method = chance.choice((PREDICT, chance.choice(list(GRPC_METHODS))))
            data = chance.choice(messages[GRPC_METHODS[method]])
            if chance.random() < 0.9:
                data = mutate(
                    chance, data, [b"\x00", b"\xff" * 9, b"\x0a\x00", b"\x80\x80\x80\x80\x10", b"x"]
                )
            code = _code(channel, method, data)
            allowed = (
                REFUSALS if readable(GRPC_METHODS[method], data) else {*REFUSALS, grpc.StatusCode.INTERNAL}
            )
            assert code in allowed, f"{code} from {method} for {data!r}"
            codes[code] += 1
    return codes


def _code(channel: grpc.Channel, method: str, data: bytes) -> grpc.StatusCode:
    try:
        channel.unary_unary(method)(data, timeout=30)
    except grpc.RpcError as err:
        return err.code()
    return grpc.StatusCode.OK


def readable(name: str, data: bytes) -> bool:
    """Tell whether bytes are a message at all; where not, gRPC itself refuses them."""
    try:
        message(f"tensorflow.serving.{name}").FromString(data)
    except Exception:
        return False
    return True


def valid_messages(name: str, model: str) -> list[bytes]:
    """Return serialized requests that are as they should be, but for signatures the model does not have."""
    asked = message(f"tensorflow.serving.{name}")()
    tasks = [asked.tasks.add() for _ in range(2)] if name == "MultiInferenceRequest" else [asked]
    for task in tasks:
        task.model_spec.name = model
    if name == "PredictRequest":
        return [predict_message(model, form) for form in range(4)]
    if name == "GetModelMetadataRequest":
        asked.metadata_field.append("signature_def")
    elif name != "GetModelStatusRequest":
        feature = asked.input.example_list.examples.add().features.feature["x"]
        feature.float_list.value.extend([0.5] * 28)
    return [asked.SerializeToString()]


def predict_message(model: str, form: int) -> bytes:
    """Return a request for one image: numbers as bytes, one by one, one for all, and with all else given."""
    asked = message("tensorflow.serving.PredictRequest")()
    asked.model_spec.name = model
    tensor = asked.inputs["x"]
    tensor.dtype = 1
    for size in (1, 28, 28):
        tensor.tensor_shape.dim.add().size = size
    if form in (0, 3):
        tensor.tensor_content = np.full(784, 0.25, np.float32).tobytes()
    else:
        tensor.float_val.extend([0.25] * (784 if form == 1 else 1))
    if form == 3:
        asked.model_spec.signature_name = "serving_default"
        asked.model_spec.version.value = 1
        asked.output_filter.extend(["classes", "predictions"])
    data: bytes = asked.SerializeToString()
    return data


def memory_mb(server: Any) -> float:
    """Return how much memory the server and its workers have in use."""
    process = psutil.Process(server.process.pid)
    return float(sum(each.memory_info().rss for each in (process, *process.children(recursive=True)))) / 1e6


def check_health(server: Any, expected: dict[str, Any]) -> None:
    """Check that the server still answers, and rightly, and has never been at a loss."""
    pixels = (expected["images"].astype(np.float32) / 255).tolist()
    answers = server.predict(instances=pixels).json()["predictions"]
    assert [answer["classes"] for answer in answers] == expected["classes"].tolist()
    assert math.isclose(answers[0]["predictions"][0], expected["predictions"][0][0], abs_tol=1e-5)
    assert not any("Traceback" in line for line in server.lines), server.output
