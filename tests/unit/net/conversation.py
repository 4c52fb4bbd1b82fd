"""A client's side of a connection, over a real socket and on the event loop that servers have."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import uvicorn
import uvloop
from uvicorn.server import ServerState

from fairway.net.connection import Connection

Exchange = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def converse(
    app: Any,
    exchange: Exchange,
    *,
    protocol: type[Connection],
    state: ServerState,
    keep_alive_s: float = 5,
) -> None:
    """Run an exchange with an application that is served by a protocol."""

    async def run() -> None:
        config = uvicorn.Config(
            app, http=protocol, ws="none", log_config=None, lifespan="off", proxy_headers=False
        )
        config.timeout_keep_alive = keep_alive_s  # type: ignore[assignment]
        config.load()
        server = await asyncio.get_running_loop().create_server(
            lambda: protocol(config=config, server_state=state, app_state={}), "127.0.0.1", 0
        )
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        try:
            async with asyncio.timeout(10):
                await exchange(reader, writer)
        finally:
            writer.close()
            server.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())


async def read_reply(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """Return head and body of the next reply."""
    head = await reader.readuntil(b"\r\n\r\n")
    [size] = [int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.startswith(b"content-length")]
    return head, await reader.readexactly(size)
