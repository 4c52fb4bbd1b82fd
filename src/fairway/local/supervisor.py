"""Child processes: started, prefixed, restarted when they crash, and never left behind."""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass

from fairway.errors import RETRYABLE, START_AGAIN, FairwayError

log = logging.getLogger(__name__)

STOP_TIMEOUT_S = 15.0
"""How long a part may take to end after SIGTERM: a trainer saves a checkpoint."""
RESTARTS = 5
"""Crashes in a row, each before the part `is_stable`, after which it is given up."""
STABLE_S = 30.0
STABLE_AGAIN_S = 120.0
"""The same for a part that asks to be started again. Where a store takes small files but no model, it tries
to publish for 60 s and up to 13.5 s more, after as long for what came before; then it has got nowhere, and
would do so for ever. One that loses a peer after a longer run than this has trained meanwhile."""
FIRST_S = 12.0
"""How long a part that the others wait for may take to end; a training that cannot save by then gives up."""
FIRST_DELAY_S = 0.5
EXPLAINED = range(1, RETRYABLE)
"""Exit codes of an error that the part has explained; a restart would only repeat it."""
LINE_BYTES = 2**16
"""A line that is longer is passed on in pieces."""
COLOURS = (36, 35, 33, 32, 34)
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Part:
    """One process to keep running.

    Attributes:
        name: Prefix of its output.
        command: Program and arguments.
        once: It has a task and ends; otherwise an end is a crash, whatever the exit code.
        env: Its environment; `None`: that of this process.
        hidden: Lines that begin with one of these are not passed on.
        is_needed: Where it cannot go on, the others cannot either; else that is a warning.
    """

    name: str
    command: tuple[str, ...]
    once: bool = False
    env: Mapping[str, str] | None = None
    hidden: tuple[str, ...] = ()
    is_needed: bool = True


class PartError(FairwayError):
    """A part cannot go on.

    Args:
        message: Names it, and says how it ended.
        code: Its exit code. The command ends with it if it is the part's own word; after a crash with 1.
        last_words: The last line it wrote.
    """

    def __init__(self, message: str, code: int, last_words: str) -> None:
        super().__init__(message, hint=last_words)
        self.exit_code = code if code in EXPLAINED or code == START_AGAIN else 1


async def until_any(ends: Collection[asyncio.Task[None]], beside: Iterable[asyncio.Task[None]]) -> None:
    """Wait until one of the first tasks is done; raise the error of any task, one of the others too."""
    pending = {*ends, *beside}
    while not any(end.done() for end in ends):
        done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()


async def until_set(event: asyncio.Event) -> None:
    """Wait for an event."""
    await event.wait()


