"""Requests computed together: those that gather while the threads are busy, in one call of the model.

Requests for the same signature wait in batches, in the order in which they came, and each thread takes the
batch that has waited longest. So nothing waits for others to come, unless the parameters say so. A request
with more rows than a batch has room for is computed in parts, each of which queues behind what has come
meanwhile: a large request cannot keep small ones waiting.

With parameters the rules are those of TensorFlow Serving's batching session; see
https://github.com/tensorflow/serving/blob/master/tensorflow_serving/batching/README.md.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fairway.tfs.request import PredictRequest
from fairway.tfs.signatures import TensorSpec
from fairway.tfs.status import Code, RequestError, invalid

if TYPE_CHECKING:
    from fairway.serve.compute.servable import Servable
    from fairway.serve.metrics import Metrics
    from fairway.tfs.configs import BatchingParameters

Outputs = dict[str, NDArray[Any]]

# Measured with the `cnn` of `fairway train` on TensorFlow, CPU µs per row: 1,877 at batch 1, 154 at 32, 89 at
# 64, 75 at 128. Up to here a larger batch pays; beyond, what comes meanwhile only waits longer (6 ms at 64).
# LiteRT takes 86 µs at batch 1 and 74 from 8 on. Collecting what arrives in one turn of the event loop won 2
# to 10 µs a request and nothing at p99, so what it computes quickly does not come here at all.
MAX_ROWS = 64
_CLOSE_S = 5.0

logger = logging.getLogger(__name__)


class Job:
    """A request on its way through the queue.

    Args:
        servable: Computes it.
        request: What is asked.
        deadline: In the clock of `time.monotonic`.
        gone: Whether nobody waits for the answer any more.
        future: Gets the outputs or the error, in its own event loop.
    """

    def __init__(
        self,
        servable: Servable,
        request: PredictRequest,
        deadline: float,
        gone: Callable[[], bool],
        future: asyncio.Future[Outputs],
    ) -> None:
        self.servable = servable
        self.request = request
        self.deadline = deadline
        self.gone = gone
        self.future = future
        self.rows = request.rows
        self.done: list[Outputs] = []  # of the parts, where the request is computed in several
        self.rows_done = 0

    def refusal(self) -> RequestError | None:
        """Return why the request must not be computed any more, if so."""
        if self.future.cancelled() or self.gone():
            return RequestError(Code.CANCELLED, "the client is gone")
        if time.monotonic() >= self.deadline:
            return timed_out()
        return None


def timed_out() -> RequestError:
    """Return the error of a request whose deadline has passed; TensorFlow's words for it."""
    return RequestError(Code.DEADLINE_EXCEEDED, "Timed out waiting for notification")


@dataclass(frozen=True)
class _Part:
    """Some rows of a job: all of them, but for a large request."""

    job: Job
    inputs: Mapping[str, NDArray[Any]]
    rows: int


@dataclass(eq=False)
class _Batch:
    """Parts that are computed in one call."""

    key: Hashable | None  # of what may be computed together; `None`: alone
    lane: Hashable
    ready_at: float
    parts: list[_Part] = field(default_factory=list)
    rows: int = 0
    since: float = field(default_factory=time.monotonic)

    def add(self, part: _Part) -> None:
        self.parts.append(part)
        self.rows += part.rows


