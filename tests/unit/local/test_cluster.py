"""A training of several processes on this machine: what they are given, their end, and what is shown."""

from __future__ import annotations

import asyncio
import fcntl
import json
import logging
import os
import pty
import re
import signal
import socket
import struct
import sys
import termios
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from fairway.cli.train import train
from fairway.config import ClusterSettings, TrainSettings, as_flags, environment_without
from fairway.errors import FairwayError, StoppedError, UsageError
from fairway.local import cluster, supervisor
from fairway.local.cluster import (
    PORTS,
    build_parts,
    free_addresses,
    list_tasks,
    run_parts,
)
from fairway.local.supervisor import Part
from fairway.net.cluster import Cluster, Task, parse_tf_config
from fairway.net.control.client import observe
from fairway.progress import Progress

CONTROL = ("127.0.0.1", 1)


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Iterator[None]:
    before = psutil.Process().children(recursive=True)
    yield
    assert psutil.Process().children(recursive=True) == before


@pytest.fixture(autouse=True)
def quick_restarts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "FIRST_DELAY_S", 0.05)


def part(name: str, code: str) -> Part:
    return Part(name, (sys.executable, "-c", "import os, signal, sys, time\n" + code), once=True)


def hold(tasks: list[Task]) -> dict[Task, str]:
    return {task: f"127.0.0.1:{2222 + 10 * number}" for number, task in enumerate(tasks)}


def variables(
    settings: ClusterSettings, cores: int, environment: dict[str, str] | None = None
) -> dict[str, dict[str, str]]:
    """Return the environment of each task."""
    parts = build_parts(TrainSettings(), hold(list_tasks(settings)), environment or {}, cores)
    return {each.name: dict(each.env or {}) for each in parts}


def threads(settings: ClusterSettings, cores: int) -> dict[str, str]:
    return {name: values["TF_NUM_INTRAOP_THREADS"] for name, values in variables(settings, cores).items()}


# The tasks and their processes.


def test_parameter_servers_need_workers() -> None:
    with pytest.raises(UsageError, match="ps is 1, but there are no workers") as caught:
        ClusterSettings(ps=1)
    assert "--workers" in caught.value.hint


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        (ClusterSettings(workers=1), ["chief", "worker 0"]),
        (ClusterSettings(workers=2, ps=1), ["chief", "worker 0", "worker 1", "ps 0"]),
        (ClusterSettings(evaluator=True), ["chief", "evaluator 0"]),
    ],
)
def test_there_is_one_task_for_each_that_was_asked_for(settings: ClusterSettings, names: list[str]) -> None:
    assert [str(task) for task in list_tasks(settings)] == names


def test_addresses_are_free_and_the_next_port_too() -> None:
    addresses = free_addresses(list_tasks(ClusterSettings(workers=9, ps=9)))
    ports = [int(address.removeprefix("127.0.0.1:")) for address in addresses.values()]
    ports += [port + 1 for port in ports]
    assert len(set(ports)) == 2 * len(addresses)
    for port in ports:
        assert port in PORTS
        socket.create_server(("127.0.0.1", port)).close()


def test_taken_ports_are_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    (address,) = free_addresses([Task("chief", 0)]).values()
    port = int(address.split(":")[1])
    monkeypatch.setattr(cluster, "PORTS", range(port, port + 2))
    with socket.create_server(("127.0.0.1", port + 1)), pytest.raises(FairwayError, match="no free ports"):
        free_addresses([Task("chief", 0)])


def test_each_process_gets_the_flags_and_what_the_operator_would_inject() -> None:
    settings = TrainSettings(train_steps=7, augment=False)
    addresses = hold(list_tasks(ClusterSettings(workers=1, ps=1, evaluator=True)))
    parts = build_parts(settings, addresses, {"PATH": "/bin", "TF_CONFIG": ""}, cores=4)
    assert [each.name for each in parts] == ["chief", "worker 0", "ps 0", "evaluator 0"]
    for task, each in zip(addresses, parts, strict=True):
        assert each.command == (sys.executable, "-m", "fairway", "train", *as_flags(settings))
        assert each.once
        assert each.is_needed == (task.role != "evaluator")
        assert each.env is not None
        assert each.env["PATH"] == "/bin"
        injected = parse_tf_config(each.env["TF_CONFIG"])
        assert injected is not None
        assert injected.this == task
        assert injected.mode == "asynchronous"
        assert injected.control_address == Cluster(addresses, task).control_address
        assert "evaluator" not in json.loads(each.env["TF_CONFIG"])["cluster"]


