"""What a lost peer does to a task: the error it gets, and the end of what hangs."""

from __future__ import annotations

import subprocess
import sys

import pytest
import tensorflow as tf

from fairway.errors import FairwayError, PeerError, StoppedError
from fairway.train.guard import Guard

LONG_S = 600.0


def unavailable() -> tf.errors.OpError:
    return tf.errors.UnavailableError(None, None, "connection reset\nby somebody")


def raised_in(guard: Guard, error: Exception) -> Exception:
    with pytest.raises(Exception) as caught, guard.watch():
        raise error
    return caught.value


def test_an_error_of_tensorflow_gets_the_name_of_the_lost_peer() -> None:
    guard = Guard()
    guard.lose("ps 0 (connection closed)")
    with pytest.raises(PeerError, match=r"lost ps 0 \(connection closed\)"), guard.watch():
        raise unavailable()


def test_what_ends_the_run_stays_whoever_comes_back() -> None:
    guard = Guard()
    guard.miss("worker 1", "worker 1 (nothing heard)", LONG_S)
    guard.lose("ps 0 (connection closed)")
    guard.lose("worker 0 (connection closed)")
    guard.welcome("worker 1")
    assert str(raised_in(guard, unavailable())).startswith("lost ps 0")


def test_a_stop_is_not_undone_by_a_worker_that_comes_back() -> None:
    guard = Guard()
    with pytest.raises(StoppedError), guard.watch():
        guard.fail(StoppedError(15, " before the steps under way were done"), LONG_S)
        guard.welcome("worker 0")
        raise unavailable()


def test_who_is_missed_is_named_until_all_are_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fairway.train.guard.REASON_S", 0.01)
    guard = Guard()
    guard.miss("worker 0", "worker 0 (nothing heard)", LONG_S)
    guard.miss("worker 1", "worker 1 (nothing heard)", LONG_S)
    guard.welcome("worker 0")
    assert "lost worker 1" in str(raised_in(guard, unavailable()))
    guard.welcome("worker 1")
    assert str(raised_in(guard, unavailable())) == "lost TensorFlow reports: connection reset"


def test_other_errors_pass() -> None:
    guard, error = Guard(), ValueError("a mistake in a model")
    guard.miss("worker 0", "worker 0 (nothing heard)", LONG_S)
    assert raised_in(guard, error) is error


def test_a_mistake_that_tensorflow_finds_is_not_taken_for_a_lost_peer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("fairway.train.guard.REASON_S", 0.01)
    error = tf.errors.InvalidArgumentError(None, None, "shapes differ")
    assert raised_in(Guard(), error) is error


def test_who_was_given_up_before_the_run_ends_it_at_once() -> None:
    guard = Guard()
    guard.fail(FairwayError("worker 0: no space left", hint="Make room."))
    with pytest.raises(FairwayError, match="no space left"), guard.watch():
        pytest.fail("the block was entered")


@pytest.mark.parametrize("note", ["fail(PeerError('lost worker 0'), 0.1)", "miss('w', 'worker 0', 0.1)"])
def test_a_main_thread_that_hangs_is_ended(note: str) -> None:
    program = f"""
import time
from fairway.errors import PeerError
from fairway.train.guard import Guard
guard = Guard()
with guard.watch():
    guard.{note}
    time.sleep(60)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30)
    assert done.returncode == PeerError.exit_code, done.stderr
    assert "error: lost worker 0" in done.stderr


def test_a_checkpoint_is_not_cut_short_by_a_lost_peer_but_what_comes_after_is() -> None:
    program = """
import time
from fairway.errors import PeerError
from fairway.train import guard
guard.GRACE_S = 0.1
guard = guard.Guard()
with guard.watch():
    with guard.pause():
        guard.fail(PeerError('lost worker 0'), 0.1)
        time.sleep(0.5)
        print("saved", flush=True)
    time.sleep(60)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30)
    assert done.stdout == "saved\n"
    assert done.returncode == PeerError.exit_code, done.stderr
