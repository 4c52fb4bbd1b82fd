"""Child processes: prefixed, restarted, given up, ended."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from fairway.errors import FairwayError
from fairway.local import supervisor
from fairway.local.supervisor import Part, Supervisor, is_stable


def python(code: str) -> tuple[str, ...]:
    return (sys.executable, "-c", code)


def has_ended(process: psutil.Process) -> bool:
    """Tell whether a process is gone, or only waits for somebody to read its exit code."""
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@pytest.fixture(autouse=True)
def quick_restarts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "FIRST_DELAY_S", 0.01)


def test_output_is_prefixed_and_work_done_ends_the_task(capfd: pytest.CaptureFixture[str]) -> None:
    async def main() -> None:
        await Supervisor(width=6).start(Part("job", python("print('one\\ntwo')"), once=True))

    asyncio.run(main())
    assert capfd.readouterr().err == "job    │ one\njob    │ two\n"


def test_crash_is_restarted_until_the_work_is_done(tmp_path: Path) -> None:
    code = f"""
import os, pathlib, signal
count = pathlib.Path({str(tmp_path)!r}, "count")
count.write_text(count.read_text() + "x" if count.exists() else "x")
if len(count.read_text()) < 3:
    os.kill(os.getpid(), signal.SIGKILL)
"""

    async def main() -> None:
        await Supervisor(width=3).start(Part("job", python(code), once=True))

    asyncio.run(main())
    assert (tmp_path / "count").read_text() == "xxx"


def counting(path: Path, code: str) -> tuple[str, ...]:
    """Return a command that runs some code with `n`, the number of times that it was started before."""
    return python(f"""
import os, pathlib, time
count = pathlib.Path({str(path)!r})
n = len(count.read_text()) if count.exists() else 0
count.write_text("x" * (n + 1))
{code}
""")


def test_task_that_lost_a_peer_is_restarted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> dict[str, int]:
        parts = Supervisor(width=3)
        await parts.start(
            Part("job", counting(tmp_path / "n", "raise SystemExit(0 if n else 138)"), once=True)
        )
        return parts.exit_codes

    assert asyncio.run(main()) == {"job": 0}
    assert "job crashed (it lost a peer or its store); restarting it" in caplog.text


def test_one_kill_is_one_crash_of_each_part(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A training whose task 0 is killed: the other ones end too, and all of them start again."""
    rounds = 4
    code = f"raise SystemExit(0 if n == {rounds} else 138)"

    async def main() -> None:
        parts = Supervisor(width=3)
        killed = code.replace("138", "os.kill(os.getpid(), 9)")
        tasks = [parts.start(Part("0", counting(tmp_path / "0", killed), once=True))]
        tasks += [parts.start(Part(n, counting(tmp_path / n, code), once=True)) for n in "12"]
        await asyncio.gather(*tasks)

    asyncio.run(main())
    assert [(tmp_path / n).read_text() for n in "012"] == ["x" * (rounds + 1)] * 3
    assert caplog.text.count("0 crashed (SIGKILL)") == rounds


