"""What storage costs: publish and fetch against bare boto3, an idle mirror, a training with one, a poll."""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

from bench.report import Figure
from bench.runs import fairway, mnist_dir
from fairway.storage.exports import Catalog, Version, find_version
from fairway.storage.manifest import MANIFEST
from fairway.storage.mirror import Mirror
from fairway.storage.model_dir import CHECKPOINTS, CONFIG, EVENTS, METRICS
from fairway.storage.publish import fetch_version, publish_version
from fairway.storage.stores.uri import open_store, split_uri
from fairway.storage.transfer import THREADS
from tests.manifests import make_version
from tests.servers.moto import Moto
from tests.servers.proxy import FaultProxy
from tests.servers.s3 import s3_client
from tests.servers.swift import Swift

FILES, FILE_BYTES = 20, 750_000
ROUNDS = 9
STEPS = 1500
PAIRS = 5
SETTLED_STEP = 200
"""From here on the steps are timed: the first ones compile."""


def transfer() -> list[Figure]:
    """Publish and fetch a version on Swift, in alternation with boto3's own transfers in threads."""
    with Swift() as swift, _reaching(swift.environment), tempfile.TemporaryDirectory() as home:
        bucket = swift.new_bucket()
        client = s3_client(swift.environment)
        ours: dict[str, list[float]] = {"publish": [], "fetch": []}
        bare: dict[str, list[float]] = {"publish": [], "fetch": []}
        for number in range(1, ROUNDS + 1):
            version = make_version(Path(home, "export"), number, files=FILES, size=FILE_BYTES)
            for seconds, publish, fetch in _in_turn(
                number,
                (ours, lambda v: publish_version(v, f"{bucket}/ours"), lambda v: _fetch(v, bucket, home)),
                (
                    bare,
                    lambda v: _bare_upload(client, bucket, v),
                    lambda v: _bare_download(client, bucket, v, Path(home, "bare")),
                ),
            ):
                seconds["publish"].append(_seconds(publish, version))
                seconds["fetch"].append(_seconds(fetch, version))
        client.close()
    return [
        Figure(
            f"{name} {FILES} files, {FILES * FILE_BYTES / 1e6:.0f} MB on Swift, against bare boto3",
            median(a / b for a, b in zip(ours[name], bare[name], strict=True)),
            "×",
            1.3,
            "lower",
            f"medians {median(ours[name]):.2f} and {median(bare[name]):.2f} s of {ROUNDS} in alternation",
        )
        for name in ("publish", "fetch")
    ]


def idle_mirror(looks: int = 500) -> list[Figure]:
    """A look of the mirror at a model directory that has not changed."""
    with (
        Moto() as moto,
        FaultProxy(moto.address) as proxy,
        tempfile.TemporaryDirectory() as home,
        _reaching(moto.environment | {"S3_ENDPOINT": proxy.endpoint}),
    ):
        mirror = Mirror(_model_dir(Path(home)), open_store(moto.new_bucket()))
        mirror.look()
        before = len(proxy.requests)
        times = [_seconds(lambda _: mirror.look(), None) for _ in range(looks)]
        requests = len(proxy.requests) - before
    return [
        Figure("a look of the mirror, nothing new", 1000 * median(times), "ms", 1, "lower", f"of {looks}"),
        Figure("… its requests", requests, "", 0),
    ]


def mirrored_training() -> list[Figure]:
    """Steps per second of the default training with its directories on S3 and on disk, in alternation."""
    rates: dict[str, list[float]] = {"s3": [], "disk": []}
    with Swift() as swift, _reaching(swift.environment):
        for turn in range(PAIRS):
            for place in ("s3", "disk") if turn % 2 else ("disk", "s3"):
                with tempfile.TemporaryDirectory() as home:
                    root = f"{swift.new_bucket()}/run" if place == "s3" else f"{home}/run"
                    rates[place].append(_training_rate(Path(home), root))
    ratios = [a / b for a, b in zip(rates["s3"], rates["disk"], strict=True)]
    values = ", ".join(f"{ratio:.3f}" for ratio in ratios)
    note = f"medians {median(rates['s3']):.0f} and {median(rates['disk']):.0f} steps/s; pairs: {values}"
    return [Figure("training with an s3 mirror, against disk", median(ratios), "×", 0.97, "higher", note)]


