"""What may be written as the address of a model server."""

from __future__ import annotations

import pytest

from fairway.client.address import parse_address
from fairway.errors import UsageError


@pytest.mark.parametrize(
    ("address", "text", "url"),
    [
        ("localhost:8500", "localhost:8500", "http://localhost:8500"),
        ("localhost", "localhost:9000", "http://localhost:9000"),
        ("[::1]", "[::1]:9000", "http://[::1]:9000"),
        ("[::1]:8500", "[::1]:8500", "http://[::1]:8500"),
        ("a:80", "a:80", "http://a"),
        ("http://a:1", "http://a:1", "http://a:1"),
        ("https://models.example", "https://models.example", "https://models.example"),
    ],
)
def test_an_address_has_the_port_that_it_names_or_the_default(address: str, text: str, url: str) -> None:
    found = parse_address(address, 9000)
    assert (found.text, str(found.url)) == (text, url)


@pytest.mark.parametrize(
    "address", ["", ":8500", "a b", "ftp://a", "a:b", "a:99999", "http://a/v1", "a:1?b=c", "http://a:0"]
)
def test_what_is_no_address_is_refused_at_the_start(address: str) -> None:
    with pytest.raises(UsageError, match="HOST:PORT") as raised:
        parse_address(address, 9000)
    assert repr(address) in raised.value.message
