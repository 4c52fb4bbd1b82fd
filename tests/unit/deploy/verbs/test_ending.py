"""How what runs until Ctrl-C ends."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from fairway.deploy.verbs.ending import run_until_stopped, together
from fairway.errors import FairwayError


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_and_what_it_holds_is_closed(signum: signal.Signals) -> None:
    closed = []

    async def work() -> None:
        try:
            os.kill(os.getpid(), signum)
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            closed.append(True)

    assert run_until_stopped(work()) == 128 + signum
    assert closed == [True]


def test_without_a_signal_its_own_end_counts() -> None:
    async def end() -> None:
        pass

    async def fail() -> None:
        raise FairwayError("no")

    assert run_until_stopped(end()) == 0
    with pytest.raises(FairwayError, match="^no$"):
        run_until_stopped(fail())


def test_the_error_of_one_ends_all() -> None:
    cancelled = []

    async def wait() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(True)
            raise

    async def fail() -> None:
        await asyncio.sleep(0)
        raise FairwayError("no")

    with pytest.raises(FairwayError, match="^no$"):
        asyncio.run(together(wait(), fail()))
    assert cancelled == [True]
