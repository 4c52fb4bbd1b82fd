"""Limits on the head of a request, over real sockets."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from uvicorn.server import ServerState

from fairway.net import connection
from fairway.net.connection import MAX_HEAD_BYTES, Connection
from tests.unit.net import conversation
from tests.unit.net.conversation import Exchange

POST = b"POST / HTTP/1.1\r\nhost: m\r\ncontent-length: 3\r\n\r\n"
GET = b"GET / HTTP/1.1\r\nhost: m\r\n"
LATER = b"GET /later HTTP/1.1\r\nhost: m\r\n\r\n"

# What the application has learnt of clients that hung up.
gone: list[bool] = []
state = ServerState()


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
    conversation.converse(app, exchange, protocol=Connection, state=state)


async def read_reply(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    head, body = await conversation.read_reply(reader)
    return int(head.split(b" ")[1]), body


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


def offering(name: bytes) -> bytes:
    """Return a POST that offers to speak another protocol."""
    offer = b"connection: Upgrade, HTTP2-Settings\r\n" + name + b": h2c\r\nhttp2-settings: AAEAAEAA\r\n"
    return POST.replace(b"content-length", offer + b"content-length") + b"abc"


@pytest.mark.parametrize("name", [b"Upgrade", b"UPGRADE"])
def test_an_offer_to_speak_another_protocol_is_ignored(name: bytes) -> None:
    async def exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(2):
            writer.write(offering(name))
            assert await read_reply(reader) == (200, b"3")
        writer.write(2 * (POST + b"abc" + offering(name)) + GET + b"\r\n")
        assert [await read_reply(reader) for _ in range(5)] == 4 * [(200, b"3")] + [(200, b"0")]

    converse(exchange)


@pytest.mark.parametrize("mark", [b"pgrade, HTTP2", b"pgrade: h2c", b": h2c", b"\r\n\r\n", b"\n\r\n", b"bc"])
def test_an_offer_to_speak_another_protocol_in_two_pieces(mark: bytes) -> None:
    async def exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = offering(b"Upgrade")
        cut = request.index(mark)
        writer.write(request[:cut])
        await writer.drain()
        await asyncio.sleep(0.01)
        writer.write(request[cut:])
        assert await read_reply(reader) == (200, b"3")

    converse(exchange)


def test_who_asks_for_a_tunnel_is_refused() -> None:
    async def exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"CONNECT m:80 HTTP/1.1\r\nhost: m\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n")
        assert (await read_reply(reader))[0] == 400

    converse(exchange)


def waiting() -> int:
    """Return how many requests wait on the connection for the reply to another."""
    [each] = state.connections
    return len(each.pipeline)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "request_",
    [LATER, POST + b"abc", POST.replace(b"3", b"70000") + 70_000 * b"x"],
    ids=["get", "post", "large"],
)
def test_a_client_that_does_not_read_is_not_read_from(request_: bytes) -> None:
    async def exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(request_)
        await read_reply(reader)
        [each] = state.connections
        each.pause_writing()  # as the transport does
        count = 400_000 // len(request_)
        writer.write(count * request_)
        while each.transport.is_reading():
            await asyncio.sleep(0)
        assert waiting() < 60
        each.resume_writing()
        for _ in range(count):
            assert (await read_reply(reader))[0] == 200
            assert waiting() < 60
        assert each.transport.is_reading()

    converse(exchange)


def test_a_client_that_does_not_read_and_is_gone(caplog: pytest.LogCaptureFixture) -> None:
    async def exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(LATER)
        await read_reply(reader)
        [each] = state.connections
        each.pause_writing()  # as the transport does
        writer.write(10 * LATER)
        while not waiting():
            await asyncio.sleep(0)
        each.transport.abort()  # as if the client had reset the connection
        while state.connections or state.tasks:
            await asyncio.sleep(0)

    converse(exchange)
    assert caplog.records == []


def test_requests_in_one_piece_are_read_one_after_the_other() -> None:
    async def exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"".join(POST.replace(b"3", b"%d" % size) + size * b"x" for size in range(100, 300)))
        for size in range(100, 300):
            assert await read_reply(reader) == (200, b"%d" % size)
            assert waiting() < 20

    converse(exchange)


def end() -> None:
    """Tell the connections that the server ends."""
    for each in list(state.connections):
        each.shutdown()


def test_the_last_reply_announces_that_the_server_ends() -> None:
    async def exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(200 * LATER)  # more than are parsed at once
        await reader.readuntil(b"\r\n\r\n")
        end()
        *others, last = (await reader.read()).split(b"HTTP/1.1 200")[1:]
        assert len(others) == 198
        assert b"connection: close" not in b"".join(others)
        assert b"connection: close" in last

    converse(exchange)


@pytest.mark.parametrize("cut", [0, 10, len(POST), len(POST) + 1])
def test_a_request_that_comes_while_the_server_ends(cut: int) -> None:
    async def exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = POST + b"abc"
        writer.write(request + request[:cut])
        await read_reply(reader)
        end()
        writer.write(request[cut:])
        reply = await reader.read()
        assert reply.startswith(b"HTTP/1.1 200")
        assert b"connection: close" in reply

    converse(exchange)


@pytest.mark.parametrize("before", [b"", GET + b"\r\n"])
def test_an_idle_connection_is_closed_when_the_server_ends(
    before: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "ENDING_S", 0.05)

    async def exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(before)
        if before:
            await read_reply(reader)
        while not state.connections:
            await asyncio.sleep(0)
        end()
        assert await reader.read() == b""

    converse(exchange)


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
