"""What a server counts, and the page on which Prometheus finds it.

Names, labels and buckets are TensorFlow Serving's where it has some (servables/tensorflow/util.cc and
batching/batching_session.cc in its tensorflow_serving directory); the others begin with `fairway_`. Counts
are plain numbers, so that those of several processes can be added up.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from fairway.tfs.status import Code

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

UNKNOWN_MODEL = ""
"""Label of requests for models that this server never had: their names are a client's choice, without end."""

Api = Literal["REST", "GRPC"]

_Key = tuple[str, ...]
_Value = TypeVar("_Value")


def _exponential(first: float, factor: float, count: int) -> tuple[float, ...]:
    return tuple(first * factor**power for power in range(count - 1))


@dataclass(frozen=True)
class _Family:
    """One metric: a counter, or a histogram where it has bounds: of its buckets, without the infinite one."""

    name: str
    text: str
    labels: tuple[str, ...]
    bounds: tuple[float, ...] = ()


_REQUESTS = _Family(
    ":tensorflow:serving:request_count", "The total number of requests.", ("model_name", "status")
)
_LATENCY = _Family(
    ":tensorflow:serving:request_latency",
    "Wall time (in microseconds) of requests that were answered.",
    ("model_name", "API", "entrypoint"),
    _exponential(10, 1.8, 33),
)
_QUEUING = _Family(
    ":tensorflow:serving:batching_session:queuing_latency",
    "Wall time (in microseconds) that batches waited for more requests or a free thread.",
    ("thread_pool_name",),
    _exponential(100, 1.2, 52),
)
_RUNS = _Family(
    ":tensorflow:serving:batching_session:wrapped_run_count", "Total count of batches that were computed.", ()
)
_ERRORS = _Family(
    "fairway_request_errors",
    "Requests that were not answered, by protocol, method and code.",
    ("model_name", "API", "entrypoint", "status"),
)
_BATCH_ROWS = _Family(
    "fairway_batch_rows", "Rows computed together.", ("model_name",), _exponential(1, 2, 12)
)
_BATCH_REQUESTS = _Family(
    "fairway_batch_requests", "Requests computed together.", ("model_name",), _exponential(1, 2, 9)
)
_LOADS = _Family(
    "fairway_loads", "Versions that were loaded, and those that could not be.", ("model_name", "result")
)

_COUNTERS = (_REQUESTS, _RUNS, _ERRORS, _LOADS)
_HISTOGRAMS = (_LATENCY, _QUEUING, _BATCH_ROWS, _BATCH_REQUESTS)
# prometheus_client ends the names of counters in `_total`; TensorFlow Serving's do not.
_WITHOUT_TOTAL = (_REQUESTS.name, _RUNS.name)
# The pool's default name in TensorFlow Serving.
_BATCH_THREADS = "model_server_batch_threads"


