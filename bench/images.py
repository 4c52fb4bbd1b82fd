"""The size of the container images: above their base, and beside what they install there."""

from __future__ import annotations

import json
import os
import subprocess
import sys

from bench.report import Figure
from fairway.deploy.verbs.image import TARGETS, Target, image_name

BASE = os.environ.get("BASE") or "python:3.11-slim-bookworm"
SERVE_MB = 250
INSTALLED_BYTES = """
import os, sysconfig
root = sysconfig.get_path("purelib")
files = (os.path.join(folder, name) for folder, _, names in os.walk(root) for name in names)
print(sum(os.lstat(file).st_size for file in files))
"""
"""Run in an image: the bytes of the installed packages."""


def sizes() -> list[Figure]:
    """Both images that `make image` has built; nothing where there is no docker."""
    if subprocess.run(["docker", "info"], capture_output=True, check=False).returncode:
        print("docker does not run here: no sizes of images", file=sys.stderr)
        return []
    return [figure for target in TARGETS for figure in _sizes(target)]


def _sizes(target: Target) -> list[Figure]:
    name = image_name(target)
    above = _above_base(name)
    installed = int(
        _docker("run", "--rm", "--network=none", "--entrypoint=python", name, "-c", INSTALLED_BYTES)
    )
    note = f"{above / 1e6:.1f} MB above {BASE}, of which packages {installed / 1e6:.1f} MB"
    figures = [Figure(f"image {target} / what it installs", above / installed, "×", 1.1, "lower", note)]
    if target == "serve":
        figures.append(Figure("image serve above its base", above / 1e6, "MB", SERVE_MB, "lower", name))
    return figures


def _above_base(name: str) -> int:
    """Return the bytes of an image that are not of its base."""
    image, base = json.loads(_docker("image", "inspect", name, BASE))
    below: list[str] = base["RootFS"]["Layers"]
    if image["RootFS"]["Layers"][: len(below)] != below:
        sys.exit(f"{name} is not built on this {BASE}: make image, or name its base with BASE")
    size: int = image["Size"] - base["Size"]
    return size


def _docker(*words: str) -> str:
    done = subprocess.run(["docker", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"docker {' '.join(words[:2])}: {done.stderr.strip()}\nThe images are built by: make image")
    return done.stdout
