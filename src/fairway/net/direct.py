"""Answers to requests that an application can give at once, without a task, a scope and messages for each.

ASGI's way costs as much processor time as a small prediction. An application that has `answer_at_once` is
shown a POST first, if all of it has come in one piece and nothing else is under way on its connection. What
it does not answer goes ASGI's way.
"""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from typing import Any

import httptools

from fairway.net.connection import NOT_HTTP, NOWHERE, Connection

Headers = list[tuple[bytes, bytes]]
AnswerAtOnce = Callable[[bytes, Headers, bytes, str, MutableMapping[str, Any]], tuple[bytes, bytes] | None]
"""Takes the target, a path, as it was sent, headers with names in lower case, the body, the client's address
and the state of the scope, where it may leave what it has found out for ASGI's way.

Returns lines of headers that are to come with status 200, each with its end, and a body that is not empty;
`None`: the request goes ASGI's way. It must neither block nor raise.
"""


class DirectConnection(Connection):
    """A connection to an application that has `answer_at_once`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._answer: AnswerAtOnce = self.app.answer_at_once
        self._held: list[bytes] | None = None  # the body, as far as it has come, of a request that may be
        self._is_idle = False

    def on_message_begin(self) -> None:
        """Begin as uvicorn does."""
        self._is_idle = False
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Hold a request back until its body is there; else begin to answer it as uvicorn does."""
        if self._may_be_answered():
            self._held = []
            self.headers = NOWHERE  # type: ignore[assignment]
        else:
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Keep a part of the body of what is held back."""
        if self._held is None:
            super().on_body(body)
        else:
            self._held.append(body)

    def on_message_complete(self) -> None:
        """Answer what was held back."""
        if self._held is None:
            super().on_message_complete()
            return
        scope: Any = self.scope
        body = b"".join(self._held)
        peer = self.client[0] if self.client else ""
        answer = self._answer(self.url, scope["headers"], body, peer, scope["state"])
        if answer is None:
            self._let_go()
            super().on_message_complete()
            return
        self._held, self._is_idle = None, True
        self.server_state.total_requests += 1
        self._write(*answer)

    def _feed(self, data: bytes) -> None:
        super()._feed(data)
        if self._is_idle:
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )
        elif self._held is not None and not self.transport.is_closing():
            self._let_go_unfinished()

    def _let_go_unfinished(self) -> None:
        # The rest of the body is still to come, and may take its time.
        try:
            self._let_go()
        except httptools.HttpParserError:
            self.send_400_response(NOT_HTTP)

    def _may_be_answered(self) -> bool:
        return (
            (self.cycle is None or self.cycle.response_complete)
            and self.parser.get_method() == b"POST"
            and self.parser.get_http_version() == "1.1"
            and self.parser.should_keep_alive()
            and not self.parser.should_upgrade()
            and not self.expect_100_continue
            and not self.flow.write_paused
            and not self._is_ending
            and self.url[:1] == b"/"
            and self.url.isascii()  # of others uvicorn makes nothing
        )

    def _let_go(self) -> None:
        """Have what is held back answered as uvicorn does."""
        held, self._held = self._held, None
        super().on_headers_complete()
        for part in held or ():
            super().on_body(part)

    def _missing(self) -> Any:
        return None if self._is_idle else super()._missing()

    def _write(self, lines: bytes, body: bytes) -> None:
        own = b"".join([b"%s: %s\r\n" % header for header in self.server_state.default_headers])
        self.transport.write(
            b"HTTP/1.1 200 OK\r\n%s%scontent-length: %d\r\n\r\n%s" % (own, lines, len(body), body)
        )
