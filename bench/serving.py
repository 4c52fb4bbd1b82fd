"""The model server: what a request costs beside its peers, how soon it is ready, what it holds."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median

import httpx
import numpy as np
import orjson

from bench.bare import BareLoop
from bench.load import Load, rest_load
from bench.report import Figure
from bench.runs import fairway
from bench.servers import Server, fairway_server, kserve_server
from fairway.config import DataSettings
from fairway.storage.exports import find_version
from fairway.workloads.mnist.data import load

ROUNDS = 5
LOAD_S = 4
FEW, MANY = 16, 64
"""Connections."""
BATCH = 32
STARTS = 7
TOLERANCE = 1e-4
"""Between the probabilities of two servers."""


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
        batch = _beside_bare_loop(ours, version)
    return [
        _cost(few[ours.name]),
        *(_costs_less(few, peer, goal) for peer, goal in zip((p.name for p in peers), (4, 8), strict=True)),
        *(_answers_more(few, peer.name) for peer in peers),
        *(_keeps_waiting(many, peer.name) for peer in peers),
        batch,
    ]


def start() -> list[Figure]:
    """From the start of the process to the first 200 of `/readyz`, and the memory after 1,000 requests."""
    times = []
    with exported() as export_dir:
        for _ in range(STARTS):
            with fairway_server(export_dir) as server:
                times.append(server.ready_s)
        with fairway_server(export_dir) as server:
            _ask(server, 1000)
            resident = server.resident_mb()
    note = f"median of {STARTS}: {listed(times, 2)}"
    return [
        Figure("fairway serve: start to ready", median(times), "s", 0.6, "lower", note),
        Figure("fairway serve: resident", resident, "MB", 120, "lower", "LiteRT; after 1,000 requests"),
    ]


@contextmanager
def exported() -> Iterator[Path]:
    """Yield an export directory with a hardly trained `cnn`: its answers are wrong, but cost the same."""
    with tempfile.TemporaryDirectory() as home:
        fairway("train", "--dataset", "embedded", "--train-steps", "20", home=Path(home))
        yield Path(home, "mnist", "export")


def request_body(rows: int) -> bytes:
    """Return a predict request with real digits, as fairway's own client writes it."""
    images = load(DataSettings(dataset="embedded")).test.images[:rows].astype(np.float32) / 255
    return orjson.dumps({"instances": images}, option=orjson.OPT_SERIALIZE_NUMPY)


def check_same(ours: Server, other: Server) -> None:
    """End the bench if two servers do not give the same probabilities."""
    body = request_body(BATCH)
    np.testing.assert_allclose(
        other.probabilities(body), ours.probabilities(body), atol=TOLERANCE, err_msg=other.name
    )


def in_turns(servers: list[Server], connections: int, rows: int = 1) -> dict[str, list[Load]]:
    """Load servers one after the other, again and again; return the loads of each by its name."""
    body = request_body(rows)
    for server in servers:
        rest_load(server, body, connections, 1)  # to warm up
    loads: dict[str, list[Load]] = {server.name: [] for server in servers}
    for turn in range(ROUNDS):
        for server in servers if turn % 2 else reversed(servers):
            loads[server.name].append(rest_load(server, body, connections, LOAD_S))
    return loads


def ratio(above: list[Load], below: list[Load], value: Callable[[Load], float]) -> float:
    """Return the median of the ratios of what was measured in the same turn."""
    return median(value(a) / value(b) for a, b in zip(above, below, strict=True))


def listed(values: list[float], digits: int) -> str:
    """Return values as text."""
    return ", ".join(f"{value:.{digits}f}" for value in values)


def _cost(loads: list[Load]) -> Figure:
    costs = [each.cpu_us for each in loads]
    per_s, p50, p99 = (median(each) for each in zip(*map(_seen, loads), strict=True))
    note = f"median of {listed(costs, 1)}; {per_s:,.0f} requests/s, p50 {p50:.2f}, p99 {p99:.2f} ms"
    return Figure(f"REST, batch 1, {FEW} connections: CPU", median(costs), "µs", 75, "lower", note)


def _seen(load: Load) -> tuple[float, float, float]:
    return load.per_s, load.p50_ms, load.p99_ms


def _costs_less(loads: dict[str, list[Load]], peer: str, goal: float) -> Figure:
    ours, theirs = loads["fairway"], loads[peer]
    note = (
        f"CPU µs of a request: {listed([each.cpu_us for each in theirs], 0)}"
        f" against {listed([each.cpu_us for each in ours], 1)}"
    )
    times = ratio(theirs, ours, lambda load: load.cpu_us)
    return Figure(f"… CPU of {peer} / fairway", times, "×", goal, "higher", note)


def _answers_more(loads: dict[str, list[Load]], peer: str) -> Figure:
    ours, theirs = loads["fairway"], loads[peer]
    note = (
        f"requests/s: {listed([each.per_s for each in ours], 0)}"
        f" against {listed([each.per_s for each in theirs], 0)}"
    )
    times = ratio(ours, theirs, lambda load: load.per_s)
    return Figure(f"… throughput of fairway / {peer}", times, "×", None, "higher", note)


def _keeps_waiting(loads: dict[str, list[Load]], peer: str) -> Figure:
    ours, theirs = loads["fairway"], loads[peer]
    note = (
        f"p99 ms: {listed([each.p99_ms for each in ours], 1)}"
        f" against {listed([each.p99_ms for each in theirs], 1)}"
    )
    times = ratio(ours, theirs, lambda load: load.p99_ms)
    return Figure(f"… {MANY} connections: p99 of fairway / {peer}", times, "×", 1, "lower", note)


def _beside_bare_loop(server: Server, version: Path) -> Figure:
    body, bare = request_body(BATCH), BareLoop(version, BATCH)
    answer = [row["predictions"] for row in orjson.loads(bare.answer(body))["predictions"]]
    np.testing.assert_allclose(answer, server.probabilities(body), atol=TOLERANCE)
    rest_load(server, body, FEW, 1)  # to warm up
    alone, served = [], []
    for _ in range(ROUNDS):
        alone.append(bare.cpu_us(body, LOAD_S / 2))
        served.append(rest_load(server, body, FEW, LOAD_S).cpu_us)
    shares = [100 * a / b for a, b in zip(alone, served, strict=True)]
    note = f"CPU µs of a request: {listed(alone, 0)} against {listed(served, 0)}"
    return Figure(f"REST, batch {BATCH}: bare loop / server", median(shares), "%", 85, "higher", note)


def _ask(server: Server, requests: int) -> None:
    body, headers = request_body(1), {"Content-Type": "application/json"}
    with httpx.Client(trust_env=False) as client:
        for _ in range(requests):
            client.post(server.predict_url, content=body, headers=headers).raise_for_status()