class Batcher:
    """The queue and its threads.

    Args:
        threads: How many compute; with parameters, those have the number.
        parameters: TensorFlow Serving's, where the user wants its rules; `None`: see the module.
        metrics: Gets the size of each batch and how long its first request has waited.
    """

    def __init__(self, threads: int, parameters: BatchingParameters | None, metrics: Metrics) -> None:
        self._parameters = parameters
        self._metrics = metrics
        self._max_rows = parameters.max_batch_size if parameters else MAX_ROWS
        self._batches: deque[_Batch] = deque()
        self._open: dict[Hashable, _Batch] = {}  # the last batch of each key
        self._waiting: Counter[Hashable] = Counter()  # batches of each key
        self._running: Counter[Hashable] = Counter()  # batches of each lane
        self._closed = False
        self._changed = threading.Condition()
        number = parameters.num_batch_threads if parameters else threads
        self._threads = [
            threading.Thread(target=self._work, name=f"predict-{index}", daemon=True)
            for index in range(number)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, job: Job) -> None:
        """Queue a request.

        Raises:
            RequestError: the queue is full, or the request larger than a batch may be.
        """
        key = self._key(job)
        if key is not None and self._parameters and job.rows > self._max_rows:
            raise invalid(f"Task size {job.rows} is larger than maximum input batch size {self._max_rows}")
        self._enqueue(job, key)

    def close(self) -> None:
        """Refuse what waits, let end what is being computed, and end the threads."""
        with self._changed:
            self._closed = True
            left = [part.job for batch in self._batches for part in batch.parts]
            self._batches.clear()
            self._open.clear()
            self._waiting.clear()
            self._changed.notify_all()
        _settle({job: _closing() for job in left})
        end = time.monotonic() + _CLOSE_S
        for thread in self._threads:
            thread.join(max(0.0, end - time.monotonic()))

    def _key(self, job: Job) -> Hashable | None:
        """Return what requests must have in common to be computed together; `None`: it is computed alone."""
        servable, name = job.servable, job.request.signature_name
        signature = servable.signatures[name]
        if not all(map(_is_open, signature.inputs.values())):
            return None
        if not self._parameters and not (
            servable.rows_independent and all(map(_is_open, signature.outputs.values()))
        ):
            return None
        inputs = job.request.inputs
        if job.rows == 0 or any(array.shape[:1] != (job.rows,) for array in inputs.values()):
            return None
        if self._parameters and self._parameters.pad_variable_length_inputs:
            return servable, name
        return servable, name, tuple((each, array.shape[1:]) for each, array in sorted(inputs.items()))

    def _enqueue(self, job: Job, key: Hashable | None) -> None:
        """Put the next rows of a job into the last batch of their kind, or into a new one."""
        rows = job.rows if key is None else min(job.rows - job.rows_done, self._max_rows)
        part = _Part(job, _slice(job.request.inputs, job.rows_done, rows, job.rows), rows)
        with self._changed:
            if self._closed:
                raise _closing()
            batch = self._open.get(key)
            if batch is None or batch.rows + rows > self._max_rows:
                batch = self._start_batch(job, key)
            batch.add(part)
            if len(batch.parts) == 1 or batch.rows == self._max_rows:
                self._changed.notify()

    def _start_batch(self, job: Job, key: Hashable | None) -> _Batch:
        now = time.monotonic()
        lane = (job.servable, job.request.signature_name)
        if key is None or self._parameters is None:
            batch = _Batch(key, lane, now)
        elif self._waiting[key] < self._parameters.max_enqueued_batches:
            batch = _Batch(key, lane, now + self._parameters.batch_timeout_s)
        else:
            # Source: tensorflow/core/kernels/batching_util/shared_batch_scheduler.h
            message = "The batch scheduling queue to which this task was submitted is full"
            raise RequestError(Code.UNAVAILABLE, message)
        self._batches.append(batch)
        if key is not None:
            self._open[key] = batch
            self._waiting[key] += 1
        return batch

    def _work(self) -> None:
        while self._work_once():
            pass

    def _work_once(self) -> bool:
        """Compute a batch once there is one; return `False` when the queue is closed.

        A function of its own, so that a thread that waits holds no model of the past in its variables.
        """
        batch = self._take()
        if batch is None:
            return False
        try:
            self._compute(batch)
        except Exception as err:  # the thread must live, and those who wait must hear of it
            _settle({part.job: err for part in batch.parts})
        finally:
            with self._changed:
                _count_down(self._running, batch.lane)
        return True

    def _take(self) -> _Batch | None:
        """Wait for the batch that is next and remove it from the queue; `None` when that is closed."""
        with self._changed:
            while not self._closed:
                now = time.monotonic()
                batch = next((each for each in self._batches if self._may_run(each, now)), None)
                if batch:
                    self._remove(batch)
                    self._running[batch.lane] += 1
                    if self._batches:
                        self._changed.notify()  # another thread may take the next
                    return batch
                times = [each.ready_at for each in self._batches if each.ready_at > now]
                self._changed.wait(min(times) - now if times else None)
            return None

    def _may_run(self, batch: _Batch, now: float) -> bool:
        is_full = batch.rows >= self._max_rows or self._open.get(batch.key) is not batch
        if now < batch.ready_at and not is_full:
            return False
        if not self._running[batch.lane]:
            return True
        job = batch.parts[0].job
        if job.servable.one_at_a_time(job.request.signature_name):
            return False
        # What comes while a batch is computed makes the next one, which a second thread would cut short.
        return is_full or self._parameters is not None

    def _remove(self, batch: _Batch) -> None:
        self._batches.remove(batch)
        if batch.key is None:
            return
        _count_down(self._waiting, batch.key)
        if self._open[batch.key] is batch:
            del self._open[batch.key]

    def _compute(self, batch: _Batch) -> None:
        """Compute a batch and answer its jobs, or queue what is left of them."""
        queued_s = time.monotonic() - batch.since
        refused = {part.job: refusal for part in batch.parts if (refusal := part.job.refusal())}
        _settle(refused)
        parts = [part for part in batch.parts if part.job not in refused]
        if not parts:
            return
        self._metrics.batch(
            parts[0].job.servable.model, sum(part.rows for part in parts), len(parts), queued_s
        )
        results = _run_alone(parts[0].job) if batch.key is None else self._run_together(parts)
        self._finish(batch.key, zip(parts, results, strict=True))

    def _run_together(self, parts: Sequence[_Part]) -> Sequence[Outputs | Exception]:
        """Return the outputs of each part, or why there are none."""
        servable, name = parts[0].job.servable, parts[0].job.request.signature_name
        rows = sum(part.rows for part in parts)
        inputs = _merge([part.inputs for part in parts], self._padded(rows) - rows)
        outputs = _attempt(servable, PredictRequest(name, inputs))
        if isinstance(outputs, dict) and _have_rows(outputs, self._padded(rows)):
            return list(_split(outputs, [part.rows for part in parts]))
        if len(parts) > 1:  # one request must not fail the others
            return [self._run_together([part])[0] for part in parts]
        if isinstance(outputs, dict):  # it does not answer row by row, whatever its signature says
            return _run_alone(parts[0].job)
        return [outputs]

    def _padded(self, rows: int) -> int:
        """Return the smallest allowed number of rows that is not below `rows`."""
        sizes = self._parameters.allowed_batch_sizes if self._parameters else ()
        return min((size for size in sizes if size >= rows), default=rows)

    def _finish(self, key: Hashable | None, results: Iterable[tuple[_Part, Outputs | Exception]]) -> None:
        settled: dict[Job, Outputs | Exception] = {}
        for part, result in results:
            answer = result if isinstance(result, Exception) else self._go_on(key, part, result)
            if answer is not None:
                settled[part.job] = answer
        _settle(settled)

    def _go_on(self, key: Hashable | None, part: _Part, outputs: Outputs) -> Outputs | Exception | None:
        """Return the answer of a job that has all its rows; queue the next rows of another."""
        job = part.job
        job.done.append(outputs)
        job.rows_done += part.rows
        if job.rows_done >= job.rows:
            return _merge(job.done, 0)
        try:
            self._enqueue(job, key)
        except RequestError as err:
            return err
        return None


