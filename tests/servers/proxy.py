"""A proxy in front of a store that does what networks and stores do on bad days."""

from __future__ import annotations

import http.client
import socket
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

_HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "expect"}
_CHUNK = 16 * 1024
_BEFORE_RESET_S = 0.05


@dataclass(frozen=True)
class Request:
    """A request as it came.

    Attributes:
        method: `GET`, `PUT` …
        path: Path and query.
        headers: As sent.
        attempt: How often this method and path were asked before.
    """

    method: str
    path: str
    headers: dict[str, str] = field(repr=False)
    attempt: int = 0


@dataclass(frozen=True)
class Answer:
    """The proxy answers itself, with an error as S3 words it; the store is not asked."""

    status: int
    code: str


@dataclass(frozen=True)
class Delay:
    """The answer comes late."""

    seconds: float


@dataclass(frozen=True)
class Reset:
    """The connection is reset after some bytes of the request's or the answer's body."""

    after: int
    upload: bool = False


@dataclass(frozen=True)
class Truncate:
    """The answer's body ends early, and its length says that this is all."""

    size: int


@dataclass(frozen=True)
class LostAnswer:
    """The store does what it was asked, and the connection is reset instead of an answer."""


Fault = Answer | Delay | Reset | Truncate | LostAnswer


class FaultProxy:
    """Passes HTTP requests on to a server, as `fault` says; a context manager.

    Attributes:
        fault: Decides what happens to a request; `None` passes it on.
        requests: All that came.
    """

    def __init__(self, server: tuple[str, int]) -> None:
        self.fault: Callable[[Request], Fault | None] = lambda _: None
        self.requests: list[Request] = []
        self._upstream = server
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.proxy = self
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    @property
    def endpoint(self) -> str:
        """HOST:PORT."""
        return f"127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def note(self, method: str, path: str, headers: dict[str, str]) -> Request:
        """Remember a request and return it."""
        attempt = sum((each.method, each.path) == (method, path) for each in self.requests)
        request = Request(method, path, headers, attempt)
        self.requests.append(request)
        return request

    def connect(self) -> http.client.HTTPConnection:
        """Return a connection to the server behind."""
        return http.client.HTTPConnection(*self._upstream, timeout=60)


class _Server(ThreadingHTTPServer):
    proxy: FaultProxy
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Be silent: broken connections are what this is about."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, format: str, *args: Any) -> None:
        """Be silent."""

    def _handle(self) -> None:
        request = self.server.proxy.note(self.command, self.path, dict(self.headers))
        fault = self.server.proxy.fault(request)
        length = int(self.headers.get("Content-Length") or 0)
        if isinstance(fault, Reset) and fault.upload:
            self.rfile.read(min(fault.after, length))
            self._reset()
            return
        body = self.rfile.read(length)
        if isinstance(fault, Delay):
            time.sleep(fault.seconds)
        if isinstance(fault, Answer):
            content = f"<Error><Code>{fault.code}</Code><Message>{fault.code}</Message></Error>".encode()
            headers = [("Content-Type", "application/xml"), ("Content-Length", str(len(content)))]
            self._answer(fault.status, headers, b"" if self.command == "HEAD" else content, None)
            return
        status, answer_headers, content = self._ask(body)
        if isinstance(fault, LostAnswer):
            self._reset()
        elif isinstance(fault, Truncate):
            content = content[: fault.size]
            kept = [(name, value) for name, value in answer_headers if name.lower() != "content-length"]
            self._answer(status, [*kept, ("Content-Length", str(len(content)))], content, None)
        else:
            cut = fault.after if isinstance(fault, Reset) else None
            self._answer(status, answer_headers, content, cut)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _handle  # noqa: N815 - http.server's names

    def _ask(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        connection = self.server.proxy.connect()
        try:
            connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if _is_end_to_end(name):
                    connection.putheader(name, value)
            connection.endheaders(body)
            answer = connection.getresponse()
            content = answer.read()
            headers = [
                (name, value) for name, value in answer.getheaders() if name.lower() not in _HOP_BY_HOP
            ]
            if self.command != "HEAD" and answer.status not in (204, 304):
                headers = [(name, value) for name, value in headers if name.lower() != "content-length"]
                headers.append(("Content-Length", str(len(content))))
            return answer.status, headers, content
        finally:
            connection.close()

    def _answer(self, status: int, headers: list[tuple[str, str]], content: bytes, cut: int | None) -> None:
        self.send_response_only(status)
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()
        for start in range(0, len(content), _CHUNK):
            chunk = content[start : start + _CHUNK]
            if cut is not None and start + len(chunk) > cut:
                self.wfile.write(chunk[: cut - start])
                # A reset overtakes what the other side has not read yet; on a long line it comes later.
                time.sleep(_BEFORE_RESET_S)
                self._reset()
                return
            self.wfile.write(chunk)

    def _reset(self) -> None:
        """Close the connection such that the other side gets an error (RST), not an end."""
        self.wfile.flush()
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True


def _is_end_to_end(name: str) -> bool:
    return name.lower() not in _HOP_BY_HOP
