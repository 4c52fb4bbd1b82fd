"""Which requests are computed together, in which order; the model is a fake that waits when told to."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

import numpy as np
import pytest

from fairway.serve.compute.batching import MAX_ROWS, Batcher, Job, Outputs
from fairway.serve.compute.servable import Servable
from fairway.serve.metrics import Metrics
from fairway.tfs.configs import BatchingParameters
from fairway.tfs.request import PredictRequest
from fairway.tfs.signatures import Signature, TensorSpec
from fairway.tfs.status import Code, RequestError, invalid

DEADLINE_S = 20.0
ROWS = TensorSpec("x:0", "DT_FLOAT", (-1,))
MATRIX = TensorSpec("x:0", "DT_FLOAT", (-1, -1))
SCALAR = TensorSpec("y:0", "DT_FLOAT", ())
SIGNATURES = {
    "double": Signature({"x": ROWS}, {"y": ROWS}),
    "matrix": Signature({"x": MATRIX}, {"y": MATRIX}),
    "sum": Signature({"x": ROWS}, {"y": SCALAR}),
    "fixed": Signature({"x": TensorSpec("x:0", "DT_FLOAT", (2,))}, {"y": ROWS}),
    "two": Signature({"x": ROWS, "z": ROWS}, {"y": ROWS}),
}


@dataclass(eq=False)
class Model:
    """Doubles numbers and refuses negative ones; stands still at zeros until it may go on.

    Attributes:
        runs: The first column of each call, in the order of the calls.
    """

    signatures: dict[str, Signature] = field(default_factory=lambda: SIGNATURES)
    rows_independent: bool = True
    exclusive: bool = True
    runs: list[list[float]] = field(default_factory=list)
    shapes: list[tuple[int, ...]] = field(default_factory=list)
    at_zero: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    go_on: threading.Event = field(default_factory=threading.Event)
    model: str = "m"

    def one_at_a_time(self, signature_name: str) -> bool:
        return self.exclusive

    def run(self, request: PredictRequest) -> Outputs:
        x = request.inputs["x"]
        self.runs.append((x[:, 0] if x.ndim > 1 else x).tolist())
        self.shapes.append(x.shape)
        if not x.any():
            self.at_zero.release()
            assert self.go_on.wait(DEADLINE_S)
        if (x < 0).any():
            raise invalid("negative")
        return {"y": x.sum() if request.signature_name == "sum" else 2 * x}

    def reaches_zero(self) -> None:
        assert self.at_zero.acquire(timeout=DEADLINE_S)


class Waiting(Future[Outputs]):
    """A future that is its own event loop: what is to be called there is called at once."""

    def get_loop(self) -> Waiting:
        return self

    def call_soon_threadsafe(self, function: Callable[..., None], *args: Any) -> None:
        function(*args)


@dataclass
class Counted:
    """Metrics that remember."""

    batches: list[tuple[str, int, int]] = field(default_factory=list)

    def batch(self, model: str, rows: int, requests: int, queued_s: float) -> None:
        assert 0 <= queued_s < DEADLINE_S
        self.batches.append((model, rows, requests))


@pytest.fixture
def model() -> Model:
    return Model()


@pytest.fixture
def counted() -> Counted:
    return Counted()


@pytest.fixture
def start(model: Model, counted: Counted) -> Iterator[Callable[..., Batcher]]:
    """Start batchers that end with the test."""
    with ExitStack() as batchers:

        def start(parameters: BatchingParameters | None = None, threads: int = 1) -> Batcher:
            batcher = Batcher(threads, parameters, cast(Metrics, counted))
            batchers.callback(batcher.close)
            batchers.callback(model.go_on.set)
            return batcher

        yield start


def ask(
    batcher: Batcher,
    model: Model,
    x: Any,
    signature: str = "double",
    deadline: float = float("inf"),
    gone: Callable[[], bool] = lambda: False,
    **inputs: Any,
) -> Future[Outputs]:
    arrays = {name: np.asarray(value, np.float32) for name, value in {"x": x, **inputs}.items()}
    future = Waiting()
    request = PredictRequest(signature, arrays)
    batcher.submit(Job(cast(Servable, model), request, deadline, gone, cast(Any, future)))
    return future


def hold(batcher: Batcher, model: Model, signature: str = "double") -> Future[Outputs]:
    """Keep a thread busy until `go_on` is set."""
    future = ask(batcher, model, [0] if signature != "matrix" else [[0]], signature)
    model.reaches_zero()
    return future


def answer(future: Future[Outputs]) -> Any:
    return future.result(DEADLINE_S)["y"].tolist()


def code(future: Future[Outputs]) -> Code:
    with pytest.raises(RequestError) as caught:
        future.result(DEADLINE_S)
    return caught.value.code


def test_what_gathers_while_the_model_computes_is_computed_together(
    start: Callable[..., Batcher], model: Model, counted: Counted
) -> None:
    batcher = start(threads=3)  # which have nothing to do: the model computes one batch at a time
    first = hold(batcher, model)
    futures = [ask(batcher, model, [n, n + 0.5]) for n in (1, 2, 3)]
    model.go_on.set()

    assert answer(first) == [0]
    assert [answer(future) for future in futures] == [[2, 3], [4, 5], [6, 7]]
    assert model.runs == [[0], [1, 1.5, 2, 2.5, 3, 3.5]]
    assert counted.batches == [("m", 1, 1), ("m", 6, 3)]


def test_nothing_waits_for_others(start: Callable[..., Batcher], model: Model) -> None:
    batcher = start()
    for n in (1, 2, 3):
        assert answer(ask(batcher, model, [n])) == [2 * n]
    assert model.runs == [[1], [2], [3]]


def test_a_batch_has_no_more_rows_than_the_cap(start: Callable[..., Batcher], model: Model) -> None:
    batcher = start()
    hold(batcher, model)
    futures = [ask(batcher, model, [n] * (MAX_ROWS // 2)) for n in (1, 2, 3)]
    model.go_on.set()

    assert [answer(future)[0] for future in futures] == [2, 4, 6]
    assert [len(run) for run in model.runs] == [1, MAX_ROWS, MAX_ROWS // 2]


def test_small_requests_pass_a_large_one(start: Callable[..., Batcher], model: Model) -> None:
    batcher = start()
    hold(batcher, model)
    numbers = np.arange(1, 3 * MAX_ROWS)
    large = ask(batcher, model, numbers)
    small = ask(batcher, model, [1000])
    model.go_on.set()

    assert answer(small) == [2000]
    assert answer(large) == (2 * numbers).tolist()
    assert [run[-1] for run in model.runs[1:]] == [MAX_ROWS, 1000, 2 * MAX_ROWS, numbers[-1]]


def test_a_part_that_fails_fails_its_request_alone(start: Callable[..., Batcher], model: Model) -> None:
    batcher = start()
    large = ask(batcher, model, [1] * MAX_ROWS + [-1] + [1] * MAX_ROWS)
    assert code(large) is Code.INVALID_ARGUMENT
    assert answer(ask(batcher, model, [1])) == [2]
    assert len(model.runs) == 3


def test_first_come_first_served_across_models(start: Callable[..., Batcher], model: Model) -> None:
    batcher, other = start(), Model()
    hold(batcher, model)
    futures = [ask(batcher, each, [n]) for n, each in enumerate((other, model, other, model), 1)]
    order: list[int] = []
    for n, future in enumerate(futures):
        future.add_done_callback(partial(lambda n, _: order.append(n), n))
    model.go_on.set()

    assert [answer(future) for future in futures] == [[2], [4], [6], [8]]
    assert order == [0, 2, 1, 3]
    assert (other.runs, model.runs) == ([[1, 3]], [[0], [2, 4]])


def test_another_model_does_not_wait_for_a_busy_one(start: Callable[..., Batcher], model: Model) -> None:
    batcher = start(threads=2)
    hold(batcher, model)
    waiting = ask(batcher, model, [1])
    assert answer(ask(batcher, Model(), [5])) == [10]
    assert not waiting.done()


def test_what_does_not_compute_one_at_a_time_uses_all_threads(start: Callable[..., Batcher]) -> None:
    model = Model(rows_independent=False, exclusive=False)
    batcher = start(threads=2)
    futures = [ask(batcher, model, [0]) for _ in range(2)]
    for _ in futures:
        model.reaches_zero()
    model.go_on.set()
    assert [answer(future) for future in futures] == [[0], [0]]


def test_a_full_batch_is_computed_beside_another_where_the_model_can(
    start: Callable[..., Batcher], model: Model
) -> None:
    model.exclusive = False
    batcher = start(threads=3)
    hold(batcher, model)
    full = ask(batcher, model, [0] * MAX_ROWS)
    model.reaches_zero()
    futures = [ask(batcher, model, [n]) for n in (1, 2)]
    model.go_on.set()
    assert answer(full) == [0] * MAX_ROWS
    assert [answer(future) for future in futures] == [[2], [4]]
    assert model.runs[2:] == [[1, 2]]


@pytest.mark.parametrize(
    ("independent", "signature", "inputs"),
    [
        (False, "double", {}),  # nobody knows whether a row changes the others' answers
        (True, "sum", {}),
        (True, "fixed", {}),
        (True, "two", {"z": [1]}),  # for two rows of x
    ],
)
def test_what_must_be_computed_alone(
    start: Callable[..., Batcher], model: Model, independent: bool, signature: str, inputs: Any
) -> None:
    model.rows_independent = independent
    batcher = start()
    hold(batcher, model)
    futures = [ask(batcher, model, [n, n], signature, **inputs) for n in (1, 2)]
    large = ask(batcher, model, [1] * 3 * MAX_ROWS, signature, **inputs)
    model.go_on.set()

    expected = [2, 4] if signature == "sum" else [[2, 2], [4, 4]]
    assert [answer(future) for future in futures] == expected
    large.result(DEADLINE_S)
    assert model.runs == [[0], [1, 1], [2, 2], [1] * 3 * MAX_ROWS]


def test_no_rows_at_all(start: Callable[..., Batcher], model: Model) -> None:
    model.go_on.set()
    assert answer(ask(start(), model, [])) == []


def test_other_shapes_make_another_batch(start: Callable[..., Batcher], model: Model) -> None:
    batcher = start()
    hold(batcher, model)
    futures = [ask(batcher, model, [row], "matrix") for row in ([1, 2], [3], [4, 5])]
    model.go_on.set()

    assert [answer(future) for future in futures] == [[[2, 4]], [[6]], [[8, 10]]]
    assert model.shapes == [(1,), (2, 2), (1, 1)]


def test_a_request_that_fails_does_not_fail_the_others(start: Callable[..., Batcher], model: Model) -> None:
    batcher = start()
    hold(batcher, model)
    futures = [ask(batcher, model, [n]) for n in (1, -1, 2)]
    model.go_on.set()

    assert (answer(futures[0]), answer(futures[2])) == ([2], [4])
    assert code(futures[1]) is Code.INVALID_ARGUMENT
    assert model.runs == [[0], [1, -1, 2], [1], [-1], [2]]


def test_a_defect_reaches_the_one_who_asked_and_ends_no_thread(
    start: Callable[..., Batcher], model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    batcher = start()
    with monkeypatch.context() as broken:
        broken.setattr(model, "run", lambda _: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            ask(batcher, model, [1]).result(DEADLINE_S)
    assert answer(ask(batcher, model, [1])) == [2]


def test_what_is_too_late_or_for_nobody_is_not_computed(
    start: Callable[..., Batcher], model: Model, counted: Counted
) -> None:
    batcher = start()
    hold(batcher, model)
    late = ask(batcher, model, [1], deadline=time.monotonic())
    gone = ask(batcher, model, [2], gone=lambda: True)
    cancelled = ask(batcher, model, [3])
    assert cancelled.cancel()
    kept = ask(batcher, model, [4])
    model.go_on.set()

    assert code(late) is Code.DEADLINE_EXCEEDED
    assert code(gone) is Code.CANCELLED
    with pytest.raises(CancelledError):
        cancelled.result(DEADLINE_S)
    assert answer(kept) == [8]
    assert model.runs == [[0], [4]]
    assert counted.batches == [("m", 1, 1), ("m", 1, 1)]


def test_closing_refuses_what_waits(start: Callable[..., Batcher], model: Model) -> None:
    batcher = start()
    running = hold(batcher, model)
    waiting = ask(batcher, model, [1])
    closing = threading.Thread(target=batcher.close)
    closing.start()

    assert code(waiting) is Code.UNAVAILABLE
    model.go_on.set()
    closing.join(DEADLINE_S)
    assert not closing.is_alive()
    assert answer(running) == [0]
    with pytest.raises(RequestError) as caught:
        ask(batcher, model, [1])
    assert caught.value.code is Code.UNAVAILABLE
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("predict-")]


def test_no_model_is_held_once_its_answers_are_given(start: Callable[..., Batcher]) -> None:
    batcher, model = start(), Model()
    assert answer(ask(batcher, model, [1])) == [2]
    held = weakref.ref(model)
    del model
    # The thread gives the answer before it has put the batch away; a second request tells that it has.
    assert answer(ask(batcher, Model(), [1])) == [2]
    gc.collect()
    assert held() is None


# With TensorFlow Serving's parameters.


def test_a_full_batch_does_not_wait_and_others_do(start: Callable[..., Batcher], model: Model) -> None:
    model.rows_independent = False  # the user has said that it is
    batcher = start(BatchingParameters(max_batch_size=4, batch_timeout_s=3600, num_batch_threads=2))
    futures = [ask(batcher, model, [n] * rows) for n, rows in enumerate((1, 2, 1, 3), 1)]

    assert [answer(future) for future in futures[:3]] == [[2], [4, 4], [6]]
    assert model.runs == [[1, 2, 2, 3]]
    assert not futures[3].done()
    # One that has no room in the batch closes it.
    ask(batcher, model, [5, 5])
    assert answer(futures[3]) == [8, 8, 8]


def test_a_batch_waits_no_longer_than_its_timeout(start: Callable[..., Batcher], model: Model) -> None:
    batcher = start(BatchingParameters(max_batch_size=4, batch_timeout_s=0.01, num_batch_threads=1))
    before = time.monotonic()
    assert answer(ask(batcher, model, [1])) == [2]
    assert time.monotonic() - before >= 0.01


def test_a_full_queue(start: Callable[..., Batcher], model: Model) -> None:
    batcher = start(BatchingParameters(max_batch_size=2, max_enqueued_batches=2, num_batch_threads=1))
    hold(batcher, model)
    futures = [ask(batcher, model, [n]) for n in (1, 2, 3, 4)]
    with pytest.raises(RequestError, match="queue to which this task was submitted is full") as caught:
        ask(batcher, model, [5])
    assert caught.value.code is Code.UNAVAILABLE
    other = ask(batcher, model, [[6]], "matrix")  # has a queue of its own
    model.go_on.set()
    assert [answer(future) for future in [*futures, other]] == [[2], [4], [6], [8], [[12]]]
    assert answer(ask(batcher, model, [5])) == [10]


def test_a_request_above_the_largest_batch(start: Callable[..., Batcher], model: Model) -> None:
    batcher = start(BatchingParameters(max_batch_size=2, num_batch_threads=1))
    with pytest.raises(RequestError, match="Task size 3 is larger than maximum input batch size 2") as caught:
        ask(batcher, model, [1, 2, 3])
    assert caught.value.code is Code.INVALID_ARGUMENT


def test_allowed_sizes_are_filled_up_with_a_row(start: Callable[..., Batcher], model: Model) -> None:
    parameters = BatchingParameters(max_batch_size=8, num_batch_threads=1, allowed_batch_sizes=(2, 8))
    batcher = start(parameters)
    hold(batcher, model)
    futures = [ask(batcher, model, [n, n + 1]) for n in (1, 3)]
    model.go_on.set()

    assert [answer(future) for future in futures] == [[2, 4], [6, 8]]
    assert model.runs == [[0, 0], [1, 2, 3, 4, 3, 3, 3, 3]]


def test_inputs_of_different_shapes_are_padded_where_that_is_asked_for(
    start: Callable[..., Batcher], model: Model
) -> None:
    batcher = start(BatchingParameters(num_batch_threads=1, pad_variable_length_inputs=True))
    hold(batcher, model, "matrix")
    futures = [ask(batcher, model, x, "matrix") for x in ([[1, 2, 3]], [[4], [5]])]
    model.go_on.set()

    assert answer(futures[0]) == [[2, 4, 6]]
    assert answer(futures[1]) == [[8, 8, 8], [10, 8, 8]]
    assert model.shapes == [(1, 1), (3, 3)]


def test_a_model_that_does_not_answer_row_by_row_is_found_out(
    start: Callable[..., Batcher], model: Model
) -> None:
    unknown = TensorSpec("y:0", "DT_FLOAT", None)
    model.signatures = SIGNATURES | {"sum": Signature({"x": ROWS}, {"y": unknown})}
    batcher = start(BatchingParameters(num_batch_threads=1))
    hold(batcher, model)
    futures = [ask(batcher, model, [n, n], "sum") for n in (1, 2)]
    model.go_on.set()
    assert [answer(future) for future in futures] == [2, 4]