def _attempt(servable: Servable, request: PredictRequest) -> Outputs | Exception:
    try:
        return servable.run(request)
    except Exception as err:  # handed to whoever asked
        return err


def _run_alone(job: Job) -> Sequence[Outputs | Exception]:
    job.done.clear()
    job.rows_done = job.rows
    return [_attempt(job.servable, job.request)]


def _closing() -> RequestError:
    return RequestError(Code.UNAVAILABLE, "the server is ending")


def _settle(results: Mapping[Job, Outputs | Exception]) -> None:
    """Hand the results over: those for one event loop all at once, as waking it takes a system call."""
    by_loop: dict[asyncio.AbstractEventLoop, list[tuple[asyncio.Future[Outputs], Outputs | Exception]]] = {}
    for job, result in results.items():
        by_loop.setdefault(job.future.get_loop(), []).append((job.future, result))
    for loop, pairs in by_loop.items():
        with suppress(RuntimeError):  # the loop is closed, so nobody waits
            loop.call_soon_threadsafe(_set_all, pairs)


def _set_all(pairs: Iterable[tuple[asyncio.Future[Outputs], Outputs | Exception]]) -> None:
    for future, result in pairs:
        if future.done():  # given up by the one who waited
            continue
        if isinstance(result, Exception):
            future.set_exception(result)
        else:
            future.set_result(result)


def _is_open(spec: TensorSpec) -> bool:
    """Tell whether a tensor may have any number of rows."""
    return spec.shape is not None and spec.shape[:1] == (-1,)


def _have_rows(outputs: Outputs, rows: int) -> bool:
    return all(array.ndim and len(array) == rows for array in outputs.values())


def _slice(
    inputs: Mapping[str, NDArray[Any]], start: int, rows: int, all_rows: int
) -> Mapping[str, NDArray[Any]]:
    if rows == all_rows:
        return inputs
    return {name: array[start : start + rows] for name, array in inputs.items()}


def _merge(inputs: Sequence[Mapping[str, NDArray[Any]]], padding: int) -> Outputs:
    """Return arrays one after the other, and the last one's first row as often as `padding` says."""
    if len(inputs) == 1 and not padding:
        return dict(inputs[0])
    merged: Outputs = {}
    for name in inputs[0]:
        arrays = _same_length([each[name] for each in inputs])
        merged[name] = np.concatenate([*arrays, *[arrays[-1][:1]] * padding])
    return merged


def _same_length(arrays: list[NDArray[Any]]) -> list[NDArray[Any]]:
    """Return arrays that agree in all dimensions but the first: padded with their own first element."""
    shapes = {array.shape[1:] for array in arrays}
    if len(shapes) == 1:
        return arrays
    target = tuple(map(max, *shapes))
    return [array if array.shape[1:] == target else _pad(array, target) for array in arrays]


def _pad(array: NDArray[Any], target: tuple[int, ...]) -> NDArray[Any]:
    padded = np.full((len(array), *target), array.flat[0], array.dtype)
    padded[tuple(map(slice, array.shape))] = array
    return padded


def _split(outputs: Outputs, rows: Sequence[int]) -> Iterable[Outputs]:
    start = 0
    for count in rows:
        yield {name: array[start : start + count] for name, array in outputs.items()}
        start += count


def _count_down(counter: Counter[Hashable], key: Hashable) -> None:
    counter[key] -= 1
    if not counter[key]:
        del counter[key]
