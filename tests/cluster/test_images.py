"""The container images, built by docker and run as pods run them: no root, nothing but /tmp to write to."""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from fairway.deploy.verbs import image
from fairway.errors import FairwayError
from tests.servers.process import StoreServer

LIKE_A_POD = ("--read-only", "--tmpfs=/tmp", "--cap-drop=ALL", "--security-opt=no-new-privileges")
NO_NETWORK = "--network=none"
DEADLINE_S = 60
STOP_S = 10
"""What does not heed the signal to end is killed after twice that long."""

Start = Callable[..., str]


def docker(*words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["docker", *words], capture_output=True, text=True, check=check)


def run(name: str, *words: str, options: tuple[str, ...] = (NO_NETWORK,)) -> subprocess.CompletedProcess[str]:
    """Run a command of an image to its end."""
    return docker("run", "--rm", *LIKE_A_POD, *options, name, *words, check=False)


@pytest.fixture(scope="session")
def images() -> dict[image.Target, str]:
    """Both images, built from this checkout."""
    return image.build(image.TARGETS, tag="test", network="host")


@pytest.fixture(scope="session")
def trained(images: dict[image.Target, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory with `model` and `export` of a training in a container."""
    home = tmp_path_factory.mktemp("trained")
    home.chmod(0o777)
    directories = ("--model-dir", "/mnt/model", "--export-dir", "/mnt/export")
    words = ("train", "--dataset", "embedded", "--train-steps", "20", *directories)
    done = run(images["train"], *words, options=(NO_NETWORK, f"--volume={home}:/mnt"))
    assert done.returncode == 0, done.stderr
    return home


@pytest.fixture
def start(trained: Path) -> Iterator[Start]:
    """Start containers that see the training; they are gone after the test."""
    with ExitStack() as stack:

        def start(name: str, *words: str, options: tuple[str, ...] = ()) -> str:
            volume = f"--volume={trained}:/mnt"
            container = docker("run", "--detach", *LIKE_A_POD, volume, *options, name, *words).stdout.strip()
            stack.callback(docker, "rm", "--force", container)
            return container

        yield start


def logs(container: str) -> str:
    done = docker("logs", container)
    return done.stdout + done.stderr


def wait_for(condition: Callable[[], bool], container: str) -> None:
    """Wait until a condition holds; fail with what the container wrote."""
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        running = docker("inspect", "--format={{.State.Running}}", container).stdout.strip()
        assert running == "true", logs(container)
        assert time.monotonic() < deadline, logs(container)
        time.sleep(0.1)


def wait_for_answer(container: str, port: int, path: str) -> httpx.Response:
    """Return the first answer of a server in a container, whose port is published."""
    url = f"http://{docker('port', container, str(port)).stdout.split()[0]}{path}"
    answers: list[httpx.Response] = []

    def is_answered() -> bool:
        try:
            answers.append(httpx.get(url, trust_env=False, timeout=10))
        except httpx.HTTPError:
            return False
        return True

    wait_for(is_answered, container)
    return answers[0]


def stop(container: str) -> int:
    """Stop a container as the kubelet does; return its exit code."""
    started = time.monotonic()
    docker("stop", "--time=20", container)
    took = time.monotonic() - started
    assert took < STOP_S, f"it took {took:.1f} s"
    return int(docker("inspect", "--format={{.State.ExitCode}}", container).stdout)


def test_train_needs_neither_network_nor_root(trained: Path) -> None:
    [version] = (trained / "export").iterdir()
    assert (version / "saved_model.pb").is_file()
    assert (version / "model.tflite").is_file()
    assert version.stat().st_uid == 10001
    assert json.loads((version / "fairway.json").read_text())["dataset"]["name"] == "embedded"


def test_training_is_stopped_with_a_checkpoint(images: dict[image.Target, str], start: Start) -> None:
    directories = ("--model-dir", "/tmp/model", "--export-dir", "/tmp/export")
    container = start(
        images["train"], "train", "--dataset", "embedded", "--train-steps", "5000", *directories
    )
    wait_for(lambda: " of 5000 steps" in logs(container), container)
    docker("stop", "--time=20", container)
    assert docker("inspect", "--format={{.State.ExitCode}}", container).stdout.strip() == "143"
    assert "a checkpoint is saved" in logs(container)


def test_model_server_answers_and_stops(images: dict[image.Target, str], start: Start) -> None:
    words = ("serve", "--model_base_path", "/mnt/export", "--host", "0.0.0.0")
    container = start(images["serve"], *words, options=("--publish=127.0.0.1::8500",))
    wait_for(lambda: "serves, on LiteRT" in logs(container), container)
    answer = wait_for_answer(container, 8500, "/v1/models/mnist").json()
    assert answer["model_version_status"][0]["state"] == "AVAILABLE"
    assert stop(container) == 0


def test_web_ui_answers_and_stops(images: dict[image.Target, str], start: Start) -> None:
    server = start(images["serve"], "serve", "--model_base_path", "/mnt/export", "--host", "0.0.0.0")
    wait_for(lambda: "serves, on LiteRT" in logs(server), server)
    address = docker("inspect", "--format={{.NetworkSettings.IPAddress}}", server).stdout.strip()
    words = ("web", "--host", "0.0.0.0", "--server", f"{address}:8500", "--dataset", "embedded")
    container = start(images["serve"], *words, options=("--publish=127.0.0.1::5000",))
    page = wait_for_answer(container, 5000, "/")
    assert "<html" in page.text
    # A digit from the embedded ones, which this image has too.
    answer = httpx.post(page.url.join("/api/random"), trust_env=False, timeout=10).json()
    assert 0 <= answer["digit"] <= 9
    assert stop(container) == 0


@pytest.mark.parametrize("target", image.TARGETS)
def test_tensorboard_answers_and_stops(
    target: image.Target, images: dict[image.Target, str], start: Start
) -> None:
    words = ("tensorboard", "--logdir", "/mnt/model", "--host", "0.0.0.0")
    container = start(images[target], *words, options=("--publish=127.0.0.1::8090",))
    assert wait_for_answer(container, 8090, "/data/environment").json()["data_location"] == "/mnt/model"
    assert stop(container) == 0


def test_sync_copies_and_stops(images: dict[image.Target, str], start: Start, trained: Path) -> None:
    container = start(images["serve"], "sync", "--watch", "/mnt/export", "/mnt/copy", options=(NO_NETWORK,))
    wait_for(lambda: "is in /mnt/copy/" in logs(container), container)
    assert stop(container) == 0
    assert {each.name for each in (trained / "copy").iterdir()} >= {
        each.name for each in (trained / "export").iterdir()
    }


@pytest.mark.parametrize("server", ["swift", "gcs_emulator"], indirect=True)
@pytest.mark.parametrize("target", image.TARGETS)
def test_both_reach_object_stores(
    target: image.Target, images: dict[image.Target, str], trained: Path, server: StoreServer
) -> None:
    settings = tuple(f"--env={name}={value}" for name, value in server.environment.items())
    options = ("--network=host", f"--volume={trained}:/mnt", *settings)
    uri = f"{server.new_bucket()}/export"
    done = run(images[target], "sync", "/mnt/export", uri, options=options)
    assert done.returncode == 0, done.stderr
    [version] = (trained / "export").iterdir()
    assert version.name in run(images[target], "models", "list", "--export-dir", uri, options=options).stdout


def test_serve_has_no_tensorflow(images: dict[image.Target, str]) -> None:
    done = run(images["serve"], "-c", "import tensorflow", options=(NO_NETWORK, "--entrypoint=python"))
    assert "No module named 'tensorflow'" in done.stderr
    assert "training needs TensorFlow" in run(images["serve"], "train").stderr


@pytest.mark.parametrize("target", image.TARGETS)
def test_the_code_cannot_be_changed(target: image.Target, images: dict[image.Target, str]) -> None:
    script = "id -u; find /opt /usr/bin /usr/lib ! -type l -writable"
    done = docker("run", "--rm", NO_NETWORK, "--entrypoint=sh", images[target], "-c", script)
    assert done.stdout.split() == ["10001"]


@pytest.mark.parametrize("target", image.TARGETS)
def test_nothing_of_the_build_is_left(target: image.Target, images: dict[image.Target, str]) -> None:
    record = json.loads(docker("image", "inspect", images[target]).stdout)[0]
    assert record["Config"]["User"] == "10001:10001"
    assert record["Config"]["Entrypoint"] == ["fairway"]
    words = ("-c", "ls /opt/fairway/bin /opt/fairway/lib/python3*/site-packages; ls /build /root/.cache")
    found = run(images[target], *words, options=(NO_NETWORK, "--entrypoint=sh")).stdout.split()
    assert "fairway" in found
    assert not {"pip", "setuptools", "hatchling", "slim.sh", "serve.lock"} & set(found)


@pytest.mark.parametrize("target", image.TARGETS)
def test_the_code_is_compiled(target: image.Target, images: dict[image.Target, str]) -> None:
    """Nothing can be written where it runs, so it would be compiled at every start."""
    words = ("-v", "-c", "import fairway.cli, uvicorn, boto3, google.cloud.storage")
    done = run(images[target], *words, options=(NO_NETWORK, "--entrypoint=python"))
    assert done.returncode == 0
    assert "/fairway/cli/__pycache__/__init__" in done.stderr
    assert "bytecode is stale" not in done.stderr
    assert not re.search(r"# code object from '/opt[^']*\.py'", done.stderr)


def test_a_registry_that_is_not_there_is_named(images: dict[image.Target, str]) -> None:
    docker("tag", images["serve"], image.image_name("serve", "127.0.0.1:9"))
    with pytest.raises(FairwayError, match="refused") as caught:
        image.push(["serve"], registry="127.0.0.1:9")
    assert "127.0.0.1:9 is the registry" in caught.value.hint
    docker("rmi", image.image_name("serve", "127.0.0.1:9"))
