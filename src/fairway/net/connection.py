"""A client's connection over HTTP: uvicorn's, which waits for ever and takes what comes, with limits on both.

Size is limited for the head of a request, its first line and headers: of the body an application knows the
limits. Applications find in the scope's state, as `fairway.gone`, a function that tells whether the client
has hung up; any thread may call it.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any, Literal

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

# As much as nginx takes by default in all: four buffers of 8 KiB each, and one of 1 KiB.
# Source: https://nginx.org/en/docs/http/ngx_http_core_module.html#large_client_header_buffers
MAX_HEAD_BYTES = 33 * 1024
# nginx's default, too: client_header_timeout.
HEAD_TIMEOUT_S = 60.0
BODY_TIMEOUT_S = 60.0

_Part = Literal["head", "body"]


class Connection(HttpToolsProtocol):
    """One connection; closed when a request takes too long to arrive or its head is too large.

    What it adds is done once for what arrives, not for each step of the parser: 1 µs per request, not 3.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._head_bytes = 0
        self._awaited: _Part | None = None
        self._answered: RequestResponseCycle | None = None
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for the first request, for a limited time."""
        super().connection_made(transport)
        self.app_state = {**self.app_state, "fairway.gone": transport.is_closing}
        self._wait_for("head")

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no more."""
        self._wait_for(None)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take what the client sends; what it sends at once with the beginning of a head is not counted."""
        before = self.scope
        if self._missing() != "body" and b"pgrade:" in data[: data.find(b"\r\n\r\n")]:
            data = _without_upgrade(data)
        self._feed(data)
        missing = self._missing()
        if (missing or self._awaited) and not self.transport.is_closing():
            self._follow(missing, len(data), same=before is self.scope)

    def _feed(self, data: bytes) -> None:
        super().data_received(data)

    def _missing(self) -> _Part | None:
        """Return what the client still has to send before it can be answered; `None` if it is our turn."""
        if self._in_head() or self.cycle.response_complete:
            return "head"
        return "body" if self.cycle.more_body else None

    def _in_head(self) -> bool:
        # uvicorn makes the scope with the first byte of a request, and completes it with its head.
        return self.scope is None or "path" not in self.scope

    def _follow(self, missing: _Part | None, size: int, *, same: bool) -> None:
        if missing != self._awaited or not same:
            self._wait_for(missing)
        elif missing == "head" and self._in_head():
            self._head_bytes += size
            if self._head_bytes > MAX_HEAD_BYTES:
                text = f"the request line and the headers are larger than the limit of {MAX_HEAD_BYTES} bytes"
                self._refuse("431 Request Header Fields Too Large", text)

    def eof_received(self) -> None:
        """Drop what is being answered: a client that sends no more counts as gone."""
        self._drop()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is not HTTP as an application would, in JSON."""
        self._refuse("400 Bad Request", msg)

    def _wait_for(self, part: _Part | None) -> None:
        """Start to wait for a part of a request, or stop waiting."""
        if self._deadline:
            self._deadline.cancel()
        self._awaited, self._head_bytes, self._deadline = part, 0, None
        if part:
            seconds = HEAD_TIMEOUT_S if part == "head" else BODY_TIMEOUT_S
            self._deadline = self.loop.call_later(seconds, self._give_up)

    def _give_up(self) -> None:
        """Hang up; say why, where the client has begun to ask something."""
        if self._awaited == "body" and not self.cycle.response_started and not self.pipeline:
            self.cycle.disconnected = True
            self._reply("408 Request Timeout", f"the body did not arrive within {BODY_TIMEOUT_S:g} seconds")
        elif self._awaited == "head" and self.scope is not None and self._in_head():
            message = f"the request line and the headers did not arrive within {HEAD_TIMEOUT_S:g} seconds"
            self._refuse("408 Request Timeout", message)
        self.transport.close()

    def _refuse(self, status: str, message: str) -> None:
        # While an earlier request is being answered, these bytes would end up in the middle of its reply.
        if self.cycle is None or self.cycle.response_complete:
            self._reply(status, message)
        self._drop()
        self.transport.close()

    def _drop(self) -> None:
        """Keep a reply that is in the making from a connection that is being closed.

        uvicorn does so when it is closed, which is too late: uvloop takes writing before then for an error.
        """
        if self._answered is not None and not self._answered.response_complete:
            self._answered.disconnected = True
            self._answered.message_event.set()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        # `self.cycle` is the last request that has come, which may have to wait for this one.
        self._answered = cycle
        super()._start_asgi_task(cycle, app)

    def _reply(self, status: str, message: str) -> None:
        body = json.dumps({"error": message})
        self.transport.write(
            f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n"
            f"connection: close\r\n\r\n{body}".encode()
        )


def _without_upgrade(data: bytes) -> bytes:
    """Hide an offer to speak another protocol, which servers may ignore (RFC 9110, 7.8).

    The parser would stop behind the head. Java's HttpClient offers HTTP/2 with each request, bodies too.
    """
    head, end, rest = data.partition(b"\r\n\r\n")
    return (
        head.replace(b"\r\nUpgrade:", b"\r\nIgnored:").replace(b"\r\nupgrade:", b"\r\nignored:") + end + rest
    )
