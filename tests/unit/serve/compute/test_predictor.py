"""Where a prediction is computed, and when it is not; the model is a fake."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import pytest

from fairway.serve.compute.batching import Outputs
from fairway.serve.compute.predictor import MAX_PENDING_BYTES, Predictor
from fairway.serve.compute.servable import Servable
from fairway.serve.metrics import Metrics
from fairway.tfs.configs import BatchingParameters
from fairway.tfs.request import PredictRequest
from fairway.tfs.signatures import Signature, TensorSpec
from fairway.tfs.status import Code, RequestError, invalid

DEADLINE_S = 20.0
ROWS = TensorSpec("x:0", "DT_FLOAT", (-1,))
FOREVER = float("inf")


@dataclass(eq=False)
class Model:
    """Doubles numbers, and remembers on which threads; zeros take until `go_on`."""

    cost_s: float = 0.0
    is_busy: bool = False
    threads: list[str] = field(default_factory=list)
    at_zero: threading.Event = field(default_factory=threading.Event)
    go_on: threading.Event = field(default_factory=threading.Event)
    model: str = "m"
    rows_independent: bool = True
    signatures: dict[str, Signature] = field(
        default_factory=lambda: {"double": Signature({"x": ROWS}, {"y": ROWS})}
    )

    def seconds(self, request: PredictRequest) -> float:
        return self.cost_s * request.rows

    def one_at_a_time(self, signature_name: str) -> bool:
        return True

    def run(self, request: PredictRequest) -> Outputs:
        self.threads.append(threading.current_thread().name)
        x = request.inputs["x"]
        if not x.any():
            self.at_zero.set()
            assert self.go_on.wait(DEADLINE_S)
        if (x < 0).any():
            raise invalid("negative")
        return {"y": 2 * x}

    def run_if_free(self, request: PredictRequest) -> Outputs | None:
        return None if self.is_busy else self.run(request)


@dataclass
class Counted:
    """Metrics that remember."""

    batches: list[tuple[str, int, int]] = field(default_factory=list)

    def batch(self, model: str, rows: int, requests: int, queued_s: float) -> None:
        self.batches.append((model, rows, requests))


@pytest.fixture
def model() -> Model:
    return Model()


@pytest.fixture
def slow() -> Model:
    return Model(cost_s=0.01)


@pytest.fixture
def counted() -> Counted:
    return Counted()


@pytest.fixture
def predictor(model: Model, slow: Model, counted: Counted) -> Iterator[Predictor]:
    predictor = Predictor(threads=1, max_pending=2, batching=None, metrics=cast(Metrics, counted))
    yield predictor
    model.go_on.set()
    slow.go_on.set()
    predictor.close()


async def predict(predictor: Predictor, model: Model, x: list[float], **options: Any) -> Any:
    arguments: Any = {"deadline": FOREVER, "gone": lambda: False} | options
    outputs = await predictor.predict(cast(Servable, model), request(x), **arguments)
    return outputs["y"].tolist()


def request(x: list[float]) -> PredictRequest:
    return PredictRequest("double", {"x": np.asarray(x, np.float32)})


def here() -> str:
    return threading.current_thread().name


def test_what_is_quick_is_computed_where_it_was_read(
    predictor: Predictor, model: Model, counted: Counted
) -> None:
    assert asyncio.run(predict(predictor, model, [1, 2])) == [2, 4]
    assert model.threads == [here()]
    assert counted.batches == []


def test_what_takes_long_is_computed_in_a_thread(predictor: Predictor, slow: Model, counted: Counted) -> None:
    assert asyncio.run(predict(predictor, slow, [1])) == [2]
    assert slow.threads == ["predict-0"]
    assert counted.batches == [("m", 1, 1)]


def test_the_event_loop_does_not_wait_for_a_busy_model(predictor: Predictor, model: Model) -> None:
    model.is_busy = True
    assert asyncio.run(predict(predictor, model, [1])) == [2]
    assert model.threads == ["predict-0"]


def test_batching_parameters_send_all_through_the_queue(model: Model, counted: Counted) -> None:
    parameters = BatchingParameters(max_batch_size=2, batch_timeout_s=3600, num_batch_threads=1)
    predictor = Predictor(threads=1, max_pending=9, batching=parameters, metrics=cast(Metrics, counted))

    async def both() -> Any:
        return await asyncio.gather(predict(predictor, model, [1]), predict(predictor, model, [2]))

    assert asyncio.run(both()) == [[2], [4]]
    assert counted.batches == [("m", 2, 2)]
    predictor.close()


def test_an_error_reaches_the_one_who_asked(predictor: Predictor, slow: Model, model: Model) -> None:
    for each in (slow, model):
        with pytest.raises(RequestError, match="negative"):
            asyncio.run(predict(predictor, each, [-1]))


@pytest.mark.parametrize(
    ("options", "code"),
    [({"deadline": 0.0}, Code.DEADLINE_EXCEEDED), ({"gone": lambda: True}, Code.CANCELLED)],
)
def test_what_is_too_late_or_for_nobody_is_not_computed(
    predictor: Predictor, model: Model, slow: Model, options: dict[str, Any], code: Code
) -> None:
    for each in (model, slow):
        with pytest.raises(RequestError) as caught:
            asyncio.run(predict(predictor, each, [1], **options))
        assert caught.value.code is code
        assert each.threads == []


def test_at_the_deadline_the_answer_is_not_waited_for(predictor: Predictor, slow: Model) -> None:
    with pytest.raises(RequestError) as caught:
        asyncio.run(predict(predictor, slow, [0], deadline=time.monotonic() + 0.02))
    assert caught.value.code is Code.DEADLINE_EXCEEDED
    assert slow.at_zero.wait(DEADLINE_S)
    with pytest.raises(RequestError) as caught:
        asyncio.run(predict(predictor, slow, [1], deadline=time.monotonic() + 0.02))
    assert caught.value.code is Code.DEADLINE_EXCEEDED
    slow.go_on.set()
    assert asyncio.run(predict(predictor, slow, [2])) == [4]
    assert len(slow.threads) == 2  # the second was dropped


def test_a_cancelled_task_is_not_computed(predictor: Predictor, slow: Model) -> None:
    async def cancel() -> None:
        first = asyncio.create_task(predict(predictor, slow, [0]))
        await predictor.offload(slow.at_zero.wait, DEADLINE_S)
        second = asyncio.create_task(predict(predictor, slow, [1]))
        await asyncio.sleep(0)
        second.cancel()
        await asyncio.wait([second])
        slow.go_on.set()
        assert await first == [0]
        assert await predict(predictor, slow, [2]) == [4]

    asyncio.run(cancel())
    assert len(slow.threads) == 2


def test_the_event_loop_goes_on_while_something_is_computed(predictor: Predictor, slow: Model) -> None:
    async def both() -> None:
        task = asyncio.create_task(predict(predictor, slow, [0]))
        assert await predictor.offload(slow.at_zero.wait, DEADLINE_S)
        assert not task.done()
        slow.go_on.set()
        assert await task == [0]

    asyncio.run(both())


def test_only_so_many_are_taken_on(predictor: Predictor) -> None:
    with predictor.admit(1), predictor.admit(1):
        assert predictor.pending == 2
        with pytest.raises(RequestError, match="busy with 2 requests") as caught, predictor.admit(1):
            pass
        assert caught.value.code is Code.RESOURCE_EXHAUSTED
        assert predictor.pending == 2
    assert predictor.pending == 0


def test_only_so_many_bytes_are_taken_on(predictor: Predictor) -> None:
    with predictor.admit(MAX_PENDING_BYTES):
        with pytest.raises(RequestError) as caught, predictor.admit(1):
            pass
        assert caught.value.code is Code.RESOURCE_EXHAUSTED
    with predictor.admit(MAX_PENDING_BYTES + 1):  # it is the only one
        pass
    with predictor.admit(MAX_PENDING_BYTES - 1), predictor.admit(1):
        pass


def test_a_failed_prediction_is_not_counted_for_ever(predictor: Predictor) -> None:
    with pytest.raises(ValueError, match="broken"), predictor.admit(1):
        raise ValueError("broken")
    assert predictor.pending == 0


def test_closing_ends_all_threads(model: Model, counted: Counted) -> None:
    predictor = Predictor(threads=2, max_pending=2, batching=None, metrics=cast(Metrics, counted))
    assert asyncio.run(predictor.offload(here)).startswith("offload")
    predictor.close()
    names = [thread.name for thread in threading.enumerate()]
    assert not [name for name in names if name.startswith(("predict", "offload"))]
    model.cost_s = 1
    with pytest.raises(RequestError) as caught:
        asyncio.run(predict(predictor, model, [1]))
    assert caught.value.code is Code.UNAVAILABLE
