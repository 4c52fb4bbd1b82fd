"""Ports of this machine: take one, or say who holds it."""

from __future__ import annotations

import errno
import socket

from fairway.errors import FairwayError

BACKLOG = 2048


def listen(host: str, port: int, flag: str, *, shared: bool = False) -> socket.socket:
    """Return a socket that listens.

    Args:
        host: Address or name to listen on; see also `available`.
        port: Port; 0 takes a free one.
        flag: The flag that sets the port, for the message.
        shared: Whether other processes of this user may listen there, too; see `reserve`.

    Raises:
        FairwayError: the port is taken or forbidden, or the address is not this machine's. The message
            names the process that holds the port, where the system tells.
    """
    listener = _bind(host, port, flag, shared=shared)
    try:
        listener.listen(BACKLOG)
    except OSError as err:
        listener.close()
        raise _explain(err, available(host), port, flag) from err
    return listener


def reserve(host: str, port: int, flag: str) -> socket.socket:
    """Return a socket that keeps a port for processes that are to share it, and does not listen itself.

    As long as it is open, `listen` works there only with `shared`.

    Raises:
        FairwayError: as `listen` does, also where the port is shared by others.
    """
    if port:
        claim_port(host, port, flag)
    holder = _bind(host, port, flag, shared=True)
    # From here on the port does not count as free, although nobody listens yet.
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
    return holder


def _bind(host: str, port: int, flag: str, *, shared: bool) -> socket.socket:
    host = available(host)
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError as err:
        raise FairwayError(f"cannot listen on host {host}: {err.strerror}", hint="Set --host.") from err
    try:
        listener = socket.socket(family, kind, protocol)
    except OSError as err:
        raise _explain(err, host, port, flag) from err
    try:
        # A port on which closed connections still linger counts as free.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind(address)
    except OSError as err:
        listener.close()
        raise _explain(err, host, port, flag) from err
    return listener


def available(host: str) -> str:
    """Return the host to listen on: for `::`, which takes IPv4 too, `0.0.0.0` if this system has no IPv6."""
    return "0.0.0.0" if host == "::" and not socket.has_dualstack_ipv6() else host


def claim_port(host: str, port: int, flag: str) -> int:
    """Return the port if it can be listened on, and a free one for 0.

    Raises:
        FairwayError: as `listen` does.
    """
    with listen(host, port, flag) as listener:
        return int(listener.getsockname()[1])


def reachable(host: str) -> str:
    """Return the host under which a server that listens on `host` is reached from here, as URLs have it."""
    host = available(host)
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"[{host}]" if ":" in host else host


def _explain(err: OSError, host: str, port: int, flag: str) -> FairwayError:
    if err.errno == errno.EADDRINUSE:
        return FairwayError(
            f"port {port} on {host} is taken{_by_whom(port)}",
            hint=f"End that process, or choose another port with {flag} (0 takes a free one).",
        )
    if err.errno == errno.EACCES:
        return FairwayError(
            f"port {port} may not be used by this user", hint=f"Choose one above 1023 with {flag}."
        )
    return FairwayError(f"cannot listen on {host}:{port}: {err.strerror}", hint=f"Set --host and {flag}.")


def _by_whom(port: int) -> str:
    import psutil  # only where something is wrong: it takes 20 ms to load

    try:
        holders = {
            int(connection.pid)
            for connection in psutil.net_connections("tcp")
            if connection.status == psutil.CONN_LISTEN
            and getattr(connection.laddr, "port", 0) == port
            and connection.pid
        }
        if holders:
            process = psutil.Process(min(holders))
            if len(holders) > 1:  # they share it, and would be started again: who has started them is to end
                process = process.parent() or process
            words = " ".join(process.cmdline())[:80]
            return f" by process {process.pid} ({words or process.name()})"
    except psutil.Error:
        pass  # another user's process: the system does not tell
    return ""
