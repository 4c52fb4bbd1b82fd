"""Requests that are answered at once, over real sockets, and those that must not be."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from uvicorn.server import ServerState

from fairway.net import connection
from fairway.net.connection import MAX_HEAD_BYTES
from fairway.net.direct import DirectConnection
from tests.unit.net import conversation
from tests.unit.net.conversation import Exchange, read_reply

POST = b"POST /m HTTP/1.1\r\nhost: m\r\ncontent-length: 3\r\n\r\nabc"
state = ServerState()
state.default_headers = [(b"date", b"today")]
LATER = POST.replace(b"/m", b"/later")


class App:
    """Says which way a request has gone; for /later ASGI's, and not before the next turn of the loop."""

    def answer_at_once(
        self, target: bytes, headers: list[tuple[bytes, bytes]], body: bytes, peer: str, state: Any
    ) -> tuple[bytes, bytes] | None:
        assert peer == "127.0.0.1"
        assert dict(headers)[b"host"] == b"m"
        assert b"content-encoding" not in dict(headers)
        state["left"] = b"left "
        return None if target == b"/later" else (b"x-way: direct\r\n", b"direct " + body)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body, more = b"asgi " + scope["state"].get("left", b""), True
        assert b"content-encoding" not in dict(scope["headers"])
        while more:
            message = await receive()
            body += message["body"]
            more = message["more_body"]
        if scope["path"] == "/later":
            await asyncio.sleep(0)
        headers = [(b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})


def converse(exchange: Exchange, keep_alive_s: float = 5) -> None:
    """Run a client's side of a connection, on the event loop that servers have."""
    conversation.converse(App(), exchange, protocol=DirectConnection, state=state, keep_alive_s=keep_alive_s)


def replies_to(*pieces: bytes, count: int = 1) -> list[bytes]:
    """Return the bodies of the replies to what is sent piece by piece."""
    bodies: list[bytes] = []

    async def exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0.01)  # so that they arrive as they are sent
        bodies.extend([(await read_reply(reader))[1] for _ in range(count)])

    converse(exchange)
    return bodies


def test_the_reply_is_whole() -> None:
    async def exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(3):
            writer.write(POST)
            head, body = await read_reply(reader)
            assert head == b"HTTP/1.1 200 OK\r\ndate: today\r\nx-way: direct\r\ncontent-length: 10\r\n\r\n"
            assert body == b"direct abc"

    converse(exchange)


def test_what_it_does_not_answer_goes_the_usual_way() -> None:
    assert replies_to(LATER) == [b"asgi left abc"]


@pytest.mark.parametrize("cut", [10, len(POST) - 3, len(POST) - 1])
def test_a_request_in_two_pieces(cut: int) -> None:
    [reply] = replies_to(POST[:cut], POST[cut:])
    assert reply == (b"asgi abc" if b"\r\n\r\n" in POST[:cut] else b"direct abc")


def test_a_body_in_chunks() -> None:
    head = POST.partition(b"\r\n\r\n")[0].replace(b"content-length: 3", b"transfer-encoding: chunked")
    assert replies_to(head + b"\r\n\r\n1\r\na\r\n2\r\nbc\r\n0\r\n\r\n") == [b"direct abc"]


@pytest.mark.parametrize("path", [b"/m", b"/later"])
def test_what_comes_behind_the_body_is_not_a_header(path: bytes) -> None:
    head = POST.partition(b"\r\n\r\n")[0].replace(b"content-length: 3", b"transfer-encoding: chunked")
    chunks = b"\r\n\r\n3\r\nabc\r\n0\r\ncontent-encoding: br\r\n\r\n"
    [reply, _] = replies_to(head.replace(b"/m", path) + chunks, POST, count=2)
    assert reply == (b"direct abc" if path == b"/m" else b"asgi left abc")


@pytest.mark.parametrize("target", [b"http://m", b"http://m:99999999/m", b"?m"])
@pytest.mark.parametrize("cut", [0, 3])
def test_what_is_no_path_is_refused(target: bytes, cut: int) -> None:
    request = POST.replace(b"/m", target)
    [reply] = replies_to(request[:-cut] if cut else request)
    assert reply == b'{"error": "Invalid HTTP request received."}'


