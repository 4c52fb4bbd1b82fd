"""Limits on the head of a request, over real sockets."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import uvicorn
import uvloop
from uvicorn.server import ServerState

from fairway.net import connection
from fairway.net.connection import MAX_HEAD_BYTES, Connection

Exchange = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
POST = b"POST / HTTP/1.1\r\nhost: m\r\ncontent-length: 3\r\n\r\n"
GET = b"GET / HTTP/1.1\r\nhost: m\r\n"

# What the application has learnt of clients that hung up.
gone: list[bool] = []


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Answer with the number of bytes in the body; for /later not at once."""
    size, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            gone.append(scope["state"]["fairway.gone"]())
            return
        size += len(message["body"])
        more = message["more_body"]
    if scope["path"] == "/later":
        await asyncio.sleep(0)
    body = b"%d" % size
    headers = [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def converse(exchange: Exchange) -> None:
    """Run a client's side of a connection, on the event loop that servers have."""

    async def run() -> None:
        config = uvicorn.Config(app, http=Connection, ws="none", log_config=None, lifespan="off")
        config.load()
        state = ServerState()
        server = await asyncio.get_running_loop().create_server(
            lambda: Connection(config=config, server_state=state, app_state={}), "127.0.0.1", 0
        )
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        async with asyncio.timeout(10):
            await exchange(reader, writer)
        writer.close()
        server.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())


async def read_reply(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    head = await reader.readuntil(b"\r\n\r\n")
    [size] = [int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.startswith(b"content-length")]
    return int(head.split(b" ")[1]), await reader.readexactly(size)


def test_a_head_of_the_usual_size_in_pieces_and_a_large_body() -> None:
    async def exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(3):
            body = b"y" * 10 * MAX_HEAD_BYTES
            head = b"POST / HTTP/1.1\r\nhost: m\r\ncontent-length: %d\r\nx: %s\r\n\r\n" % (
                len(body),
                b"x" * (MAX_HEAD_BYTES - 1000),
            )
            for part in (head[:10], head[10:1000], head[1000:], body, GET[:5]):
                writer.write(part)
                await writer.drain()
                await asyncio.sleep(0)
            assert await read_reply(reader) == (200, b"%d" % len(body))
            writer.write(GET[5:] + b"\r\n")
            assert await read_reply(reader) == (200, b"0")

    converse(exchange)


@pytest.mark.parametrize("piece", [b"x" * 1000, b"x: y\r\n" * 100])
def test_a_head_without_end(piece: bytes) -> None:
    async def exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(GET)
        sent = 0
        while not reader.at_eof() and sent < 10 * MAX_HEAD_BYTES:
            writer.write(piece)
            sent += len(piece)
            await asyncio.sleep(0.001)
            if writer.transport.is_closing():
                break
        assert sent < 3 * MAX_HEAD_BYTES

    converse(exchange)


def test_the_reason_is_told() -> None:
    async def exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(GET)
        await writer.drain()
        await asyncio.sleep(0.05)
        writer.write(b"x: " + b"y" * MAX_HEAD_BYTES)
        status, body = await read_reply(reader)
        assert status == 431
        assert (
            json.loads(body)["error"]
            == "the request line and the headers are larger than the limit of 33792 bytes"
        )
        assert await reader.read() == b""

    converse(exchange)


def test_what_is_not_http() -> None:
    async def exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n")
        status, body = await read_reply(reader)
        assert status == 400
        assert json.loads(body) == {"error": "Invalid HTTP request received."}
        assert await reader.read() == b""

    converse(exchange)


@pytest.mark.parametrize(
    ("start", "status"), [(b"", None), (GET, 408), (GET + b"\r\n" + GET, 408), (GET + b"\r\n", None)]
)
def test_a_head_that_does_not_come(start: bytes, status: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "HEAD_TIMEOUT_S", 0.1)

    async def exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(start)
        if start.count(b"\r\n\r\n"):
            assert await read_reply(reader) == (200, b"0")
            if status is None:  # uvicorn waits for the next request by itself
                await asyncio.sleep(0.2)
                writer.write(GET + b"\r\n")
                assert await read_reply(reader) == (200, b"0")
                return
        if status:
            assert (await read_reply(reader))[0] == status
        assert await reader.read() == b""

    converse(exchange)


@pytest.mark.parametrize("start", [b"", b"a", b"ab"])
def test_a_body_that_does_not_come(start: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "BODY_TIMEOUT_S", 0.1)

    async def exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(POST + b"abc")
        assert await read_reply(reader) == (200, b"3")
        writer.write(POST + start)
        status, body = await read_reply(reader)
        assert status == 408
        assert json.loads(body) == {"error": "the body did not arrive within 0.1 seconds"}
        assert await reader.read() == b""

    converse(exchange)


def test_a_body_in_pieces_stops_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "BODY_TIMEOUT_S", 0.2)

    async def exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for piece in (POST, b"a", b"b", b"c"):
            writer.write(piece)
            await asyncio.sleep(0.01)
        assert await read_reply(reader) == (200, b"3")
        await asyncio.sleep(0.25)
        writer.write(GET + b"\r\n")
        assert await read_reply(reader) == (200, b"0")

    converse(exchange)


def test_an_application_can_tell_that_the_client_is_gone() -> None:
    gone.clear()

    async def exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(POST)
        await writer.drain()
        await asyncio.sleep(0.05)
        writer.close()
        while not gone:
            await asyncio.sleep(0.01)

    converse(exchange)

    assert gone == [True]


def test_a_client_that_waits_to_be_told_to_go_on() -> None:
    async def exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(POST.replace(b"host: m", b"host: m\r\nexpect: 100-continue"))
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"abc")
        assert await read_reply(reader) == (200, b"3")

    converse(exchange)


@pytest.mark.parametrize("name", [b"Upgrade", b"upgrade"])
def test_an_offer_to_speak_another_protocol_is_ignored(name: bytes) -> None:
    offer = b"connection: Upgrade, HTTP2-Settings\r\n" + name + b": h2c\r\nhttp2-settings: AAEAAEAA\r\n"

    async def exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(2):
            writer.write(POST.replace(b"content-length", offer + b"content-length") + b"abc")
            assert await read_reply(reader) == (200, b"3")
        writer.write(POST[:-4] + b"\r\nx: upgrade:\r\n\r\n" + b"abc")
        assert await read_reply(reader) == (200, b"3")

    converse(exchange)


def test_a_body_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[bytes] = []
    monkeypatch.setattr(connection, "_without_upgrade", calls.append)

    async def exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        body = b"\r\nupgrade: x\r\n\r\n"
        writer.write(POST.replace(b"3", b"%d" % (2 * len(body))) + body)
        await writer.drain()
        await asyncio.sleep(0.05)
        writer.write(body)
        assert await read_reply(reader) == (200, b"%d" % (2 * len(body)))

    converse(exchange)

    assert calls == []


def test_empty_lines_are_not_a_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "HEAD_TIMEOUT_S", 0.1)

    async def exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"\r\n" + GET + b"\r\n")
        assert await read_reply(reader) == (200, b"0")
        writer.write(b"\r\n")
        assert await reader.read() == b""

    converse(exchange)


@pytest.mark.parametrize("rest", [b"\x00\r\n\r\n", GET + b"\r\n\x00\r\n\r\n", b""])
def test_nothing_is_written_once_the_connection_is_given_up(
    rest: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async def exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"GET /later HTTP/1.1\r\nhost: m\r\n\r\n" + rest)
        writer.write_eof()
        await reader.read()
        await asyncio.sleep(0.01)

    converse(exchange)
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == []
