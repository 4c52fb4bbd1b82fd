"""The servers as pytest fixtures: each is started once, when a test first asks for it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.servers.gcs import GcsEmulator
from tests.servers.local import LocalDisk
from tests.servers.moto import Moto
from tests.servers.process import StoreServer
from tests.servers.swift import Swift

SERVERS = ("local_disk", "moto", "swift", "gcs_emulator")


def except_on(name: str, reason: str) -> pytest.MarkDecorator:
    """Run a test on every server, of which one is known to fail it; should it not, the test fails."""
    failing = pytest.param(name, marks=pytest.mark.xfail(reason=reason, strict=True))
    params = [failing if each == name else each for each in SERVERS]
    return pytest.mark.parametrize("server", params, indirect=True)


@pytest.fixture(scope="session")
def local_disk() -> Iterator[LocalDisk]:
    with LocalDisk() as server:
        yield server


@pytest.fixture(scope="session")
def moto() -> Iterator[Moto]:
    with Moto() as server:
        yield server


@pytest.fixture(scope="session")
def swift() -> Iterator[Swift]:
    with Swift() as server:
        yield server


@pytest.fixture(scope="session")
def gcs_emulator() -> Iterator[GcsEmulator]:
    with GcsEmulator() as server:
        yield server


@pytest.fixture(params=SERVERS)
def server(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> StoreServer:
    """Every kind of store in turn; the environment leads to it."""
    return use(request.getfixturevalue(request.param), monkeypatch)


@pytest.fixture(params=["local_disk", "moto", "swift"])
def conditional_server(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> StoreServer:
    """As `server`, but only those that obey preconditions: of two writers one fails."""
    return use(request.getfixturevalue(request.param), monkeypatch)


def use(server: StoreServer, monkeypatch: pytest.MonkeyPatch) -> StoreServer:
    """Make the environment lead to a server."""
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    return server
