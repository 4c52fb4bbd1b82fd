"""Ports: free, taken, and by whom."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
from contextlib import ExitStack
from typing import Any

import pytest

from fairway.errors import FairwayError
from fairway.net.ports import available, claim_port, listen, reachable, reserve


def test_free_port_is_returned_and_zero_gives_one() -> None:
    port = claim_port("127.0.0.1", 0, "--port")
    assert port > 0
    assert claim_port("127.0.0.1", port, "--port") == port


def test_taken_port_names_port_holder_and_flag() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(FairwayError) as caught:
            claim_port("127.0.0.1", port, "--web-port")
    assert f"port {port} on 127.0.0.1 is taken by process {os.getpid()}" in caught.value.message
    assert "--web-port" in caught.value.hint


def test_a_port_that_several_share_is_their_parents() -> None:
    share = (
        "import sys; from fairway.net.ports import listen;"
        "listener = listen('127.0.0.1', int(sys.argv[1]), '', shared=True); print(flush=True); input()"
    )
    with reserve("127.0.0.1", 0, "--port") as holder:
        port = holder.getsockname()[1]
        command = [sys.executable, "-c", share, str(port)]
        with ExitStack() as closing:
            for _ in range(2):
                process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
                closing.enter_context(process)
                closing.callback(process.kill)
                assert process.stdout
                process.stdout.readline()  # it listens
            with pytest.raises(FairwayError, match=f"is taken by process {os.getpid()} "):
                claim_port("127.0.0.1", port, "--port")


def test_address_of_another_machine_is_explained() -> None:
    with pytest.raises(FairwayError, match="192.0.2.1"):  # TEST-NET-1, RFC 5737
        claim_port("192.0.2.1", 0, "--port")


@pytest.fixture
def without_ipv6(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have sockets as on a machine started with ipv6.disable=1: Python knows IPv6, the kernel does not."""

    class Socket(socket.socket):
        def __init__(self, family: int = socket.AF_INET, *rest: Any, **named: Any) -> None:
            if family == socket.AF_INET6:
                raise OSError(errno.EAFNOSUPPORT, os.strerror(errno.EAFNOSUPPORT))
            super().__init__(family, *rest, **named)

    monkeypatch.setattr(socket, "socket", Socket)


@pytest.mark.usefixtures("without_ipv6")
def test_every_interface_is_that_of_ipv4_where_there_is_no_ipv6() -> None:
    with listen("::", 0, "--port") as listener:
        address = listener.getsockname()
        assert (listener.family, address[0]) == (socket.AF_INET, "0.0.0.0")
        socket.create_connection(("127.0.0.1", address[1]), timeout=10).close()
    assert available("::") == "0.0.0.0"
    assert reachable("::") == "127.0.0.1"


@pytest.mark.usefixtures("without_ipv6")
def test_an_ipv6_address_is_refused_where_there_is_no_ipv6() -> None:
    with pytest.raises(FairwayError) as caught:
        listen("::1", 0, "--port")
    assert caught.value.message == "cannot listen on ::1:0: Address family not supported by protocol"
    assert "--host" in caught.value.hint


def test_a_python_without_ipv6_listens_on_ipv4(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "has_ipv6", False)
    with listen("::", 0, "--port") as listener:
        assert listener.family == socket.AF_INET


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "::1", "localhost"])
def test_other_hosts_stay_what_they_are(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "has_ipv6", False)
    assert available(host) == host


def test_every_interface_takes_ipv4_too() -> None:
    if not socket.has_dualstack_ipv6():
        pytest.skip("no IPv6 here")
    with listen("::", 0, "--port") as listener:
        assert listener.family == socket.AF_INET6
        socket.create_connection(("127.0.0.1", listener.getsockname()[1]), timeout=10).close()