class Supervisor:
    """Runs parts until one cannot go on or all are stopped.

    Args:
        width: Columns for the names before the output.

    Attributes:
        exit_codes: How each part ended that has ended, the last time; negative: by that signal.
        last_words: The last line that each of them wrote then.
    """

    def __init__(self, width: int) -> None:
        self._width = width
        self._tasks: list[asyncio.Task[None]] = []
        self.exit_codes: dict[str, int] = {}
        self.last_words: dict[str, str] = {}
        self._running: dict[str, asyncio.subprocess.Process] = {}
        self._stopping = asyncio.Event()

    def start(self, part: Part) -> asyncio.Task[None]:
        """Start a part and keep it running.

        Returns:
            A task that ends when the part has done its work. When it cannot go on and the others need it, the
            task raises a `PartError`.
        """
        prefix = self._prefix(part.name, COLOURS[len(self._tasks) % len(COLOURS)])
        task = asyncio.create_task(self._keep(part, prefix), name=part.name)
        self._tasks.append(task)
        return task

    async def stop(self, first: str | None = None) -> None:
        """End all parts: SIGTERM, and SIGKILL for what is still there after a while.

        Args:
            first: The part that needs the others to end well; they are told once it has ended, or does not.
        """
        self._stopping.set()
        if first in self._running:
            self._terminate(first)
            await asyncio.wait([task for task in self._tasks if task.get_name() == first], timeout=FIRST_S)
        # A second signal would end the first part in the middle of what it saves.
        self._terminate(*(name for name in self._running if name != first))
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=STOP_TIMEOUT_S)
        for name in self._running:
            log.warning("%s does not end; killing it", name)
        self.kill(*self._running)
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _terminate(self, *names: str) -> None:
        for name in names:
            with suppress(ProcessLookupError):
                self._running[name].terminate()

    def kill(self, *names: str) -> None:
        """Kill parts that hang, with all their processes; they are restarted like those that crashed."""
        for name in names:
            if process := self._running.get(name):
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)

    async def _keep(self, part: Part, prefix: str) -> None:
        try:
            await self._repeat(part, prefix)
        except PartError as err:
            if part.is_needed:
                raise
            log.warning("%s; the others do not need it", err)

    async def _repeat(self, part: Part, prefix: str) -> None:
        crashes, clock = 0, asyncio.get_running_loop().time
        while not self._stopping.is_set():
            started = clock()
            code, last_words = await self._run(part, prefix)
            self.exit_codes[part.name], self.last_words[part.name] = code, last_words
            if self._stopping.is_set() or (part.once and code == 0):
                return
            if code in EXPLAINED:
                raise PartError(f"{part.name} ended with exit code {code}", code, last_words)
            crashes = 1 if is_stable(code, clock() - started) else crashes + 1
            if crashes > RESTARTS:
                raise PartError(
                    f"{part.name} crashed {crashes} times in a row ({_cause(code)})", code, last_words
                )
            delay = FIRST_DELAY_S * 2 ** (crashes - 1)
            log.warning("%s crashed (%s); restarting it in %.1f s", part.name, _cause(code), delay)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), delay)

    async def _run(self, part: Part, prefix: str) -> tuple[int, str]:
        """Run a part once; return its exit code (negative: the signal) and the last line it wrote."""
        process = await asyncio.create_subprocess_exec(
            *part.command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env={**(os.environ if part.env is None else part.env), "PYTHONUNBUFFERED": "1"},
            start_new_session=True,  # Ctrl-C on the terminal goes to us, and we end the parts
            preexec_fn=_die_with_parent(),
        )
        self._running[part.name] = process
        if self._stopping.is_set():  # since it was decided to start it
            process.terminate()
        try:
            last_words = await self._pass_on(process, part, prefix)
            return await process.wait(), last_words
        finally:
            if process.returncode is None:  # nobody reads its output any more, and it would wait for that
                self.kill(part.name)
            del self._running[part.name]

    async def _pass_on(self, process: asyncio.subprocess.Process, part: Part, prefix: str) -> str:
        """Write a process's output with the prefix until it ends; return its last line."""
        last_words = ""
        assert process.stdout
        async for line in _lines(process.stdout):
            if text := line.decode(errors="replace").rstrip():
                last_words = text.strip()
                if not text.startswith(part.hidden):
                    sys.stderr.write(f"{prefix}{text}\n")
        return last_words

    def _prefix(self, name: str, colour: int) -> str:
        text = f"{name:<{self._width}} │ "
        plain = not sys.stderr.isatty() or bool(os.environ.get("NO_COLOR"))
        return text if plain else f"\x1b[{colour}m{text}\x1b[0m"


async def _lines(stream: asyncio.StreamReader) -> AsyncIterator[bytes]:
    """Give the lines of a stream; unlike `readline` fail on none, but give one that is long in pieces."""
    rest = b""
    while chunk := await stream.read(LINE_BYTES):
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            yield line
        if len(rest) >= LINE_BYTES:
            yield rest
            rest = b""
    yield rest


def is_stable(code: int, lasted_s: float) -> bool:
    """Tell whether a part ran for so long that its end is no crash in a row.

    Args:
        code: Its exit code.
        lasted_s: Seconds it ran.
    """
    return lasted_s >= (STABLE_AGAIN_S if code == START_AGAIN else STABLE_S)


def _cause(code: int) -> str:
    """Return what an exit code says of a crash."""
    if code == START_AGAIN:
        return "it lost a peer or its store"
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"


def _die_with_parent() -> Callable[[], None] | None:
    """Return what makes a child end when this process is killed (Linux; elsewhere there is no such call)."""
    if sys.platform != "linux":
        return None
    libc = ctypes.CDLL(None)  # loaded here: nothing may be imported between fork and exec
    return lambda: libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
