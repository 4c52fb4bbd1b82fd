"""What is counted, and the page that Prometheus reads."""

import pickle
import threading
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from fairway.serve.metrics import Metrics, add_up, render
from fairway.tfs.status import Code

REQUESTS = ":tensorflow:serving:request_count"
LATENCY = ":tensorflow:serving:request_latency"


def read(*metrics: Metrics, serving: dict[str, tuple[int, ...]] | None = None) -> dict[Any, float]:
    """Return the page's samples by name and labels, after the way through another process."""
    snapshots = pickle.loads(pickle.dumps([each.snapshot() for each in metrics]))
    page = render(snapshots, serving or {}).decode()
    return {
        (_as_sent(sample.name), *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }


def _as_sent(name: str) -> str:
    """Undo what the parser does to names of counters; those of TensorFlow Serving have no such end."""
    return name.removesuffix("_total") if name.startswith(":") else name


def types(metrics: Metrics) -> dict[str, str]:
    families = text_string_to_metric_families(render([metrics.snapshot()], {}).decode())
    return {family.name: family.type for family in families}


def answered(*models: str) -> Metrics:
    metrics = Metrics()
    for model in models:
        metrics.request("GRPC", "Predict", model, Code.OK, 0.0002)
    return metrics


def test_requests_have_tensorflow_servings_names() -> None:
    metrics = answered("mnist", "mnist")
    metrics.request("REST", "predict", "mnist", Code.OK, 0.1)
    metrics.request("REST", "predict", "mnist", Code.INVALID_ARGUMENT, 0.1)
    samples = read(metrics)
    assert samples[REQUESTS, "mnist", "OK"] == 3
    assert samples[REQUESTS, "mnist", "INVALID_ARGUMENT"] == 1
    assert samples[f"{LATENCY}_count", "Predict", "GRPC", "mnist"] == 2
    assert samples[f"{LATENCY}_count", "predict", "REST", "mnist"] == 1  # what was refused is left out
    assert samples["fairway_request_errors_total", "predict", "REST", "mnist", "INVALID_ARGUMENT"] == 1


def test_the_page_is_as_tensorflow_serving_writes_it() -> None:
    lines = render([answered("mnist").snapshot()], {}).decode().splitlines()
    assert f"# TYPE {REQUESTS} counter" in lines
    assert f'{REQUESTS}{{model_name="mnist",status="OK"}} 1.0' in lines


def test_the_types_of_counters_are_told() -> None:
    found = types(answered("mnist"))
    assert found[REQUESTS] == "counter"
    assert found[LATENCY] == "histogram"
    assert "untyped" not in found.values()
    assert "unknown" not in found.values()


def test_latency_is_in_microseconds_and_tensorflow_servings_buckets() -> None:
    samples = read(answered("mnist"))
    bucket = f"{LATENCY}_bucket"
    bounds = {key[3]: value for key, value in samples.items() if key[0] == bucket}
    assert len(bounds) == 33
    assert list(bounds)[:3] == ["10", "18", "32.4"]
    assert bounds["188.957"] == 0
    assert bounds["340.122"] == bounds["+Inf"] == 1
    assert samples[f"{LATENCY}_sum", "Predict", "GRPC", "mnist"] == 200


def test_a_bound_belongs_to_its_bucket() -> None:
    metrics = Metrics()
    metrics.batch("mnist", 4, 1, 0.0)
    samples = read(metrics)
    assert samples["fairway_batch_rows_bucket", "2", "mnist"] == 0
    assert samples["fairway_batch_rows_bucket", "4", "mnist"] == 1


def test_beyond_the_last_bucket() -> None:
    metrics = Metrics()
    metrics.batch("mnist", 100_000, 1, 0.0)
    samples = read(metrics)
    assert samples["fairway_batch_rows_bucket", "1024", "mnist"] == 0
    assert samples["fairway_batch_rows_bucket", "+Inf", "mnist"] == 1


def test_clients_cannot_make_series() -> None:
    metrics = answered("mnist")
    for number in range(1000):
        metrics.request("REST", "predict", f"no-{number}", Code.NOT_FOUND, 0.0)
        metrics.request("REST", "predict", f"no-{number}", Code.RESOURCE_EXHAUSTED, 0.0)
    samples = read(metrics)
    assert samples[REQUESTS, "", "NOT_FOUND"] == 1000
    assert {key[1] for key in samples if key[0] == REQUESTS} == {"", "mnist"}


def test_a_model_is_known_once_it_was_loaded_or_failed_to_be() -> None:
    metrics = Metrics()
    metrics.load("good", 1, 0.5)
    metrics.load("bad", 1, None)
    for model in ("good", "bad"):
        metrics.request("REST", "predict", model, Code.RESOURCE_EXHAUSTED, 0.0)
    samples = read(metrics)
    assert samples[REQUESTS, "good", "RESOURCE_EXHAUSTED"] == 1
    assert samples[REQUESTS, "bad", "RESOURCE_EXHAUSTED"] == 1


def test_batches() -> None:
    metrics = Metrics()
    metrics.batch("mnist", 7, 3, 0.001)
    samples = read(metrics)
    prefix = ":tensorflow:serving:batching_session"
    assert samples[(f"{prefix}:wrapped_run_count",)] == 1
    assert samples[f"{prefix}:queuing_latency_sum", "model_server_batch_threads"] == 1000
    assert samples["fairway_batch_rows_sum", "mnist"] == 7
    assert samples["fairway_batch_requests_sum", "mnist"] == 3


def test_loads() -> None:
    metrics = Metrics()
    metrics.load("mnist", 3, 0.5)
    metrics.load("mnist", 4, 0.25)
    metrics.load("mnist", 5, None)
    samples = read(metrics)
    assert samples["fairway_loads_total", "mnist", "loaded"] == 2
    assert samples["fairway_loads_total", "mnist", "failed"] == 1
    assert samples["fairway_load_seconds", "mnist", "4"] == 0.25
    assert ("fairway_load_seconds", "mnist", "3") not in samples


def test_several_processes_are_added_up() -> None:
    first, second = answered("mnist"), answered("mnist", "other")
    first.load("mnist", 3, 0.5)
    second.load("mnist", 3, 0.75)
    first.add_pending(lambda: 2)
    second.add_pending(lambda: 3)
    second.add_pending(lambda: 4)
    samples = read(first, second)
    assert samples[REQUESTS, "mnist", "OK"] == 2
    assert samples[REQUESTS, "other", "OK"] == 1
    assert samples[f"{LATENCY}_bucket", "Predict", "GRPC", "340.122", "mnist"] == 2
    assert samples[f"{LATENCY}_sum", "Predict", "GRPC", "mnist"] == 400
    assert samples["fairway_loads_total", "mnist", "loaded"] == 2
    assert samples["fairway_load_seconds", "mnist", "3"] == 0.75
    assert samples[("fairway_pending_requests",)] == 9


def test_what_has_ended_still_counts_but_does_nothing_any_more() -> None:
    metrics = answered("m")
    metrics.add_pending(lambda: 3)
    metrics.load("m", 1, 0.5)
    ended = add_up([add_up([]), metrics.snapshot(), metrics.snapshot()])
    assert (ended["pending"], ended["loaded"]) == (0, {})
    now = metrics.snapshot()
    assert ended["counters"] == {key: 2 * count for key, count in now["counters"].items()}
    assert ended["histograms"].keys() == now["histograms"].keys()
    assert render([ended], {}) == render(
        [now | {"loaded": {}, "pending": 0}, now | {"loaded": {}, "pending": 0}], {}
    )


def test_what_serves() -> None:
    samples = read(Metrics(), serving={"mnist": (3, 2), "empty": ()})
    versions = {key[1:]: value for key, value in samples.items() if key[0] == "fairway_version_serving"}
    assert versions == {("mnist", "3"): 1, ("mnist", "2"): 1}


def test_names_are_escaped() -> None:
    name = 'a"b\\c\nd ü'
    assert read(answered(name))[REQUESTS, name, "OK"] == 1


def test_no_count_is_lost_between_threads() -> None:
    metrics = Metrics()

    def count() -> None:
        for _ in range(5000):
            metrics.request("GRPC", "Predict", "mnist", Code.OK, 0.0001)

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert read(metrics)[REQUESTS, "mnist", "OK"] == 20_000


def test_a_snapshot_stays_as_it_was() -> None:
    metrics = answered("mnist")
    snapshot = metrics.snapshot()
    before = render([snapshot], {})
    metrics.request("GRPC", "Predict", "mnist", Code.OK, 1.0)
    assert render([snapshot], {}) == before
