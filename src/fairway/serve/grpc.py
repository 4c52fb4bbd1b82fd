"""TensorFlow Serving's gRPC API, with gRPC's health and reflection services, on an event loop of its own.

grpcio's other server hands each call from thread to thread, four times: side by side on two busy cores a call
took 524 µs of CPU time there and 362 on uvloop, the model left out. And a client that sends no message would
hold one of its threads.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING

import grpc
import grpc.aio
import uvloop
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection, reflection_pb2

from fairway.errors import FairwayError, UsageError, first_line
from fairway.net.ports import available, listen
from fairway.serve.body import MAX_BODY_BYTES
from fairway.serve.health import SERVICE as HEALTH_SERVICE
from fairway.serve.health import Health
from fairway.serve.rpc import MODEL_SERVICE, PREDICTION_SERVICE, Method, Reload, Services, UnderWay
from fairway.tfs.protos import pool

if TYPE_CHECKING:
    from fairway.serve.access import AccessLog
    from fairway.serve.compute.predictor import Predictor
    from fairway.serve.metrics import Metrics
    from fairway.serve.versions.models import Models
    from fairway.tfs.configs import TlsFiles

ChannelArguments = tuple[tuple[str, str | int], ...]

# How long those who watch the health wait for news.
_POLL_S = 0.2
# Streams of a connection beyond the predictions that it may have wait: health, watchers, status.
_OTHER_CALLS = 100
# How long a reply takes that was handed to gRPC.
_FLUSH_S = 0.2


@dataclass(frozen=True)
class GrpcOptions:
    """How a server listens and works.

    Attributes:
        tls: Key and certificates; `None` is without encryption.
        channel_arguments: Settings of gRPC itself, which win over ours.
        reuse_port: Whether other processes listen on the same port; without it a port that is taken is an
            error.
        socket_path: A Unix socket on which the server listens, too, without TLS; empty for none. Of several
            processes only one can have it.
        max_pending: Predictions that wait or are computed at a time; more are refused.
        at_a_time: Predictions that are computed at a time; `None`: all that are taken on.
    """

    tls: TlsFiles | None = None
    channel_arguments: ChannelArguments = ()
    reuse_port: bool = False
    socket_path: str = ""
    max_pending: int = 1000
    at_a_time: int | None = None


def parse_channel_arguments(text: str) -> ChannelArguments:
    """Return the settings in `name=value,name=value`; values that look like integers are.

    Raises:
        UsageError: a part is not of that form.
    """
    arguments: list[tuple[str, str | int]] = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, equals, value = part.partition("=")
        if not equals or not name:
            raise UsageError(
                f"grpc_channel_arguments has {part!r}, which is not a name and a value",
                hint="Write them as grpc.max_connection_age_ms=2000,grpc.keepalive_time_ms=1000",
            )
        arguments.append((name, int(value) if _is_integer(value) else value))
    return tuple(arguments)


def _is_integer(value: str) -> bool:
    return value.removeprefix("-").isdecimal() and value.isascii()


class GrpcServer:
    """The gRPC API of one process.

    Args:
        models: Knows what serves.
        predictor: Computes.
        metrics: Counts.
        options: How to listen and work.
        reload: Takes the models of a reload request; blocks, and may raise `RequestError`.
        access: Where each call is logged; `None` where that is not wanted.
    """

    def __init__(
        self,
        models: Models,
        predictor: Predictor,
        metrics: Metrics,
        options: GrpcOptions,
        reload: Reload,
        access: AccessLog | None,
    ) -> None:
        self._options = options
        self._health = Health(models, (PREDICTION_SERVICE,))
        self._under_way = UnderWay()
        self._services = Services(
            models, predictor, metrics, reload, access, self._under_way, options.at_a_time
        )
        metrics.add_pending(lambda: predictor.pending)
        self._thread = threading.Thread(target=self._run, name="grpc", daemon=True)
        self._address: tuple[str, int] = "", 0
        self._bound: Future[int] = Future()
        self._stop: Callable[[float], object] = lambda _: None

    def start(self, host: str, port: int) -> int:
        """Listen and answer.

        Args:
            host: Address or name to listen on.
            port: 0 takes a free one.

        Returns:
            The port.

        Raises:
            FairwayError: the port, the Unix socket, the key or the certificates cannot be used.
        """
        self._address = host, port
        self._thread.start()
        try:
            return self._bound.result()
        except FairwayError:
            self._thread.join()
            raise

    def stop(self, drain_s: float) -> None:
        """End: refuse calls, answer what was asked within so many seconds, cancel the rest."""
        self._stop(drain_s)
        self._thread.join()

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        server = self._build()
        try:
            bound = self._listen(server, *self._address)
            await server.start()
        except BaseException as err:
            await server.stop(None)
            self._bound.set_exception(err)
            return
        loop, stopping = asyncio.get_running_loop(), asyncio.get_running_loop().create_future()
        self._stop = lambda drain_s: loop.call_soon_threadsafe(stopping.set_result, drain_s)
        self._bound.set_result(bound)
        while not stopping.done():
            await self._health.refresh()
            self._under_way.give_up_late()
            await asyncio.wait([stopping], timeout=_POLL_S)
        await self._end(server, stopping.result())

    async def _end(self, server: grpc.aio.Server, drain_s: float) -> None:
        """Answer what was asked, refuse the rest.

        From `server.stop` on gRPC cancels what arrives. It tells clients to go and waits until all of their
        connections are closed, which those of clients that watch or say nothing never are.
        """
        await self._health.drain()
        stopped = await self._under_way.end_with(server.stop(drain_s))
        await self._under_way.finish(drain_s)
        await asyncio.wait([stopped], timeout=_FLUSH_S)
        await server.stop(None)
        await stopped

    def _build(self) -> grpc.aio.Server:
        defaults: dict[str, str | int] = {
            "grpc.max_receive_message_length": MAX_BODY_BYTES,  # TensorFlow Serving has no limit below 2 GiB
            "grpc.max_send_message_length": -1,
            "grpc.so_reuseport": int(self._options.reuse_port),
            "grpc.max_concurrent_streams": self._options.max_pending + _OTHER_CALLS,
        }
        return grpc.aio.server(
            handlers=(_Calls(self._services.methods()), self._health.handler(), _reflection()),
            options=tuple((defaults | dict(self._options.channel_arguments)).items()),
        )

    def _listen(self, server: grpc.aio.Server, host: str, port: int) -> int:
        bound = _listen_on_port(server, host, port, self._options)
        if self._options.socket_path:
            _listen_on_socket(server, self._options.socket_path)
        return bound


def _listen_on_port(server: grpc.aio.Server, host: str, port: int, options: GrpcOptions) -> int:
    credentials = _credentials(options.tls) if options.tls else None
    address = _address(host, port)
    try:
        if credentials:
            return int(server.add_secure_port(address, credentials))
        return int(server.add_insecure_port(address))
    except RuntimeError as err:
        # Says what is wrong with the port, if it is the port.
        listen(host, port, "--port", shared=options.reuse_port).close()
        if credentials:
            raise FairwayError(
                "the server_key, server_cert or custom_ca of the SSLConfig cannot be used",
                hint="Check that they are PEM texts and the key is the certificate's: --ssl_config_file.",
            ) from err
        raise FairwayError(f"cannot listen on {address}: {first_line(err)}", hint="Set --host.") from err


class _Calls:
    """Finds the method of a call."""

    def __init__(self, methods: Sequence[Method]) -> None:
        # On the wire the same as one message; but a method that reads it itself can limit the time it takes.
        handler = grpc.stream_unary_rpc_method_handler
        self._handlers = {method.path: handler(method.__call__) for method in methods}

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        """Return how a call is answered; `None` for a path that is not ours."""
        return self._handlers.get(details.method)


def _reflection() -> grpc.GenericRpcHandler:
    """Return the reflection service: which services there are, and their messages."""
    descriptors = pool()
    for module in (health_pb2, reflection_pb2):
        descriptors.AddSerializedFile(module.DESCRIPTOR.serialized_pb)
    services = (PREDICTION_SERVICE, MODEL_SERVICE, HEALTH_SERVICE, reflection.SERVICE_NAME)
    servicer = reflection.aio.ReflectionServicer(services, descriptors)
    return grpc.method_handlers_generic_handler(
        reflection.SERVICE_NAME,
        {
            "ServerReflectionInfo": grpc.stream_stream_rpc_method_handler(
                servicer.ServerReflectionInfo,
                reflection_pb2.ServerReflectionRequest.FromString,
                reflection_pb2.ServerReflectionResponse.SerializeToString,
            )
        },
    )


def _credentials(tls: TlsFiles) -> grpc.ServerCredentials:
    if tls.client_verify and not tls.custom_ca:
        raise FairwayError(
            "client_verify is set, but there is no custom_ca to verify clients' certificates with",
            hint="Put the authority's certificate into the SSLConfig: --ssl_config_file.",
        )
    return grpc.ssl_server_credentials(
        [(tls.server_key.encode(), tls.server_cert.encode())],
        root_certificates=tls.custom_ca.encode() or None,
        require_client_auth=tls.client_verify,
    )


def _address(host: str, port: int) -> str:
    """Return one address to listen on: of several, gRPC would be content with those that are free."""
    host = available(host)
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as err:
        raise FairwayError(f"cannot listen on host {host}: {err.strerror}", hint="Set --host.") from err
    address = found[0][4][0]
    return f"[{address}]:{port}" if found[0][0] is socket.AF_INET6 else f"{address}:{port}"


def _listen_on_socket(server: grpc.aio.Server, path: str) -> None:
    if _answers(path):
        raise FairwayError(
            f"another process listens on the Unix socket {path}",
            hint="End that process, or choose another path with --grpc_socket_path.",
        )
    try:
        server.add_insecure_port(f"unix:{path}")
    except RuntimeError as err:
        raise FairwayError(
            f"cannot listen on the Unix socket {path}",
            hint="Choose a path of at most 100 characters in a directory that can be written to, "
            "where no other file is, with --grpc_socket_path.",
        ) from err


def _answers(path: str) -> bool:
    """Tell whether somebody listens: gRPC would take the path away from them without a word."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        try:
            client.connect(path)
        except OSError:
            return False
    return True
