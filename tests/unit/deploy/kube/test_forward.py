"""Forwarded connections, against a small server that speaks the API server's side of the protocol."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from starlette.responses import PlainTextResponse, Response
from starlette.websockets import WebSocket, WebSocketDisconnect

from fairway.deploy.kube import forward as module
from fairway.deploy.kube.client import Kube
from fairway.deploy.kube.forward import PROTOCOL, serve_forward
from fairway.errors import ClusterError, FairwayError
from tests.unit.deploy.kube.api import kube, status

Pod = Callable[[WebSocket], Awaitable[None]]
REFUSED = "error forwarding port 80 to pod x: connection refused\n"


def accepting(pod: Pod) -> Pod:
    """Do what the API server does first, then as the pod does."""

    async def accept(socket: WebSocket) -> None:
        assert socket.scope["subprotocols"] == [PROTOCOL]
        await socket.accept(PROTOCOL)
        port = struct.pack("<H", int(socket.query_params["ports"]))
        await socket.send_bytes(b"\x00" + port)
        await socket.send_bytes(b"\x01" + port)
        await pod(socket)

    return accept


async def receive(socket: WebSocket) -> bytes:
    message = await socket.receive_bytes()
    assert message[:1] == b"\x00"
    return message[1:]


async def echo_once(socket: WebSocket) -> None:
    await socket.send_bytes(b"\x00you said " + await receive(socket))
    await socket.close()


async def refuse(socket: WebSocket) -> None:
    await socket.send_bytes(b"\x01" + REFUSED.encode())
    await socket.close()


@pytest.fixture
def forwarding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Run a test with a client of such an API server."""

    def run(pod: Pod, test: Callable[[Kube], Awaitable[None]]) -> None:
        async def main() -> None:
            async with (
                asyncio.timeout(20),
                kube(tmp_path, monkeypatch, accept=accepting(pod)) as client,
            ):
                await test(client)

        asyncio.run(main())

    return run


@asynccontextmanager
async def listening(client: Kube, reported: list[str]) -> AsyncIterator[int]:
    async def pick() -> tuple[str, int]:
        return "web-1", 80

    def report(error: ClusterError) -> None:
        reported.append(error.message)

    async with serve_forward(
        client.forward, pick, host="127.0.0.1", port=0, flag="--port", report=report
    ) as port:
        yield port


async def talk(port: int, words: bytes) -> bytes:
    """Send, end sending, and return all that comes back."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(words)
    writer.write_eof()
    answer = await reader.read()
    writer.close()
    return answer


def test_a_stream_carries_bytes_both_ways(forwarding: Callable[..., None]) -> None:
    async def test(client: Kube) -> None:
        async with client.forward("web-1", 80) as stream:
            await stream.send(b"hello")
            assert await stream.receive() == b"you said hello"
            assert await stream.receive() == b""

    forwarding(echo_once, test)


def test_much_is_sent_in_small_messages(forwarding: Callable[..., None]) -> None:
    sizes: list[int] = []

    async def count(socket: WebSocket) -> None:
        while sum(sizes) < 200_000:
            sizes.append(len(await receive(socket)))
        await socket.send_bytes(b"\x00ok")
        await socket.close()

    async def test(client: Kube) -> None:
        async with client.forward("web-1", 80) as stream:
            await stream.send(b"x" * 200_000)
            assert await stream.receive() == b"ok"

    forwarding(count, test)
    assert max(sizes) == module.CHUNK


def test_what_the_error_channel_says_is_raised(forwarding: Callable[..., None]) -> None:
    async def test(client: Kube) -> None:
        async with client.forward("web-1", 80) as stream:
            await stream.receive()

    with pytest.raises(ClusterError, match="^nothing listens on port 80 of pod web-1$"):
        forwarding(refuse, test)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (status(404, 'pods "web-1" not found'), "Pod web-1 does not exist in namespace mine of context test"),
        (PlainTextResponse('pod not found ("web-1_mine")', status_code=500), "pod web-1 does not run"),
    ],
)
def test_a_pod_that_cannot_be_connected_to_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: Response, said: str
) -> None:
    async def deny(socket: WebSocket) -> None:
        await socket.send_denial_response(answer)

    async def main() -> None:
        async with kube(tmp_path, monkeypatch, accept=deny) as client:
            with pytest.raises(ClusterError, match=f"^{said}$"):
                async with client.forward("web-1", 80):
                    pass

    asyncio.run(main())


def test_an_error_of_the_caller_comes_out_as_it_is(forwarding: Callable[..., None]) -> None:
    async def test(client: Kube) -> None:
        async with client.forward("web-1", 80):
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        forwarding(echo_once, test)


def test_each_connection_is_carried_and_the_answer_not_cut_off_by_a_half_close(
    forwarding: Callable[..., None],
) -> None:
    async def slowly(socket: WebSocket) -> None:
        words = await receive(socket)
        for part in (b"you", b" said ", words):
            await asyncio.sleep(0.05)
            await socket.send_bytes(b"\x00" + part)
        await socket.close()

    async def test(client: Kube) -> None:
        reported: list[str] = []
        async with listening(client, reported) as port:
            answers = await asyncio.gather(*(talk(port, f"{n}".encode()) for n in range(20)))
        assert answers == [f"you said {n}".encode() for n in range(20)]
        assert reported == []

    forwarding(slowly, test)


def test_a_failure_closes_only_its_connection_and_is_told_once(forwarding: Callable[..., None]) -> None:
    is_up = False

    async def now_and_then(socket: WebSocket) -> None:
        await (echo_once if is_up else refuse)(socket)

    async def test(client: Kube) -> None:
        nonlocal is_up
        reported: list[str] = []
        async with listening(client, reported) as port:
            assert [await talk(port, b"a") for _ in range(3)] == [b"", b"", b""]
            assert reported == ["nothing listens on port 80 of pod web-1"]
            is_up = True
            assert await talk(port, b"b") == b"you said b"
            is_up = False
            assert await talk(port, b"c") == b""
            assert len(reported) == 2

    forwarding(now_and_then, test)


def test_a_client_that_has_gone_does_not_hold_the_pods_connection(
    forwarding: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SILENCE_S", 0.1)
    gone = asyncio.Event()

    async def wait(socket: WebSocket) -> None:
        try:
            while True:
                await receive(socket)
        except WebSocketDisconnect:
            gone.set()

    async def test(client: Kube) -> None:
        async with listening(client, []) as port:
            assert await talk(port, b"a") == b""
            await gone.wait()

    forwarding(wait, test)


def test_connections_that_are_open_end_with_the_listener(forwarding: Callable[..., None]) -> None:
    async def flood(socket: WebSocket) -> None:
        try:
            while True:
                await socket.send_bytes(b"\x00" + bytes(32_000))
        except (WebSocketDisconnect, OSError, RuntimeError):
            pass

    async def test(client: Kube) -> None:
        async with listening(client, []) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            await reader.readexactly(1_000_000)
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await reader.readexactly(1 << 40)
        writer.close()

    forwarding(flood, test)


def test_a_port_that_is_taken_is_told(forwarding: Callable[..., None]) -> None:
    async def test(client: Kube) -> None:
        async with listening(client, []) as port:
            with pytest.raises(FairwayError, match=f"port {port} on 127.0.0.1 is taken"):
                async with serve_forward(
                    client.forward,
                    lambda: asyncio.sleep(0, ("x", 1)),
                    host="127.0.0.1",
                    port=port,
                    flag="--port",
                    report=lambda _: None,
                ):
                    pass

    forwarding(echo_once, test)
