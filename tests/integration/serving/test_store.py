"""Serving from an object store: what comes, goes and fails there while requests are answered."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fairway.storage.cache import cache_path
from fairway.storage.exports import Version, read_version
from fairway.storage.publish import publish_version, remove_version
from tests.servers.fixtures import use
from tests.servers.moto import Moto
from tests.servers.proxy import Answer, Delay, FaultProxy

Publish = Callable[[str, int], Version]


@pytest.fixture
def proxy(moto: Moto, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FaultProxy]:
    """The only way to the store for servers that are started; the test itself asks it directly."""
    use(moto, monkeypatch)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with FaultProxy(moto.address) as proxy:
        yield proxy


@pytest.fixture
def uri(moto: Moto, proxy: FaultProxy) -> str:
    return f"{moto.new_bucket()}/models"


@pytest.fixture
def serve_store(
    serve: Callable[..., Any], uri: str, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> Callable[[], Any]:
    def start() -> Any:
        with monkeypatch.context() as through_the_proxy:
            through_the_proxy.setenv("S3_ENDPOINT", proxy.endpoint)
            return serve(base_path=uri)

    return start


@pytest.fixture
def release(publish: Callable[[str, int], Path], uri: str) -> Publish:
    """Publish a model in the store under a version number."""
    return lambda model, number: publish_version(read_version(publish(model, number)), uri)


@pytest.fixture
def kept(uri: str, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory in which servers keep versions of the store."""
    with monkeypatch.context() as through_the_proxy:
        through_the_proxy.setenv("S3_ENDPOINT", proxy.endpoint)
        return cache_path("served", uri)


def numbers(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir() if path.name.isdigit())


def test_versions_come_and_go(
    serve_store: Callable[[], Any], release: Publish, uri: str, kept: Path, proxy: FaultProxy
) -> None:
    server = serve_store()
    server.wait_for(lambda: len(proxy.requests) > 2)
    assert server.client.get(f"{server.root}/readyz").status_code == 503
    assert server.problem() == f"no version in {uri} yet"

    release("half_plus_two", 1)
    server.wait_for_version(1)
    release("half_plus_three", 2)
    server.wait_for_version(2)
    assert server.predict(instances=[1.0]).json() == {"predictions": [3.5]}
    assert numbers(kept) == ["1", "2"]

    remove_version(uri, 2)
    server.wait_for_version(1)
    release("half_plus_three", 3)
    server.wait_for_version(3)
    release("half_plus_two", 4)
    server.wait_for_version(4)
    server.wait_for(lambda: numbers(kept) == ["3", "4"])
    proxy.requests.clear()
    server.wait_for(lambda: len(proxy.requests) > 5)
    assert {request.path.partition("?")[0] for request in proxy.requests} == {f"/{uri[5:].split('/')[0]}"}


def test_an_outage_and_a_restart_in_it(
    serve_store: Callable[[], Any], release: Publish, proxy: FaultProxy, uri: str, kept: Path
) -> None:
    release("half_plus_two", 1)
    server = serve_store()
    server.wait_for_version(1)
    proxy.fault = lambda _: Answer(403, "AccessDenied")
    before = len(proxy.requests)
    server.wait_for(lambda: len(proxy.requests) > before + 5)
    assert server.predict(instances=[1.0]).json() == {"predictions": [2.5]}
    assert server.stop() == 0

    server = serve_store()
    server.wait_for_version(1)
    assert server.predict(instances=[1.0]).json() == {"predictions": [2.5]}
    assert f"asking again and again, and serving what is in {kept}" in server.output
    proxy.fault = lambda _: None
    release("half_plus_three", 2)
    server.wait_for_version(2)
    assert server.output.count("access is denied") == 1
    assert server.output.count(f"{uri} answers again") == 1


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (Answer(403, "SignatureDoesNotMatch"), "Check AWS_ACCESS_KEY_ID"),
        (Answer(404, "NoSuchBucket"), "there is no bucket"),
    ],
)
def test_a_store_that_refuses_is_asked_again(
    serve_store: Callable[[], Any], release: Publish, proxy: FaultProxy, fault: Answer, reason: str
) -> None:
    proxy.fault = lambda _: fault
    server = serve_store()
    server.wait_for(lambda: reason in server.problem())
    assert server.client.get(f"{server.root}/healthz").status_code == 200
    proxy.fault = lambda _: None
    release("half_plus_two", 1)
    server.wait_for_version(1)
    assert len(re.findall(reason, server.output)) == 2  # the warning, and "nothing to serve yet"


def test_a_stop_in_the_middle_of_a_fetch_leaves_nothing(
    serve_store: Callable[[], Any], release: Publish, proxy: FaultProxy, kept: Path
) -> None:
    release("half_plus_two", 1)
    proxy.fault = lambda request: Delay(1) if "variables" in request.path else None
    server = serve_store()
    server.wait_for(lambda: any("variables" in request.path for request in proxy.requests))
    assert server.root
    started = time.monotonic()
    assert server.stop() == 0
    assert time.monotonic() - started < 10
    assert [path.name for path in kept.iterdir()] == [".serve.lock"]
