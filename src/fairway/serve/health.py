"""The health service of gRPC: whether the server as a whole, a service or a model answers.

Source: https://github.com/grpc/grpc/blob/master/doc/health-checking.md
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc
import grpc.aio
from grpc_health.v1.health import aio
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

if TYPE_CHECKING:
    from fairway.serve.versions.models import Models

SERVICE = "grpc.health.v1.Health"
WHOLE_SERVER = ""

_SERVING = HealthCheckResponse.SERVING
_NOT_SERVING = HealthCheckResponse.NOT_SERVING
_UNKNOWN = HealthCheckResponse.SERVICE_UNKNOWN


class Health:
    """What is told about `models`.

    The server as a whole and the services that need models serve once all configured models answer; each
    model has an entry of its own name.

    Args:
        models: Knows which models answer.
        services: Full names of the services that need them.
    """

    def __init__(self, models: Models, services: tuple[str, ...]) -> None:
        self._models = models
        self._services = (WHOLE_SERVER, *services)
        self._servicer = aio.HealthServicer()
        self._told: dict[str, int] = {}

    def handler(self) -> grpc.GenericRpcHandler:
        """Return the service, to be added to a server."""
        forms = (HealthCheckRequest.FromString, HealthCheckResponse.SerializeToString)
        return grpc.method_handlers_generic_handler(
            SERVICE,
            {
                "Check": grpc.unary_unary_rpc_method_handler(self._check, *forms),
                "Watch": grpc.unary_stream_rpc_method_handler(self._servicer.Watch, *forms),
            },
        )

    async def refresh(self) -> None:
        """Tell watchers what has changed; a check is always told what is true at that moment."""
        now = self._statuses()
        changed = {
            name: status
            for name, status in (dict.fromkeys(self._told, _UNKNOWN) | now).items()
            if self._told.get(name) != status
        }
        self._told = now
        for name, status in changed.items():
            await self._servicer.set(name, status)

    async def drain(self) -> None:
        """Tell from now on that nothing serves: the server ends."""
        await self._servicer.enter_graceful_shutdown()

    async def _check(
        self, request: HealthCheckRequest, context: grpc.aio.ServicerContext
    ) -> HealthCheckResponse:
        await self.refresh()
        return await self._servicer.Check(request, context)

    def _statuses(self) -> dict[str, int]:
        problems, serving = self._models.problems, self._models.serving
        models = {name: _NOT_SERVING if name in problems else _SERVING for name in {*problems, *serving}}
        # Without any model, too, nothing is answered: a server that has just started knows of none.
        whole = _SERVING if serving and not problems else _NOT_SERVING
        return models | dict.fromkeys(self._services, whole)
