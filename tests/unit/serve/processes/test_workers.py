"""Several processes that do as one; they are real, and have no models: see `fake_worker`."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from fairway.config import ServeSettings
from fairway.errors import FairwayError
from fairway.serve.metrics import Metrics
from fairway.serve.plan import read_plan
from fairway.serve.processes import workers as module
from fairway.serve.processes.workers import Workers
from fairway.serve.versions.table import ModelTable
from fairway.storage.exports import Version
from fairway.tfs.configs import ModelConfig
from fairway.tfs.status import Code, RequestError
from tests.unit.serve.processes.fake_worker import (
    DEADLY,
    DEADLY_WITHOUT_FILE,
    REFUSED,
    REFUSED_WITHOUT_FILE,
    SLOW,
)

DEADLINE_S = 20.0


@pytest.fixture(autouse=True)
def fake_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_COMMAND", (str(Path(__file__).with_name("fake_worker.py")),))
    monkeypatch.setattr(module, "_FIRST_DELAY_S", 0.01)


@contextmanager
def running(reload: Callable[[Any], None] = lambda _: None, **settings: Any) -> Iterator[Workers]:
    workers = Workers(read_plan(ServeSettings(**{"workers": 2} | settings)), Metrics())
    with workers.running(reload):
        yield workers


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def states(workers: Workers) -> list[dict[str, Any]]:
    return sorted(workers.snapshots()[2:], key=lambda state: state["index"])


def pids(workers: Workers) -> list[int]:
    return [state["pid"] for state in states(workers)]


def is_replaced(workers: Workers, pid: int) -> bool:
    after = pids(workers)
    return len(after) == 2 and pid not in after


def version(number: int, path: str | Path = "/models") -> Version:
    return Version(number, str(path), None)


def kill_all(workers: Workers) -> None:
    """Kill the workers, and return when all have others in their places."""
    before = set(pids(workers))
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    wait_for(lambda: len(set(pids(workers)) - before) == len(before))


def table(*serving: int) -> ModelTable:
    return ModelTable(serving, {}, (), "")


def test_all_load_publish_and_drop_together() -> None:
    with running() as workers:
        assert workers.load(1, "m", version(7)) == "nothing"
        assert [state["loaded"] for state in states(workers)] == [{1: 7}] * 2
        workers.publish({"m": table(7)}, {"m": {7: 1}})
        assert [state["serving"] for state in states(workers)] == [{"m": (7,)}] * 2
        assert workers.held([1, 2]) == {1}
        workers.publish({"m": table()}, {"m": {}})
        workers.drop(1)
        assert [state["loaded"] for state in states(workers)] == [{}] * 2


def test_what_one_cannot_load_none_has() -> None:
    with running() as workers:
        with pytest.raises(FairwayError, match="it is unlucky"):
            workers.load(1, "m", version(REFUSED))
        assert [state["loaded"] for state in states(workers)] == [{}] * 2


def test_a_version_that_kills_its_loader_leaves_the_others_alone() -> None:
    with running() as workers:
        workers.load(1, "m", version(7))
        workers.publish({"m": table(7)}, {"m": {7: 1}})
        before = pids(workers)
        with pytest.raises(FairwayError, match="the process that was to load it ended meanwhile"):
            workers.load(2, "m", version(DEADLY))
        wait_for(lambda: is_replaced(workers, before[0]))
        after = states(workers)
        assert len({*before, *(state["pid"] for state in after)}) == 3
        assert [state["loaded"] for state in after] == [{1: 7}] * 2


def test_one_that_dies_is_started_again_with_what_the_others_have(caplog: pytest.LogCaptureFixture) -> None:
    with running() as workers:
        workers.load(1, "m", version(7))
        workers.load(2, "m", version(8))
        workers.publish({"m": table(8, 7)}, {"m": {7: 1, 8: 2}})
        victim = states(workers)[1]["pid"]
        os.kill(victim, signal.SIGKILL)
        wait_for(lambda: is_replaced(workers, victim))
        assert states(workers)[1]["at_start"] == ([7, 8], {"m": (8, 7)})
        assert "worker 1 ended (SIGKILL); starting another one" in caplog.messages


def test_what_no_worker_can_load_again_takes_no_other_down(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "model"
    path.touch()
    with running() as workers:
        workers.load(1, "a", version(7))
        workers.load(2, "b", version(REFUSED_WITHOUT_FILE, path))
        tables = {"a": table(7), "b": table(REFUSED_WITHOUT_FILE)}
        workers.publish(tables, {"a": {7: 1}, "b": {REFUSED_WITHOUT_FILE: 2}})
        assert workers.lost([1, 2]) == {}
        path.unlink()
        kill_all(workers)
        assert [state["at_start"] for state in states(workers)] == [([7], {"a": (7,), "b": ()})] * 2
        assert workers.lost([1, 2]) == {2: "its file is gone"}
        assert workers._published[0]["b"].problem == "version 14 cannot be served: its file is gone"
        assert "version 14 of b cannot be loaded again: its file is gone" in caplog.messages

        # The deciding side may not know yet as it publishes for another reason.
        workers.publish(tables, {"a": {7: 1}, "b": {REFUSED_WITHOUT_FILE: 2}})
        assert [state["serving"] for state in states(workers)] == [{"a": (7,), "b": ()}] * 2
        workers.drop(2)
        assert workers.lost([1, 2]) == {}


def test_a_worker_that_cannot_load_what_another_serves_waits(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "model"
    path.touch()
    with running() as workers:
        workers.load(1, "m", version(REFUSED_WITHOUT_FILE, path))
        workers.publish({"m": table(REFUSED_WITHOUT_FILE)}, {"m": {REFUSED_WITHOUT_FILE: 1}})
        path.unlink()
        os.kill(states(workers)[0]["pid"], signal.SIGKILL)
        reason = "version 14 of m cannot be loaded again: its file is gone"
        wait_for(lambda: f"worker 0 cannot start: {reason}" in caplog.messages)
        assert [state["index"] for state in states(workers)] == [1]
        assert workers.lost([1]) == {}
        path.touch()
        wait_for(lambda: len(states(workers)) == 2)
        assert [state["serving"] for state in states(workers)] == [{"m": (REFUSED_WITHOUT_FILE,)}] * 2


def test_what_kills_each_new_worker_is_given_up(tmp_path: Path) -> None:
    path = tmp_path / "model"
    path.touch()
    with running() as workers:
        workers.load(1, "m", version(7))
        workers.load(2, "m", version(DEADLY_WITHOUT_FILE, path))
        workers.publish({"m": table(DEADLY_WITHOUT_FILE, 7)}, {"m": {7: 1, DEADLY_WITHOUT_FILE: 2}})
        path.unlink()
        kill_all(workers)
        assert [state["serving"] for state in states(workers)] == [{"m": (7,)}] * 2
        assert workers.lost([1, 2]) == {2: "the process that was to load it again ended meanwhile"}


def test_nothing_is_dropped_while_it_still_loads_elsewhere() -> None:
    with running(workers=3) as workers:
        slow = workers._workers[2].channel
        ask = slow.ask

        def ask_for_a_slow_one(name: str, *args: Any) -> Any:
            return ask(name, *((*args[:2], version(SLOW)) if name == "load" else args))

        slow.ask = ask_for_a_slow_one  # type: ignore[method-assign]
        errors: list[FairwayError] = []

        def load() -> None:
            try:
                workers.load(1, "m", version(REFUSED))
            except FairwayError as err:
                errors.append(err)

        loading = threading.Thread(target=load)
        loading.start()
        wait_for(lambda: len(states(workers)) == 3 and states(workers)[2]["slow"])
        slow.call("go_on")
        loading.join(DEADLINE_S)
        assert [err.message for err in errors] == ["it is unlucky"]
        assert [state["loaded"] for state in states(workers)] == [{}] * 3


def test_what_is_loaded_while_none_is_there_waits_for_the_next() -> None:
    with running() as workers:
        for state in states(workers):
            os.kill(state["pid"], signal.SIGKILL)
        wait_for(lambda: not workers._workers)
        assert workers.load(1, "m", version(7)) == "nothing"
        wait_for(lambda: [state["loaded"] for state in states(workers)] == [{1: 7}] * 2)


def test_a_reload_request_reaches_the_deciding_side_and_its_refusal_the_worker() -> None:
    asked: list[Any] = []

    def reload(configs: tuple[ModelConfig, ...]) -> None:
        asked.append(configs)
        if not configs:
            raise RequestError(Code.FAILED_PRECONDITION, "nothing to serve")

    with running(reload) as workers:
        worker = workers._workers[1].channel
        configs = (ModelConfig("m", "/models/m", labels={"stable": 1}),)
        worker.call("ask", "reload", configs)
        assert asked == [configs]
        with pytest.raises(RequestError, match="nothing to serve") as caught:
            worker.call("ask", "reload", ())
        assert caught.value.code is Code.FAILED_PRECONDITION


def test_any_worker_gets_the_counts_of_all() -> None:
    with running() as workers:
        counts = workers._workers[0].channel.call("ask", "snapshots")
        assert {count.get("index") for count in counts} == {None, 0, 1}


def test_a_stuck_worker_holds_up_no_metrics(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SNAPSHOT_S", 0.1)
    with running() as workers:
        stuck = states(workers)[0]["pid"]
        os.kill(stuck, signal.SIGSTOP)
        try:
            assert [state["index"] for state in states(workers)] == [0, 1]
        finally:
            os.kill(stuck, signal.SIGCONT)


def test_what_a_worker_has_counted_outlives_it() -> None:
    with running() as workers:

        def answered() -> int:
            return sum(snapshot["counters"].get(("answered",), 0) for snapshot in workers.snapshots())

        assert answered() == 2
        kill_all(workers)
        assert answered() == 4
        kill_all(workers)
        assert answered() == 6
        assert len(workers.snapshots()) == 4


def test_one_that_is_stuck_is_replaced_although_nobody_wants_anything_of_it(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "_PING_S", 0.01)
    monkeypatch.setattr(module, "_ANSWER_S", 0.5)
    monkeypatch.setattr(module, "_SNAPSHOT_S", 0.1)
    with running() as workers:
        stuck = states(workers)[0]["pid"]
        os.kill(stuck, signal.SIGSTOP)
        wait_for(lambda: is_replaced(workers, stuck))
        assert caplog.messages.count("worker 0 does not answer; killing it") == 1


def test_a_load_survives_a_worker_that_is_stuck(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PING_S", 0.01)
    monkeypatch.setattr(module, "_ANSWER_S", 0.5)
    for index in (0, 1):
        with running() as workers:
            os.kill(states(workers)[index]["pid"], signal.SIGSTOP)
            assert workers.load(1, "m", version(7)) == "nothing"
            wait_for(lambda: [state["loaded"] for state in states(workers)] == [{1: 7}] * 2)


def test_a_version_whose_load_stops_the_workers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    with running() as workers:
        monkeypatch.setattr(workers, "_load_in", lambda *_: None)
        with pytest.raises(FairwayError, match="stopped answering"):
            workers.load(1, "m", version(7))


def test_one_that_is_stuck_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_ANSWER_S", 0.5)
    with running() as workers:
        stuck = states(workers)[0]["pid"]
        os.kill(stuck, signal.SIGSTOP)
        workers.publish({"m": table()}, {"m": {}})
        wait_for(lambda: is_replaced(workers, stuck))
        assert [state["serving"] for state in states(workers)] == [{"m": ()}] * 2


def test_a_long_load_holds_up_no_other_table() -> None:
    with running() as workers:
        loading = threading.Thread(target=workers.load, args=(1, "m", version(SLOW)))
        loading.start()
        wait_for(lambda: any(state["slow"] for state in states(workers)))
        workers.publish({"m": table()}, {"m": {}})
        assert loading.is_alive()
        assert [state["serving"] for state in states(workers)] == [{"m": ()}] * 2
        for worker in workers._workers.values():
            worker.channel.call("go_on")
        loading.join(DEADLINE_S)
        assert [state["loaded"] for state in states(workers)] == [{1: SLOW}] * 2


def test_a_start_that_fails_says_why_and_leaves_nothing() -> None:
    before = psutil.Process().children()
    with pytest.raises(FairwayError, match="the port is taken"), running(model_name="nobody"):
        pass
    assert psutil.Process().children() == before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_all(number: signal.Signals) -> None:
    before = psutil.Process().children()
    handler = signal.getsignal(number)
    with running() as workers:
        threading.Timer(0.01, os.kill, (os.getpid(), number)).start()
        workers.wait()
    assert psutil.Process().children() == before
    assert signal.getsignal(number) is handler


def test_one_that_does_not_end_is_killed(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    monkeypatch.setattr(module, "_MARGIN_S", 0.1)
    before = psutil.Process().children()
    with running(drain_seconds=0.1) as workers:
        os.kill(states(workers)[0]["pid"], signal.SIGSTOP)
    assert psutil.Process().children() == before
    assert "worker 0 does not end; killing it" in caplog.messages
