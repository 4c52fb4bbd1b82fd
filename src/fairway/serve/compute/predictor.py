"""Predictions, from whichever protocol: how many at a time, for how long, and on which thread.

What LiteRT computes within a few milliseconds is computed at once where the request was read, on the event
loop. All else goes through the queue of `batching`.
"""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, TypeVar, TypeVarTuple

from fairway.serve.compute.batching import Batcher, Job, Outputs, timed_out
from fairway.tfs.request import PredictRequest
from fairway.tfs.status import Code, RequestError

if TYPE_CHECKING:
    from fairway.serve.compute.servable import Servable
    from fairway.serve.metrics import Metrics
    from fairway.tfs.configs import BatchingParameters

# How long the others may be held up by one. Handing a request to a thread takes 30 to 40 µs of CPU, half of
# what the answer to one image takes; and LiteRT computes one at a time anyway.
_AT_ONCE_S = 0.005
# Two of the largest bodies that are read. Short numbers in JSON, "0,", become arrays of twice their size: in
# all 400 MB at the worst, which leaves room in a pod of 1 GiB.
MAX_PENDING_BYTES = 128 * 1024 * 1024

_R = TypeVar("_R")
_Ts = TypeVarTuple("_Ts")


class Predictor:
    """Takes on predictions and has them computed.

    Args:
        threads: How many compute what is not computed at once, and how many run what is offloaded.
        max_pending: Predictions at a time.
        batching: TensorFlow Serving's parameters, where the user wants requests to wait for each other.
        metrics: Gets what was computed together.

    Attributes:
        pending: Predictions that have been taken on.
        computes_at_once: Whether `compute_at_once` ever does.
    """

    def __init__(
        self, *, threads: int, max_pending: int, batching: BatchingParameters | None, metrics: Metrics
    ) -> None:
        self.pending = 0
        self._pending_bytes = 0
        self._max_pending = max_pending
        self._counting = threading.Lock()
        self.computes_at_once = batching is None
        self._batcher = Batcher(threads, batching, metrics)
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="offload")

    def admit(self, size: int) -> AbstractContextManager[None]:
        """Take on one prediction for the time of the `with` block.

        Args:
            size: Bytes of its body. A body beyond the limit is taken on where it is the only one.

        Raises:
            RequestError: there are too many already; on entering the block.
        """
        return _Admission(self, size)

    async def predict(
        self, servable: Servable, request: PredictRequest, deadline: float, gone: Callable[[], bool]
    ) -> Outputs:
        """Return the outputs of a request, by the deadline even if it is still being computed then.

        Args:
            servable: Computes it.
            request: What is asked.
            deadline: In the clock of `time.monotonic`; may be infinite.
            gone: Whether the client has gone; asked before computing, from any thread.

        Raises:
            RequestError: the model cannot compute it, the queue is full, or it is too late.
        """
        if time.monotonic() >= deadline:
            raise timed_out()
        if gone():
            raise RequestError(Code.CANCELLED, "the client is gone")
        if (outputs := self.compute_at_once(servable, request)) is not None:
            return outputs
        future: asyncio.Future[Outputs] = asyncio.get_running_loop().create_future()
        self._batcher.submit(Job(servable, request, deadline, gone, future))
        try:
            async with asyncio.timeout(_remaining(deadline)):
                return await future
        except TimeoutError:
            raise timed_out() from None

    def compute_at_once(self, servable: Servable, request: PredictRequest) -> Outputs | None:
        """Return the outputs of a request if it takes no longer than others may be held up; else `None`.

        Raises:
            RequestError: the model cannot compute it.
        """
        if not self.computes_at_once or servable.seconds(request) >= _AT_ONCE_S:
            return None
        return servable.run_if_free(request)

    async def offload(self, function: Callable[[*_Ts], _R], *args: *_Ts) -> _R:
        """Return what a function returns that would hold up the event loop; it runs in a thread."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, function, *args)

    def close(self) -> None:
        """Refuse what waits and end the threads."""
        self._batcher.close()
        self._executor.shutdown(cancel_futures=True)


class _Admission:
    """A prediction that is counted; a class, as a generator would take several times as long."""

    __slots__ = ("_predictor", "_size")

    def __init__(self, predictor: Predictor, size: int) -> None:
        self._predictor = predictor
        self._size = size

    def __enter__(self) -> None:
        predictor = self._predictor
        with predictor._counting:
            pending, size = predictor.pending, predictor._pending_bytes + self._size
            if pending >= predictor._max_pending or (pending and size > MAX_PENDING_BYTES):
                message = f"the server is busy with {pending} requests; try again later"
                raise RequestError(Code.RESOURCE_EXHAUSTED, message)
            predictor.pending = pending + 1
            predictor._pending_bytes = size

    def __exit__(self, *_: object) -> None:
        predictor = self._predictor
        with predictor._counting:
            predictor.pending -= 1
            predictor._pending_bytes -= self._size


def _remaining(deadline: float) -> float | None:
    """Return the seconds until a deadline; `None` where there is none."""
    return None if math.isinf(deadline) else max(0.0, deadline - time.monotonic())
