"""A follower's side of the control channel, and the view of who only looks on."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import Future
from functools import partial
from types import TracebackType
from typing import Any

from fairway.errors import FairwayError, PeerError, StoreAwayError
from fairway.net.cluster import Cluster
from fairway.net.control.background import Background
from fairway.net.control.channel import dial
from fairway.net.control.messages import (
    SILENCE_S,
    FailedPeerError,
    FinishedError,
    Message,
    Notice,
    encode,
    encode_failure,
)
from fairway.net.control.session import BusyError, Session, lead_name
from fairway.net.ports import reachable

CONNECT_S = 3.0
FIRST_RETRY_S, LAST_RETRY_S = 0.2, 2.0
IS_FINISHED_S = 5.0
"""How often to ask whether the training is over while the lead is away: that may be a look into a bucket."""


class Membership:
    """A follower's place in the training; to be entered and used by its main thread.

    Args:
        cluster: The cluster.
        timeout_s: Seconds that the lead may be away before the start.
        is_finished: Whether the training has been exported; asked while the lead is away, in a thread of its
            own, and told whether it is the last time. It may raise a `StoreAwayError`.
        on_lost: Is called once after each start, in a thread of its own, when a task is lost without which
            this one cannot go on: with its name, and why.
        on_failed: Is called likewise when the lead says after the start that the training has failed. Both
            are for a main thread that hangs in a step which a lost task will never complete.
        silence_s: Seconds without a word after which the lead counts as lost.
    """

    def __init__(
        self,
        cluster: Cluster,
        timeout_s: float,
        is_finished: Callable[[bool], bool],
        *,
        on_lost: Callable[[str], None] | None = None,
        on_failed: Callable[[FailedPeerError], None] | None = None,
        silence_s: float = SILENCE_S,
    ) -> None:
        self._cluster = cluster
        self._timeout_s = timeout_s
        self._is_finished = is_finished
        self._on_lost, self._on_failed = on_lost, on_failed
        self._silence_s = silence_s
        self._is_lost = False
        self._session: Session | None = None
        self._background = Background("membership")

    def __enter__(self) -> Membership:
        self._background.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, err: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._background.close()

    def enlist(
        self, prepare: Callable[[dict[str, Any]], dict[str, Any]], check_stop: Callable[[], None]
    ) -> None:
        """Join, get ready, and wait for the start; begin again when the lead ends before it.

        Can be called again after the lead was lost.

        Args:
            prepare: Is called with the lead's offer, in this thread, and returns what to tell the lead once
                this task is ready. The lead is told of a `FairwayError` that it raises, unless a new start
                can mend it.
            check_stop: Is called a few times a second; what it raises ends the waiting.

        Raises:
            FinishedError: the training has been exported already.
            FailedPeerError: the lead or another task gave up.
            StoreAwayError: the lead did not come in time, and the store does not tell why.
            FairwayError: the lead did not come in time, or what `prepare` raised.
        """
        self._is_lost = False
        join = encode("join", task=str(self._cluster.this))
        while True:
            session = self._session = self._join(join, check_stop)
            try:
                ready = encode("ready", **prepare(session.offer or {}))
            except FairwayError as err:
                if not err.is_retryable:
                    self.failed(err)
                raise
            outcome = self._background.wait(session.get_started(ready), check_stop)
            if outcome is None:
                return
            if not isinstance(outcome, PeerError):
                raise outcome
            self._pause(FIRST_RETRY_S, check_stop)

    def wait(self, check_stop: Callable[[], None]) -> None:
        """Wait until the lead says that the training is done.

        Args:
            check_stop: Is called a few times a second; what it raises ends the waiting.

        Raises:
            FailedPeerError: the lead or another task gave up.
            PeerError: the lead was lost.
        """
        if self._session is None:
            raise RuntimeError("wait for the end only after enlist")
        outcome = self._background.wait(self._session.ended(), check_stop)
        if not isinstance(outcome, FinishedError):
            raise outcome

    def leave(self, signum: int) -> None:
        """Tell the lead that this task ends because of a signal, and is not broken."""
        self._say(encode("leaving", signal=signum))

    def failed(self, err: FairwayError) -> None:
        """Tell the lead that this task gives up."""
        self._say(encode_failure(err))

    def _say(self, line: bytes) -> None:
        if self._session:
            self._background.wait(self._session.say(line))

    def _join(self, join: bytes, check_stop: Callable[[], None]) -> Session:
        """Return a session with an offer."""
        patience = _Patience(self._cluster, self._timeout_s, self._is_finished)
        while True:
            session = self._background.wait(self._knock(join), check_stop)
            if session and session.offer is not None:
                return session
            retry_s = patience.wear(session.outcome if session else None)
            self._pause(retry_s, check_stop)

    def _pause(self, seconds: float, check_stop: Callable[[], None]) -> None:
        self._background.wait(asyncio.sleep(seconds), check_stop)

    async def _knock(self, join: bytes) -> Session | None:
        channel = await dial(*self._cluster.control_address, self._silence_s, CONNECT_S)
        if channel is None:
            return None
        session = Session(channel, self._cluster, self._hear_lost, self._hear_failed)
        session.begin(join)
        await session.answered()
        return session

    def _hear_lost(self, reason: str) -> None:
        if not self._is_lost:
            self._is_lost = True
            if self._on_lost:
                self._background.call(partial(self._on_lost, reason))

    def _hear_failed(self, err: FailedPeerError) -> None:
        if self._on_failed:
            self._background.call(partial(self._on_failed, err))


class _Patience:
    """How long to go on knocking at the lead's door."""

    def __init__(self, cluster: Cluster, timeout_s: float, is_finished: Callable[[bool], bool]) -> None:
        self._cluster = cluster
        self._timeout_s = timeout_s
        self._is_finished = is_finished
        self._answer: Future[bool] | None = None
        self._is_last_time = False
        self._deadline = time.monotonic() + timeout_s
        self._ask_at = time.monotonic() + IS_FINISHED_S  # a lead that starts just now changes the answer
        self._retry_s = FIRST_RETRY_S
        self._notice = Notice()

    def wear(self, outcome: Exception | None) -> float:
        """Return how many seconds to pause after an attempt, or raise why to give up.

        Args:
            outcome: How the attempt ended; None if nobody was there.
        """
        if isinstance(outcome, FailedPeerError | FinishedError):
            raise outcome
        if isinstance(outcome, BusyError):
            self._deadline = time.monotonic() + self._timeout_s  # it is there, which is what has a limit
            self._answer = None
            self._notice.say(f"{lead_name(self._cluster)} to start anew: it trains without this task")
        else:
            self._look_for_result()
            self._notice.say(lead_name(self._cluster, address=True))
        left_s = self._deadline - time.monotonic()
        pause_s = min(self._retry_s, left_s if left_s > 0 else FIRST_RETRY_S)
        self._retry_s = min(self._retry_s * 1.5, LAST_RETRY_S)
        return pause_s

    def _look_for_result(self) -> None:
        """Ask whether the training is over when it is time to, and hear the answer when it is there."""
        is_late = time.monotonic() >= self._deadline
        if self._answer and self._answer.done():
            self._judge(self._answer, is_late)
            self._answer, self._ask_at = None, time.monotonic() + IS_FINISHED_S
        if self._answer is None and (is_late or time.monotonic() >= self._ask_at):
            self._answer, self._is_last_time = _ask(self._is_finished, is_late), is_late

    def _judge(self, answer: Future[bool], is_late: bool) -> None:
        """Raise what ends the waiting, if the answer does."""
        try:
            if answer.result():
                raise FinishedError("the training is over")
        except StoreAwayError as err:
            if is_late:
                raise StoreAwayError(f"{self._explain().message}; {err.message}", hint=err.hint) from err
        if self._is_last_time:
            raise self._explain()

    def _explain(self) -> FairwayError:
        host, port = self._cluster.control_address
        where = f"{reachable(host)}:{port}"
        return FairwayError(
            f"{lead_name(self._cluster, address=True)} did not come within {self._timeout_s:g} s",
            hint=f"Check that it runs and that {where} can be reached, or raise --peer-wait-seconds.",
        )


