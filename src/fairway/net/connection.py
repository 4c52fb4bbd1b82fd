"""A client's connection over HTTP: uvicorn's, which waits for ever and takes what comes, with limits on both.

Size is limited for the head of a request, its first line and headers: of the body an application knows the
limits. Applications find in the scope's extensions, as `fairway.gone`, a function that tells whether the
client has hung up; any thread may call it.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

# As much as nginx takes by default in all: four buffers of 8 KiB each, and one of 1 KiB.
# Source: https://nginx.org/en/docs/http/ngx_http_core_module.html#large_client_header_buffers
MAX_HEAD_BYTES = 33 * 1024
# nginx's default, too: client_header_timeout.
HEAD_TIMEOUT_S = 60.0
BODY_TIMEOUT_S = 60.0


class Connection(HttpToolsProtocol):
    """One connection; closed when a request takes too long to arrive or its head is too large."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._heads = 0
        self._in_head = False
        self._head_bytes = 0
        self._deadline: asyncio.TimerHandle | None = None
        self._extensions: dict[str, Any] = {}

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for the first request, for a limited time."""
        super().connection_made(transport)
        self._extensions["fairway.gone"] = transport.is_closing
        self._start_waiting(HEAD_TIMEOUT_S)

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no more."""
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take what the client sends; what it sends at once with the beginning of a head is not counted."""
        heads = self._heads
        if not self._awaits_body() and b"pgrade:" in data[: data.find(b"\r\n\r\n")]:
            data = _without_upgrade(data)
        super().data_received(data)
        if self.transport.is_closing():
            return
        if not self._in_head:
            # Only a body that has not come with its head gets a timer: most do.
            if self._deadline is None and self._awaits_body():
                self._start_waiting(BODY_TIMEOUT_S)
            return
        if self._deadline is None:
            self._start_waiting(HEAD_TIMEOUT_S)
        if heads == self._heads:
            self._head_bytes += len(data)
        if self._head_bytes > MAX_HEAD_BYTES:
            message = f"the request line and the headers are larger than the limit of {MAX_HEAD_BYTES} bytes"
            self._refuse("431 Request Header Fields Too Large", message)

    def on_message_begin(self) -> None:
        """Begin to count."""
        super().on_message_begin()
        self._heads += 1
        self._in_head = True
        self._head_bytes = 0
        self.scope["extensions"] = self._extensions

    def on_headers_complete(self) -> None:
        """Let the application take over."""
        self._in_head = False
        if self._deadline:
            self._stop_waiting()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Wait no more for the body."""
        if self._deadline:
            self._stop_waiting()
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is not HTTP as an application would, in JSON."""
        self._refuse("400 Bad Request", msg)

    def _awaits_body(self) -> bool:
        return self.cycle is not None and self.cycle.more_body and not self.cycle.response_complete

    def _start_waiting(self, seconds: float) -> None:
        self._deadline = self.loop.call_later(seconds, self._give_up)

    def _stop_waiting(self) -> None:
        if self._deadline:
            self._deadline.cancel()
            self._deadline = None

    def _give_up(self) -> None:
        """Hang up; say why, where the client has begun to ask something."""
        if self._in_head:
            message = f"the request line and the headers did not arrive within {HEAD_TIMEOUT_S:g} seconds"
            self._refuse("408 Request Timeout", message)
        elif self._awaits_body() and not self.cycle.response_started:
            self.cycle.disconnected = True
            self._reply("408 Request Timeout", f"the body did not arrive within {BODY_TIMEOUT_S:g} seconds")
            self.transport.close()
        else:
            self.transport.close()

    def _refuse(self, status: str, message: str) -> None:
        # While an earlier request is being answered, these bytes would end up in the middle of its reply.
        if self.cycle is None or self.cycle.response_complete:
            self._reply(status, message)
        self.transport.close()

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
