"""Ctrl-C and SIGTERM end what runs until then."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine
from typing import Any

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def run_until_stopped(work: Coroutine[Any, Any, None]) -> int:
    """Run something until it ends, or until a signal comes, which cancels it.

    Returns:
        The exit code: 0, or 128 and the signal's number.
    """
    return asyncio.run(_run(work))


async def _run(work: Coroutine[Any, Any, None]) -> int:
    received: list[int] = []
    task = asyncio.ensure_future(work)

    def stop(signum: int) -> None:
        received.append(signum)
        task.cancel()

    for signum in _SIGNALS:
        asyncio.get_running_loop().add_signal_handler(signum, stop, signum)
    try:
        await task
    except asyncio.CancelledError:
        if not received:
            raise
    return 128 + received[0] if received else 0


async def together(*works: Coroutine[Any, Any, None]) -> None:
    """Do several things at once until all end or one raises an error; the others are cancelled then."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
