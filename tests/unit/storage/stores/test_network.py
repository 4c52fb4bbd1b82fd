"""Whether a server can be reached, with real sockets."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from fairway.storage.stores.network import UnreachableError, endpoint_of, reach
from tests.dead import black_hole, refusing

WAIT_S = 0.3
MARGIN_S = 5.0
"""Room for a busy machine."""
NO_ROUTE = "255.255.255.255"
"""TCP knows no broadcast: Linux refuses at once to connect there."""
UNKNOWN_FAMILY = 255


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def listening() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


@pytest.mark.parametrize(
    ("url", "endpoint"),
    [
        ("http://host:9000", "host:9000"),
        ("http://host", "host:80"),
        ("https://host/path", "host:443"),
        ("https://[::1]:9000", "[::1]:9000"),
        ("http://name:password@host:1", "host:1"),
    ],
)
def test_endpoint_in_messages(url: str, endpoint: str) -> None:
    assert endpoint_of(url) == endpoint


def test_listening_server_is_reached(listening: int) -> None:
    reach(f"http://127.0.0.1:{listening}", WAIT_S)
    reach(f"http://localhost:{listening}", WAIT_S)


def test_one_address_of_several_is_enough(monkeypatch: pytest.MonkeyPatch, listening: int) -> None:
    with black_hole() as hole, refusing() as closed:
        addresses = [("127.0.0.1", port) for port in (hole, closed, listening)]
        answer = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", address) for address in addresses]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: answer)
        started = time.monotonic()
        reach("http://store.example", MARGIN_S)
        assert time.monotonic() - started < MARGIN_S


@pytest.mark.parametrize("family", [socket.AF_INET, UNKNOWN_FAMILY])
def test_network_that_this_machine_does_not_have(
    monkeypatch: pytest.MonkeyPatch, listening: int, family: int
) -> None:
    """As often that of IPv6, be it that there is no route or that the system does not know it."""
    answer = [(family, socket.SOCK_STREAM, 6, "", (NO_ROUTE, 80))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: answer)
    with pytest.raises(UnreachableError, match="there is no network to it"):
        reach("http://store.example", WAIT_S)
    answer.append((socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", listening)))
    reach("http://store.example", WAIT_S)
    with refusing() as closed, pytest.raises(UnreachableError, match="it refuses connections"):
        answer[-1] = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", closed))
        reach("http://store.example", WAIT_S)


def test_refusal() -> None:
    with refusing() as port, pytest.raises(UnreachableError, match="it refuses connections") as caught:
        reach(f"http://127.0.0.1:{port}", WAIT_S)
    assert caught.value.is_transient


def test_packets_that_are_dropped() -> None:
    with black_hole() as port:
        started = time.monotonic()
        with pytest.raises(UnreachableError, match="it does not answer") as caught:
            reach(f"http://127.0.0.1:{port}", WAIT_S)
    assert WAIT_S <= time.monotonic() - started < WAIT_S + MARGIN_S
    assert caught.value.is_transient


def test_host_that_does_not_exist() -> None:
    with pytest.raises(UnreachableError, match=r"no-such-host\.invalid"):
        reach("http://no-such-host.invalid:9000", MARGIN_S)


def test_name_that_is_wrong_will_not_be_right_in_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(code: int) -> None:
        raise socket.gaierror(code, "said the resolver")

    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: fail(socket.EAI_NONAME))
    with pytest.raises(UnreachableError, match="there is no host store") as caught:
        reach("http://store", WAIT_S)
    assert not caught.value.is_transient
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: fail(socket.EAI_AGAIN))
    with pytest.raises(UnreachableError, match="the name server has no answer for store") as caught:
        reach("http://store", WAIT_S)
    assert caught.value.is_transient


def test_name_server_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    over = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: over.wait(60) and [])
    started = time.monotonic()
    with pytest.raises(UnreachableError, match="the name server does not answer for store"):
        reach("http://store", WAIT_S)
    assert time.monotonic() - started < WAIT_S + MARGIN_S
    over.set()


def test_behind_a_proxy_nothing_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "http://proxy.example:3128")
    monkeypatch.setenv("no_proxy", "store.local")
    reach("https://no-such-host.invalid", WAIT_S)
    with pytest.raises(UnreachableError):
        reach("http://no-such-host.invalid", MARGIN_S)
    with pytest.raises(UnreachableError):
        reach("https://store.local", MARGIN_S)