def _ask(question: Callable[[bool], bool], is_last_time: bool) -> Future[bool]:
    """Ask in a thread that nobody waits for, not even at the end: a store may take long to answer."""
    answer: Future[bool] = Future()

    def ask() -> None:
        try:
            answer.set_result(question(is_last_time))
        except BaseException as err:
            answer.set_exception(err)

    threading.Thread(target=ask, name="is-finished", daemon=True).start()
    return answer


async def observe(host: str, port: int, *, silence_s: float = SILENCE_S) -> AsyncGenerator[Message, None]:
    """Yield what the lead tells all, until it is done or has failed; to be cancelled or closed.

    Connects again when the lead is started anew, and for as long as it is away.

    Args:
        host: The lead's host.
        port: Its control port.
        silence_s: Seconds without a word after which to connect again.

    Yields:
        Messages whose `type` is `waiting`, `start`, `event`, `lost`, `back`, `done` or `failed`, and
        `silent` when the lead is connected, but nothing was heard from it for `silence_s`: it hangs.
        `lost` comes before the start, too, of a task that hangs.
    """
    while True:
        if channel := await dial(host, port, silence_s, CONNECT_S):
            async with channel:
                channel.send(encode("observe"))
                async for message in channel:
                    yield message
                    if message["type"] in ("done", "failed"):
                        return
                if channel.is_silent:
                    yield {"type": "silent"}
        await asyncio.sleep(FIRST_RETRY_S)
