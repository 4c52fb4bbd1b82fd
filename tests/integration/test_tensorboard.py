"""`fairway tensorboard`: real TensorBoard, without TensorFlow, on a disk and on an object store."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from fairway.storage.stores.store import Store
from fairway.storage.stores.uri import open_store
from tests.conftest import Fairway
from tests.servers.fixtures import use
from tests.servers.moto import Moto
from tests.servers.proxy import Answer, FaultProxy

DEADLINE_S = 60.0


@contextmanager
def tensorboard(home: Path, environment: dict[str, str], *words: str) -> Iterator[httpx.Client]:
    """Start TensorBoard, give a client of its address, and see that a signal ends it cleanly."""
    with subprocess.Popen(
        [sys.executable, "-m", "fairway", "tensorboard", "--port", "0", *words],
        cwd=home,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stderr is not None
            url = process.stderr.readline().split()[-1]
            with httpx.Client(trust_env=False, base_url=url) as client:
                yield client
            maps = psutil.Process(process.pid).memory_maps()
            assert not [file.path for file in maps if "tensorflow" in file.path]
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=20) == 0
        finally:
            process.kill()


@pytest.mark.parametrize("words", [[], ["--path-prefix", "/board"], ["--path_prefix", "/board"]])
def test_curves_and_pictures_are_shown(
    trained_export: Path, environment: dict[str, str], words: list[str]
) -> None:
    with tensorboard(trained_export.parents[1], environment, "--logdir", "mnist/model", *words) as client:
        assert client.base_url.path == ("/board/" if words else "/")
        assert "TensorBoard" in client.get("").text
        scalars = client.get("data/plugin/scalars/tags").json()
        speeds = {"steps_per_s", "samples_per_s", "checkpoint_s"}
        assert scalars["events/train"].keys() == {"loss", "accuracy", "learning_rate"} | speeds
        pictures = client.get("data/plugin/images/tags").json()["events/test"]
        assert pictures.keys() == {"confusion matrix", "worst mistakes"}


@pytest.fixture
def store(moto: Moto, monkeypatch: pytest.MonkeyPatch) -> Store:
    use(moto, monkeypatch)
    return open_store(f"{moto.new_bucket()}/runs")


@pytest.fixture
def proxy(moto: Moto) -> Iterator[FaultProxy]:
    with FaultProxy(moto.address) as proxy:
        yield proxy


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def points(client: httpx.Client, run: str) -> int:
    """Return how many points of the loss TensorBoard shows."""
    answer = client.get("data/plugin/scalars/scalars", params={"run": run, "tag": "loss"})
    return len(answer.json()) if answer.status_code == 200 else 0


def test_a_training_in_a_store_is_followed(
    trained_export: Path,
    environment: dict[str, str],
    moto: Moto,
    store: Store,
    proxy: FaultProxy,
    tmp_path: Path,
) -> None:
    (events,) = (trained_export.parent / "model" / "events" / "train").iterdir()
    content = events.read_bytes()
    key = f"first/events/train/{events.name}"
    store.write(key, content[: len(content) // 3])
    store.write("first/metrics.jsonl", b"{}\n")
    variables = environment | moto.environment | {"S3_ENDPOINT": proxy.endpoint}

    with tensorboard(tmp_path, variables, "--logdir", store.uri, "--path_prefix", "/board") as client:
        assert "TensorBoard" in client.get("").text
        wait_for(lambda: points(client, "first/events/train") > 1)
        first = points(client, "first/events/train")

        store.write(key, content[: 2 * len(content) // 3])
        wait_for(lambda: points(client, "first/events/train") > first)
        proxy.fault = lambda _: Answer(403, "AccessDenied")
        before = len(proxy.requests)
        wait_for(lambda: len(proxy.requests) > before)
        second = points(client, "first/events/train")
        assert second > first

        proxy.fault = lambda _: None
        store.write(key, content)
        store.write(f"second/{events.name}", content)
        wait_for(lambda: points(client, "first/events/train") > second)
        wait_for(lambda: points(client, "second") > second)
        (directory,) = (tmp_path / "cache" / "fairway" / "tensorboard").iterdir()
        assert (directory / key).read_bytes() == content
        ranges = [request.headers.get("Range") for request in proxy.requests if key in request.path]
        assert f"bytes={len(content) // 3}-" in ranges
        before = len(proxy.requests)
        wait_for(lambda: len(proxy.requests) > before)
        listed: list[Any] = [request.path for request in proxy.requests[before:]]
        assert all("list-type" in path for path in listed)
    assert not list((tmp_path / "cache" / "fairway" / "tensorboard").iterdir())


def test_a_store_that_refuses_at_the_start_is_an_error(
    fairway: Fairway, moto: Moto, store: Store, tmp_path: Path
) -> None:
    done = fairway("tensorboard", "--port", "0", "--logdir", "s3://no-such-bucket/runs", **moto.environment)
    assert done.returncode == 1
    assert "there is no bucket no-such-bucket" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list((tmp_path / "cache" / "fairway" / "tensorboard").iterdir())
