"""The container images: their names, docker's command, and what is said when docker or a registry refuses."""

from __future__ import annotations

from pathlib import Path

import pytest

import fairway
from fairway.deploy.components.base import SERVE_IMAGE, TRAIN_IMAGE
from fairway.deploy.verbs import image
from fairway.errors import FairwayError
from tests.conftest import ROOT

ANSWERS = 'if [ "$1" = version ]; then echo 28.2.2; exit; fi\n'


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A command `docker` that writes its words to a file, and then does what a test has it do."""
    bin_dir = tmp_path / "bin"
    bin_dir.mkdir()
    monkeypatch.setenv("PATH", f"{bin_dir}:/usr/bin:/bin")
    command = bin_dir / "docker"
    play(command, ANSWERS)
    return command


def play(command: Path, script: str) -> None:
    command.write_text(f'#!/bin/sh\necho "$@" >> {command}.calls\n{script}')
    command.chmod(0o755)


def calls(command: Path) -> list[str]:
    return Path(f"{command}.calls").read_text().splitlines()


@pytest.mark.parametrize(
    ("registry", "tag", "name"),
    [
        (None, None, f"fairway-train:{fairway.__version__}"),
        (None, "dev", "fairway-train:dev"),
        ("registry.example.org/me", None, f"registry.example.org/me/fairway-train:{fairway.__version__}"),
        ("localhost:5000/", "dev", "localhost:5000/fairway-train:dev"),
    ],
)
def test_a_name_has_registry_target_and_tag(registry: str | None, tag: str | None, name: str) -> None:
    assert image.image_name("train", registry, tag) == name


def test_the_components_run_what_is_built() -> None:
    assert image.image_name("train") == TRAIN_IMAGE
    assert image.image_name("serve") == SERVE_IMAGE


def test_the_checkout_is_the_one_that_is_installed_from(tmp_path: Path) -> None:
    assert image.find_checkout(tmp_path) == ROOT


def test_the_checkout_is_found_from_a_folder_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fairway, "__file__", str(tmp_path / "site-packages" / "fairway" / "__init__.py"))
    assert image.find_checkout(ROOT / "docs" / "how-to") == ROOT


def test_without_a_checkout_it_says_where_to_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fairway, "__file__", str(tmp_path / "site-packages" / "fairway" / "__init__.py"))
    with pytest.raises(FairwayError) as caught:
        image.find_checkout(tmp_path)
    assert str(tmp_path) in caught.value.message
    assert "clone" in caught.value.hint


def test_the_command_names_target_base_and_network() -> None:
    command = image.build_command("train", "x:1", Path("/src"), base="python:3.12", network="host")
    assert command[:6] == ["docker", "build", "--target", "train", "--tag", "x:1"]
    assert command[6:10] == ["--build-arg", "BASE=python:3.12", "--network", "host"]
    assert command[-1] == "/src"


def test_proxy_settings_are_docker_s_to_read() -> None:
    command = image.build_command("serve", "x:1", Path("/src"))
    assert command[8:10] == ["--build-arg", "HTTPS_PROXY"]
    assert not [word for word in command if "=" in word]


def test_build_makes_each_image_from_the_checkout(docker: Path) -> None:
    names = image.build(("serve", "train"), registry="here/me", tag="dev")
    assert names == {"serve": "here/me/fairway-serve:dev", "train": "here/me/fairway-train:dev"}
    _, first, second = calls(docker)
    assert first.startswith("build --target serve --tag here/me/fairway-serve:dev")
    assert second.startswith("build --target train --tag here/me/fairway-train:dev")
    assert second.endswith(str(ROOT))


def test_docker_s_output_is_shown_on_stderr(docker: Path, capfd: pytest.CaptureFixture[str]) -> None:
    play(docker, ANSWERS + "echo Step 1; echo pulling >&2")
    image.build(["serve"])
    shown = capfd.readouterr()
    assert shown.out == ""
    assert "Step 1\n" in shown.err
    assert "pulling\n" in shown.err


def test_a_failed_build_ends_there(docker: Path) -> None:
    play(docker, ANSWERS + "exit 3")
    with pytest.raises(FairwayError, match=r"could not build fairway-serve:\S+ \(exit code 3\)"):
        image.build(["serve", "train"])
    assert len(calls(docker)) == 2


def test_docker_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(FairwayError, match="docker is not installed") as caught:
        image.build(["serve"])
    assert "Install" in caught.value.hint


@pytest.mark.parametrize("verb", ["build", "push"])
def test_the_daemon_is_away(docker: Path, verb: str) -> None:
    play(docker, "echo 'Cannot connect to the Docker daemon at unix:///x. Is it running?' >&2; exit 1")
    with pytest.raises(FairwayError, match="does not answer: Cannot connect to the Docker daemon") as caught:
        image.build(["serve"]) if verb == "build" else image.push(["serve"], registry="here")
    assert "Start it" in caught.value.hint


def test_push_sends_each_image(docker: Path) -> None:
    assert image.push(("serve", "train"), registry="here:5000/me", tag="dev") == {
        "serve": "here:5000/me/fairway-serve:dev",
        "train": "here:5000/me/fairway-train:dev",
    }
    assert calls(docker)[1:] == ["push here:5000/me/fairway-serve:dev", "push here:5000/me/fairway-train:dev"]


@pytest.mark.parametrize(
    ("answer", "hint"),
    [
        ("denied: requested access to the resource is denied", "docker login here:5000"),
        ("unauthorized: authentication required", "docker login here:5000"),
        ("An image does not exist locally with the tag: here/x", "Build it first"),
        ("http: server gave HTTP response to HTTPS client", "insecure-registries"),
        ("dial tcp 127.0.0.1:5000: connect: connection refused", "here:5000 is the registry"),
        ("something {new}", "docker push here:5000/me/fairway-serve:dev"),
    ],
)
def test_a_refused_push_says_what_to_do(docker: Path, answer: str, hint: str) -> None:
    play(docker, f"{ANSWERS}echo '{answer}' >&2; exit 1")
    with pytest.raises(FairwayError) as caught:
        image.push(["serve"], registry="here:5000/me", tag="dev")
    assert caught.value.message == f"here:5000/me/fairway-serve:dev was not pushed: {answer}"
    assert hint in caught.value.hint
