"""The lead's side of the control channel: who is there, who is lost, and what all are told."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import signal
import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Any

from fairway.errors import FairwayError, UsageError
from fairway.net.cluster import Cluster, Task
from fairway.net.control.background import Background
from fairway.net.control.channel import Channel
from fairway.net.control.messages import (
    MAX_LINE_BYTES,
    SILENCE_S,
    FailedPeerError,
    Message,
    Notice,
    encode,
    encode_failure,
    failure,
    fields,
)
from fairway.net.ports import listen, reachable

log = logging.getLogger(__name__)

FAREWELL_S = 5.0
"""How long peers may take to close their side once they have been told the end."""
LOOK_S = 1.0
RESTARTED = "it was started anew"


@dataclass(eq=False)
class _Peer:
    channel: Channel
    data: Message | None = None
    """What it sent with `ready`; None until then."""
    started: bool = False
    leaving: str = ""


class Control:
    """Listens for the other tasks of a cluster; to be entered by its lead.

    Args:
        cluster: The cluster.
        offer: What every follower is told when it joins; no key can be `type`.
        accepts_late: Whether a follower that was lost may come back while the training runs. Otherwise it
            has to wait until the lead is started anew.
        on_lost: Is called once for a follower that is lost after the start, with the reason, and whether that
            is silence: it may hang.
        on_back: Is called when a follower has got ready after the start.
        on_failed: Is called with the error of a follower that gave up after the start.
        silence_s: Seconds without a word after which a peer counts as lost.

    The callbacks are called one after the other, in a thread of their own.
    """

    def __init__(
        self,
        cluster: Cluster,
        offer: dict[str, Any],
        *,
        accepts_late: bool,
        on_lost: Callable[[Task, str, bool], None],
        on_back: Callable[[Task], None],
        on_failed: Callable[[Task, FailedPeerError], None],
        silence_s: float = SILENCE_S,
    ) -> None:
        self._cluster = cluster
        self._offer = encode("offer", **offer)
        self._accepts_late = accepts_late
        self._on_lost, self._on_back, self._on_failed = on_lost, on_back, on_failed
        self._silence_s = silence_s
        self._background = Background("control")
        # All below is changed in the background only.
        self._peers: dict[Task, _Peer] = {}
        self._came: set[Task] = set()
        self._observers: set[Channel] = set()
        self._connections: set[asyncio.Task[None]] = set()
        self._started = False
        self._failure: FailedPeerError | None = None
        self._event: bytes | None = None
        self._ending: bytes | None = None
        self._closing = False

    def __enter__(self) -> Control:
        self._listener = _listen(*self._cluster.control_address)
        self._background.start()
        self._background.wait(self._open())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, err: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._background.wait(self._close())
        self._background.close()

    @property
    def present(self) -> set[Task]:
        """The followers that are ready and not lost."""
        return {task for task, peer in list(self._peers.items()) if peer.data is not None}

    def wait_for_all(self, timeout_s: float, check_stop: Callable[[], None]) -> dict[Task, dict[str, Any]]:
        """Wait until every follower is ready, start them all, and return what each sent when it got ready.

        Args:
            timeout_s: Seconds to wait.
            check_stop: Is called a few times a second; what it raises ends the waiting.

        Raises:
            FailedPeerError: a follower gave up; the others have been told.
            FairwayError: not all came in time; those that did have been told.
        """
        return self._background.wait(self._gather(timeout_s), check_stop)

    def publish(self, event: dict[str, Any]) -> None:
        """Tell observers of an event, and those who come later of the last one; never waits.

        Args:
            event: What to tell; no key can be `type`.
        """
        self._background.post(partial(self._tell_event, encode("event", **event)))

    def finish(self, **data: Any) -> None:
        """Tell all that the training is over and exported, and wait a while until they have gone."""
        self._background.wait(self._end(encode("done", **data)))

    def fail(self, err: FairwayError) -> None:
        """Tell all that the training cannot go on, and wait a while until they have gone.

        Not for an error that a new start can mend: the connections just end then, and all start anew.
        """
        self._background.wait(self._end(encode_failure(err)))

    async def _open(self) -> None:
        self._news = asyncio.Event()
        self._server = await asyncio.start_server(self._accept, sock=self._listener, limit=MAX_LINE_BYTES)

    async def _close(self) -> None:
        self._closing = True
        # Python 3.11 leaks a connection that is halfway accepted
        # when its server closes: let it get there first.
        asyncio.get_running_loop().remove_reader(self._listener)
        await asyncio.sleep(0)
        self._server.close()

    async def _gather(self, timeout_s: float) -> dict[Task, dict[str, Any]]:
        clock, notice = asyncio.get_running_loop().time, Notice()
        deadline = clock() + timeout_s
        while (missing := self._missing()) or self._failure:
            if self._failure:
                await self._end(encode_failure(self._failure))
                raise self._failure
            if clock() >= deadline:
                err = self._explain(missing, timeout_s)
                await self._end(encode_failure(err))
                raise err
            notice.say(", ".join(map(self._address, missing)))
            self._news.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(min(LOOK_S, deadline - clock())):
                    await self._news.wait()
        self._started = True
        for task in self._peers:
            self._start(task)
        self._tell_observers(encode("start"))
        return {task: peer.data or {} for task, peer in self._peers.items()}

    def _missing(self) -> list[Task]:
        present = self.present
        return [task for task in self._cluster.followers if task not in present]

    def _address(self, task: Task) -> str:
        return f"{task} ({self._cluster.addresses[task]})"

    def _explain(self, missing: list[Task], timeout_s: float) -> FairwayError:
        absent = [task for task in missing if task not in self._came]
        who = ", ".join(map(self._address, absent or missing))
        host, port = self._cluster.control_address
        return FairwayError(
            f"{who} did not {'come' if absent else 'get ready'} within {timeout_s:g} s",
            hint=f"Check that it runs and reaches {reachable(host)}:{port}, or raise --peer-wait-seconds.",
        )

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # Given a coroutine, asyncio would start the task itself, and take its end for an error (Python 3.11).
        if self._closing:
            writer.transport.abort()
            return
        serving = asyncio.create_task(self._serve(reader, writer))
        self._connections.add(serving)
        serving.add_done_callback(self._connections.discard)
        serving.add_done_callback(lambda _: writer.transport.abort())  # it may be cancelled before it begins

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with Channel(reader, writer, self._silence_s) as channel:
            message = await anext(channel, None)
            match message:
                case {"type": "observe"}:
                    await self._serve_observer(channel)
                case {"type": "join", "task": str(name)}:
                    log.debug("%s joins: %s", name, message)
                    await self._serve_peer(channel, name)

    async def _serve_observer(self, channel: Channel) -> None:
        for line in (self._event, self._ending):
            if line:
                channel.send(line)
        self._observers.add(channel)
        try:
            await channel.ended()
        finally:
            self._observers.discard(channel)
            self._news.set()

    async def _serve_peer(self, channel: Channel, name: str) -> None:
        task = next((task for task in self._cluster.followers if str(task) == name), None)
        if task and task in self._peers:
            self._lose(task, RESTARTED)
        refusal = self._refusal(task, name)
        if task is None or refusal:
            channel.send(refusal)
            await channel.ended()  # it closes, so that nothing on the way to it is cut off
            return
        peer = self._peers[task] = _Peer(channel)
        self._came.add(task)
        channel.send(self._offer)
        try:
            async for message in channel:
                if self._peers.get(task) is peer:  # it has not given up or been replaced
                    self._take(task, peer, message)
        finally:
            if self._peers.get(task) is peer:
                self._lose(task, peer.leaving or channel.ending)

    def _refusal(self, task: Task | None, name: str) -> bytes:
        """Return what keeps a task from joining; empty if nothing does."""
        if task is None:
            lead = self._address(self._cluster.lead)
            return encode_failure(
                UsageError(f"{lead} knows no follower {name}", hint="Give all tasks the same TF_CONFIG.")
            )
        if self._ending:
            return self._ending
        return encode("busy") if self._started and not self._accepts_late else b""

    def _take(self, task: Task, peer: _Peer, message: Message) -> None:
        match message["type"]:
            case "ready":
                peer.data = fields(message)
                if self._started:
                    self._come_back(task)
                else:
                    self._tell_missing()
            case "leaving":
                peer.leaving = f"it was told to stop{_signal_name(message.get('signal'))}"
            case "failed":
                self._give_up(task, failure(message, who=str(task)))

    def _start(self, task: Task) -> None:
        self._peers[task].started = True
        self._peers[task].channel.send(encode("start"))

    def _come_back(self, task: Task) -> None:
        if self._peers[task].started:
            return
        self._start(task)
        self._tell(encode("back", task=str(task)), but=task)
        self._background.call(partial(self._on_back, task))

    def _give_up(self, task: Task, err: FailedPeerError) -> None:
        del self._peers[task]
        if self._started:
            self._ending = encode_failure(err)  # also for who comes from now on
            self._tell(self._ending)
            self._background.call(partial(self._on_failed, task, err))
        else:
            self._failure = err
            self._news.set()

    def _lose(self, task: Task, reason: str) -> None:
        peer = self._peers.pop(task)
        peer.channel.abort()
        if self._closing or self._ending:
            self._news.set()
            return
        is_silent = peer.channel.is_silent
        line = encode("lost", task=str(task), reason=reason, silent=is_silent)
        if peer.started:
            self._tell(line)
            self._background.call(partial(self._on_lost, task, reason, is_silent))
        elif is_silent:
            self._tell_observers(line)  # who may kill it; the others only wait for it
        if not self._started:
            self._tell_missing()

    def _tell_missing(self) -> None:
        self._news.set()
        self._tell(encode("waiting", **{"for": [self._address(task) for task in self._missing()]}))

    def _tell(self, line: bytes, but: Task | None = None) -> None:
        for task, peer in self._peers.items():
            if task != but:
                peer.channel.send(line)
        self._tell_observers(line)

    def _tell_observers(self, line: bytes) -> None:
        for observer in self._observers:
            observer.send(line)

    def _tell_event(self, line: bytes) -> None:
        self._event = line
        self._tell_observers(line)

    async def _end(self, line: bytes) -> None:
        self._ending = line
        self._tell(line)
        with suppress(TimeoutError):
            async with asyncio.timeout(FAREWELL_S):
                while self._peers or self._observers:
                    self._news.clear()
                    await self._news.wait()


def _listen(host: str, port: int) -> socket.socket:
    """Listen on the host's address, or on every one if this machine does not have it (yet)."""
    where = host
    if not _is_ours(host):
        where = "::"
        log.debug("%s is no address of this machine: listening on all of them", host)
    try:
        return listen(where, port, "TF_CONFIG")
    except FairwayError as err:
        raise FairwayError(
            err.message, hint="The control channel takes the port above that of the lead in TF_CONFIG."
        ) from err


def _is_ours(host: str) -> bool:
    try:
        with listen(host, 0, "TF_CONFIG") as probe:
            own = probe.getsockname()[0]
    except FairwayError:
        return False
    # Debian gives a machine's own name 127.0.1.1, where no other machine gets in.
    return host in (own, "localhost") or not ipaddress.ip_address(own).is_loopback


def _signal_name(number: Any) -> str:
    try:
        return f" ({signal.Signals(number).name})"
    except ValueError:
        return ""
