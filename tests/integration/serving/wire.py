"""HTTP as bytes on a socket, for requests that no client library would send."""

from __future__ import annotations

import contextlib
import socket
from dataclasses import dataclass, field
from typing import Any, Self

TIMEOUT_S = 30.0


@dataclass
class Reply:
    """What the server has answered; `headers` have names in lower case."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


class Wire:
    """A connection to a server.

    Args:
        root: The server's address, `http://HOST:PORT`.
        timeout_s: Seconds to wait for the server, each time.
    """

    def __init__(self, root: str, timeout_s: float = TIMEOUT_S) -> None:
        host, _, port = root.removeprefix("http://").partition(":")
        self.socket = socket.create_connection((host, int(port)), timeout_s)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._rest = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self.socket.close()

    def send(self, data: bytes) -> None:
        """Send as much as the server takes: it may answer and hang up before all is sent."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.socket.sendall(data)

    def reply(self, method: str = "POST") -> Reply | None:
        """Return the next final reply; `None` when the server has hung up.

        Args:
            method: Of the request: replies to HEAD have no body.

        Raises:
            ValueError: it is not HTTP.
            TimeoutError: nothing came.
        """
        while True:
            head = self._until(b"\r\n\r\n")
            if head is None:
                return None
            first, *lines = head.decode("latin-1").split("\r\n")
            version, status, *_ = first.split(" ", 2)
            if not version.startswith("HTTP/1."):
                raise ValueError(f"not a reply: {head[:200]!r}")
            headers = {
                name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)
            }
            if int(status) >= 200:
                return Reply(int(status), headers, self._body(method, int(status), headers))

    def _body(self, method: str, status: int, headers: dict[str, str]) -> bytes:
        if method == "HEAD" or status in (204, 304):
            return b""
        if headers.get("transfer-encoding") == "chunked":
            chunks = []
            while size := int(self._line(), 16):
                chunks.append(self._exactly(size))
                self._line()
            self._line()
            return b"".join(chunks)
        if "content-length" in headers:
            return self._exactly(int(headers["content-length"]))
        body = self._rest
        while data := self._receive():
            body += data
        return body

    def _line(self) -> bytes:
        line = self._until(b"\r\n")
        if line is None:
            raise ValueError("the reply ends in the middle")
        return line

    def _until(self, mark: bytes) -> bytes | None:
        while mark not in self._rest:
            data = self._receive()
            if not data:
                if self._rest:
                    raise ValueError(f"half a reply: {self._rest[:200]!r}")
                return None
            self._rest += data
        part, _, self._rest = self._rest.partition(mark)
        return part

    def _exactly(self, size: int) -> bytes:
        while len(self._rest) < size:
            data = self._receive()
            if not data:
                raise ValueError("the reply ends in the middle")
            self._rest += data
        part, self._rest = self._rest[:size], self._rest[size:]
        return part

    def _receive(self) -> bytes:
        try:
            return self.socket.recv(1 << 16)
        except ConnectionResetError:
            return b""


def request(path: str, body: bytes = b"", method: str = "POST", **headers: str) -> bytes:
    """Return a request as bytes; `content_type="x"` becomes the header `content-type: x`."""
    lines = [f"{method} {path} HTTP/1.1", "host: m"]
    if body or method == "POST":
        lines.append(f"content-length: {len(body)}")
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def answered_beyond(
    server: Any, number: int, body: bytes, closed: tuple[type[OSError], ...] = (ConnectionRefusedError,)
) -> bytes:
    """Return the reply to a request whose body comes when a signal has closed the server's port.

    Args:
        server: Serves a model `m`.
        number: The signal.
        body: Of the request.
        closed: What connecting to the port raises then.
    """
    host, port = server.root.removeprefix("http://").split(":")
    address = host, int(port)

    def is_closed() -> bool:
        try:
            socket.create_connection(address).close()
        except closed:
            return True
        return False

    with socket.create_connection(address) as connection:
        connection.sendall(
            b"POST /v1/models/m:predict HTTP/1.1\r\nhost: m\r\ncontent-length: %d\r\n"
            b"expect: 100-continue\r\n\r\n" % len(body)
        )
        assert connection.recv(1000).startswith(b"HTTP/1.1 100")  # it is being handled now
        server.process.send_signal(number)
        server.wait_for(is_closed)
        connection.sendall(body)
        return connection.recv(10_000)
