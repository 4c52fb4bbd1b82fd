"""Stores behind a proxy that fails as the test wants."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.servers.fixtures import use
from tests.servers.gcs import GcsEmulator
from tests.servers.moto import Moto
from tests.servers.proxy import FaultProxy


@pytest.fixture
def via_proxy(moto: Moto, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultProxy]:
    """A proxy in front of moto, to which the environment leads."""
    with _in_front_of(moto, "S3_ENDPOINT", monkeypatch) as proxy:
        yield proxy


@pytest.fixture
def gcs_proxy(gcs_emulator: GcsEmulator, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultProxy]:
    """A proxy in front of gcp-storage-emulator, to which the environment leads."""
    with _in_front_of(gcs_emulator, "STORAGE_EMULATOR_HOST", monkeypatch) as proxy:
        yield proxy


@contextmanager
def _in_front_of(
    server: Moto | GcsEmulator, endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[FaultProxy]:
    use(server, monkeypatch)
    with FaultProxy(server.address) as proxy:
        monkeypatch.setenv(endpoint, proxy.endpoint)
        yield proxy
