"""How long a call is repeated, on a clock that only `sleep` and the calls move."""

from __future__ import annotations

import random
import time

import pytest

from fairway.storage.stores.retry import ATTEMPT_S, DEADLINE_S, with_retries


class PassingError(Exception):
    """One that may pass."""


class LastingError(Exception):
    """One that does not."""


class Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        self.sleeps: list[float] = []
        monkeypatch.setattr(time, "monotonic", lambda: self.now)
        monkeypatch.setattr(time, "sleep", self.sleep)
        monkeypatch.setattr(random, "uniform", lambda low, high: high)

    def sleep(self, seconds: float) -> None:
        self.sleeps.append(seconds)
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


class Call:
    """Takes a time, fails a number of times, then returns; counts how far it came."""

    def __init__(self, clock: Clock, takes: float, failures: float, error: Exception, step: int = 0) -> None:
        self.clock, self.takes, self.failures, self.error, self.step = clock, takes, failures, error, step
        self.count = self.progress = 0

    def __call__(self) -> str:
        self.count += 1
        self.clock.now += self.takes
        self.progress += self.step
        if self.count <= self.failures:
            raise self.error
        return "answer"


def run(call: Call) -> str:
    return with_retries(call, lambda err: isinstance(err, PassingError), lambda: call.progress)


def test_success_is_returned_at_once(clock: Clock) -> None:
    call = Call(clock, 1.0, 0, PassingError())
    assert run(call) == "answer"
    assert (call.count, clock.sleeps) == (1, [])


def test_what_may_pass_is_tried_again_ever_later(clock: Clock) -> None:
    call = Call(clock, 0.1, 6, PassingError())
    assert run(call) == "answer"
    assert call.count == 7
    assert clock.sleeps == [0.2, 0.4, 0.8, 1.6, 3.0, 3.0]


def test_what_lasts_is_not(clock: Clock) -> None:
    call = Call(clock, 0.1, 1, LastingError("reason"))
    with pytest.raises(LastingError, match="reason"):
        run(call)
    assert (call.count, clock.sleeps) == (1, [])


@pytest.mark.parametrize("takes", [0.0, 0.01, 1.0, 4.0, ATTEMPT_S, ATTEMPT_S + 1, 13.0])
def test_deadline_holds_whatever_an_attempt_takes(clock: Clock, takes: float) -> None:
    started = clock.now
    call = Call(clock, takes, 10**9, PassingError("reason"))
    with pytest.raises(PassingError, match="reason"):
        run(call)
    assert clock.now - started <= DEADLINE_S
    assert call.count >= 2 or takes > DEADLINE_S / 2


def test_two_waits_for_an_answer_fit(clock: Clock) -> None:
    call = Call(clock, ATTEMPT_S + 1, 1, PassingError())  # a second as boto3's for "100 Continue"
    assert run(call) == "answer"


def test_progress_starts_the_deadline_anew(clock: Clock) -> None:
    call = Call(clock, 10.0, 20, PassingError(), step=1)
    started = clock.now
    assert run(call) == "answer"
    assert clock.now - started > 200
    assert set(clock.sleeps) == {0.2}


def test_an_attempt_that_went_on_for_long_may_be_followed(clock: Clock) -> None:
    call = Call(clock, 10 * DEADLINE_S, 1, PassingError(), step=1)
    assert run(call) == "answer"


def test_without_progress_it_ends_in_spite_of_that_before(clock: Clock) -> None:
    call = Call(clock, 2.0, 10**9, PassingError(), step=1)
    steps = iter([1, 1, 1])
    started = clock.now
    with pytest.raises(PassingError):
        with_retries(call, lambda err: isinstance(err, PassingError), lambda: next(steps, "at a standstill"))
    assert clock.now - started <= 3 * 2.2 + DEADLINE_S


def test_waits_differ_so_that_clients_do_not_come_together(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    monkeypatch.setattr(random, "uniform", lambda low, high: low)
    call = Call(clock, 0.0, 1, PassingError())
    run(call)
    assert clock.sleeps == [0.1]
