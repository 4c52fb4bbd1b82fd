"""The body of a request, read with limits on its size and on the patience with the client."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from fairway.errors import FairwayError

MAX_BODY_BYTES = 64 * 1024 * 1024
BODY_TIMEOUT_S = 60.0

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]


class BodyError(FairwayError):
    """The body is too large or too slow.

    Args:
        http_status: 413 or 408.
        message: Names the limit.
        close: Whether the rest of the body may never end, so that the connection has to.
    """

    def __init__(self, http_status: int, message: str, *, close: bool) -> None:
        super().__init__(message)
        self.http_status = http_status
        self.close = close


class ClientGoneError(Exception):
    """The client hung up before it had sent all: there is nobody to answer."""


async def read_body(headers: list[tuple[bytes, bytes]], receive: Receive) -> bytes:
    """Return the whole body.

    Of a body whose Content-Length is too large, uvicorn throws away what still comes after the reply: a
    client that only listens once it has sent all gets it, too.

    Raises:
        BodyError: the body is too large, by its Content-Length or as it comes in, or takes too long.
        ClientGoneError: the client hung up.
    """
    for name, value in headers:
        if name == b"content-length" and int(value) > MAX_BODY_BYTES:
            raise _too_large(close=False)
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            return await _read(receive)
    except TimeoutError:
        message = f"the body did not arrive within {BODY_TIMEOUT_S:g} seconds"
        raise BodyError(408, message, close=True) from None


async def _read(receive: Receive) -> bytes:
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise ClientGoneError
        body += message["body"]
        if len(body) > MAX_BODY_BYTES:
            raise _too_large(close=True)
        if not message.get("more_body"):
            return bytes(body)


def _too_large(*, close: bool) -> BodyError:
    message = f"the body is larger than the limit of {MAX_BODY_BYTES} bytes (64 MiB)"
    return BodyError(413, message, close=close)
