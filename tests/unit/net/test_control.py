"""The control channel, with real connections: who comes, who is lost, and who is told what."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import math
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, aclosing, contextmanager
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairway.errors import DataError, FairwayError, PeerError, StoreAwayError
from fairway.net.cluster import Cluster, Task
from fairway.net.control.channel import dial
from fairway.net.control.client import Membership, observe
from fairway.net.control.messages import (
    MAX_LINE_BYTES,
    FailedPeerError,
    FinishedError,
    Notice,
    decode,
    encode,
    encode_failure,
    failure,
    fields,
)
from fairway.net.control.server import Control
from tests.dead import silent

DEADLINE_S = 20.0
"""Far beyond what anything here takes, even on a busy machine."""
PROMPT_S = 2.0
"""A blocking call looks five times a second whether it is to end."""
SILENCE_S = 1.5

CHIEF, PS = Task("chief", 0), Task("ps", 0)
WORKER_0, WORKER_1 = Task("worker", 0), Task("worker", 1)
ENDED = "its connection ended"


class StopError(Exception):
    """What `check_stop` raises here."""


def go_on() -> None:
    """Stand for `check_stop` where nothing is to stop."""


def until(is_so: Callable[[], object], what: str = "it") -> None:
    end = time.monotonic() + DEADLINE_S
    while not is_so():
        assert time.monotonic() < end, f"{what} did not happen"
        time.sleep(0.01)


class Call(threading.Thread):
    """A blocking call in a thread, its result or error kept."""

    def __init__(self, work: Callable[[], Any]) -> None:
        super().__init__(name="call")
        self._work = work
        self._result: Any = None
        self._error: BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            self._result = self._work()
        except BaseException as err:
            self._error = err

    def result(self) -> Any:
        self.join(DEADLINE_S)
        assert not self.is_alive(), "the call does not end"
        if self._error:
            raise self._error
        return self._result


class Raw:
    """A peer made of a bare socket, which does only what it is told to."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.socket = socket.create_connection(address, DEADLINE_S)
        self._lines = self.socket.makefile("rb")

    def __enter__(self) -> Raw:
        return self

    def __exit__(self, *_: object) -> None:
        self._lines.close()
        self.socket.close()

    def say(self, kind: str, **said: Any) -> None:
        self.socket.sendall(encode(kind, **said))

    def hear(self, kind: str) -> dict[str, Any]:
        """Return the next message of a kind."""
        for line in self._lines:
            message: dict[str, Any] = json.loads(line)
            if message["type"] == kind:
                return message
        raise AssertionError(f"the connection ended before {kind}")

    def hear_any(self) -> str:
        """Return the kind of the next message that is no ping."""
        messages = map(json.loads, self._lines)
        return next(str(message["type"]) for message in messages if message["type"] != "ping")

    def hear_end(self) -> None:
        with contextlib.suppress(ConnectionResetError):
            for _ in self._lines:
                pass


class Stage:
    """A cluster of a chief, two workers and a ps on a free port, and what its lead is told."""

    def __init__(self, stack: ExitStack, *tasks: Task) -> None:
        port = free_port()
        hosts = {task: f"10.0.0.{number}:2222" for number, task in enumerate(tasks, 1)}
        self.addresses = {CHIEF: f"127.0.0.1:{port - 1}", **hosts}
        self.lost: list[tuple[Task, str]] = []
        self.back: list[Task] = []
        self.failed: list[tuple[Task, FailedPeerError]] = []
        self._stack = stack

    def cluster(self, this: Task = CHIEF) -> Cluster:
        return Cluster(self.addresses, this)

    def control(self, *, accepts_late: bool = False, **options: Any) -> Control:
        """Return a lead that is not entered yet."""
        return Control(
            self.cluster(),
            options.pop("offer", {"run": "a"}),
            accepts_late=accepts_late,
            on_lost=lambda task, reason, is_silent: self.lost.append((task, reason)),
            on_back=self.back.append,
            on_failed=lambda task, err: self.failed.append((task, err)),
            **options,
        )

    def lead(self, **options: Any) -> Control:
        return self._stack.enter_context(self.control(**options))

    def follower(self, task: Task, **options: Any) -> Follower:
        return self._stack.enter_context(Follower(self.cluster(task), **options))

    def raw(self, *, join: Task | None = None, ready: bool = False) -> Raw:
        peer = self._stack.enter_context(Raw(self.cluster().control_address))
        if join:
            peer.say("join", task=str(join))
            peer.hear("offer")
        if ready:
            peer.say("ready")
        return peer

    def raw_answer(self, task: Task) -> str:
        """Return the kind of the answer to a join."""
        with Raw(self.cluster().control_address) as peer:
            peer.say("join", task=str(task))
            return peer.hear_any()

    def started(self, *tasks: Task, **options: Any) -> tuple[Control, list[Follower]]:
        """Return a lead and its followers, once they have started."""
        lead, followers = self.lead(**options), [self.follower(task) for task in tasks]
        lead.wait_for_all(DEADLINE_S, go_on)
        for follower in followers:
            follower.enlisted()
        return lead, followers


