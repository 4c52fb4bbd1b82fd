"""Ports of this machine: is one free, and who holds it if not."""

from __future__ import annotations

import errno
import socket

import psutil

from fairway.errors import FairwayError


def claim_port(host: str, port: int, flag: str) -> int:
    """Return the port if it is free, and a free one for 0.

    Args:
        host: Address that will be listened on.
        port: Port, or 0.
        flag: The flag that sets it, for the message.

    Raises:
        FairwayError: it is taken, or may not be used; the message names the holder where the system tells.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        # As servers do: a port on which closed connections still linger counts as free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except PermissionError as err:
            raise FairwayError(
                f"port {port} may not be used by this user", hint=f"Choose one above 1023 with {flag}."
            ) from err
        except OSError as err:
            raise FairwayError(
                f"port {port} on {host} is taken{_by_whom(port)}"
                if err.errno == errno.EADDRINUSE
                else f"{host}:{port}: {err}",
                hint=f"End that process, or choose another port with {flag} (0 takes a free one).",
            ) from err
        return int(probe.getsockname()[1])


def _by_whom(port: int) -> str:
    try:
        for connection in psutil.net_connections("tcp"):
            listening = connection.status == psutil.CONN_LISTEN
            if listening and getattr(connection.laddr, "port", 0) == port and connection.pid:
                process = psutil.Process(connection.pid)
                words = " ".join(process.cmdline())[:80]
                return f" by process {connection.pid} ({words or process.name()})"
    except psutil.Error:
        pass  # another user's process: the system does not tell
    return ""
