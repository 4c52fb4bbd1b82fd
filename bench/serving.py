"""The model server: what a request costs beside its peers, how soon it is ready, what it holds."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Literal

import httpx
import numpy as np
import orjson
from numpy.typing import NDArray

from bench.bare import BareLoop, cpu_us
from bench.grpc_client import call
from bench.load import Load, grpc_load, rest_load
from bench.report import Figure
from bench.runs import fairway
from bench.servers import Server, fairway_server, kserve_server
from fairway.config import DataSettings
from fairway.storage.exports import find_version
from fairway.storage.manifest import MANIFEST, TFLITE
from fairway.tfs.protos import message
from fairway.tfs.tensors import from_proto
from fairway.workloads.mnist.data import load

ROUNDS = 5
LOAD_S = 4
WARM_UP_S = 1
FEW, MANY = 16, 64
"""Connections."""
BATCH = 32
STARTS = 7
REQUESTS = 1000
"""Before memory is looked at."""
TOLERANCE = 1e-4
"""Between the probabilities of two servers."""


@dataclass(frozen=True)
class Measure:
    """One field of a load, as a figure calls it."""

    field: Literal["cpu_us", "per_s", "p50_ms", "p99_ms"]
    words: str
    digits: int

    def of(self, loads: list[Load]) -> list[float]:
        """Return the values."""
        return [getattr(each, self.field) for each in loads]

    def listed(self, loads: list[Load]) -> str:
        """Return the values as text."""
        return listed(self.of(loads), self.digits)


CPU = Measure("cpu_us", "CPU µs of a request", 0)
THROUGHPUT = Measure("per_s", "requests/s", 0)
P50 = Measure("p50_ms", "p50 ms", 2)
P99 = Measure("p99_ms", "p99 ms", 1)


def rest() -> list[Figure]:
    """REST beside KServe's Python server on LiteRT and on TensorFlow, in turns; and beside a bare loop."""
    with ExitStack() as stack:
        export_dir = stack.enter_context(exported())
        version = find_version(export_dir).path
        ours = stack.enter_context(fairway_server(export_dir))
        peers = [stack.enter_context(kserve_server(runtime, version)) for runtime in ("litert", "tensorflow")]
        for peer in peers:
            check_same(ours, peer)
        few = in_turns([ours, *peers], FEW)
        many = in_turns([ours, *peers], MANY)
        bare = [beside_bare_loop(ours, version, rows, goal) for rows, goal in ((1, None), (BATCH, 85))]
    figures = [cost("REST", few[ours.name], 75)]
    for peer, goal in zip(peers, (4, 8), strict=True):
        name, pair = f"{peer.name} / fairway", (few[peer.name], few[ours.name])
        figures.append(compared(f"… CPU of {name}", CPU, *pair, goal, "higher"))
    for peer in peers:
        name, pair = f"fairway / {peer.name}", (few[ours.name], few[peer.name])
        figures.append(compared(f"… throughput of {name}", THROUGHPUT, *pair, None, "higher"))
    for peer in peers:
        name, pair = f"fairway / {peer.name}", (many[ours.name], many[peer.name])
        figures.append(compared(f"… {MANY} connections: p99 of {name}", P99, *pair, 1))
    return [*figures, *bare, yardstick()]


def grpc() -> list[Figure]:
    """gRPC, from clients in processes of their own: only the server's time counts."""
    with exported() as export_dir, fairway_server(export_dir) as server:
        request = predict_message()
        check_answer(server, request)
        grpc_load(server, request, FEW, WARM_UP_S)
        loads = [grpc_load(server, request, FEW, LOAD_S) for _ in range(ROUNDS)]
    return [cost("gRPC", loads, 220)]


def batching() -> list[Figure]:
    """TensorFlow's own runtime with and without computing requests together, in turns."""
    with ExitStack() as stack:
        export_dir = stack.enter_context(exported())
        version = find_version(export_dir).path
        for name in (TFLITE, MANIFEST):  # as of a model that fairway did not make: TensorFlow runs it
            (version / name).unlink()
        alone = stack.enter_context(fairway_server(export_dir, name="alone"))
        together = stack.enter_context(fairway_server(export_dir, "--enable_batching", name="together"))
        check_same(alone, together)
        found = {connections: in_turns([together, alone], connections) for connections in (1, FEW, MANY)}
    pairs = {connections: (loads[together.name], loads[alone.name]) for connections, loads in found.items()}
    title = "batching on TensorFlow"
    return [
        *(
            compared(f"{title}, connections {connections}: throughput", THROUGHPUT, *pair, None, "higher")
            for connections, pair in pairs.items()
        ),
        compared(f"{title}, connections 1: p50", P50, *pairs[1]),
        compared(f"{title}, connections {MANY}: p99", P99, *pairs[MANY], 1),
    ]


def start() -> list[Figure]:
    """From the start of the process to the first 200 of `/readyz`, and the memory after some requests."""
    times, request = [], predict_message()
    with exported() as export_dir:
        for _ in range(STARTS):
            with fairway_server(export_dir) as server:
                times.append(server.ready_s)
        with fairway_server(export_dir) as server:
            ask(server, REQUESTS)
            resident = server.resident_mb()
            grpc_load(server, request, FEW, WARM_UP_S)
            with_grpc = server.resident_mb()
    return [
        Figure("fairway serve: start to ready", median(times), "s", 0.6, "lower", f"{listed(times, 2)}"),
        Figure("… resident", resident, "MB", 120, "lower", f"LiteRT; after {REQUESTS:,} requests over REST"),
        Figure("… and a second of gRPC", with_grpc, "MB", 120),
    ]


