"""The thread pools behind the gRPC server."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any


class CountingPool(ThreadPoolExecutor):
    """A pool that knows how much waits for it or runs in it."""

    def __init__(self, threads: int, name: str) -> None:
        super().__init__(threads, thread_name_prefix=name)
        self._count_lock = threading.Lock()
        self.pending = 0

    def submit(self, fn: Callable[..., Any], /, *args: Any, **options: Any) -> Future[Any]:
        """Run a function in a thread, as every executor does."""
        future = super().submit(fn, *args, **options)
        with self._count_lock:
            self.pending += 1
        future.add_done_callback(self._leave)
        return future

    def _leave(self, _: Future[Any]) -> None:
        with self._count_lock:
            self.pending -= 1


class InPool:
    """A method that grpcio runs in this pool instead of the server's.

    grpcio looks for the two attributes. Its own health service is built on them, too, but sets them for all
    servers of a process at once.

    Args:
        behaviour: The method.
        pool: Where it runs.
        is_callback: Whether it takes a function to send messages with, and returns while the call goes on.
    """

    def __init__(
        self, behaviour: Callable[..., Any], pool: ThreadPoolExecutor, *, is_callback: bool = False
    ) -> None:
        self._behaviour = behaviour
        self.experimental_thread_pool = pool
        self.experimental_non_blocking = is_callback

    def __call__(self, *args: Any, **options: Any) -> Any:
        """Call the method."""
        return self._behaviour(*args, **options)