def test_many_that_come_together_are_all_answered_at_once() -> None:
    assert replies_to(100 * POST, count=100) == 100 * [b"direct abc"]
    long = POST.replace(b"3", b"3000") + b"x" * 2997
    assert replies_to(20 * long, count=20) == 20 * [b"direct abc" + b"x" * 2997]


def test_what_comes_together_is_answered_in_order() -> None:
    assert replies_to(POST + LATER + POST + POST[:-1], b"d", count=4) == [
        b"direct abc",
        b"asgi left abc",
        b"asgi abc",
        b"asgi abd",
    ]


def test_after_the_usual_way_it_answers_again() -> None:
    assert replies_to(LATER, POST, count=2) == [b"asgi left abc", b"direct abc"]


@pytest.mark.parametrize(
    "request_",
    [
        POST.replace(b"1.1", b"1.0"),
        POST.replace(b"host: m", b"host: m\r\nconnection: close"),
        POST.replace(b"POST", b"PUT"),
    ],
    ids=["1.0", "close", "put"],
)
def test_what_is_out_of_the_ordinary_goes_the_usual_way(request_: bytes) -> None:
    assert replies_to(request_) == [b"asgi abc"]


def test_who_waits_for_permission_to_send_a_body_gets_it() -> None:
    async def exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(POST[:-3].replace(b"host: m", b"host: m\r\nexpect: 100-continue"))
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100")
        writer.write(b"abc")
        assert (await read_reply(reader))[1] == b"asgi abc"

    converse(exchange)


def test_a_client_that_does_not_read_is_not_read_from() -> None:
    async def exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(POST)
        await read_reply(reader)
        [each] = state.connections
        each.pause_writing()  # as the transport does
        count = 400_000 // len(POST)
        writer.write(count * POST)
        while each.transport.is_reading():
            await asyncio.sleep(0)
        assert len(each.pipeline) < 60  # type: ignore[union-attr]
        each.resume_writing()
        for _ in range(count):
            assert (await read_reply(reader))[1] == b"asgi abc"

    converse(exchange)


def test_an_idle_connection_is_closed_in_time() -> None:
    async def exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(2):
            writer.write(POST)
            await read_reply(reader)
        assert await reader.read() == b""

    converse(exchange, keep_alive_s=0.05)


def test_a_head_that_does_not_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "HEAD_TIMEOUT_S", 0.05)

    async def exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(POST + POST[:10])
        assert (await read_reply(reader))[1] == b"direct abc"
        assert b"408" in await reader.read()

    converse(exchange)


def test_the_size_of_heads_does_not_add_up() -> None:
    long = POST.replace(b"host: m", b"host: m\r\nx: " + b"x" * 10_000)

    async def exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(2 * MAX_HEAD_BYTES // len(long)):
            writer.write(long)
            assert (await read_reply(reader))[1] == b"direct abc"

    converse(exchange)


@pytest.mark.parametrize("pieces", [[POST, b"\r\n"], [POST + POST], [POST + POST, b"\r\n"]])
def test_an_idle_connection_has_one_timer(pieces: list[bytes]) -> None:
    timers: list[asyncio.TimerHandle] = []

    async def exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        [each] = state.connections
        call_later = loop.call_later

        def note(*args: Any) -> asyncio.TimerHandle:
            timers.append(call_later(*args))
            return timers[-1]

        each.loop = SimpleNamespace(call_later=note, create_task=loop.create_task)  # type: ignore[assignment]
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0.01)
        [timer] = [timer for timer in timers if not timer.cancelled()]
        assert timer is each.timeout_keep_alive_task  # type: ignore[union-attr]

    converse(exchange)


def test_a_request_that_is_being_answered_is_not_idle() -> None:
    async def exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(POST + POST[:-1])
        await read_reply(reader)
        await asyncio.sleep(0.1)
        writer.write(b"d")
        assert (await read_reply(reader))[1] == b"asgi abd"

    converse(exchange, keep_alive_s=0.05)


def test_the_reply_announces_that_the_server_ends() -> None:
    async def exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(POST)
        await read_reply(reader)
        for each in list(state.connections):
            each.shutdown()
        writer.write(2 * POST)
        first, last = (await reader.read()).split(b"HTTP/1.1 200")[1:]
        assert b"connection: close" not in first
        assert b"connection: close" in last

    converse(exchange)
