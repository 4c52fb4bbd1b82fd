"""One connection of a follower to the lead: what has been heard on it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from fairway.errors import PeerError
from fairway.net.cluster import Cluster
from fairway.net.control.channel import Channel
from fairway.net.control.messages import FailedPeerError, FinishedError, Message, failure, fields

log = logging.getLogger(__name__)


class BusyError(Exception):
    """The lead trains already, without this task."""


class Session:
    """One connection to the lead; all of it happens in the background.

    Attributes:
        offer: The lead's; None until it comes.
        outcome: How the connection ended; None while it stands.
    """

    def __init__(
        self,
        channel: Channel,
        cluster: Cluster,
        on_lost: Callable[[str], None],
        on_failed: Callable[[FailedPeerError], None],
    ) -> None:
        self.offer: Message | None = None
        self.outcome: Exception | None = None
        self._channel = channel
        self._cluster = cluster
        self._on_lost, self._on_failed = on_lost, on_failed
        self._is_ready = self._has_started = False
        self._news = asyncio.Event()

    def begin(self, join: bytes) -> None:
        """Send the line that joins, and take what comes."""
        self._task = asyncio.create_task(self._run(join))

    async def answered(self) -> None:
        """Wait until the lead has answered the join, or the connection has ended."""
        await self._until(lambda: self.offer is not None)

    async def get_started(self, ready: bytes) -> Exception | None:
        """Say that this task is ready; return None at the start, or how the connection ended before it."""
        self._is_ready = True
        self._channel.send(ready)
        await self._until(lambda: self._has_started)
        return None if self._has_started else self.outcome

    async def ended(self) -> Exception:
        """Wait for the end; return how the connection ended: done, failed, or by itself."""
        await self._until(lambda: False)
        return self.outcome or FinishedError()

    async def say(self, line: bytes) -> None:
        """Send a line."""
        self._channel.send(line)

    async def _until(self, is_so: Callable[[], bool]) -> None:
        """Wait until something is so, or the connection has ended."""
        while not self.outcome and not is_so():
            self._news.clear()
            await self._news.wait()

    async def _run(self, join: bytes) -> None:
        async with self._channel:
            self._channel.send(join)
            async for message in self._channel:
                self._take(message)
                self._news.set()
                if self.outcome:
                    return
            lead = lead_name(self._cluster)
            self.outcome = PeerError(f"lost {lead} ({self._channel.ending})")
            self._news.set()
            if self._has_started:
                self._on_lost(f"{lead}: {self._channel.ending}")

    def _take(self, message: Message) -> None:
        match message:
            case {"type": "offer"}:
                self.offer = fields(message)
            case {"type": "waiting", "for": [*who]} if self._is_ready:
                log.info("waiting for %s", ", ".join(self._others(who)) or lead_name(self._cluster))
            case {"type": "start"}:
                self._has_started = True
            case {"type": "busy"}:
                self.outcome = BusyError()
            case {"type": "lost", "task": who, "reason": reason} if self._cluster.mode == "synchronous":
                self._on_lost(f"{who}: {reason}")  # beside parameter servers, the others go on
            case {"type": "done"}:
                self.outcome = FinishedError("the training is over")
            case {"type": "failed"}:
                self.outcome = err = failure(message)
                if self._has_started:
                    self._on_failed(err)

    def _others(self, who: list[str]) -> list[str]:
        """Leave out this task: the lead may have said it before it heard that it is ready."""
        return [each for each in who if not each.startswith(f"{self._cluster.this} (")]


def lead_name(cluster: Cluster, *, address: bool = False) -> str:
    """Return what to call the lead, with its address on request."""
    name = "the chief" if cluster.lead.role == "chief" else str(cluster.lead)
    return f"{name} ({cluster.addresses[cluster.lead]})" if address else name