def test_part_that_hangs_is_killed_and_restarted(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    code = f"print('up', flush=True); n or os.kill(os.getpid(), {signal.SIGSTOP.value})"

    async def main() -> None:
        parts = Supervisor(width=1)
        task = parts.start(Part("a", counting(tmp_path / "n", code), once=True))
        err = ""
        while "up" not in err:
            await asyncio.sleep(0.01)
            err += capfd.readouterr().err
        parts.kill("a", "somebody unknown")
        await task

    asyncio.run(main())
    assert "a crashed (SIGKILL); restarting it" in caplog.text


def test_part_has_its_own_environment(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TF_WORKERS", "2")
    code = "import os; print(os.environ.get('TF_WORKERS'), os.environ.get('TF_CONFIG'))"

    async def main() -> None:
        parts = Supervisor(width=1)
        await parts.start(Part("a", python(code), once=True))
        await parts.start(Part("b", python(code), once=True, env={"TF_CONFIG": "{}"}))

    asyncio.run(main())
    assert capfd.readouterr().err == "a │ 2 None\nb │ None {}\n"


def test_hidden_lines_are_not_passed_on(capfd: pytest.CaptureFixture[str]) -> None:
    code = "print('training: 20 of 60 steps'); print('training cnn'); raise SystemExit(3)"

    async def main() -> None:
        await Supervisor(width=1).start(Part("a", python(code), hidden=("training: ",)))

    with pytest.raises(FairwayError, match="exit code 3"):
        asyncio.run(main())
    assert capfd.readouterr().err == "a │ training cnn\n"


def test_explained_error_is_not_repeated(tmp_path: Path) -> None:
    code = f"open({str(tmp_path / 'ran')!r}, 'a').write('x'); print('error: no'); raise SystemExit(2)"

    async def main() -> None:
        await Supervisor(width=3).start(Part("web", python(code)))

    with pytest.raises(FairwayError, match="web ended with exit code 2") as caught:
        asyncio.run(main())
    assert caught.value.exit_code == 2
    assert caught.value.hint == "error: no"
    assert (tmp_path / "ran").read_text() == "x"


def test_part_that_crashes_on_and_on_is_given_up() -> None:
    async def main() -> None:
        await Supervisor(width=3).start(Part("web", python("import os; os.abort()")))

    with pytest.raises(FairwayError, match="crashed 6 times in a row .SIGABRT"):
        asyncio.run(main())


@pytest.mark.parametrize(("code", "exit_code"), [(138, 138), (3 + 128, 1)])
def test_giving_up_a_part_that_asks_for_another_start_asks_for_one_too(code: int, exit_code: int) -> None:
    async def main() -> None:
        await Supervisor(width=3).start(Part("job", python(f"raise SystemExit({code})"), once=True))

    with pytest.raises(FairwayError, match="job crashed 6 times in a row") as caught:
        asyncio.run(main())
    assert caught.value.exit_code == exit_code


@pytest.mark.parametrize(
    ("code", "seconds", "stable"),
    [(-9, 29, False), (-9, 31, True), (138, 75, False), (138, 87, False), (138, 300, True)],
)
def test_a_part_that_cannot_publish_is_not_stable(code: int, seconds: float, stable: bool) -> None:
    """It ends with 138 after 75 s, again and again; one that loses a peer does after hours."""
    assert is_stable(code, seconds) == stable


def test_a_long_line_is_passed_on_in_pieces(capfd: pytest.CaptureFixture[str]) -> None:
    async def main() -> None:
        await Supervisor(width=1).start(Part("a", python("print('x' * 3_000_000 + '\\nend')"), once=True))

    asyncio.run(main())
    *pieces, last = capfd.readouterr().err.splitlines()
    assert "".join(piece.removeprefix("a │ ") for piece in pieces) == "x" * 3_000_000
    assert last == "a │ end"


def test_a_part_whose_output_cannot_be_passed_on_is_not_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    children: list[psutil.Process] = []

    class Closed:
        def isatty(self) -> bool:
            return False

        def write(self, text: str) -> int:
            children.extend(psutil.Process().children())
            raise BrokenPipeError(text)

    async def main() -> None:
        parts = Supervisor(width=1)
        task = parts.start(Part("a", python("print('up', flush=True); import time; time.sleep(60)")))
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stderr", Closed())
            with pytest.raises(BrokenPipeError):
                await task
        async with asyncio.timeout(10):
            while not has_ended(children[0]):
                await asyncio.sleep(0.01)

    asyncio.run(main())


def test_a_part_that_needs_the_others_ends_before_them(capfd: pytest.CaptureFixture[str]) -> None:
    code = """
import signal, time
def end(*_):
    time.sleep({seconds})
    print('ends', flush=True)
    raise SystemExit
signal.signal(signal.SIGTERM, end)
print('ready', flush=True)
time.sleep(60)
"""

    async def main() -> None:
        parts = Supervisor(width=4)
        for name, seconds in (("lead", 0.5), ("other", 0)):
            parts.start(Part(name, python(code.format(seconds=seconds))))
        ready = ""
        while ready.count("ready") < 2:
            await asyncio.sleep(0.01)
            ready += capfd.readouterr().err
        await parts.stop(first="lead")

    asyncio.run(asyncio.wait_for(main(), 30))
    assert capfd.readouterr().err == "lead │ ends\nother │ ends\n"


def test_stop_ends_all_and_passes_on_last_words(capfd: pytest.CaptureFixture[str]) -> None:
    before = psutil.Process().children(recursive=True)
    code = """
import signal, time
def end(*_):
    print("saved", flush=True)
    raise SystemExit(143)
signal.signal(signal.SIGTERM, end)
print("up", flush=True)
time.sleep(60)
"""

    async def main() -> None:
        parts = Supervisor(width=1)
        task = parts.start(Part("a", python(code)))
        err = ""
        while "up" not in err:
            await asyncio.sleep(0.01)
            err += capfd.readouterr().err
        await parts.stop()
        assert task.done()

    asyncio.run(main())
    assert "a │ saved" in capfd.readouterr().err
    assert psutil.Process().children(recursive=True) == before


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells children of their parent's death")
def test_children_end_when_the_parent_is_killed() -> None:
    code = """
import asyncio, sys
from fairway.local.supervisor import Part, Supervisor
async def main():
    parts = Supervisor(width=1)
    code = "import os, time; print(os.getpid(), flush=True); time.sleep(60)"
    await parts.start(Part("a", (sys.executable, "-c", code)))
asyncio.run(main())
"""
    with subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True) as parent:
        assert parent.stderr is not None
        child = psutil.Process(int(parent.stderr.readline().split()[-1]))
        os.kill(parent.pid, signal.SIGKILL)
        deadline = time.monotonic() + 10
        while not has_ended(child):
            assert time.monotonic() < deadline
            time.sleep(0.02)
