"""Which proxy leads to a cluster."""

from __future__ import annotations

import pytest

from fairway.deploy.kube.proxy import proxy_for

PROXY = "http://proxy.example:3128"


@pytest.mark.parametrize(
    ("url", "no_proxy", "direct"),
    [
        ("https://api.example.com:6443", "", False),
        ("https://localhost:6443", "", True),
        ("https://127.0.0.1:6443", "", True),
        ("https://[::1]:6443", "", True),
        ("https://10.99.0.1:6443", "10.0.0.0/8", True),
        ("https://10.99.0.1:6443", "192.168.0.0/16, 10.99.0.1", True),
        ("https://10.99.0.1:6443", "10.99.0.2", False),
        ("https://10.99.0.1:6443", "not-a-network/99,0.0.1", False),
        ("https://[fd00::7]:6443", "fd00::/8", True),
        ("https://api.example.com:6443", "example.com", True),
        ("https://api.example.com:6443", ".example.com", True),
        ("https://api.example.com:6443", "*.EXAMPLE.com", True),
        ("https://example.com:6443", ".example.com", False),
        ("https://api.notexample.com", "example.com", False),
        ("https://api.example.com:6443", "example.com:6443", True),
        ("https://api.example.com:6443", "example.com:443", False),
        ("https://api.example.com", "example.com:443", True),
        ("https://api.example.com", "*", True),
    ],
)
def test_no_proxy_is_read_as_kubectl_does(url: str, no_proxy: str, direct: bool) -> None:
    found = proxy_for(url, {"HTTPS_PROXY": PROXY, "NO_PROXY": no_proxy})
    assert found == (None if direct else PROXY)


def test_the_variable_is_of_the_urls_scheme() -> None:
    environ = {"https_proxy": "proxy.example:3128"}
    assert proxy_for("https://api.example.com", environ) == PROXY
    assert proxy_for("http://api.example.com", environ) is None
