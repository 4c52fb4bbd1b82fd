"""Writers that are killed at random moments beside a reader: nothing half-written is ever read."""

from __future__ import annotations

import hashlib
import json
import operator
import os
import random
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from fairway.storage.checkpoints import fetch_model_dir
from fairway.storage.exports import list_versions
from fairway.storage.model_dir import CHECKPOINTS, METRICS
from fairway.storage.stores.store import NotThereError, Store
from fairway.storage.stores.uri import open_store
from tests.conftest import ROOT
from tests.servers.process import StoreServer

_MANIFEST = re.compile(rf"(\d+)/fairway\.json|{CHECKPOINTS}/ckpt-\d+\.json")
_DEADLINE_S = 60.0


class Reader(threading.Thread):
    """Reads all that a manifest promises as soon as it sees the manifest, again and again.

    It trusts the manifest alone, and does not look as `fairway` does whether the files are listed too.
    """

    def __init__(self, store: Store) -> None:
        super().__init__(name="reader")
        self._store = store
        self._stopping = threading.Event()
        self.read: dict[str, str] = {}
        self.bad: list[str] = []

    def run(self) -> None:
        last = False
        while not last:
            last = self._stopping.is_set()
            for entry in self._store.list():
                if _MANIFEST.fullmatch(entry.key):
                    self._read(entry.key)

    def stop(self) -> None:
        self._stopping.set()
        self.join()

    def _read(self, key: str) -> None:
        try:
            content = self._store.read(key)
        except NotThereError:
            return  # deleted since it was listed
        digest = hashlib.sha256(content).hexdigest()
        if self.read.setdefault(key, digest) != digest:
            self.bad.append(f"{key} has changed")
        for name, entry in json.loads(content)["files"].items():
            file = entry.get("key") or f"{key.partition('/')[0]}/{name}"
            try:
                found = hashlib.sha256(self._store.read(file)).hexdigest()
            except NotThereError:
                if self._store.stat(key) is None:
                    return  # deleted, the manifest first
                found = "nothing"
            if found != entry["sha256"]:
                self.bad.append(f"{file}: {found}")


def read_while_killing(
    kind: str, server: StoreServer, home: Path, rounds: int, enough: Callable[[Reader], object]
) -> tuple[str, Reader]:
    """Start a writer and kill it, again and again, beside a reader.

    The first one may write until something is whole. The next live for a random part of twice that time.
    After the rounds it goes on until there is enough to judge by.
    """
    uri = f"{server.new_bucket()}/models"
    reader = Reader(open_store(uri))
    reader.start()
    moments = random.Random(time.time_ns())
    end = time.monotonic() + _DEADLINE_S
    try:
        longest_s = 2 * write_for(kind, uri, home, lambda _: bool(reader.read))
        done = 0
        while done < rounds or (not enough(reader) and time.monotonic() < end):
            moment = moments.uniform(0, longest_s)
            write_for(kind, uri, home, partial(operator.le, moment))
            done += 1
    finally:
        reader.stop()
    return uri, reader


def write_for(kind: str, uri: str, home: Path, long_enough: Callable[[float], bool]) -> float:
    """Let a writer live until it has written for long enough, in seconds; return how long that was."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.integration.storage.writers", kind, uri],
        cwd=home,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
    ) as writer:
        assert writer.stdout
        assert writer.stdout.readline() == b"ready\n"
        started = time.monotonic()
        while not long_enough(lasted := time.monotonic() - started):
            assert writer.poll() is None
            assert lasted < _DEADLINE_S
            time.sleep(0.002)
        writer.kill()
    return lasted


ROUNDS = [5, pytest.param(30, marks=pytest.mark.slow)]


@pytest.mark.parametrize("rounds", ROUNDS)
def test_killed_publisher(server: StoreServer, tmp_path: Path, rounds: int) -> None:
    uri, reader = read_while_killing("publish", server, tmp_path, rounds, lambda reader: reader.read)
    assert reader.read
    assert not reader.bad
    complete = {version.number for version in list_versions(uri) if not version.problem}
    assert complete <= {int(key.partition("/")[0]) for key in reader.read}


@pytest.mark.parametrize("rounds", ROUNDS)
def test_killed_mirror(server: StoreServer, tmp_path: Path, rounds: int) -> None:
    uri, reader = read_while_killing("mirror", server, tmp_path, rounds, lambda reader: reader.read)
    assert reader.read
    assert not reader.bad
    model_dir = tmp_path / "resumed"
    step = fetch_model_dir(open_store(uri), model_dir)
    assert f"{CHECKPOINTS}/ckpt-{step:08d}.json" in reader.read
    steps = [json.loads(line)["step"] for line in (model_dir / METRICS).read_text().splitlines()]
    assert steps[:step] == list(range(1, step + 1)), "the records reach as far as the checkpoint"


@pytest.mark.parametrize("kind", ["publish_manifest_first", "mirror_manifest_first"])
def test_the_reader_notices_a_manifest_that_comes_first(
    server: StoreServer, tmp_path: Path, kind: str
) -> None:
    _, reader = read_while_killing(kind, server, tmp_path, 5, lambda reader: reader.bad)
    assert reader.bad
