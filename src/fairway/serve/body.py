"""The body of a request, read with a limit on its size; for how long, `net.connection` watches."""

from __future__ import annotations

import zlib
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from fairway.tfs.status import Code, RequestError, invalid

MAX_BODY_BYTES = 64 * 1024 * 1024

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]

_GZIP = (b"gzip", b"x-gzip")
_GZIP_WINDOW = 31  # zlib's: the largest window, with gzip's header and checksum


class BodyError(RequestError):
    """The body is too large or of an unknown encoding.

    Args:
        http_status: 413 or 415.
        message: Names the limit, or what is known.
        close: Whether the rest of the body may never end, so that the connection has to.
    """

    def __init__(self, http_status: int, message: str, *, close: bool) -> None:
        super().__init__(Code.INVALID_ARGUMENT, message)
        self.http_status = http_status
        self.close = close


class Body:
    """A body that is still to be read.

    Of a body whose Content-Length is too large, uvicorn throws away what still comes after the reply: a
    client that only listens once it has sent all gets it, too.

    Args:
        headers: Of the request, with names in lower case.
        receive: ASGI's.

    Attributes:
        gzip: Whether `inflate` has to be called on it.

    Raises:
        BodyError: it is too large by its Content-Length, or encoded otherwise than by gzip.
    """

    __slots__ = ("_first", "_length", "_receive", "gzip")

    def __init__(self, headers: list[tuple[bytes, bytes]], receive: Receive) -> None:
        self._receive = receive
        self._first: Message | None = None
        self._length: int | None = None
        self.gzip = False
        for name, value in headers:
            if name == b"content-length":
                self._length = int(value)
                if self._length > MAX_BODY_BYTES:
                    raise _too_large(close=False)
            elif name == b"content-encoding":
                self.gzip = _is_gzip(value)

    async def expect(self) -> int:
        """Return how many bytes it will have at most.

        Raises:
            RequestError: CANCELLED; the client hung up.
        """
        if self._length is not None:
            return self._length
        # In chunks: if it is a small one, all of it is there by now.
        self._first = await self._receive()
        return MAX_BODY_BYTES if self._first.get("more_body") else len(self._first.get("body", b""))

    async def read(self) -> bytes:
        """Return all of it.

        Raises:
            BodyError: it turns out too large.
            RequestError: CANCELLED; the client hung up.
        """
        message = self._first or await self._receive()
        if message["type"] == "http.request" and not message.get("more_body"):
            body: bytes = message["body"]
            if len(body) > MAX_BODY_BYTES:
                raise _too_large(close=False)
            return body
        return await self._read_on(message)

    async def _read_on(self, message: Message) -> bytes:
        body = bytearray()
        while True:
            if message["type"] != "http.request":
                raise RequestError(Code.CANCELLED, "the client hung up before it had sent all")
            body += message["body"]
            if len(body) > MAX_BODY_BYTES:
                raise _too_large(close=True)
            if not message.get("more_body"):
                return bytes(body)
            message = await self._receive()


def inflate(data: bytes) -> bytes:
    """Return what has been compressed with gzip.

    Raises:
        BodyError: it is larger than a body may be.
        RequestError: it is not the whole of what gzip writes, or more.
    """
    stream = zlib.decompressobj(_GZIP_WINDOW)
    try:
        body = stream.decompress(data, MAX_BODY_BYTES + 1)
    except zlib.error as err:
        raise invalid(f"the body cannot be decompressed: {err}") from None
    if len(body) > MAX_BODY_BYTES:
        raise _too_large(close=False)
    if not stream.eof or stream.unused_data:
        raise invalid("the body cannot be decompressed: it is not one whole gzip stream")
    return body


def _is_gzip(encoding: bytes) -> bool:
    encoding = encoding.strip().lower()
    if encoding not in (*_GZIP, b"identity", b""):
        text = f"Content-Encoding {encoding[:50].decode('latin-1')!r} is not supported; have: gzip, identity"
        raise BodyError(415, text, close=False)
    return encoding in _GZIP


def _too_large(*, close: bool) -> BodyError:
    message = f"the body is larger than the limit of {MAX_BODY_BYTES} bytes (64 MiB)"
    return BodyError(413, message, close=close)