class Follower:
    """A follower whose main thread is a thread here: it enlists and then waits for the end."""

    def __init__(self, cluster: Cluster, **options: Any) -> None:
        self.offers: list[dict[str, Any]] = []
        self.lost: list[str] = []
        self.failed: list[FailedPeerError] = []
        self.stop = threading.Event()
        self._data = options.pop("data", {})
        self._prepare = options.pop("prepare", lambda offer: self._data)
        self._stack = ExitStack()
        self.membership = Membership(
            cluster,
            options.pop("timeout_s", DEADLINE_S),
            options.pop("is_finished", lambda _: False),
            on_lost=self.lost.append,
            on_failed=self.failed.append,
            **options,
        )

    def __enter__(self) -> Follower:
        self._stack.enter_context(self.membership)
        self.enlist_again()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        self._stack.close()

    def kill(self) -> None:
        """End it as a killed process would: the connection ends without a word."""
        self.__exit__()

    def enlisted(self) -> dict[str, Any]:
        """Wait for the start, and return the offer under which it was."""
        self._enlist.result()
        return self.offers[-1]

    def enlist_again(self) -> None:
        self._enlist = self._call(self._do_enlist)

    def wait(self) -> None:
        self._call(lambda: self.membership.wait(self.check_stop)).result()

    def _call(self, work: Callable[[], Any]) -> Call:
        call = Call(work)
        self._stack.callback(call.join, DEADLINE_S)
        return call

    def check_stop(self) -> None:
        if self.stop.is_set():
            raise StopError

    def _do_enlist(self) -> None:
        self.membership.enlist(self._prepared, self.check_stop)

    def _prepared(self, offer: dict[str, Any]) -> dict[str, Any]:
        self.offers.append(offer)
        data: dict[str, Any] = self._prepare(offer)
        return data


def free_port() -> int:
    """Return a port that no outgoing connection is given meanwhile."""
    for port in random.sample(range(20_001, 30_000), 1000):
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise AssertionError("no free port")


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    """Whatever a test enters; afterwards no thread may be left."""
    before = set(threading.enumerate())
    with ExitStack() as stack:
        yield stack
    assert set(threading.enumerate()) <= before


@pytest.fixture
def stage(stack: ExitStack) -> Stage:
    return Stage(stack, WORKER_0, WORKER_1, PS)


@pytest.fixture
def pair(stack: ExitStack) -> Stage:
    """A chief and one worker."""
    return Stage(stack, WORKER_0)


class Observer:
    """What an observer hears, from its own loop in a thread."""

    def __init__(self, address: tuple[str, int], **options: Any) -> None:
        self.heard: list[dict[str, Any]] = []
        self._address, self._options = address, options
        self._over = threading.Event()
        self.call = Call(lambda: asyncio.run(self._follow()))

    def kinds(self) -> list[str]:
        return [message["type"] for message in self.heard]

    def end(self) -> None:
        self._over.set()
        self.call.result()

    async def _follow(self) -> None:
        listening = asyncio.create_task(self._listen())
        while not self._over.is_set() and not listening.done():
            await asyncio.sleep(0.01)
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)

    async def _listen(self) -> None:
        async with aclosing(observe(*self._address, **self._options)) as messages:
            async for message in messages:
                self.heard.append(message)


@contextmanager
def observing(stage: Stage, **options: Any) -> Iterator[Observer]:
    observer = Observer(stage.cluster().control_address, **options)
    try:
        yield observer
    finally:
        observer.end()


# --- the start


def test_all_start_with_the_offer_and_the_lead_gets_what_each_says(stage: Stage) -> None:
    lead = stage.lead(offer={"run": "b", "steps": 3})
    followers = {task: stage.follower(task, data={"name": str(task)}) for task in (WORKER_0, WORKER_1, PS)}
    assert lead.wait_for_all(DEADLINE_S, go_on) == {task: {"name": str(task)} for task in followers}
    assert lead.present == set(followers)
    for follower in followers.values():
        assert follower.enlisted() == {"run": "b", "steps": 3}


def test_followers_wait_for_a_lead_that_comes_later(pair: Stage) -> None:
    asked: list[str] = []

    def is_finished(is_last_time: bool) -> bool:
        asked.append("whether it is over")
        return False

    follower = pair.follower(WORKER_0, is_finished=is_finished)
    until(lambda: asked)
    lead = pair.lead()
    lead.wait_for_all(DEADLINE_S, go_on)
    assert follower.enlisted() == {"run": "a"}


def test_a_lead_without_followers_starts_at_once(stack: ExitStack) -> None:
    assert Stage(stack).lead().wait_for_all(0, go_on) == {}


def test_none_starts_before_all_are_ready(stage: Stage) -> None:
    lead = stage.lead()
    gate = threading.Event()
    slow = stage.follower(PS, prepare=lambda offer: {"waited": gate.wait(DEADLINE_S)})
    others = [stage.follower(task) for task in (WORKER_0, WORKER_1)]
    waiting = Call(lambda: lead.wait_for_all(DEADLINE_S, go_on))
    until(lambda: lead.present == {WORKER_0, WORKER_1} and slow.offers)
    gate.set()
    assert waiting.result()[PS] == {"waited": True}
    for follower in (slow, *others):
        follower.enlisted()