@contextmanager
def exported() -> Iterator[Path]:
    """Yield an export directory with a hardly trained `cnn`: its answers are wrong, but cost the same."""
    with tempfile.TemporaryDirectory() as home:
        fairway("train", "--dataset", "embedded", "--train-steps", "20", home=Path(home))
        yield Path(home, "mnist", "export")


def digits(rows: int) -> NDArray[np.float32]:
    """Return real digits, [rows, 28, 28] in 0..1."""
    images = load(DataSettings(dataset="embedded")).test.images[:rows]
    return images.astype(np.float32) / np.float32(255)


def request_body(rows: int) -> bytes:
    """Return a predict request over REST, as fairway's own client writes it."""
    return orjson.dumps({"instances": digits(rows)}, option=orjson.OPT_SERIALIZE_NUMPY)


def predict_message() -> bytes:
    """Return a Predict request with one digit, as TensorFlow's `make_tensor_proto` writes it."""
    image = digits(1)
    request = message("tensorflow.serving.PredictRequest")()
    request.model_spec.name = "mnist"
    tensor = request.inputs["x"]
    tensor.dtype = 1  # DT_FLOAT
    for size in image.shape:
        tensor.tensor_shape.dim.add(size=size)
    tensor.tensor_content = image.tobytes()
    content: bytes = request.SerializeToString()
    return content


def check_same(ours: Server, other: Server) -> None:
    """End the bench if two servers do not give the same probabilities."""
    body = request_body(BATCH)
    expected = ours.probabilities(body)
    np.testing.assert_allclose(other.probabilities(body), expected, atol=TOLERANCE, err_msg=other.name)


def check_answer(server: Server, request: bytes) -> None:
    """End the bench if the server does not give the same probabilities over gRPC and REST."""
    reply = message("tensorflow.serving.PredictResponse").FromString(call(server.grpc_address, request))
    found = from_proto(reply.outputs["predictions"], "predictions")
    np.testing.assert_allclose(found, server.probabilities(request_body(1)), atol=TOLERANCE)


def in_turns(servers: list[Server], connections: int) -> dict[str, list[Load]]:
    """Load servers one after the other, again and again; return the loads of each by its name."""
    body = request_body(1)
    for server in servers:
        rest_load(server, body, connections, WARM_UP_S)
    loads: dict[str, list[Load]] = {server.name: [] for server in servers}
    for turn in range(ROUNDS):
        for server in servers if turn % 2 else reversed(servers):
            loads[server.name].append(rest_load(server, body, connections, LOAD_S))
    return loads


def ask(server: Server, requests: int) -> None:
    """Send predict requests over REST, one after the other."""
    body, headers = request_body(1), {"Content-Type": "application/json"}
    with httpx.Client(trust_env=False) as client:
        for _ in range(requests):
            client.post(server.predict_url, content=body, headers=headers).raise_for_status()


def cost(api: str, loads: list[Load], goal: float) -> Figure:
    """Return the figure of what a request costs."""
    costs = CPU.of(loads)
    per_s, p50, p99 = (median(each.of(loads)) for each in (THROUGHPUT, P50, P99))
    note = f"{listed(costs, 1)}; {per_s:,.0f} requests/s, p50 {p50:.2f}, p99 {p99:.2f} ms"
    return Figure(f"{api}, batch 1, {FEW} connections: CPU", median(costs), "µs", goal, "lower", note)


def compared(
    name: str,
    measure: Measure,
    above: list[Load],
    below: list[Load],
    goal: float | None = None,
    better: Literal["higher", "lower"] = "lower",
) -> Figure:
    """Return the figure of how one server compares with another: the median of the ratios of each turn."""
    ratios = [a / b for a, b in zip(measure.of(above), measure.of(below), strict=True)]
    note = f"{measure.words}: {measure.listed(above)} against {measure.listed(below)}"
    return Figure(name, median(ratios), "×", goal, better, note)


def beside_bare_loop(server: Server, version: Path, rows: int, goal: float | None) -> Figure:
    """Return the figure of how much of what a request costs the server is the work itself."""
    body, bare = request_body(rows), BareLoop(version, rows)
    answer = [row["predictions"] for row in orjson.loads(bare.answer(body))["predictions"]]
    np.testing.assert_allclose(answer, server.probabilities(body), atol=TOLERANCE)
    rest_load(server, body, FEW, WARM_UP_S)
    alone, served = [], []
    for _ in range(ROUNDS):
        alone.append(cpu_us(lambda: bare.answer(body), LOAD_S / 2))
        served.append(rest_load(server, body, FEW, LOAD_S))
    shares = [100 * a / b for a, b in zip(alone, CPU.of(served), strict=True)]
    computing = cpu_us(bare.compute, LOAD_S / 2)
    note = f"{CPU.words}: {listed(alone, 0)} against {CPU.listed(served)}; LiteRT alone {computing:.0f}"
    return Figure(f"REST, batch {rows}: bare loop / server", median(shares), "%", goal, "higher", note)


def yardstick() -> Figure:
    """Return the figure of something that has nothing to do with fairway, to compare machines by."""
    body = request_body(1)
    times = [cpu_us(lambda: json.loads(body), LOAD_S / ROUNDS) for _ in range(ROUNDS)]
    note = f"{listed(times, 0)}; where the goals were set it took 52, and LiteRT 22 for its smaller network"
    return Figure("yardstick: Python's json.loads of such a request, CPU", median(times), "µs", note=note)


def listed(values: list[float], digits: int) -> str:
    """Return values as text."""
    return ", ".join(f"{value:.{digits}f}" for value in values)
