"""An asyncio loop in a thread of its own, beside code that blocks."""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from fairway.errors import FairwayError

log = logging.getLogger(__name__)

CHECK_S = 0.2
"""How often a blocking call looks whether the process is to stop."""

T = TypeVar("T")


class Background:
    """Runs coroutines in one thread, and callbacks, in order, in a second.

    Callbacks have a thread of their own so that they may call what waits for the loop.

    Args:
        name: Of the threads.
    """

    def __init__(self, name: str) -> None:
        self._callbacks = ThreadPoolExecutor(1, thread_name_prefix=f"{name}-callbacks")
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._running = threading.Event()

    def start(self) -> None:
        """Start the loop."""
        self._thread.start()
        self._running.wait()

    def close(self) -> None:
        """Cancel what still runs, let callbacks end, and then the threads."""
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join()

    def wait(self, work: Coroutine[Any, Any, T], check_stop: Callable[[], None] | None = None) -> T:
        """Run a coroutine in the loop and return its result.

        Args:
            work: The coroutine.
            check_stop: Is called a few times a second; what it raises cancels the coroutine and goes on.
                None where the coroutine ends soon by itself.
        """
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            while check_stop and not future.done():
                check_stop()
                concurrent.futures.wait([future], CHECK_S)
            return future.result()
        finally:
            future.cancel()

    def post(self, callback: Callable[[], None]) -> None:
        """Run something short in the loop, soon."""
        self._loop.call_soon_threadsafe(callback)

    def call(self, callback: Callable[[], None]) -> None:
        """Call something that may block, after what was to be called before."""
        self._callbacks.submit(_call, callback)

    def _run(self) -> None:
        with asyncio.Runner() as runner:
            self._loop, self._end = runner.get_loop(), asyncio.Event()
            # Names are looked up there as well, and the runner ends it.
            self._loop.set_default_executor(self._callbacks)
            self._running.set()
            runner.run(self._end.wait())


def _call(callback: Callable[[], None]) -> None:
    try:
        callback()
    except FairwayError as err:
        log.warning("%s", err.message)
    except Exception:
        log.exception("a callback of the control channel failed")
