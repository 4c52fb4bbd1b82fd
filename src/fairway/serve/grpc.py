"""TensorFlow Serving's gRPC API, with gRPC's health and reflection services, as a server with threads.

grpcio's other server, on asyncio, takes half as much CPU time again for each call.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import grpc
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection, reflection_pb2

from fairway.errors import FairwayError, UsageError, first_line
from fairway.net.ports import available, claim_port
from fairway.serve.body import MAX_BODY_BYTES
from fairway.serve.health import SERVICE as HEALTH_SERVICE
from fairway.serve.health import Health
from fairway.serve.pools import CountingPool, InPool
from fairway.serve.rpc import MODEL_SERVICE, PREDICTION_SERVICE, Method, Reload, Services
from fairway.tfs.protos import pool

if TYPE_CHECKING:
    from fairway.serve.access import AccessLog
    from fairway.serve.metrics import Metrics
    from fairway.serve.models import Models
    from fairway.serve.predictor import Predictor
    from fairway.tfs.configs import TlsFiles

ChannelArguments = tuple[tuple[str, str | int], ...]

# How long those who watch the health wait for news.
_POLL_S = 0.2
# Calls beyond the predictions that wait: health, watchers, status. Each holds some memory.
_OTHER_CALLS = 1000


@dataclass(frozen=True)
class GrpcOptions:
    """How a server listens and works.

    Attributes:
        threads: Calls that are answered at a time.
        tls: Key and certificates; `None` is without encryption.
        channel_arguments: Settings of gRPC itself, which win over ours.
        reuse_port: Whether other processes listen on the same port; without it a port that is taken is an
            error.
        socket_path: A Unix socket on which the server listens, too, without TLS; empty for none. Of several
            processes only one can have it.
        max_pending: Predictions that wait or are computed at a time; more are refused.
    """

    threads: int = 8
    tls: TlsFiles | None = None
    channel_arguments: ChannelArguments = ()
    reuse_port: bool = False
    socket_path: str = ""
    max_pending: int = 1000


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
        self._pool = CountingPool(options.threads, "grpc")
        self._aside = ThreadPoolExecutor(1, thread_name_prefix="grpc-aside")
        self._health = Health(models, (PREDICTION_SERVICE,))
        services = Services(models, predictor, metrics, reload, access)
        self._arrivals = services.arrivals
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="grpc-watch", daemon=True)
        metrics.add_pending(lambda: predictor.pending + max(0, self._pool.pending - options.threads))
        self._server = self._build(services.methods())

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
        credentials = _credentials(self._options.tls) if self._options.tls else None
        try:
            bound = self._listen(host, port, credentials)
            if self._options.socket_path:
                _listen_on_socket(self._server, self._options.socket_path)
        except FairwayError:
            self._close()
            raise
        self._health.refresh()
        self._server.start()
        self._thread.start()
        return bound

    def stop(self, drain_s: float) -> None:
        """End: take on no call, answer what was asked within so many seconds, cancel the rest."""
        self._stopping.set()
        self._thread.join()
        self._health.drain()
        self._server.stop(drain_s).wait()
        self._close()

    def _watch(self) -> None:
        while not self._stopping.wait(_POLL_S):
            self._health.refresh()
            self._arrivals.give_up()

    def _close(self) -> None:
        self._server.stop(None)
        self._health.close()
        for executor in (self._pool, self._aside):
            executor.shutdown(wait=False, cancel_futures=True)

    def _build(self, methods: Sequence[Method]) -> grpc.Server:
        defaults: dict[str, str | int] = {
            "grpc.max_receive_message_length": MAX_BODY_BYTES,  # TensorFlow Serving has no limit below 2 GiB
            "grpc.max_send_message_length": -1,
            "grpc.so_reuseport": int(self._options.reuse_port),
        }
        return grpc.server(
            self._pool,
            handlers=(
                _Calls(methods, self._pool, self._options.max_pending, self._aside),
                self._health.handler(),
                _reflection(self._aside),
            ),
            options=tuple((defaults | dict(self._options.channel_arguments)).items()),
            maximum_concurrent_rpcs=self._options.max_pending + _OTHER_CALLS,
        )

    def _listen(self, host: str, port: int, credentials: grpc.ServerCredentials | None) -> int:
        address = _address(host, port)
        try:
            if credentials:
                return int(self._server.add_secure_port(address, credentials))
            return int(self._server.add_insecure_port(address))
        except RuntimeError as err:
            claim_port(host, port, "--port")  # says what is wrong with the port, if it is the port
            if credentials:
                raise FairwayError(
                    "the server_key, server_cert or custom_ca of the SSLConfig cannot be used",
                    hint="Check that they are PEM texts and the key is the certificate's: --ssl_config_file.",
                ) from err
            raise FairwayError(f"cannot listen on {address}: {first_line(err)}", hint="Set --host.") from err


class _Calls:
    """Finds the method of a call, and refuses calls that compute while too many wait.

    grpcio puts what it cannot answer at once into a queue without an end. Its own limit would refuse health
    checks, too.
    """

    def __init__(
        self,
        methods: Sequence[Method],
        pool: CountingPool,
        max_pending: int,
        aside: ThreadPoolExecutor,
    ) -> None:
        self._pool = pool
        self._max_pending = max_pending
        handler = grpc.stream_unary_rpc_method_handler
        self._handlers = {method.path: handler(method) for method in methods}
        self._refusing = {
            method.path: handler(InPool(method.refuse, aside)) for method in methods if method.predictor
        }

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        """Return how a call is answered; `None` for a path that is not ours."""
        if self._pool.pending >= self._max_pending and details.method in self._refusing:
            return self._refusing[details.method]
        return self._handlers.get(details.method)


def _reflection(aside: ThreadPoolExecutor) -> grpc.GenericRpcHandler:
    """Return the reflection service: which services there are, and their messages."""
    descriptors = pool()
    for module in (health_pb2, reflection_pb2):
        descriptors.AddSerializedFile(module.DESCRIPTOR.serialized_pb)
    services = (PREDICTION_SERVICE, MODEL_SERVICE, HEALTH_SERVICE, reflection.SERVICE_NAME)
    servicer = reflection.ReflectionServicer(services, descriptors)
    return grpc.method_handlers_generic_handler(
        reflection.SERVICE_NAME,
        {
            "ServerReflectionInfo": grpc.stream_stream_rpc_method_handler(
                # A client may leave its stream open; that must not take a thread from the predictions.
                InPool(servicer.ServerReflectionInfo, aside),
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


def _listen_on_socket(server: grpc.Server, path: str) -> None:
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