class Metrics:
    """The counts of one process; any thread may add to them.

    Names of models become labels once a version of theirs was loaded or has answered.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._models: set[str] = set()
        # A histogram is a list: the counts of its buckets, and behind them the sum of what was observed.
        self._requests: dict[tuple[Api, str, str, Code], list[float]] = {}
        self._batches: dict[str, tuple[list[float], list[float]]] = {}
        self._queuing = _empty(_QUEUING)
        self._loads: dict[_Key, int] = {}
        self._loaded: dict[str, tuple[int, float]] = {}
        self._pending: list[Callable[[], int]] = []

    def request(self, api: Api, method: str, model: str, code: Code, seconds: float) -> None:
        """Count a request that is done.

        Args:
            api: The protocol.
            method: As TensorFlow Serving names it: `predict` over REST, `Predict` over gRPC.
            model: The name the client asked for, whatever it is.
            code: OK, or why it was refused.
            seconds: From its arrival to its reply.
        """
        with self._lock:
            if model not in self._models:
                model = self._learn(model, code)
            key = (api, method, model, code)
            counts = self._requests.get(key)
            if counts is None:
                counts = self._requests[key] = _empty(_LATENCY)
            _observe(_LATENCY, counts, seconds * 1e6)

    def batch(self, model: str, rows: int, requests: int, queued_s: float) -> None:
        """Count a batch that was computed.

        Args:
            model: Of which model.
            rows: Its size.
            requests: From how many requests its rows came.
            queued_s: Seconds that the first of them waited.
        """
        with self._lock:
            counts = self._batches.get(model)
            if counts is None:
                counts = self._batches[model] = _empty(_BATCH_ROWS), _empty(_BATCH_REQUESTS)
            _observe(_BATCH_ROWS, counts[0], rows)
            _observe(_BATCH_REQUESTS, counts[1], requests)
            _observe(_QUEUING, self._queuing, queued_s * 1e6)

    def load(self, model: str, version: int, seconds: float | None) -> None:
        """Count a version that was loaded within so many seconds, or could not be (`None`)."""
        with self._lock:
            self._models.add(model)
            key = (model, "failed" if seconds is None else "loaded")
            self._loads[key] = self._loads.get(key, 0) + 1
            if seconds is not None:
                self._loaded[model] = (version, seconds)

    def add_pending(self, read: Callable[[], int]) -> None:
        """Have `snapshot` ask `read` how many requests wait or are computed there."""
        self._pending.append(read)

    def snapshot(self) -> dict[str, Any]:
        """Return all that was counted, as plain picklable data for `render`."""
        pending = sum(read() for read in self._pending)
        with self._lock:
            return {
                "counters": dict(self._counters()),
                "histograms": {
                    (family.name, *labels): tuple(counts) for family, labels, counts in self._histograms()
                },
                "loaded": dict(self._loaded),
                "pending": pending,
            }

    def _learn(self, model: str, code: Code) -> str:
        if code is not Code.OK:
            return UNKNOWN_MODEL
        self._models.add(model)
        return model

    def _counters(self) -> Iterator[tuple[_Key, int]]:
        by_status: dict[_Key, int] = {}
        for (api, method, model, code), counts in self._requests.items():
            number = int(sum(counts[:-1]))
            key = (_REQUESTS.name, model, code.name)
            by_status[key] = by_status.get(key, 0) + number
            if code is not Code.OK:
                yield (_ERRORS.name, model, method, api, code.name), number
        yield from by_status.items()
        for labels, number in self._loads.items():
            yield (_LOADS.name, *labels), number
        yield (_RUNS.name,), int(sum(self._queuing[:-1]))

    def _histograms(self) -> Iterator[tuple[_Family, _Key, list[float]]]:
        for (api, method, model, code), counts in self._requests.items():
            if code is Code.OK:  # as in TensorFlow Serving: refusals are quick and would flatter the rest
                yield _LATENCY, (model, method, api), counts
        for model, (rows, requests) in self._batches.items():
            yield _BATCH_ROWS, (model,), rows
            yield _BATCH_REQUESTS, (model,), requests
        yield _QUEUING, (_BATCH_THREADS,), self._queuing


def _empty(family: _Family) -> list[float]:
    return [0] * (len(family.bounds) + 2)


def _observe(family: _Family, counts: list[float], value: float) -> None:
    counts[bisect_left(family.bounds, value)] += 1
    counts[-1] += value


def add_up(snapshots: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return one snapshot for processes that have ended: their counts, without what was true at a moment."""
    return {
        "counters": _sum_counters(snapshot["counters"] for snapshot in snapshots),
        "histograms": _sum_histograms(snapshot["histograms"] for snapshot in snapshots),
        "loaded": {},
        "pending": 0,
    }


def render(snapshots: Sequence[Mapping[str, Any]], serving: Mapping[str, tuple[int, ...]]) -> bytes:
    """Return Prometheus's text format of the sum of what several processes counted.

    Args:
        snapshots: One of each process.
        serving: The versions that answer, per model.
    """
    # Only who asks for the page pays for the import.
    from prometheus_client.exposition import generate_latest

    text = generate_latest(_Page(snapshots, serving))
    for name in _WITHOUT_TOTAL:
        text = text.replace(f" {name}_total ".encode(), f" {name} ".encode())
    return text