def poll(polls: int = 20) -> list[Figure]:
    """A look for new versions in an export directory with 10 versions of 20 files."""
    with (
        Moto() as moto,
        FaultProxy(moto.address) as proxy,
        tempfile.TemporaryDirectory() as home,
        _reaching(moto.environment | {"S3_ENDPOINT": proxy.endpoint}),
    ):
        uri = f"{moto.new_bucket()}/export"
        for number in range(1, 11):
            publish_version(make_version(Path(home), number, files=FILES), uri)
        catalog = Catalog(open_store(uri))
        assert len(catalog.versions()) == 10
        before = len(proxy.requests)
        times = [_seconds(lambda _: catalog.versions(), None) for _ in range(polls)]
        requests = (len(proxy.requests) - before) / polls
    note = f"{1000 * median(times):.0f} ms each, most of it in the test server"
    return [Figure("requests of a poll, 10 versions of 20 files", requests, "", 1, "lower", note)]


@contextmanager
def _reaching(environment: dict[str, str]) -> Iterator[None]:
    """Make the environment lead to a server."""
    before = dict(os.environ)
    os.environ.update(environment)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _in_turn(number: int, *sides: Any) -> list[Any]:
    return list(sides if number % 2 else reversed(sides))


def _seconds(call: Callable[[Any], object], argument: object) -> float:
    started = time.perf_counter()
    call(argument)
    return time.perf_counter() - started


def _fetch(version: Version, bucket: str, home: str) -> None:
    fetch_version(find_version(f"{bucket}/ours", version.number), Path(home, "ours"))


def _names(version: Version) -> list[str]:
    assert version.manifest
    return [*version.manifest.files, MANIFEST]


def _bare_upload(client: Any, bucket: str, version: Version) -> None:
    name = split_uri(bucket)[1]
    with ThreadPoolExecutor(THREADS) as executor:
        for _ in executor.map(
            lambda file: client.upload_file(str(version.path / file), name, f"bare/{version.number}/{file}"),
            _names(version),
        ):
            pass


def _bare_download(client: Any, bucket: str, version: Version, target: Path) -> None:
    name = split_uri(bucket)[1]
    (target / str(version.number) / "variables").mkdir(parents=True)
    with ThreadPoolExecutor(THREADS) as executor:
        for _ in executor.map(
            lambda file: client.download_file(
                name, f"bare/{version.number}/{file}", str(target / str(version.number) / file)
            ),
            _names(version),
        ):
            pass


def _model_dir(path: Path) -> Path:
    """Write a model directory as a training leaves it."""
    for name in (CONFIG, METRICS, f"{EVENTS}/train/events.1", f"{EVENTS}/test/events.1"):
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(b"x\n" * 1000)
    (path / CHECKPOINTS).mkdir()
    for step in (200, 400, 468):
        for end in ("data-00000-of-00001", "index"):
            (path / CHECKPOINTS / f"ckpt-{step:08d}.{end}").write_bytes(b"x" * 100_000)
    return path


def _training_rate(home: Path, root: str) -> float:
    """Train, and return the steps per second, checkpoints included."""
    fairway(
        *("train", "--data-dir", str(mnist_dir()), "--train-steps", str(STEPS)),
        *("--model-dir", f"{root}/model", "--export-dir", f"{root}/export"),
        home=home,
    )
    lines = [json.loads(line) for line in open_store(f"{root}/model").read(METRICS).splitlines()]
    steps = [line for line in lines if "loss" in line and line["step"] >= SETTLED_STEP]
    first, last = steps[0], steps[-1]
    return float((last["step"] - first["step"]) / (last["time"] - first["time"]))
