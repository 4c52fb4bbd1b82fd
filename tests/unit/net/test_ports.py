"""Ports: free, taken, and by whom."""

from __future__ import annotations

import os
import socket

import pytest

from fairway.errors import FairwayError
from fairway.net.ports import claim_port


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


def test_address_of_another_machine_is_explained() -> None:
    with pytest.raises(FairwayError, match="192.0.2.1"):  # TEST-NET-1, RFC 5737
        claim_port("192.0.2.1", 0, "--port")
