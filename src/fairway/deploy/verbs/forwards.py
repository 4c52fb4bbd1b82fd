"""Ports of this machine that lead into a cluster: to TensorBoard, the web UI and the model server.

A connection gets a pod of its own when it comes, so what replaces a pod is found by the next one.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fairway.config import UpSettings
from fairway.deploy.components.service import ServiceParams
from fairway.deploy.components.serving import ServingParams
from fairway.deploy.components.tensorboard import TensorBoardParams
from fairway.deploy.components.web import WebParams
from fairway.deploy.manifests import render
from fairway.deploy.target import Component, Target
from fairway.deploy.verbs.backend import Backend
from fairway.errors import ClusterError, FairwayError
from fairway.net.links import Link, new_client, ready_text, until_answering
from fairway.net.ports import reachable
from fairway.storage.outage import Outage, explain

if TYPE_CHECKING:
    from fairway.deploy.kube.client import Kube

BUSY_S, CALM_S = 0.5, 5.0
"""Seconds between two looks at the pods: while one is waited for, and else."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Forward:
    """A port of this machine, and where it leads.

    Attributes:
        title: What it is for.
        component: The component that it leads to.
        service: Name of its Service.
        service_port: Name of the Service's port.
        port: On this machine; 0 takes a free one.
        flag: That sets the port.
        path: Of the link.
        ready: Path that answers 200 once it works; `None` where no HTTP is spoken.
        pods_of: The components whose pods are behind the Service.
    """

    title: str
    component: str
    service: str
    service_port: str
    port: int
    flag: str
    pods_of: tuple[str, ...]
    path: str = "/"
    ready: str | None = "/"

    def link(self, host: str, port: int) -> Link:
        """Return the link for a port of this machine.

        Args:
            host: That is listened on.
            port: Likewise.
        """
        if self.ready is None:
            return Link(self.title, f"{reachable(host)}:{port}", "")
        base = f"http://{reachable(host)}:{port}"
        return Link(self.title, base + self.path, base + self.ready)


class Opened:
    """Forwards that are open.

    Attributes:
        forwards: Which.
    """

    def __init__(
        self, forwards: Sequence[Forward], links: Sequence[Link], backends: Sequence[Backend]
    ) -> None:
        self.forwards, self._links, self._backends = forwards, links, backends
        self._outage = Outage("the cluster answers again")

    @property
    def waiting(self) -> set[str]:
        """The components that would have to be ready for the forwards that have no pod."""
        return {
            name
            for forward, backend in zip(self.forwards, self._backends, strict=True)
            if not backend.is_ready
            for name in forward.pods_of
        }

    @property
    def is_applied(self) -> bool:
        """Whether any of the Services is there."""
        return any(backend.exists for backend in self._backends)

    async def refresh(self) -> None:
        """Look once which pods there are.

        Raises:
            ClusterError: the cluster is away or refuses.
        """
        await asyncio.gather(*(backend.refresh() for backend in self._backends))

    @contextmanager
    def noted(self) -> Iterator[None]:
        """Note how a block ends that asks the cluster: that it is away is said once, and is no error."""
        from fairway.deploy.kube.errors import AwayError

        refusal = None
        with self._outage.noted("the ports stay open, and lead there again once it answers"):
            try:
                yield
            except AwayError:
                raise
            except FairwayError as err:
                refusal = err
        if refusal:
            raise refusal

    async def follow(self) -> None:
        """Look again and again which pods there are, also after the cluster was away, if any port is open.

        Raises:
            ClusterError: the cluster refuses.
        """
        while self._backends:
            with self.noted():
                await self.refresh()
            calm = not self._outage.problem and all(backend.is_ready for backend in self._backends)
            await asyncio.sleep(CALM_S if calm else BUSY_S)

    async def show(self, ending: str) -> None:
        """Log each link when it answers, and all of them when the last one does.

        Args:
            ending: How it all ends.
        """
        if not self._links:
            return
        async with new_client() as client:

            async def answers(link: Link, backend: Backend) -> Link:
                await backend.until_ready()
                return await until_answering(client, link, BUSY_S)

            waiting = [answers(*each) for each in zip(self._links, self._backends, strict=True)]
            for answering in asyncio.as_completed(waiting):
                link = await answering
                log.info("%s answers at %s", link.title, link.url)
        log.info("%s", ready_text(self._links, ending))


def find_forwards(target: Target, components: Iterable[Component], ports: UpSettings) -> list[Forward]:
    """Return what of some components can be opened, the first of each kind.

    Args:
        target: The environment.
        components: Of it.
        ports: Those of this machine.

    Raises:
        UsageError: params of a component do not fit together.
    """
    first: dict[str, Component] = {}
    for component in components:
        first.setdefault(component.kind.name, component)
    forwards = [each for component in first.values() for each in _forwards(target, component, ports)]
    return sorted(forwards, key=lambda forward: _ORDER.index(forward.title))


_WEB, _BOARD, _REST, _GRPC = _ORDER = ("Draw a digit", "TensorBoard", "Model server", "Model server, gRPC")


def _forwards(target: Target, component: Component, ports: UpSettings) -> list[Forward]:
    params, name = component.params, component.name
    if not isinstance(params, WebParams | TensorBoardParams | ServiceParams):
        return []
    manifests = render(target, [component])
    place = name, next(each["metadata"]["name"] for each in manifests if each["kind"] == "Service")
    match params:
        case WebParams():
            return [Forward(_WEB, *place, "http", ports.web_port, "--web-port", (name,), ready="/healthz")]
        case TensorBoardParams():
            port = ports.tensorboard_port
            return [Forward(_BOARD, *place, "http", port, "--tensorboard-port", (name,))]
    names, model = _servers(target, params.model_name), f"/v1/models/{params.model_name}"
    rest, grpc = (ports.rest_api_port, "--rest-api-port"), (ports.grpc_port, "--grpc-port")
    return [
        Forward(_REST, *place, "http-tf-serving", *rest, names, path=model, ready=model),
        Forward(_GRPC, *place, "grpc-tf-serving", *grpc, names, ready=None),
    ]


def _servers(target: Target, model_name: str) -> tuple[str, ...]:
    """Return the components of the model servers that take part."""
    return tuple(
        each.name
        for each in target.choose()
        if isinstance(each.params, ServingParams) and each.params.model_name == model_name
    )


@asynccontextmanager
async def open_forwards(kube: Kube, forwards: Sequence[Forward], host: str) -> AsyncIterator[Opened]:
    """Listen on all ports. Nothing is asked of the cluster before `refresh`, `follow` or a connection does.

    Args:
        kube: The cluster.
        forwards: Where the ports lead.
        host: Address to listen on.

    Raises:
        FairwayError: a port is taken; the message names it.
    """
    from fairway.deploy.kube.forward import serve_forward

    async with AsyncExitStack() as stack:
        links, backends = [], []
        for forward in forwards:
            backend = Backend(kube, forward.service, forward.service_port)
            serving = serve_forward(
                backend.open,
                backend.pick,
                host=host,
                port=forward.port,
                flag=forward.flag,
                report=_reporter(forward.title),
            )
            links.append(forward.link(host, await stack.enter_async_context(serving)))
            backends.append(backend)
        yield Opened(forwards, links, backends)


def _reporter(title: str) -> Callable[[ClusterError], None]:
    from fairway.deploy.kube.errors import AwayError

    def report(err: ClusterError) -> None:
        if not isinstance(err, AwayError):  # which `follow` tells once for all
            log.warning("%s: %s", title, explain(err))

    return report