@pytest.mark.parametrize(
    ("settings", "cores", "expected"),
    [
        (ClusterSettings(workers=1), 8, {"chief": "4", "worker 0": "4"}),
        (ClusterSettings(workers=2), 2, {"chief": "1", "worker 0": "1", "worker 1": "1"}),
        (
            ClusterSettings(workers=2, ps=1, evaluator=True),
            8,
            {"chief": "1", "worker 0": "4", "worker 1": "4", "ps 0": "1", "evaluator 0": "1"},
        ),
        (ClusterSettings(evaluator=True), 8, {"chief": "8", "evaluator 0": "1"}),
    ],
)
def test_cores_are_divided_among_those_that_compute(
    settings: ClusterSettings, cores: int, expected: dict[str, str]
) -> None:
    assert threads(settings, cores) == expected


def test_threads_set_by_the_user_are_kept() -> None:
    given = variables(ClusterSettings(workers=1), 8, {"TF_NUM_INTRAOP_THREADS": "3"})
    assert {values["TF_NUM_INTRAOP_THREADS"] for values in given.values()} == {"3"}
    assert {values["TF_NUM_INTEROP_THREADS"] for values in given.values()} == {"4"}


def test_processes_do_not_start_others_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    names = {"TF_WORKERS", "TF_PS", "TF_EVALUATOR", "TF_SEED"}
    for name in names:
        monkeypatch.setenv(name, "1")
    assert names & set(environment_without(ClusterSettings)) == {"TF_SEED"}


# The command.


def test_command_prints_the_version(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("TF_CONFIG", raising=False)
    monkeypatch.setattr(cluster, "run", lambda settings, tasks: f"e/{settings.train_steps}/{tasks.workers}")
    train(TrainSettings(train_steps=7), ClusterSettings(workers=2))
    assert capsys.readouterr().out == "e/7/2\n"


def test_task_of_a_training_does_not_start_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TF_CONFIG", "{}")
    with pytest.raises(UsageError, match="TF_CONFIG is set") as caught:
        train(TrainSettings(), ClusterSettings(evaluator=True))
    assert "--evaluator" in caught.value.hint


# A run.


def launch(
    *parts: Part,
    control: tuple[str, int] | None = None,
    meanwhile: Callable[[], Coroutine[Any, Any, None]] | None = None,
) -> str:
    """Run a training, and something else while it runs."""

    async def main() -> str:
        training = asyncio.create_task(run_parts(parts, control))
        if meanwhile:
            await meanwhile()
        return await training

    return asyncio.run(main())


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.01)


async def until_written(capfd: pytest.CaptureFixture[str], text: str, times: int = 1) -> None:
    """Read the output until a text has come so many times."""
    read = ""

    def has_come() -> bool:
        nonlocal read
        read += capfd.readouterr().err
        return read.count(text) == times

    await until(has_come)


