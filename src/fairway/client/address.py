"""Addresses of model servers, as users write them."""

from __future__ import annotations

import re
from typing import NamedTuple

import httpx

from fairway.errors import UsageError


class Address(NamedTuple):
    """Where a server is: as users read it, and taken apart."""

    text: str
    url: httpx.URL


def parse_address(address: str, default_port: int) -> Address:
    """Return HOST:PORT, HOST, or a URL with scheme http or https and no path.

    Args:
        address: What a user wrote.
        default_port: The port of a HOST without one; a URL without one has its scheme's.

    Raises:
        UsageError: it is something else.
    """
    text = address if "://" in address or _names_port(address) else f"{address}:{default_port}"
    try:
        url = httpx.URL(text if "://" in text else f"http://{text}")
        usable = url.scheme in ("http", "https") and url.path == "/" and not url.query
        usable &= bool(re.fullmatch(r"[^%\s]+", url.host)) and (url.port is None or 0 < url.port < 65536)
    except httpx.InvalidURL:
        usable = False
    if not usable:
        raise UsageError(
            f"server is {address!r}, but must be HOST:PORT",
            hint=f"Set it with --server, as 127.0.0.1:{default_port}.",
        )
    return Address(text, url)


def _names_port(address: str) -> bool:
    return ":" in address.rpartition("]")[2]