class _Page:
    """What `generate_latest` collects from."""

    def __init__(
        self, snapshots: Sequence[Mapping[str, Any]], serving: Mapping[str, tuple[int, ...]]
    ) -> None:
        self._snapshots = snapshots
        self._serving = serving

    def collect(self) -> Iterator[Metric]:
        counters = _sum_counters(snapshot["counters"] for snapshot in self._snapshots)
        histograms = _sum_histograms(snapshot["histograms"] for snapshot in self._snapshots)
        for family in _COUNTERS:
            yield _counter(family, _of(family, counters))
        for family in _HISTOGRAMS:
            yield _histogram(family, _of(family, histograms))
        yield from self._gauges()

    def _gauges(self) -> Iterator[Metric]:
        pending = sum(snapshot["pending"] for snapshot in self._snapshots)
        yield _gauge("fairway_pending_requests", "Requests that wait or are computed.", (), {(): pending})
        labels = ("model_name", "version")
        yield _gauge("fairway_version_serving", "Versions that answer.", labels, self._serving_versions())
        text = "Seconds that the version which was loaded last took, in the slowest process."
        yield _gauge("fairway_load_seconds", text, labels, self._load_seconds())

    def _serving_versions(self) -> dict[_Key, float]:
        return {(model, str(number)): 1 for model, numbers in self._serving.items() for number in numbers}

    def _load_seconds(self) -> dict[_Key, float]:
        slowest: dict[str, tuple[int, float]] = {}
        for snapshot in self._snapshots:
            for model, loaded in snapshot["loaded"].items():
                slowest[model] = max(slowest.get(model, loaded), loaded)
        return {(model, str(number)): seconds for model, (number, seconds) in slowest.items()}


def _sum_counters(parts: Iterable[Mapping[_Key, int]]) -> dict[_Key, int]:
    total: dict[_Key, int] = {}
    for part in parts:
        for key, value in part.items():
            total[key] = total.get(key, 0) + value
    return total


def _sum_histograms(parts: Iterable[Mapping[_Key, Sequence[float]]]) -> dict[_Key, list[float]]:
    total: dict[_Key, list[float]] = {}
    for part in parts:
        for key, counts in part.items():
            before = total.get(key)
            total[key] = [a + b for a, b in zip(before, counts, strict=True)] if before else list(counts)
    return total


def _of(family: _Family, values: Mapping[_Key, _Value]) -> dict[_Key, _Value]:
    return {key[1:]: value for key, value in sorted(values.items()) if key[0] == family.name}


def _counter(family: _Family, values: Mapping[_Key, int]) -> Metric:
    from prometheus_client.metrics_core import Metric

    metric = Metric(family.name, family.text, "counter")
    name = family.name if family.name in _WITHOUT_TOTAL else f"{family.name}_total"
    for labels, value in values.items():
        metric.add_sample(name, dict(zip(family.labels, labels, strict=True)), value)
    return metric


def _histogram(family: _Family, values: Mapping[_Key, Sequence[float]]) -> Metric:
    from prometheus_client.metrics_core import HistogramMetricFamily

    metric = HistogramMetricFamily(family.name, family.text, labels=family.labels)
    for labels, (*counts, total) in values.items():
        metric.add_metric(labels, _cumulative(family.bounds, counts), total)
    return metric


def _cumulative(bounds: Sequence[float], counts: Sequence[float]) -> list[tuple[str, float]]:
    buckets = []
    below = 0.0
    for bound, count in zip((*map("{:.6g}".format, bounds), "+Inf"), counts, strict=True):
        below += count
        buckets.append((bound, below))
    return buckets


def _gauge(name: str, text: str, labels: Sequence[str], values: Mapping[_Key, float]) -> Metric:
    from prometheus_client.metrics_core import GaugeMetricFamily

    metric = GaugeMetricFamily(name, text, labels=labels)
    for key, value in values.items():
        metric.add_metric(key, value)
    return metric
