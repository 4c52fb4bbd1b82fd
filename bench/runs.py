"""Running fairway as a user does, and what a run cost."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from fairway.storage.exports import find_version
from fairway.storage.manifest import Manifest
from fairway.workloads.mnist.download import FILES

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Cost:
    """Wall and processor time of a child process, seconds."""

    wall: float
    cpu: float


def mnist_dir() -> Path:
    """Return the directory with the genuine files: TF_DATA_DIR, or `shared/data/mnist` beside the project."""
    directory = Path(os.environ.get("TF_DATA_DIR") or ROOT.parent / "shared" / "data" / "mnist").resolve()
    if not (directory / "train-images-idx3-ubyte.gz").is_file():
        sys.exit(f"no MNIST files in {directory}; name their directory with TF_DATA_DIR")
    return directory


def environment(cache: Path) -> dict[str, str]:
    """Return an environment without fairway's settings and with this cache."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("TF_", "FAIRWAY_"))}
    return kept | {"XDG_CACHE_HOME": str(cache)}


def fill_cache(cache: Path) -> None:
    """Put the genuine files where fairway keeps what it has downloaded."""
    target = cache / "fairway" / "mnist"
    target.mkdir(parents=True)
    for name in FILES:
        shutil.copy(mnist_dir() / name, target)


def fairway(*words: str, home: Path) -> Cost:
    """Run a command in a directory to its end.

    Raises:
        subprocess.CalledProcessError: it failed; its output was shown.
    """
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "fairway", *words],
        cwd=home,
        env=environment(home / "cache"),
        check=True,
        stdout=subprocess.DEVNULL,
    )
    wall, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    return Cost(wall, after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime)


def train(home: Path, *words: str) -> tuple[Manifest, Cost]:
    """Train in an empty directory; return what the exported version records, and the cost of all of it."""
    cost = fairway("train", *words, home=home)
    manifest = find_version(home / "mnist" / "export").manifest
    assert manifest is not None
    return manifest, cost