def test_who_is_missing_is_said_to_the_lead_and_to_those_who_came(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    lead = stage.lead()
    with caplog.at_level(logging.INFO):
        peer = stage.raw(join=WORKER_0, ready=True)
        assert peer.hear("waiting")["for"] == ["worker 1 (10.0.0.2:2222)", "ps 0 (10.0.0.3:2222)"]
        stage.follower(WORKER_1)
        assert peer.hear("waiting")["for"] == ["ps 0 (10.0.0.3:2222)"]
        waiting = Call(lambda: lead.wait_for_all(DEADLINE_S, go_on))
        until(lambda: "waiting for ps 0 (10.0.0.3:2222)" in caplog.messages)
        assert not any("worker 1" in line for line in caplog.messages)  # nobody waits for itself
        stage.follower(PS)
        waiting.result()


def test_notices_come_late_then_with_every_change_and_seldom_otherwise(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    notice = Notice()
    with caplog.at_level(logging.INFO):
        for second, what in [(1.0, "a"), (4.5, "b"), (5.0, "b"), (6.0, "c"), (35.0, "c"), (36.0, "c")]:
            now = 100 + second
            notice.say(what)
    assert caplog.messages == ["waiting for b", "waiting for c", "waiting for c"]


def test_the_lead_names_who_did_not_come_and_tells_the_others(stage: Stage) -> None:
    lead = stage.lead()
    follower = stage.follower(WORKER_1)
    until(lambda: lead.present == {WORKER_1})
    with pytest.raises(FairwayError) as caught:
        lead.wait_for_all(0.3, go_on)
    words = "worker 0 (10.0.0.1:2222), ps 0 (10.0.0.3:2222) did not come within 0.3 s"
    host, port = stage.cluster().control_address
    assert (caught.value.message, caught.value.exit_code) == (words, 1)
    assert f"reaches {host}:{port}" in caught.value.hint
    assert "--peer-wait-seconds" in caught.value.hint
    with pytest.raises(FailedPeerError) as told:
        follower.enlisted()
    assert (told.value.message, told.value.hint, told.value.exit_code) == (words, caught.value.hint, 1)


def test_one_that_came_but_does_not_get_ready_is_named_as_such(
    pair: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fairway.net.control.server.FAREWELL_S", 0.1)
    lead = pair.lead()
    pair.raw(join=WORKER_0)
    with pytest.raises(FairwayError, match=r"worker 0 \(10.0.0.1:2222\) did not get ready within 0.2 s"):
        Call(lambda: lead.wait_for_all(0.2, go_on)).result()


def test_one_that_hangs_before_the_start_is_told_to_observers_and_is_not_ready(pair: Stage) -> None:
    lead = pair.lead(silence_s=SILENCE_S)
    with observing(pair) as observer:
        until(lambda: lead._observers)
        hung = pair.raw(join=WORKER_0)
        until(lambda: "lost" in observer.kinds())
        hung.hear_end()
        with pytest.raises(FairwayError, match=r"worker 0 \(10.0.0.1:2222\) did not get ready within 0 s"):
            Call(lambda: lead.wait_for_all(0, go_on)).result()
    lost = next(message for message in observer.heard if message["type"] == "lost")
    assert lost == {
        "type": "lost",
        "task": "worker 0",
        "reason": "nothing heard from it for 1.5 s",
        "silent": True,
    }
    assert pair.lost == []


def test_one_that_hangs_before_the_start_is_only_missing_to_the_others(stack: ExitStack) -> None:
    stage = Stage(stack, WORKER_0, WORKER_1)
    lead = stage.lead(silence_s=SILENCE_S)
    other = stage.follower(WORKER_1)
    hung = stage.raw(join=WORKER_0)
    hung.hear_end()
    stage.follower(WORKER_0)
    lead.wait_for_all(DEADLINE_S, go_on)
    other.enlisted()
    assert (stage.lost, other.lost) == ([], [])


def test_a_follower_names_the_lead_that_did_not_come(pair: Stage) -> None:
    follower = pair.follower(WORKER_0, timeout_s=0.3)
    with pytest.raises(FairwayError) as caught:
        follower.enlisted()
    assert caught.value.message == f"the chief ({pair.addresses[CHIEF]}) did not come within 0.3 s"
    assert f"{pair.cluster().control_address[1]} can be reached" in caught.value.hint


def test_a_lead_that_is_worker_0_is_called_so(stack: ExitStack) -> None:
    cluster = Cluster({WORKER_0: f"127.0.0.1:{free_port() - 1}", WORKER_1: "10.0.0.1:2222"}, WORKER_1)
    follower = stack.enter_context(Follower(cluster, timeout_s=0.1))
    with pytest.raises(FairwayError, match=r"worker 0 \(127.0.0.1:\d+\) did not come"):
        follower.enlisted()


def test_a_follower_that_is_killed_before_the_start_is_missing_until_it_comes_back(stage: Stage) -> None:
    lead = stage.lead()
    stage.follower(WORKER_0)
    killed = stage.follower(WORKER_1)
    until(lambda: lead.present == {WORKER_0, WORKER_1})
    killed.kill()
    until(lambda: lead.present == {WORKER_0})
    stage.follower(PS)
    stage.follower(WORKER_1, data={"life": 2})
    assert lead.wait_for_all(DEADLINE_S, go_on)[WORKER_1] == {"life": 2}
    assert stage.lost == []


def test_followers_begin_again_when_the_lead_ends_before_the_start(pair: Stage) -> None:
    with pair.control(offer={"run": "a"}) as first:
        follower = pair.follower(WORKER_0)
        until(lambda: first.present)
    second = pair.lead(offer={"run": "b"})
    second.wait_for_all(DEADLINE_S, go_on)
    assert follower.enlisted() == {"run": "b"}
    assert follower.offers == [{"run": "a"}, {"run": "b"}]
    assert follower.lost == []


def test_a_second_connection_of_a_task_replaces_the_first(pair: Stage) -> None:
    lead = pair.lead()
    first = pair.raw(join=WORKER_0, ready=True)
    until(lambda: lead.present)
    second = pair.raw(join=WORKER_0)
    first.hear_end()
    assert lead.present == set()
    second.say("ready", life=2)
    assert lead.wait_for_all(DEADLINE_S, go_on) == {WORKER_0: {"life": 2}}


def test_a_finished_training_is_not_waited_for(pair: Stage) -> None:
    follower = pair.follower(WORKER_0, is_finished=lambda _: True)
    with pytest.raises(FinishedError):
        follower.enlisted()


@pytest.fixture
def slow_store(stack: ExitStack, monkeypatch: pytest.MonkeyPatch) -> SlowStore:
    monkeypatch.setattr("fairway.net.control.client.IS_FINISHED_S", 0.1)
    store = SlowStore()
    stack.callback(store.give_up)
    return store


class SlowStore:
    """Stands for the question whether the training is over, to a store that answers after long."""

    def __init__(self) -> None:
        self.asked: list[bool] = []
        self._threads: list[threading.Thread] = []
        self._over = threading.Event()

    def __call__(self, is_last_time: bool) -> bool:
        self._threads.append(threading.current_thread())
        self.asked.append(is_last_time)
        self._over.wait(DEADLINE_S)
        raise StoreAwayError("s3.test is away", hint="Check S3_ENDPOINT.")

    def give_up(self) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(DEADLINE_S)


def test_a_lead_is_found_while_the_store_is_asked(pair: Stage, slow_store: SlowStore) -> None:
    follower = pair.follower(WORKER_0, is_finished=slow_store)
    until(lambda: slow_store.asked)
    pair.lead().wait_for_all(DEADLINE_S, go_on)
    follower.enlisted()


def test_a_lead_is_found_even_while_the_store_is_asked_for_the_last_time(
    pair: Stage, slow_store: SlowStore
) -> None:
    follower = pair.follower(WORKER_0, is_finished=slow_store, timeout_s=0)
    until(lambda: slow_store.asked == [True])
    pair.lead().wait_for_all(DEADLINE_S, go_on)
    follower.enlisted()


def test_a_store_that_is_away_does_not_end_the_wait(pair: Stage, slow_store: SlowStore) -> None:
    slow_store.give_up()
    follower = pair.follower(WORKER_0, is_finished=slow_store)
    until(lambda: len(slow_store.asked) > 1)
    pair.lead().wait_for_all(DEADLINE_S, go_on)
    follower.enlisted()


@pytest.mark.parametrize(("timeout_s", "asked"), [(0, [True]), (1, [False])])
def test_a_store_that_is_away_at_the_end_of_the_wait_asks_for_a_new_start(
    pair: Stage, slow_store: SlowStore, timeout_s: float, asked: list[bool]
) -> None:
    begun = time.monotonic()
    follower = pair.follower(WORKER_0, is_finished=slow_store, timeout_s=timeout_s)
    until(lambda: slow_store.asked)
    until(lambda: time.monotonic() > begun + timeout_s + 0.5)
    slow_store.give_up()
    with pytest.raises(StoreAwayError) as caught:
        follower.enlisted()
    words = f"the chief ({pair.addresses[CHIEF]}) did not come within {timeout_s} s; s3.test is away"
    assert (caught.value.message, caught.value.hint) == (words, "Check S3_ENDPOINT.")
    assert caught.value.exit_code == 138
    assert slow_store.asked == asked  # who was asked before is not asked again


def test_one_that_comes_after_the_end_is_told_so(pair: Stage) -> None:
    lead = pair.lead()
    lead.finish(version="1")
    with pytest.raises(FinishedError):
        pair.follower(WORKER_0).enlisted()


def test_a_task_of_another_cluster_is_refused(pair: Stage) -> None:
    lead = pair.lead()
    other = Cluster({**pair.addresses, PS: "10.0.0.9:2222"}, PS)
    with Follower(other) as stranger, pytest.raises(FailedPeerError) as caught:
        stranger.enlisted()
    assert caught.value.message == f"chief ({pair.addresses[CHIEF]}) knows no follower ps 0"
    assert "TF_CONFIG" in caught.value.hint
    assert caught.value.exit_code == 2
    assert lead.present == set()


def test_a_taken_port_is_named(pair: Stage) -> None:
    port = pair.cluster().control_address[1]
    pair.lead()
    with pytest.raises(FairwayError, match=f"port {port} on 127.0.0.1 is taken") as caught, pair.control():
        pass
    assert "TF_CONFIG" in caught.value.hint


def test_a_lead_whose_name_is_not_this_machines_listens_everywhere(
    stack: ExitStack, caplog: pytest.LogCaptureFixture
) -> None:
    stage = Stage(stack, WORKER_0)
    port = stage.cluster().control_address[1]
    stage.addresses[CHIEF] = f"192.0.2.1:{port - 1}"  # TEST-NET-1, RFC 5737
    with caplog.at_level(logging.DEBUG):
        stage.lead()
    assert "192.0.2.1 is no address of this machine" in caplog.text
    with Raw(("127.0.0.1", port)) as peer:
        peer.say("join", task="worker 0")
        assert peer.hear("offer") == {"type": "offer", "run": "a"}


def test_a_lead_on_loopback_is_not_reached_from_elsewhere(pair: Stage) -> None:
    pair.lead()
    with pytest.raises(ConnectionRefusedError):
        Raw(("127.0.0.2", pair.cluster().control_address[1]))


@pytest.mark.parametrize("host", ["localhost", "[::1]"])
def test_the_leads_host_may_be_a_name_or_ipv6(stack: ExitStack, host: str) -> None:
    if host == "[::1]" and not socket.has_dualstack_ipv6():
        pytest.skip("no IPv6 here")
    stage = Stage(stack, WORKER_0)
    stage.addresses[CHIEF] = f"{host}:{free_port() - 1}"
    lead = stage.lead()
    stage.follower(WORKER_0)
    lead.wait_for_all(DEADLINE_S, go_on)


# --- failures before the start


def test_an_error_of_prepare_ends_the_lead_and_the_others_with_its_exit_code(stage: Stage) -> None:
    def prepare(offer: dict[str, Any]) -> dict[str, Any]:
        err = DataError("no images", hint="Set --data-dir.")
        err.exit_code = 7
        raise err

    lead = stage.lead()
    other = stage.follower(PS)
    until(lambda: lead.present)
    broken = stage.follower(WORKER_1, prepare=prepare)
    with pytest.raises(DataError, match="no images"):
        broken.enlisted()
    for call in (lambda: lead.wait_for_all(DEADLINE_S, go_on), other.enlisted):
        with pytest.raises(FailedPeerError) as caught:
            call()
        assert caught.value.message == "worker 1: no images"
        assert (caught.value.hint, caught.value.exit_code) == ("Set --data-dir.", 7)


def test_a_retryable_error_of_prepare_only_ends_the_connection(pair: Stage) -> None:
    def prepare(offer: dict[str, Any]) -> dict[str, Any]:
        raise PeerError("told to stop")

    lead = pair.lead()
    broken = pair.follower(WORKER_0, prepare=prepare)
    with pytest.raises(PeerError):
        broken.enlisted()
    broken.kill()
    pair.follower(WORKER_0)
    lead.wait_for_all(DEADLINE_S, go_on)


def test_the_leads_failure_reaches_those_who_wait_for_the_start(pair: Stage) -> None:
    lead = pair.lead()
    follower = pair.follower(WORKER_0)
    until(lambda: lead.present)
    lead.fail(DataError("no labels", hint="Look there."))
    with pytest.raises(FailedPeerError) as caught:
        follower.enlisted()
    assert (caught.value.message, caught.value.hint, caught.value.exit_code) == (
        "no labels",
        "Look there.",
        1,
    )
    assert follower.failed == []


# --- after the start


def test_a_follower_whose_connection_ends_is_lost(stage: Stage) -> None:
    lead, (killed, *_) = stage.started(WORKER_0, WORKER_1, PS)
    killed.kill()
    until(lambda: stage.lost)
    assert stage.lost == [(WORKER_0, ENDED)]
    assert lead.present == {WORKER_1, PS}


def test_in_a_synchronous_training_the_others_are_told_who_is_lost(stack: ExitStack) -> None:
    stage = Stage(stack, WORKER_0, WORKER_1)
    _, (killed, other) = stage.started(WORKER_0, WORKER_1)
    assert other.lost == []
    killed.kill()
    until(lambda: other.lost)
    assert other.lost == [f"worker 0: {ENDED}"]


def test_beside_parameter_servers_the_others_go_on(stage: Stage) -> None:
    lead, (killed, other, _) = stage.started(WORKER_0, WORKER_1, PS, accepts_late=True)
    with observing(stage) as observer:
        until(lambda: lead._observers)
        killed.kill()
        until(lambda: "lost" in observer.kinds())
    assert other.lost == []


@pytest.mark.parametrize("signum", [15, None, 999, "x", [1]])
def test_one_that_leaves_says_why(pair: Stage, signum: Any) -> None:
    lead = pair.lead()
    with Raw(pair.cluster().control_address) as peer:
        peer.say("join", task="worker 0")
        peer.say("ready")
        lead.wait_for_all(DEADLINE_S, go_on)
        peer.say("leaving", signal=signum)
    until(lambda: pair.lost)
    name = " (SIGTERM)" if signum == 15 else ""
    assert pair.lost == [(WORKER_0, f"it was told to stop{name}")]


def test_leaving_is_heard_although_the_process_ends_at_once(pair: Stage) -> None:
    _, (follower,) = pair.started(WORKER_0)
    follower.membership.leave(2)
    follower.kill()
    until(lambda: pair.lost)
    assert pair.lost == [(WORKER_0, "it was told to stop (SIGINT)")]


def test_a_silent_follower_is_lost_and_its_connection_closed(stage: Stage) -> None:
    lead = stage.lead(silence_s=SILENCE_S)
    for task in (WORKER_1, PS):
        stage.follower(task, silence_s=SILENCE_S)
    hung = stage.raw(join=WORKER_0, ready=True)
    with observing(stage, silence_s=SILENCE_S) as observer:
        lead.wait_for_all(DEADLINE_S, go_on)
        until(lambda: stage.lost)
        until(lambda: "lost" in observer.kinds())
    assert stage.lost == [(WORKER_0, "nothing heard from it for 1.5 s")]
    hung.hear_end()
    lost = next(message for message in observer.heard if message["type"] == "lost")
    assert lost == {"type": "lost", "task": "worker 0", "reason": stage.lost[0][1], "silent": True}
    assert lead.present == {WORKER_1, PS}


def test_a_silent_lead_is_lost(pair: Stage) -> None:
    with socket.create_server(pair.cluster().control_address) as server:
        follower = pair.follower(WORKER_0, silence_s=SILENCE_S)
        connection, _ = server.accept()
        with connection:
            connection.sendall(encode("offer") + encode("start"))
            follower.enlisted()
            with pytest.raises(PeerError) as caught:
                follower.wait()
    assert caught.value.message == "lost the chief (nothing heard from it for 1.5 s)"
    assert caught.value.exit_code == 138
    until(lambda: follower.lost)
    assert follower.lost == ["the chief: nothing heard from it for 1.5 s"]


def test_a_lead_that_is_lost_ends_the_wait(pair: Stage) -> None:
    with pair.control() as lead:
        follower = pair.follower(WORKER_0)
        lead.wait_for_all(DEADLINE_S, go_on)
        follower.enlisted()
    with pytest.raises(PeerError, match=r"lost the chief \(its connection ended\)"):
        follower.wait()
    until(lambda: follower.lost)
    assert follower.lost == [f"the chief: {ENDED}"]
    assert pair.lost == []


def test_done_lets_the_followers_go(stage: Stage) -> None:
    lead, followers = stage.started(WORKER_0, WORKER_1, PS)
    lead.finish(version="7")
    for follower in followers:
        follower.wait()
        assert follower.lost == []
    assert stage.lost == []


def test_a_follower_that_hangs_does_not_keep_the_lead_from_ending(
    pair: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fairway.net.control.server.FAREWELL_S", 0.2)
    lead = pair.lead()
    hung = pair.raw(join=WORKER_0, ready=True)
    lead.wait_for_all(DEADLINE_S, go_on)
    Call(lead.finish).result()
    hung.hear("done")
    assert pair.lost == []


def test_the_leads_failure_ends_the_followers_with_its_exit_code(pair: Stage) -> None:
    lead, (follower,) = pair.started(WORKER_0)
    err = FairwayError("the disk is full", hint="Make room.")
    err.exit_code = 9
    lead.fail(err)
    with pytest.raises(FailedPeerError) as caught:
        follower.wait()
    until(lambda: follower.failed)
    assert follower.failed == [caught.value]
    assert (caught.value.message, caught.value.hint, caught.value.exit_code) == (err.message, err.hint, 9)
    assert (follower.lost, pair.lost) == ([], [])


def test_a_followers_failure_reaches_the_lead_which_decides(stack: ExitStack) -> None:
    stage = Stage(stack, WORKER_0, WORKER_1)
    lead, (broken, other) = stage.started(WORKER_0, WORKER_1)
    broken.membership.failed(DataError("a bad file", hint="Replace it."))
    broken.membership.failed(DataError("a bad file", hint="Replace it."))
    broken.kill()
    until(lambda: stage.failed)
    ((task, err),) = stage.failed
    assert (task, err.message, err.hint, err.exit_code) == (
        WORKER_0,
        "worker 0: a bad file",
        "Replace it.",
        1,
    )
    lead.fail(err)
    with pytest.raises(FailedPeerError, match="worker 0: a bad file"):
        other.wait()
    assert (stage.lost, other.lost) == ([], [])


def test_callbacks_may_end_the_training(pair: Stage) -> None:
    lead = pair.control()
    told: list[str] = []

    def fail(task: Task, reason: str, is_silent: bool) -> None:
        lead.fail(PeerError(f"lost {task}"))
        told.append(reason)

    lead._on_lost = fail
    with lead:
        follower = pair.follower(WORKER_0)
        lead.wait_for_all(DEADLINE_S, go_on)
        follower.kill()
        until(lambda: told)


def test_an_error_in_a_callback_is_logged(pair: Stage, caplog: pytest.LogCaptureFixture) -> None:
    def fail(task: Task, reason: str, is_silent: bool) -> None:
        raise RuntimeError("a mistake")

    lead = pair.control()
    lead._on_lost = fail
    with lead:
        follower = pair.follower(WORKER_0)
        lead.wait_for_all(DEADLINE_S, go_on)
        follower.kill()
        until(lambda: "a mistake" in caplog.text)


# --- coming back


def test_a_lead_that_trains_is_busy_until_it_is_started_anew(stack: ExitStack) -> None:
    stage = Stage(stack, WORKER_0, WORKER_1)
    with stage.control() as first:
        killed, other = stage.follower(WORKER_0), stage.follower(WORKER_1)
        first.wait_for_all(DEADLINE_S, go_on)
        other.enlisted()
        killed.kill()
        until(lambda: stage.lost)
        assert stage.raw_answer(WORKER_0) == "busy"
        again = stage.follower(WORKER_0, timeout_s=DEADLINE_S)
        assert first.present == {WORKER_1}
    with pytest.raises(PeerError):
        other.wait()
    other.enlist_again()
    second = stage.lead(offer={"run": "b"})
    second.wait_for_all(DEADLINE_S, go_on)
    assert again.enlisted() == other.enlisted() == {"run": "b"}
    again.kill()
    until(lambda: len(other.lost) == 2)
    assert (other.lost, stage.back) == ([f"worker 0: {ENDED}"] * 2, [])


def test_a_task_started_anew_behind_the_leads_back_is_lost_and_has_to_wait(pair: Stage) -> None:
    lead, _ = pair.started(WORKER_0)
    assert pair.raw_answer(WORKER_0) == "busy"
    until(lambda: pair.lost)
    assert pair.lost == [(WORKER_0, "it was started anew")]
    assert lead.present == set()


def test_a_lost_follower_comes_back_late(stage: Stage) -> None:
    lead, (killed, *_) = stage.started(WORKER_0, WORKER_1, PS, accepts_late=True)
    with observing(stage) as observer:
        killed.kill()
        until(lambda: stage.lost)
        again = stage.follower(WORKER_0)
        assert again.enlisted() == {"run": "a"}
        until(lambda: stage.back)
        until(lambda: lead.present == {WORKER_0, WORKER_1, PS})
        lead.finish()
        until(lambda: "done" in observer.kinds())
    again.wait()
    assert (stage.lost, stage.back) == ([(WORKER_0, ENDED)], [WORKER_0])


def test_a_late_one_that_ends_before_it_is_ready_is_not_lost_twice(stage: Stage) -> None:
    lead, (killed, *_) = stage.started(WORKER_0, WORKER_1, PS, accepts_late=True)
    killed.kill()
    until(lambda: stage.lost)
    for _ in range(2):
        with Raw(stage.cluster().control_address) as peer:
            peer.say("join", task="worker 0")
            peer.hear("offer")
    again = stage.follower(WORKER_0)
    again.enlisted()
    until(lambda: stage.back)
    assert (len(stage.lost), len(stage.back), len(lead.present)) == (1, 1, 3)


def test_a_late_one_that_hangs_before_it_is_ready_is_told_to_observers(stage: Stage) -> None:
    _, (killed, *_) = stage.started(WORKER_0, WORKER_1, PS, accepts_late=True, silence_s=SILENCE_S)
    killed.kill()
    until(lambda: stage.lost)
    with observing(stage) as observer:
        hung = stage.raw(join=WORKER_0)
        until(lambda: "lost" in observer.kinds())
        hung.hear_end()
    lost = next(message for message in observer.heard if message["type"] == "lost")
    assert (lost["task"], lost["silent"]) == ("worker 0", True)
    assert stage.lost == [(WORKER_0, ENDED)]


# --- observers


def test_an_observer_hears_what_all_are_told_across_a_new_start_of_the_lead(pair: Stage) -> None:
    with observing(pair) as observer:
        with pair.control() as first:
            until(lambda: bool(first._observers))
            killed = pair.follower(WORKER_0)
            first.wait_for_all(DEADLINE_S, go_on)
            first.publish({"step": 1})
            until(lambda: "event" in observer.kinds())
            killed.kill()
            until(lambda: "lost" in observer.kinds())
        assert observer.kinds() == ["waiting", "start", "event", "lost"]
        second = pair.lead()
        until(lambda: bool(second._observers))
        second.finish(version="7")
        observer.call.result()
    assert observer.heard[2] == {"type": "event", "step": 1}
    assert observer.heard[-1] == {"type": "done", "version": "7"}


def test_an_observer_that_comes_late_hears_the_last_event_and_the_end(pair: Stage) -> None:
    lead = pair.lead()
    lead.publish({"step": 1})
    lead.publish({"step": 2})
    lead.fail(DataError("no images"))
    with observing(pair) as observer:
        observer.call.result()
    assert [(message["type"], message.get("step")) for message in observer.heard] == [
        ("event", 2),
        ("failed", None),
    ]


def test_an_observer_hears_of_a_lead_that_hangs(pair: Stage) -> None:
    with socket.create_server(pair.cluster().control_address), observing(pair, silence_s=0.3) as observer:
        until(lambda: "silent" in observer.kinds())


def test_an_observer_that_never_reads_is_dropped_and_delays_nobody(pair: Stage) -> None:
    lead, (follower,) = pair.started(WORKER_0)
    slow = pair.raw()
    slow.say("observe")
    until(lambda: lead._observers)
    with observing(pair) as observer:
        until(lambda: len(lead._observers) == 2)
        event, longest = {"noise": "x" * 50_000}, 0.0
        end = time.monotonic() + DEADLINE_S
        while len(lead._observers) == 2:
            begun = time.monotonic()
            lead.publish(event)
            longest = max(longest, time.monotonic() - begun)
            assert time.monotonic() < end
            time.sleep(0.001)
        lead.publish({"step": 9})
        until(lambda: {"type": "event", "step": 9} in observer.heard)
    assert longest < PROMPT_S
    assert (follower.lost, pair.lost) == ([], [])


def test_an_event_that_cannot_be_sent_is_the_callers_mistake(pair: Stage) -> None:
    lead = pair.lead()
    with pytest.raises(TypeError):
        lead.publish({"value": object()})
    with pytest.raises(ValueError, match="too long"):
        lead.publish({"value": "x" * MAX_LINE_BYTES})


# --- strangers


@pytest.mark.parametrize(
    "noise",
    [
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"x" * 2 * 2**20 + b"\n",
        b"\xff\xfe\n",
        b'{"type": "join"}\n',
        b'{"type": "join", "task": ["worker 0"]}\n',
        b'{"type": 1}\n',
        b"[" * 100_000 + b"\n",
        b"null\n",
        b"\n",
    ],
    ids=range(9),
)
def test_noise_on_the_port_ends_that_connection_only(pair: Stage, noise: bytes) -> None:
    lead, _ = pair.started(WORKER_0)
    stranger = pair.raw()
    with contextlib.suppress(ConnectionError):
        stranger.socket.sendall(noise)
    stranger.hear_end()
    assert lead.present == {WORKER_0}
    assert pair.lost == []


def test_half_a_line_is_no_message(pair: Stage) -> None:
    lead = pair.lead()
    with Raw(pair.cluster().control_address) as peer:
        peer.say("join", task="worker 0")
        peer.hear("offer")
        peer.socket.sendall(encode("ready")[:-1])
    with Raw(pair.cluster().control_address) as peer:
        peer.socket.sendall(b'{"type": "jo')
    assert lead.present == set()
    pair.follower(WORKER_0)
    lead.wait_for_all(DEADLINE_S, go_on)


def test_noise_of_a_follower_makes_it_lost(pair: Stage) -> None:
    lead = pair.lead()
    peer = pair.raw(join=WORKER_0, ready=True)
    lead.wait_for_all(DEADLINE_S, go_on)
    peer.socket.sendall(b"nonsense\n")
    until(lambda: pair.lost)
    assert pair.lost == [(WORKER_0, ENDED)]


def test_what_a_peer_says_out_of_turn_changes_nothing(pair: Stage) -> None:
    lead = pair.lead(accepts_late=True)
    peer = pair.raw(join=WORKER_0, ready=True)
    lead.wait_for_all(DEADLINE_S, go_on)
    for kind in ("ready", "nonsense", "start", "failed", "ready", "leaving"):
        peer.say(kind)
    until(lambda: pair.failed)
    assert lead.present == set()
    peer.hear("start")
    assert (pair.back, pair.lost) == ([], [])


def test_a_connection_that_says_nothing_is_dropped(pair: Stage) -> None:
    pair.lead(silence_s=0.2)
    pair.raw().hear_end()


def test_another_server_on_the_leads_port_is_not_the_lead(pair: Stage) -> None:
    def answer(server: socket.socket) -> None:
        connection, _ = server.accept()
        with connection:
            connection.recv(1000)
            connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    with socket.create_server(pair.cluster().control_address) as server:
        other = Call(lambda: answer(server))
        follower = pair.follower(WORKER_0)
        other.result()
    lead = pair.lead()
    lead.wait_for_all(DEADLINE_S, go_on)
    follower.enlisted()


def test_a_connection_to_oneself_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """As TCP makes one when an outgoing connection is given the very port that it asks for."""
    port = free_port()
    itself = partial(asyncio.open_connection, local_addr=("127.0.0.1", port))
    monkeypatch.setattr(asyncio, "open_connection", itself)
    assert asyncio.run(dial("127.0.0.1", port, 1, DEADLINE_S)) is None


# --- stopping


def stops(work: Callable[[Callable[[], None]], object], is_blocked: Callable[[], object]) -> None:
    """Check that a call is left promptly once it blocks and is to stop."""
    raised: list[float] = []

    def check_stop() -> None:
        if is_blocked():
            raised.append(time.monotonic())
            raise StopError

    with pytest.raises(StopError):
        work(check_stop)
    assert time.monotonic() - raised[0] < PROMPT_S


def soon() -> Callable[[], bool]:
    end = time.monotonic() + 0.3
    return lambda: time.monotonic() > end


def enlisting(membership: Membership) -> Callable[[Callable[[], None]], object]:
    return lambda check_stop: membership.enlist(lambda offer: {}, check_stop)


def test_the_lead_stops_waiting(pair: Stage) -> None:
    stops(lambda check_stop: pair.lead().wait_for_all(DEADLINE_S, check_stop), soon())


def test_a_follower_stops_looking_for_the_lead(pair: Stage) -> None:
    with Membership(pair.cluster(WORKER_0), DEADLINE_S, lambda _: False) as membership:
        stops(enlisting(membership), soon())


@pytest.mark.parametrize("timeout_s", [0, DEADLINE_S])
def test_a_follower_stops_while_it_asks_the_store(
    pair: Stage, slow_store: SlowStore, timeout_s: float
) -> None:
    with Membership(pair.cluster(WORKER_0), timeout_s, slow_store) as membership:
        stops(enlisting(membership), lambda: slow_store.asked)


def test_a_follower_stops_waiting_for_an_answer(pair: Stage) -> None:
    with silent() as port:
        pair.addresses[CHIEF] = f"127.0.0.1:{port - 1}"
        with Membership(pair.cluster(WORKER_0), DEADLINE_S, lambda _: False) as membership:
            stops(enlisting(membership), soon())


def test_a_follower_stops_waiting_for_the_start(stage: Stage) -> None:
    lead = stage.lead()
    with Membership(stage.cluster(WORKER_0), DEADLINE_S, lambda _: False) as membership:
        stops(enlisting(membership), lambda: lead.present)


def test_a_follower_stops_waiting_for_the_end(pair: Stage) -> None:
    lead = pair.lead()
    with Membership(pair.cluster(WORKER_0), DEADLINE_S, lambda _: False) as membership:
        enlisted = Call(lambda: membership.enlist(lambda offer: {}, go_on))
        lead.wait_for_all(DEADLINE_S, go_on)
        enlisted.result()
        stops(membership.wait, soon())
        membership.leave(15)
    until(lambda: pair.lost)
    assert pair.lost == [(WORKER_0, "it was told to stop (SIGTERM)")]


def test_the_end_of_a_lead_that_was_stopped_frees_its_port(pair: Stage) -> None:
    for _ in range(3):
        with pair.control() as lead:
            peer = pair.raw(join=WORKER_0)
            stops(partial(lead.wait_for_all, DEADLINE_S), soon())
        peer.hear_end()


# --- messages


@given(st.dictionaries(st.text().filter(lambda name: name != "type"), st.integers() | st.text()))
def test_messages_come_as_they_were_sent(said: dict[str, Any]) -> None:
    message = decode(encode("event", **{"kind": 1, **said}))
    assert message is not None
    assert message["type"] == "event"
    assert fields(message) == {"kind": 1, **said}


@given(st.binary() | st.text().map(lambda text: json.dumps(text).encode()))
def test_what_is_no_message_is_none(line: bytes) -> None:
    assert decode(line + b"\n") is None


@pytest.mark.parametrize("code", [None, 0, -1, 256, True, "3", 1.0, math.inf])
def test_an_exit_code_that_is_none_becomes_1(code: Any) -> None:
    assert failure({"type": "failed", "exit_code": code}).exit_code == 1


def test_a_failure_comes_as_it_was_sent() -> None:
    message = decode(encode_failure(PeerError("lost it", hint="Again.")))
    assert message is not None
    err = failure(message, who="ps 0")
    assert (err.message, err.hint, err.exit_code) == ("ps 0: lost it", "Again.", 138)
