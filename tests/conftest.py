"""What several kinds of tests share: the command as a user runs it, real data, one really trained model."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings

# A busy machine is slow, which is no fault of what is tested.
settings.register_profile("fairway", deadline=None)
settings.load_profile("fairway")

ROOT = Path(__file__).parents[1]

Fairway = Callable[..., subprocess.CompletedProcess[str]]


pytest_plugins = ["tests.servers.fixtures"]

STORE_SETTINGS = ("AWS_", "S3_", "GOOGLE_", "GCLOUD_", "STORAGE_EMULATOR_HOST")


def pytest_configure() -> None:
    """Keep the developer's credentials and endpoints away from the tests, and the tests from them.

    What a shell runs in the background ignores Ctrl-C, and so would all that the tests start.
    """
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    for name in [name for name in os.environ if name.startswith(STORE_SETTINGS)]:
        del os.environ[name]


def without_settings() -> dict[str, str]:
    """Return the environment without fairway's settings and those of object stores."""
    settings = ("TF_", "FAIRWAY_", *STORE_SETTINGS)
    return {name: value for name, value in os.environ.items() if not name.startswith(settings)}


def clean_environment(home: Path) -> dict[str, str]:
    """Return the environment without fairway's settings, with an empty cache and no way to a mirror."""
    return without_settings() | {
        "XDG_CACHE_HOME": str(home),
        "FAIRWAY_DATA_URL": "http://127.0.0.1:9",
        "NO_COLOR": "1",
    }


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """An environment for child processes: no settings, an empty cache, no network."""
    return clean_environment(tmp_path / "cache")


@pytest.fixture
def fairway(tmp_path: Path, environment: dict[str, str]) -> Fairway:
    """Run a fairway command in the test's directory and return what came of it."""

    def run(*words: str | Path, timeout: float = 240, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "fairway", *map(str, words)],
            cwd=tmp_path,
            env=environment | variables,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    return run


@pytest.fixture(scope="session")
def mnist_dir() -> Path:
    """The directory with the genuine MNIST files."""
    directory = Path(os.environ.get("TF_DATA_DIR") or ROOT.parent / "shared" / "data" / "mnist").resolve()
    if not (directory / "train-images-idx3-ubyte.gz").is_file():
        pytest.skip(f"no MNIST files in {directory}; name their directory with TF_DATA_DIR")
    return directory


@pytest.fixture(scope="session")
def data_flags(request: pytest.FixtureRequest) -> tuple[str, ...]:
    """The data that `trained_export` is trained on: the embedded digits; for pictures, all of MNIST."""
    if request.config.getoption("--screenshots", default=None):
        return ("--dataset", "mnist", "--data-dir", str(request.getfixturevalue("mnist_dir")))
    return ("--dataset", "embedded")


@pytest.fixture(scope="session")
def trained_export(tmp_path_factory: pytest.TempPathFactory, data_flags: tuple[str, ...]) -> Path:
    """The export directory of a real training; its model directory lies beside it.

    It is trained once, by the first of the test processes that needs it; each has a copy of its own.
    """
    home = tmp_path_factory.mktemp("trained")
    several = "PYTEST_XDIST_WORKER" in os.environ
    shared = (tmp_path_factory.getbasetemp().parent if several else home) / "training"
    shared.mkdir(exist_ok=True)
    with (shared / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (shared / "trained").exists():
            subprocess.run(
                [sys.executable, "-m", "fairway", "train", *data_flags],
                cwd=shared,
                env=clean_environment(home / "cache"),
                check=True,
                timeout=280,
            )
            (shared / "trained").touch()
    shutil.copytree(shared / "mnist", home / "mnist")
    return home / "mnist" / "export"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-golden", action="store_true", help="write golden files anew instead of comparing"
    )


@pytest.fixture
def update_golden(request: pytest.FixtureRequest) -> bool:
    return bool(request.config.getoption("--update-golden"))
