"""Connections to ports of pods, through the API server.

One WebSocket carries one TCP connection. Every message begins with the number of its channel: 0 has the
data, 1 an error's text; the first message of each has only the port's number.
Source: https://github.com/kubernetes/kubernetes/blob/master/staging/src/k8s.io/kubelet/pkg/cri/streaming/portforward/websocket.go
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import anyio
import httpx2
from httpx2.websockets import (
    AsyncWebSocketSession,
    WebSocketDisconnect,
    WebSocketNetworkError,
    WebSocketUpgradeError,
)
from wsproto.utilities import LocalProtocolError

from fairway.deploy.kube.errors import AwayError, Target, refused, unreachable
from fairway.errors import ClusterError
from fairway.net.ports import listen

PROTOCOL = "v4.channel.k8s.io"
DATA, ERROR = b"\x00", b"\x01"
CHUNK = 32 * 1024
MAX_MESSAGE = 16 * 1024 * 1024
TIMEOUT = httpx2.Timeout(10.0, connect=5.0)
SILENCE_S = 120.0
"""A client that has sent all it wants may have gone altogether, which cannot be seen; after this time without
an answer it counts as gone."""

Open = Callable[[str, int], AbstractAsyncContextManager["PodStream"]]
PickPod = Callable[[], Awaitable[tuple[str, int]]]


class PodStream:
    """A TCP connection to a pod, made by `open_stream`."""

    def __init__(self, socket: AsyncWebSocketSession, port: int, target: Target) -> None:
        self._socket, self._port, self._target = socket, port, target
        self._begun: set[bytes] = set()

    async def send(self, data: bytes) -> None:
        """Send bytes.

        Raises:
            AwayError: the connection is closed or broken.
        """
        try:
            for start in range(0, len(data), CHUNK):
                await self._socket.send_bytes(DATA + data[start : start + CHUNK])
        except (WebSocketNetworkError, LocalProtocolError, anyio.ClosedResourceError) as err:
            raise self._broken() from err

    async def receive(self) -> bytes:
        """Return the next bytes; none when the pod has closed the connection.

        Raises:
            ClusterError: the pod cannot be reached, most often as nothing listens on that port.
        """
        while True:
            try:
                message = await self._socket.receive_bytes()
            except WebSocketDisconnect:
                return b""
            except (WebSocketNetworkError, anyio.EndOfStream, anyio.ClosedResourceError) as err:
                raise self._broken() from err
            channel, content = message[:1], message[1:]
            if channel not in self._begun:
                self._begun.add(channel)
            elif channel == ERROR and content:
                raise self._failed(content.decode(errors="replace"))
            elif channel == DATA and content:
                return content

    def _broken(self) -> AwayError:
        return AwayError(f"the connection to port {self._port} of pod {self._target.name} broke")

    def _failed(self, text: str) -> ClusterError:
        said = " ".join(text.split())
        if "refused" in said:
            return ClusterError(
                f"nothing listens on port {self._port} of pod {self._target.name}",
                hint=f"See: kubectl --context {self._target.context} -n {self._target.namespace}"
                f" logs {self._target.name}",
            )
        return ClusterError(f"port {self._port} of pod {self._target.name} cannot be reached: {said}")


@asynccontextmanager
async def open_stream(
    http: httpx2.AsyncClient, path: str, port: int, target: Target
) -> AsyncIterator[PodStream]:
    """Open a TCP connection to a port of a pod.

    Args:
        http: Client of the API server.
        path: The pod's `portforward`.
        port: Of the pod.
        target: The pod, for messages.

    Raises:
        ClusterError: there is no such pod, or it does not run.
    """
    try:
        async with http.websocket(
            path,
            subprotocols=[PROTOCOL],
            params={"ports": str(port)},
            timeout=TIMEOUT,
            max_message_size_bytes=MAX_MESSAGE,
            keepalive_ping_interval_seconds=None,  # TCP's own keep-alive asks no reader to be awake
        ) as socket:
            yield PodStream(socket, port, target)
    except WebSocketUpgradeError as err:
        raise _not_opened(err.response, target) from err
    except httpx2.HTTPError as err:
        raise unreachable(err, target) from err
    except BaseExceptionGroup as group:  # the WebSocket's task group wraps whatever the caller raised
        if len(group.exceptions) == 1:
            raise group.exceptions[0] from None
        raise


def _not_opened(response: httpx2.Response, target: Target) -> ClusterError:
    if response.status_code == httpx2.codes.INTERNAL_SERVER_ERROR and b"pod not found" in response.content:
        return ClusterError(  # the kubelet's word for a pod that has no container yet, or none any more
            f"pod {target.name} does not run",
            hint=f"See: kubectl --context {target.context} -n {target.namespace} describe pod {target.name}",
        )
    return refused(response.status_code, response.content, target)


@asynccontextmanager
async def serve_forward(
    open_pod: Open,
    pick_pod: PickPod,
    *,
    host: str,
    port: int,
    flag: str,
    report: Callable[[ClusterError], None],
) -> AsyncIterator[int]:
    """Listen, and carry every connection to a pod that is chosen when it comes.

    Args:
        open_pod: `Kube.forward`.
        pick_pod: Returns name and port of the pod; raises `ClusterError` where there is none.
        host: Address to listen on.
        port: 0 takes a free one.
        flag: The flag that sets the port, for messages.
        report: Gets the error of a connection that failed, once until another error or a success.

    Yields:
        The port.

    Raises:
        FairwayError: the port is taken.
    """
    listener = listen(host, port, flag)
    forwarder = _Forwarder(open_pod, pick_pod, report)
    try:
        server = await asyncio.start_server(forwarder.accept, sock=listener)
    except BaseException:
        listener.close()
        raise
    try:
        yield int(listener.getsockname()[1])
    finally:
        server.close()
        await forwarder.close()
        await server.wait_closed()


class _Forwarder:
    def __init__(self, open_pod: Open, pick_pod: PickPod, report: Callable[[ClusterError], None]) -> None:
        self._open_pod, self._pick_pod, self._report = open_pod, pick_pod, report
        self._reported: str | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Begin to carry a connection."""
        # Python 3.11 logs a traceback when a task of its own is cancelled.
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """End all connections."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            pod, port = await self._pick_pod()
            async with self._open_pod(pod, port) as stream:
                await _carry(reader, writer, stream)
            self._reported = None
        except ClusterError as err:
            if err.message != self._reported:
                self._reported = err.message
                self._report(err)
        except (TimeoutError, ConnectionError):
            pass  # the client has gone
        except asyncio.CancelledError:
            writer.transport.abort()  # a client that does not read would keep us
            raise
        finally:
            writer.close()


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, stream: PodStream) -> None:
    """Carry bytes both ways until the pod closes.

    Raises:
        ClusterError: the pod cannot be reached.
        TimeoutError: the client has sent all, and the pod has been silent since.
        ConnectionError: the client has gone.
    """
    clock = asyncio.get_running_loop().time
    async with asyncio.timeout(None) as limit:
        upload = asyncio.create_task(_upload(reader, stream, limit))
        try:
            while data := await stream.receive():
                writer.write(data)
                await writer.drain()
                if upload.done():
                    limit.reschedule(clock() + SILENCE_S)
        finally:
            upload.cancel()
            await asyncio.gather(upload, return_exceptions=True)


async def _upload(reader: asyncio.StreamReader, stream: PodStream, limit: asyncio.Timeout) -> None:
    """Carry what the client sends; then leave the connection open for the answer, for a while."""
    clock, left_s = asyncio.get_running_loop().time, SILENCE_S
    try:
        while data := await reader.read(CHUNK):
            await stream.send(data)
    except AwayError:
        pass  # `receive` tells why
    except ConnectionError:
        left_s = 0.0
    limit.reschedule(clock() + left_s)
