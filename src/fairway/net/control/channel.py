"""One connection of the control channel: lines out, messages in, and pings that tell who is silent."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from types import TracebackType

from fairway.net.control.messages import MAX_LINE_BYTES, PING_S, Message, decode, encode

FLUSH_S = 1.0
"""How long the last words may take to leave."""
PINGS_PER_SILENCE = 5
_PING = encode("ping")


class Channel:
    """Messages to and from one peer; to be entered, and iterated until one of the two ends it.

    Args:
        reader: The connection's, with `MAX_LINE_BYTES` as its limit.
        writer: The connection's.
        silence_s: Seconds without a word after which the peer counts as gone.

    Attributes:
        is_silent: Whether the iteration ended because nothing was heard from the peer, which may hang.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, silence_s: float) -> None:
        self.is_silent = False
        self._reader = reader
        self._writer = writer
        self._silence_s = silence_s
        self._unheard = 0

    async def __aenter__(self) -> Channel:
        self._pinger = asyncio.create_task(self._ping())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, err: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pinger.cancel()
        self._writer.close()
        try:
            with suppress(OSError):  # TimeoutError is one
                async with asyncio.timeout(FLUSH_S):
                    await self._writer.wait_closed()
        finally:
            self.abort()

    @property
    def ending(self) -> str:
        """Why the iteration ended, in words."""
        return (
            f"nothing heard from it for {self._silence_s:g} s" if self.is_silent else "its connection ended"
        )

    def __aiter__(self) -> Channel:
        return self

    async def __anext__(self) -> Message:
        while message := await self._read():
            self._unheard = 0
            if message["type"] != "ping":
                return message
        raise StopAsyncIteration

    async def ended(self) -> None:
        """Wait until the peer ends the connection, or is silent for too long."""
        async for _ in self:
            pass

    def send(self, line: bytes) -> None:
        """Send a line without ever waiting; a peer that has left too much unread is cut off."""
        if self._writer.is_closing():
            return
        self._writer.write(line)
        if self._writer.transport.get_write_buffer_size() > MAX_LINE_BYTES:
            self.abort()

    def abort(self) -> None:
        """End the connection at once."""
        self._writer.transport.abort()

    async def _read(self) -> Message | None:
        try:
            return decode(await self._reader.readline())
        except (OSError, ValueError):  # reset, or a line beyond the limit
            return None

    async def _ping(self) -> None:
        # Silence is counted in pings, not by the clock: a pause of this process is not the peer's.
        interval_s = min(PING_S, self._silence_s / PINGS_PER_SILENCE)
        while self._unheard * interval_s < self._silence_s:
            self._unheard += 1
            self.send(_PING)
            await asyncio.sleep(interval_s)
        self.is_silent = True
        self.abort()


async def dial(host: str, port: int, silence_s: float, timeout_s: float) -> Channel | None:
    """Return a channel to a server; None if none answers within `timeout_s` seconds."""
    try:
        async with asyncio.timeout(timeout_s):
            reader, writer = await asyncio.open_connection(host, port, limit=MAX_LINE_BYTES)
    except OSError:
        return None
    if writer.get_extra_info("sockname") == writer.get_extra_info("peername"):
        # Nobody listens, and the system chose that very port for this end: TCP connects it to itself.
        writer.transport.abort()
        return None
    return Channel(reader, writer, silence_s)
