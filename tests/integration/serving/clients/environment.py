"""Environments of their own for clients that others wrote.

Such a client is installed alone, from a file with its hash. What it needs besides (gRPC, protocol buffers,
numpy, TensorFlow's messages) it sees among the packages that the tests run with: TensorFlow Serving's own
client asks for 600 MB that are there already. It does not see fairway.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path


def environment(requirements: Path) -> Path:
    """Return the Python of an environment with these packages; it is made once per machine.

    Without a network, what is not there yet fails.
    """
    content = "\n".join((requirements.read_text(), sys.version, sys.prefix))
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fairway-tests"
    path = cache / f"{requirements.stem}-{hashlib.sha256(content.encode()).hexdigest()[:16]}"
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (path / "ready").exists():
            _make(path, requirements)
            (path / "ready").touch()
    return path / "bin" / "python"


def run(client: str, *words: str, timeout: float = 60) -> str:
    """Run the program of a client in its environment and return what it prints.

    Args:
        client: `ovmsclient` stands for `ovmsclient.lock` and `ask_with_ovmsclient.py`.
        words: Arguments of the program.
        timeout: Seconds that it may take.
    """
    directory = Path(__file__).parent
    program = directory / f"ask_with_{client.replace('-', '_')}.py"
    done = subprocess.run(
        [environment(directory / f"{client}.lock"), "-P", program, *words],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def _make(path: Path, requirements: Path) -> None:
    shutil.rmtree(path, ignore_errors=True)
    venv.create(path, symlinks=True)
    pip = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        str(path / "bin" / "python"),
        "--disable-pip-version-check",
    ]
    install = ["--quiet", "install", "--no-compile", "--no-deps", "--require-hashes", "-r", str(requirements)]
    installed = subprocess.run(pip + install, capture_output=True, text=True, timeout=120, check=False)
    assert installed.returncode == 0, installed.stderr
    own, ours = (sysconfig.get_path("purelib", vars=variables) for variables in ({"base": str(path)}, None))
    (Path(own) / "packages_of_the_tests.pth").write_text(f"{ours}\n")
