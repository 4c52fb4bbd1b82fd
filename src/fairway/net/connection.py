"""A client's connection over HTTP: uvicorn's, which waits for ever and takes what comes, with limits on both.

Size is limited for the head of a request, its first line and headers: of the body an application knows the
limits. Who sends requests without waiting for the replies has them read one after the other. Applications
find in the scope's state, as `fairway.gone`, a function that tells whether the client has hung up; any thread
may call it.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from typing import Any, Literal

import httptools
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

# As much as nginx takes by default in all: four buffers of 8 KiB each, and one of 1 KiB.
# Source: https://nginx.org/en/docs/http/ngx_http_core_module.html#large_client_header_buffers
MAX_HEAD_BYTES = 33 * 1024
# nginx's default, too: client_header_timeout.
HEAD_TIMEOUT_S = 60.0
BODY_TIMEOUT_S = 60.0
# How long a server that ends waits for the next request of a client, to tell it in the reply.
ENDING_S = 0.5

# So much is parsed at least, and then up to where a head may end: the shortest request has 18 bytes, so that
# no more than 58 come to wait for the reply to the first.
_PIECE_BYTES = 1024
_HEAD_END = b"\r\n\r\n"
NOWHERE: deque[tuple[bytes, bytes]] = deque(maxlen=0)

NOT_HTTP = "Invalid HTTP request received."

_Part = Literal["head", "body"]


class Connection(HttpToolsProtocol):
    """One connection; closed when a request takes too long to arrive or its head is too large.

    What it adds is done once for what arrives, not for each step of the parser: 1 µs per request, not 3.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.flow: _Flow
        self._head_bytes = 0
        self._awaited: _Part | None = None
        self._answered: RequestResponseCycle | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._unread = b""  # what has come behind a request that waits
        self._is_offer = False
        self._is_ending = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for the first request, for a limited time."""
        super().connection_made(transport)
        self.flow = _Flow(transport)
        self.app_state = {**self.app_state, "fairway.gone": transport.is_closing}
        self._wait_for("head")

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no more, and answer nothing."""
        self._wait_for(None)
        self._unread = b""
        self._drop()
        super().connection_lost(exc)

    def shutdown(self) -> None:
        """Close with the reply to the last request that has come, or to one that comes soon."""
        self._is_ending = True
        if not self._close_with_reply():
            self.loop.call_later(ENDING_S, self._close_if_idle)

    def _close_with_reply(self) -> bool:
        """Announce the end with the reply to the last request; return whether there is one."""
        if self.cycle is None or self.cycle.response_complete:
            return False
        if not self.flow.held:  # else more requests may follow
            self.cycle.keep_alive = False
        return True

    def _close_if_idle(self) -> None:
        if self.cycle is None or self.cycle.response_complete:
            self.transport.close()

    def data_received(self, data: bytes) -> None:
        """Take what the client sends; what it sends at once with the beginning of a head is not counted."""
        self._unset_keepalive_if_required()
        before = self.scope
        self._feed(data)
        if self._is_ending:
            self._close_with_reply()
        missing = None if self.flow.held else self._missing()
        if (missing or self._awaited) and not self.transport.is_closing():
            self._follow(missing, len(data), same=before is self.scope)

    def _feed(self, data: bytes) -> None:
        """Parse what has come until a request has to wait for the reply to another."""
        start = 0
        while end := _end_of_head(data, start + _PIECE_BYTES):
            self._parse(data[start:end])
            start = end
            if self.pipeline or self.transport.is_closing():
                break
        else:
            self._parse(data[start:])
            start = len(data)
        if self.pipeline and not self.transport.is_closing():
            self._unread = data[start:]
            self.flow.hold()

    def on_response_complete(self) -> None:
        """Go on with the next request; read on if it is the last that has been parsed."""
        super().on_response_complete()
        if self.flow.held and not self.pipeline and not self.transport.is_closing():
            self.flow.held = False
            data, self._unread = self._unread, b""
            self.data_received(data)
            self.flow.resume_reading()

    def _parse(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as stop:
            self._decline_offer(data[stop.args[0] :])
        except httptools.HttpParserError:
            self.send_400_response(NOT_HTTP)

    def on_headers_complete(self) -> None:
        """Begin to answer; what has headers behind its body, as chunks may, has them for nothing."""
        if self.parser.should_upgrade() and self.parser.get_method() != b"CONNECT":
            self._is_offer = True
            return
        super().on_headers_complete()
        self.headers = NOWHERE  # type: ignore[assignment]

    def on_message_complete(self) -> None:
        """Let the body end, except where it has not begun."""
        if not self._is_offer:
            super().on_message_complete()

    def _decline_offer(self, rest: bytes) -> None:
        """Parse a head again without its offer to speak another protocol, and then what follows.

        Servers may ignore such offers (RFC 9110, 7.8), but the parser takes what follows the head for the
        other protocol. Java's HttpClient offers HTTP/2 with requests that have a body, too.
        """
        if not self._is_offer:
            self.send_400_response(NOT_HTTP)
            return
        self._is_offer = False
        lines = [b"%s: %s\r\n" % header for header in self.headers if header[0] != b"upgrade"]
        version = self.parser.get_http_version().encode()
        first = b"%s %s HTTP/%s\r\n" % (self.parser.get_method(), self.url, version)
        self._parse(b"%s%s\r\n%s" % (first, b"".join(lines), rest))

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


def _end_of_head(data: bytes, start: int) -> int:
    """Return where a head ends that may be there, behind a place; 0: there is none."""
    # One byte is found ten times as fast as four, and is rare in JSON.
    if data.find(b"\r", start) < 0:
        return 0
    found = data.find(_HEAD_END, start)
    return found + len(_HEAD_END) if found >= 0 else 0


class _Flow(FlowControl):
    """Flow control that does not read on as long as requests wait: uvicorn does so after each reply."""

    def __init__(self, transport: asyncio.Transport) -> None:
        super().__init__(transport)
        self.held = False

    def hold(self) -> None:
        self.held = True
        self.pause_reading()

    def resume_reading(self) -> None:
        if not self.held:
            super().resume_reading()
