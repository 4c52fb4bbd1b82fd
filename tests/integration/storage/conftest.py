"""A store behind a proxy that fails as the test wants."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.servers.fixtures import use
from tests.servers.moto import Moto
from tests.servers.proxy import FaultProxy


@pytest.fixture
def via_proxy(moto: Moto, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultProxy]:
    """A proxy in front of moto, to which the environment leads."""
    use(moto, monkeypatch)
    with FaultProxy(moto.address) as proxy:
        monkeypatch.setenv("S3_ENDPOINT", proxy.endpoint)
        yield proxy
