"""Processes that write to a store until they are killed: `python -m …storage.writers KIND URI`.

They work in the current directory and write a line when the first byte is about to be sent.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path

from fairway.storage.checkpoints import fetch_model_dir
from fairway.storage.exports import next_version
from fairway.storage.files import write_atomic
from fairway.storage.manifest import MANIFEST, describe_files
from fairway.storage.mirror import Mirror
from fairway.storage.model_dir import CHECKPOINTS, CONFIG, EVENTS, METRICS
from fairway.storage.publish import keep_newest, publish_version
from fairway.storage.stores.uri import open_store
from fairway.storage.transfer import upload_files
from tests.manifests import make_version

KEEP = 3
FILES = 8
SIZE = 50_000


def publish(uri: str) -> None:
    """Publish one version after another, and keep the newest."""
    for _ in itertools.count():
        version = make_version(Path("export"), next_version(uri), files=FILES, size=SIZE)
        publish_version(version, uri)
        keep_newest(uri, KEEP)
        keep_newest("export", 1)


def publish_manifest_first(uri: str) -> None:
    """Publish as nobody should: a reader finds a manifest without its files."""
    store = open_store(uri)
    for number in itertools.count(int(time.time())):
        version = make_version(Path("export"), number, files=FILES, size=SIZE)
        store.write(f"{number}/{MANIFEST}", (version.path / MANIFEST).read_bytes())
        assert version.manifest
        upload_files(version.path, version.manifest.files, store, f"{number}/")


def mirror(uri: str) -> None:
    """Resume as a training does, and go on: records, and a checkpoint every few of them."""
    store, model_dir = open_store(uri), Path("model")
    resumed = fetch_model_dir(store, model_dir)
    lines = (model_dir / METRICS).read_text().splitlines() if resumed else []
    # As a training does: killed in the middle of it, the old records are still there.
    write_atomic(model_dir / METRICS, "".join(f"{line}\n" for line in lines[:resumed]).encode())
    (model_dir / EVENTS).mkdir(exist_ok=True)
    (model_dir / CONFIG).write_text(json.dumps({"run": "r"}))
    mirrored = Mirror(model_dir, store, interval_s=0.01)
    mirrored.start()
    for step in itertools.count(resumed + 1):
        with (model_dir / METRICS).open("a") as file:
            file.write(json.dumps({"step": step, "padding": "x" * 100}) + "\n")
        with (model_dir / EVENTS / "events.out.tfevents.1").open("ab") as events:
            events.write(b"x" * 1000)
        if step % 5 == 0:
            write_checkpoint(model_dir, step)
        time.sleep(0.002)


def mirror_manifest_first(uri: str) -> None:
    """Mirror as nobody should: the checkpoint's manifest comes before its files."""
    store, model_dir = open_store(uri), Path("model")
    (model_dir / CHECKPOINTS).mkdir(parents=True, exist_ok=True)
    prefix = f"{CHECKPOINTS}/{os.getpid()}/"
    for step in itertools.count(1):
        write_checkpoint(model_dir, step)
        directory = model_dir / CHECKPOINTS
        names = [path.name for path in directory.glob(f"ckpt-{step:08d}.*")]
        files = describe_files(directory)
        entries = {name: files[name] | {"key": f"{prefix}{name}"} for name in names}
        content = json.dumps({"step": step, "files": entries}).encode()
        store.write(f"{CHECKPOINTS}/ckpt-{step:08d}.json", content)
        upload_files(directory, names, store, prefix)


def write_checkpoint(model_dir: Path, step: int) -> None:
    """Write two files as TensorFlow does, the index last and by a rename, and remove the older ones."""
    directory, name = model_dir / CHECKPOINTS, f"ckpt-{step:08d}"
    content = random.Random(step)
    (directory / f"{name}.data-00000-of-00001").write_bytes(content.randbytes(SIZE))
    (directory / "index").write_bytes(content.randbytes(1000))
    (directory / "index").rename(directory / f"{name}.index")
    for old in sorted(directory.glob("*.index"))[:-2]:
        old.unlink()
        old.with_suffix(".data-00000-of-00001").unlink()


WRITERS: dict[str, Callable[[str], None]] = {
    writer.__name__: writer for writer in (publish, publish_manifest_first, mirror, mirror_manifest_first)
}

if __name__ == "__main__":
    kind, uri = sys.argv[1:]
    open_store(uri).list()  # the SDK is loaded and the connection made
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    WRITERS[kind](uri)