@pytest.fixture
def messages(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What comes over the control channel: what is in the list, and what is added later."""
    coming: list[dict[str, Any]] = []

    async def told(host: str, port: int) -> AsyncIterator[dict[str, Any]]:
        assert (host, port) == CONTROL
        while True:
            while coming:
                message = coming.pop(0)
                yield message
                if message["type"] in ("done", "failed"):
                    return
            await asyncio.sleep(0.01)

    monkeypatch.setattr(cluster, "observe", told)
    return coming


def test_training_ends_when_all_have_ended(messages: list[dict[str, Any]]) -> None:
    messages += [{"type": "start"}, {"type": "done", "version": "e/1"}]
    parts = [part("chief", ""), part("worker 0", "time.sleep(0.3)")]
    assert launch(*parts, control=CONTROL) == "e/1"


def test_version_is_what_the_lead_prints_where_it_tells_none() -> None:
    """As beside an evaluator alone, or where all is trained already; others may have exported there since."""
    assert launch(part("chief", "print('step 6 of 6'); print('e/1')"), part("evaluator 0", "")) == "e/1"


def test_task_that_goes_on_after_the_end_is_ended(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(cluster, "END_TIMEOUT_S", 0.2)
    assert launch(part("chief", ""), part("worker 0", "time.sleep(60)")) == ""
    assert "worker 0 goes on after the end of the training; ending it" in caplog.text


def test_error_after_the_end_changes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    assert launch(part("chief", ""), part("worker 0", "time.sleep(0.5); sys.exit(1)")) == ""
    assert "worker 0 ended with exit code 1 after the end of the training" in caplog.text


@pytest.mark.parametrize("failing", ["chief", "worker 0"])
def test_error_of_a_task_ends_all(failing: str) -> None:
    codes = {"chief": "time.sleep(60)", "worker 0": "time.sleep(60)"}
    codes[failing] = "print('error: the loss is nan'); sys.exit(1)"
    with pytest.raises(FairwayError, match=f"{failing} ended with exit code 1") as caught:
        launch(*(part(name, code) for name, code in codes.items()))
    assert caught.value.hint == "error: the loss is nan"


@pytest.mark.parametrize(
    ("end", "problem"),
    [("sys.exit(1)", "ended with exit code 1"), ("os.abort()", "crashed 6 times in a row (SIGABRT)")],
)
def test_training_goes_on_without_an_evaluator(
    end: str, problem: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    monkeypatch.setattr(supervisor, "FIRST_DELAY_S", 0.0)
    is_over = tmp_path / "over"

    async def meanwhile() -> None:
        warning = f"evaluator 0 {problem}; the others do not need it"
        await until(lambda: warning in caplog.text)
        is_over.touch()

    chief = f"while not os.path.exists({str(is_over)!r}): time.sleep(0.01)\nprint('e/1')"
    evaluator = replace(part("evaluator 0", end), is_needed=False)
    assert launch(part("chief", chief), evaluator, meanwhile=meanwhile) == "e/1"


def test_tasks_that_hang_are_killed(
    monkeypatch: pytest.MonkeyPatch,
    messages: list[dict[str, Any]],
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(supervisor, "FIRST_DELAY_S", 30)  # restarts are not what is tested
    hangs = "print('up', flush=True); os.kill(os.getpid(), signal.SIGSTOP)"

    async def meanwhile() -> None:
        await until_written(capfd, "up", 3)
        messages.append({"type": "lost", "task": "worker 1", "reason": "its connection ended"})
        messages.append({"type": "lost", "task": "worker 0", "reason": "nothing heard", "silent": True})
        messages.append({"type": "silent"})
        await until(lambda: caplog.text.count("crashed (SIGKILL)") == 2)
        os.kill(os.getpid(), signal.SIGTERM)

    names = [part("chief", hangs), part("worker 0", hangs), part("worker 1", SAVES)]
    with pytest.raises(StoppedError):
        launch(*names, control=CONTROL, meanwhile=meanwhile)
    assert "chief hangs; killing it" in caplog.text
    assert "worker 0 hangs; killing it" in caplog.text
    assert "worker 1" not in caplog.text


# A run over the real control channel.

CHIEF = """
import json, os, sys, time
from fairway.net.cluster import parse_tf_config
from fairway.net.control.server import Control

def lost(task, reason, is_silent):
    print(f"lost {task} ({reason})", flush=True)
    os._exit(138)

cluster = parse_tf_config(os.environ["TF_CONFIG"])
callbacks = dict(on_lost=lost, on_back=print, on_failed=print)
with Control(cluster, {}, accepts_late=False, silence_s=1, **callbacks) as control:
    control.wait_for_all(20, lambda: None)
    for step in range(0, 61, 20):
        print(f"training: {step} of 60 steps", flush=True)
        print(f"a line at {step}", flush=True)
        control.publish(dict(kind="progress", step=step, total=60, note=f"loss {step / 10}"))
        time.sleep(TIME)
    control.finish(version="e/1")
"""
WORKER = """
import os
from fairway.net.cluster import parse_tf_config
from fairway.net.control.client import Membership

def lost(reason):
    print(f"lost {reason}", flush=True)
    os._exit(138)

cluster = parse_tf_config(os.environ["TF_CONFIG"])
with Membership(cluster, 20, lambda: False, on_lost=lost, silence_s=1) as membership:
    membership.enlist(lambda offer: {}, lambda: None)
    print("joined", os.getpid(), flush=True)
    membership.wait(lambda: None)
"""


def start_training(
    seconds: float, meanwhile: Callable[[], Coroutine[Any, Any, None]] | None = None, **options: Any
) -> str:
    """Run a chief and two workers that only say that they train."""
    addresses = free_addresses(list_tasks(ClusterSettings(workers=2)))
    parts = build_parts(TrainSettings(), addresses, dict(os.environ), 2, **options)
    codes = {"chief": CHIEF.replace("TIME", str(seconds / 4))}
    parts = [replace(each, command=(sys.executable, "-c", codes.get(each.name, WORKER))) for each in parts]
    control = Cluster(addresses, Task("chief", 0)).control_address
    return launch(*parts, control=control, meanwhile=meanwhile)


def child(name: str) -> psutil.Process:
    """Return the process of a task."""
    for process in psutil.Process().children():
        task = parse_tf_config(process.environ().get("TF_CONFIG"))
        if task and str(task.this) == name:
            return process
    raise LookupError(name)


def test_version_comes_over_the_control_channel(capfd: pytest.CaptureFixture[str]) -> None:
    assert start_training(0.4) == "e/1"
    err = capfd.readouterr().err
    assert "worker 1 │ joined" in err
    assert "chief    │ training: 40 of 60 steps\n" in err
    assert "\x1b" not in err


def test_killed_task_starts_all_again_once(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    async def meanwhile() -> None:
        await until_written(capfd, "a line at 0", 1)
        child("worker 0").kill()

    assert start_training(2, meanwhile) == "e/1"
    crashes = sorted(record.getMessage().split(";")[0] for record in caplog.records)
    assert crashes == [
        "chief crashed (it lost a peer or its store)",
        "worker 0 crashed (SIGKILL)",
        "worker 1 crashed (it lost a peer or its store)",
    ]


@pytest.mark.parametrize("name", ["chief", "worker 1"])
def test_task_that_hangs_is_killed_and_all_start_again(
    name: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(cluster, "observe", partial(observe, silence_s=1))

    async def meanwhile() -> None:
        await until_written(capfd, "a line at 0", 1)
        child(name).suspend()

    assert start_training(2, meanwhile) == "e/1"
    assert f"{name} hangs; killing it" in caplog.text
    assert f"{name} crashed (SIGKILL)" in caplog.text
    assert caplog.text.count("crashed (it lost a peer or its store)") == 2


def on_terminal(monkeypatch: pytest.MonkeyPatch, action: Callable[[], object]) -> str:
    """Do something with a pseudo-terminal in the place of standard error; return what was written on it."""
    own, other = pty.openpty()
    fcntl.ioctl(other, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    output = b""

    def read() -> None:
        nonlocal output
        with suppress(OSError):  # the other side was closed
            while True:
                output += os.read(own, 65536)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        with os.fdopen(other, "w", buffering=1) as stderr, monkeypatch.context() as patch:
            patch.setattr(sys, "stderr", stderr)
            for name in ("FORCE_COLOR", "COLUMNS", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
                patch.delenv(name, raising=False)
            patch.setenv("TERM", "xterm")
            action()
    finally:
        reader.join()
        os.close(own)
    return output.decode().replace("\r\n", "\n")


def test_terminal_has_one_bar_below_the_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    output = on_terminal(monkeypatch, lambda: start_training(0.4, hidden=("training: ",)))
    assert "\x1b[36mchief    │ \x1b[0ma line at 20\n" in output
    assert "\x1b[2K" in output  # a bar is drawn anew
    assert "training: 20" not in output
    plain = re.sub("\x1b[^a-zA-Z]*[a-zA-Z]", "", output)
    assert re.search(r"\rtraining [━╸╺ ]+ [0-9]+/60 loss", plain)
    assert len(re.findall(r"training [━╸╺ ]+ 60/60 loss 6.0 [0-9:-]+ *\n", plain)) == 1


def test_log_appears_above_the_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    def action() -> None:
        handler = logging.StreamHandler(sys.stderr)
        logging.getLogger().addHandler(handler)
        try:
            with Progress("training", 60) as progress:
                progress.update(20, "loss 2.0")
                logging.getLogger("fairway").warning("worker 0 crashed")
            assert handler.stream is sys.stderr
        finally:
            logging.getLogger().removeHandler(handler)

    before, after = on_terminal(monkeypatch, action).split("worker 0 crashed\n")
    assert before.endswith("\r\x1b[2K")  # the bar is gone from the line
    assert "20/60" in after


def test_no_color_is_obeyed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    output = on_terminal(monkeypatch, lambda: start_training(0.4, hidden=("training: ",)))
    assert "chief    │ a line at 20\n" in output
    assert "60/60" in output
    assert not re.search(r"\x1b\[[0-9;]*3[0-9]", output)


# A stop.

SAVES = """
def save(*_):
    print("saving", flush=True)
    sys.exit(143)
signal.signal(signal.SIGTERM, save)
print("up", flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_stop_ends_all_and_says_where(
    signum: signal.Signals, messages: list[dict[str, Any]], capfd: pytest.CaptureFixture[str]
) -> None:
    messages.append({"type": "event", "kind": "progress", "step": 20, "total": 60, "note": ""})

    async def meanwhile() -> None:
        await until_written(capfd, "up", 2)
        os.kill(os.getpid(), signum)

    with pytest.raises(StoppedError) as caught:
        launch(part("chief", SAVES), part("worker 0", SAVES), control=CONTROL, meanwhile=meanwhile)
    assert caught.value.message == f"stopped by {signum.name} at step 20 of 60"
    assert caught.value.exit_code == 128 + signum
    assert capfd.readouterr().err.count("saving") == 2


def test_second_ctrl_c_kills(messages: list[dict[str, Any]], capfd: pytest.CaptureFixture[str]) -> None:
    messages.append({"type": "event", "kind": "progress", "step": 20, "total": 60, "note": ""})

    async def meanwhile() -> None:
        await until_written(capfd, "up")
        os.kill(os.getpid(), signal.SIGINT)
        await until_written(capfd, "saving")
        os.kill(os.getpid(), signal.SIGINT)

    started = time.monotonic()
    with pytest.raises(StoppedError) as caught:
        launch(
            part("chief", SAVES.replace("sys.exit(143)", "time.sleep(60)")),
            control=CONTROL,
            meanwhile=meanwhile,
        )
    assert caught.value.message == "stopped by SIGINT at step 20 of 60"
    assert time.monotonic() - started < supervisor.STOP_TIMEOUT_S


def test_stop_while_nothing_is_trained(capfd: pytest.CaptureFixture[str]) -> None:
    async def meanwhile() -> None:
        await until_written(capfd, "up")
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(StoppedError, match="stopped by SIGINT$"):
        launch(part("chief", SAVES), meanwhile=meanwhile)


def test_training_that_ends_in_spite_of_a_stop_has_ended(capfd: pytest.CaptureFixture[str]) -> None:
    async def meanwhile() -> None:
        await until_written(capfd, "up")
        os.kill(os.getpid(), signal.SIGINT)

    chief = part("chief", SAVES.replace("sys.exit(143)", "print('e/1'); sys.exit()"))
    assert launch(chief, meanwhile=meanwhile) == "e/1"
