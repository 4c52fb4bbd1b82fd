"""One process that answers: REST and gRPC on their ports, until it is told to end."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import sys
import threading
from collections.abc import Callable
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any

from fairway.serve.metrics import Metrics, render
from fairway.serve.plan import Plan
from fairway.serve.versions.models import Models
from fairway.tfs.configs import ModelConfig

if TYPE_CHECKING:
    from fairway.serve.grpc import GrpcServer

_MARGIN_S = 1.0
_END_S = 3.0
"""How long the end may take beyond the time for the requests in flight."""

logger = logging.getLogger(__name__)


class Answering:
    """What answers requests from models.

    Args:
        plan: What the server is to do.
        models: The models, whether they have versions already or get them later.
        metrics: Counts the requests.
        reload: Serves other models; blocks, and raises `RequestError`.
        snapshots: Returns the counts of all processes; blocks.
    """

    def __init__(
        self,
        plan: Plan,
        models: Models,
        metrics: Metrics,
        reload: Callable[[tuple[ModelConfig, ...]], None],
        snapshots: Callable[[], list[dict[str, Any]]],
    ) -> None:
        self._plan = plan
        self._models = models
        self._metrics = metrics
        self._reload = reload
        self._snapshots = snapshots

    def run(
        self,
        open_listener: Callable[[], socket.socket],
        announce: Callable[[int, int], None],
        *,
        share_ports: bool,
        socket_path: str,
    ) -> None:
        """Answer until SIGTERM or Ctrl-C; then answer what has been asked, as long as the settings allow.

        Args:
            open_listener: Returns the socket of the REST API.
            announce: Is called with the ports of REST and gRPC once both answer.
            share_ports: Whether other processes listen on the same ports.
            socket_path: Unix socket of the gRPC API; empty: none.

        Raises:
            FairwayError: a port cannot be had.
        """
        # What takes long to load does so while another thread loads the model.
        from fairway.net.asgi import run_app
        from fairway.serve.access import AccessLog
        from fairway.serve.compute.predictor import Predictor
        from fairway.serve.grpc import GrpcOptions, GrpcServer
        from fairway.serve.http import App, HttpOptions

        plan, settings = self._plan, self._plan.settings
        with ExitStack() as closing:
            access = closing.enter_context(AccessLog()) if settings.access_log else None
            predictor = Predictor(
                threads=settings.rest_api_num_threads,
                max_pending=settings.max_pending_requests,
                batching=plan.batching,
                metrics=self._metrics,
            )
            closing.callback(predictor.close)
            options = GrpcOptions(
                tls=plan.tls,
                channel_arguments=plan.channel_arguments,
                reuse_port=share_ports,
                socket_path=socket_path,
                max_pending=settings.max_pending_requests,
                at_a_time=settings.grpc_max_threads,
            )
            grpc = GrpcServer(self._models, predictor, self._metrics, options, self._reload, access)
            grpc_port = grpc.start(settings.host, settings.port)
            stopping = _Stopping(grpc, settings.drain_seconds)
            closing.callback(stopping.wait)
            listener = closing.enter_context(open_listener())
            http = HttpOptions(
                timeout_s=settings.rest_api_timeout_in_ms / 1000,
                cors=settings.rest_api_enable_cors_support,
                metrics_path=plan.metrics_path,
            )
            app = App(self._models, predictor, self._metrics, http, self._metrics_text, access)
            rest_port = listener.getsockname()[1]
            run_app(
                app,
                listener,
                lambda: announce(rest_port, grpc_port),
                drain_s=settings.drain_seconds,
                lifespan="off",
                stopping=stopping.begin,
            )

    async def _metrics_text(self) -> bytes:
        snapshots = await asyncio.get_running_loop().run_in_executor(None, self._snapshots)
        return render(snapshots, self._models.serving)


class _Stopping:
    """Ends gRPC at the same time as REST; it blocks, so it has a thread.

    The process ends some time later whatever it does then: a thread that hangs in a load, or in a model,
    would keep it for ever.
    """

    def __init__(self, grpc: GrpcServer, drain_s: float) -> None:
        self._drain_s = drain_s
        self._thread = threading.Thread(target=grpc.stop, args=(drain_s,), name="drain", daemon=True)
        self._begun = False

    def begin(self) -> None:
        limit = threading.Timer(self._drain_s + _END_S, _end_now)
        limit.daemon = True
        limit.start()
        self._stop_grpc()

    def wait(self) -> None:
        if not self._begun:
            self._stop_grpc()
        self._thread.join(self._drain_s + _MARGIN_S)

    def _stop_grpc(self) -> None:
        self._begun = True
        self._thread.start()


def _end_now() -> None:
    logger.warning("something still loads or computes; ending without waiting for it")
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            with suppress(OSError):
                stream.flush()
    os._exit(0)
