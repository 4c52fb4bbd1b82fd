"""Whether a server can be reached at all, found out within a bounded time.

The SDKs resolve names without any limit and try the addresses of a name one after the other: an object
store with eight addresses behind a firewall that drops packets would take a minute and more to fail.
"""

from __future__ import annotations

import errno
import queue
import selectors
import socket
import threading
import time
from contextlib import ExitStack
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from fairway.storage.stores.retry import ATTEMPT_S

Address = tuple[socket.AddressFamily, Any]


class UnreachableError(Exception):
    """A server cannot be connected to.

    Attributes:
        is_transient: It may be there in a moment; a name that does not exist will not.
    """

    def __init__(self, cause: str, is_transient: bool = True) -> None:
        super().__init__(cause)
        self.is_transient = is_transient


def is_plain_answer(tls_error: Exception) -> bool:
    """Tell whether a server answers without TLS, in the words of one OpenSSL or another."""
    return any(words in str(tls_error) for words in ("WRONG_VERSION_NUMBER", "record layer failure"))


def is_tls_setting(tls_error: Exception) -> bool:
    """Tell whether an error in TLS comes of a setting and will last; else the line broke off."""
    return is_plain_answer(tls_error) or "CERTIFICATE_VERIFY_FAILED" in str(tls_error)


def endpoint_of(url: str) -> str:
    """Return HOST:PORT of a URL, as messages name an endpoint."""
    host, port = _host_and_port(url)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def reach(url: str, timeout_s: float = ATTEMPT_S) -> None:
    """Connect to the server of a URL and hang up; behind a proxy, which alone knows it, do nothing.

    Raises:
        UnreachableError: its name is not resolved, or none of its addresses answers in time.
    """
    host, port = _host_and_port(url)
    if getproxies().get(urlsplit(url).scheme) and not proxy_bypass(host):
        return
    end = time.monotonic() + timeout_s
    addresses = _resolve(host, port, timeout_s)
    with ExitStack() as stack, selectors.DefaultSelector() as selector:
        refused: int | None = None
        for family, address in addresses:
            try:
                attempt = stack.enter_context(socket.socket(family, socket.SOCK_STREAM))
                attempt.setblocking(False)
                attempt.connect(address)
            except BlockingIOError:
                selector.register(attempt, selectors.EVENT_WRITE, attempt)
            except OSError as err:  # this machine has no network of this kind, as often of IPv6
                refused = err.errno
            else:
                return
        while selector.get_map() and (left := end - time.monotonic()) > 0:
            for key, _ in selector.select(left):
                if not (code := key.data.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)):
                    return
                refused = code
                selector.unregister(key.fileobj)
        if selector.get_map() or refused is None:
            raise UnreachableError("it does not answer")
        raise UnreachableError(_CAUSES.get(refused) or errno.errorcode.get(refused, str(refused)))


_CAUSES = {
    errno.ECONNREFUSED: "it refuses connections",
    errno.EAFNOSUPPORT: "there is no network to it",
    errno.ENETUNREACH: "there is no network to it",
    errno.EHOSTUNREACH: "there is no network to it",
}


def _resolve(host: str, port: int, timeout_s: float) -> list[Address]:
    """Look a name up in a thread, as nothing else ends a look-up in time."""
    answer: queue.SimpleQueue[list[Address] | OSError] = queue.SimpleQueue()

    def look_up() -> None:
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            answer.put([(family, address) for family, _, _, _, address in found])
        except OSError as err:
            answer.put(err)

    threading.Thread(target=look_up, name=f"resolve {host}", daemon=True).start()
    try:
        found = answer.get(timeout=timeout_s)
    except queue.Empty as err:
        raise UnreachableError(f"the name server does not answer for {host}") from err
    if isinstance(found, socket.gaierror) and found.errno == socket.EAI_NONAME:
        raise UnreachableError(f"there is no host {host}", is_transient=False) from found
    if isinstance(found, OSError):
        raise UnreachableError(f"the name server has no answer for {host}") from found
    return found


def _host_and_port(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    return parts.hostname or "", parts.port or (80 if parts.scheme == "http" else 443)
