"""The container images: built from the checkout's Dockerfile, and pushed, with the `docker` command."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import fairway
from fairway.errors import FairwayError

log = logging.getLogger(__name__)

Target = Literal["train", "serve"]
TARGETS: tuple[Target, ...] = ("serve", "train")
"""The targets of the Dockerfile, the quicker one first."""
PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy")
"""Build arguments that every Dockerfile has: https://docs.docker.com/reference/dockerfile/#predefined-args"""

# What docker and registries say, and what then helps; {host} is the registry, {name} the image.
_PUSH_HINTS = (
    (
        ("denied", "unauthorized", "authentication required", "no basic auth credentials"),
        "Log in with 'docker login {host}', as a user who may write there.",
    ),
    (
        ("does not exist", "tag does not", "No such image"),
        "Build it first: fairway image build, with the same --registry and --tag.",
    ),
    (
        ("server gave HTTP response to HTTPS client",),
        "Give the registry a certificate, or list {host} under insecure-registries of docker's daemon.",
    ),
    (
        ("connection refused", "no such host", "timeout", "unreachable"),
        "See whether {host} is the registry's address and can be reached from here.",
    ),
)


def image_name(target: Target, registry: str | None = None, tag: str | None = None) -> str:
    """Return the name of an image.

    Args:
        target: Which of the two.
        registry: Host and path that it is to be under; `None`: a name only for this machine.
        tag: `None`: the version of fairway.
    """
    prefix = f"{registry.rstrip('/')}/" if registry else ""
    return f"{prefix}fairway-{target}:{tag or fairway.__version__}"


def find_checkout(start: Path) -> Path:
    """Return the root of fairway's checkout: the one it is installed from, else the one around `start`.

    Raises:
        FairwayError: there is neither.
    """
    for folder in (Path(fairway.__file__).parents[2], start, *start.parents):
        if (folder / "Dockerfile").is_file() and (folder / "src" / "fairway").is_dir():
            return folder
    raise FairwayError(
        f"no checkout of fairway in {start}, and fairway is not installed from one: its Dockerfile is needed",
        hint="Run 'fairway image build' in a clone of fairway's repository.",
    )


def build_command(
    target: Target, name: str, root: Path, *, base: str | None = None, network: str | None = None
) -> list[str]:
    """Return the command that builds an image.

    Proxy settings are named without a value: docker takes those that are set from its own environment.

    Args:
        target: Target of the Dockerfile.
        name: Name and tag to give the image.
        root: Directory of the Dockerfile.
        base: Image to build on, a Python of the supported versions; `None`: the Dockerfile's.
        network: Network of the build's commands; `None`: docker's default.
    """
    words = ["docker", "build", "--target", target, "--tag", name]
    if base:
        words += ["--build-arg", f"BASE={base}"]
    if network:
        words += ["--network", network]
    for variable in PROXIES:
        words += ["--build-arg", variable]
    return [*words, str(root)]


def build(
    targets: Sequence[Target],
    *,
    registry: str | None = None,
    tag: str | None = None,
    base: str | None = None,
    network: str | None = None,
) -> dict[Target, str]:
    """Build images, with docker's output on stderr; return their names.

    Raises:
        FairwayError: there is no checkout, docker does not work, or the build failed.
    """
    root = find_checkout(Path.cwd())
    _check_docker()
    names = {target: image_name(target, registry, tag) for target in targets}
    for target, name in names.items():
        log.info("building %s", name)
        command = build_command(target, name, root, base=base, network=network)
        code = subprocess.run(command, stdout=sys.stderr, check=False).returncode
        if code:
            raise FairwayError(
                f"docker could not build {name} (exit code {code})",
                hint="Its last lines above say why. If pip found no package index: try --network host.",
            )
    return names


def push(targets: Sequence[Target], *, registry: str, tag: str | None = None) -> dict[Target, str]:
    """Push images to their registry, with docker's output on stderr; return their names.

    Raises:
        FairwayError: docker does not work, an image was not built, or the registry refuses it.
    """
    _check_docker()
    names = {target: image_name(target, registry, tag) for target in targets}
    for name in names.values():
        log.info("pushing %s", name)
        command = ["docker", "push", name]
        done = subprocess.run(command, stdout=sys.stderr, stderr=subprocess.PIPE, text=True, check=False)
        if done.returncode:
            raise _push_error(name, registry, done.stderr)
    return names


def _check_docker() -> None:
    command = ["docker", "version", "--format", "{{.Server.Version}}"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError as err:
        raise FairwayError(
            "the command docker is not installed, which builds and pushes images",
            hint="Install Docker Engine: https://docs.docker.com/engine/install/",
        ) from err
    if done.returncode:
        raise FairwayError(
            f"docker's daemon does not answer: {_last_line(done.stderr)}",
            hint="Start it (systemctl start docker), as a user who may use it (group docker).",
        )


def _push_error(name: str, registry: str, output: str) -> FairwayError:
    host = registry.split("/")[0]
    hints = (hint for signs, hint in _PUSH_HINTS if any(sign in output for sign in signs))
    hint = next(hints, "Try it by hand: docker push {name}")
    return FairwayError(
        f"{name} was not pushed: {_last_line(output)}", hint=hint.format(host=host, name=name)
    )


def _last_line(output: str) -> str:
    return output.strip().rpartition("\n")[2] or "it says nothing"
