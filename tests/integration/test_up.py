"""`fairway up` as a user runs it: the whole story, a part that dies, and nothing left behind."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import psutil
import pytest

from tests.conftest import Fairway
from tests.servers.moto import Moto

PORTS = ("--web-port", "--tensorboard-port", "--rest-api-port", "--grpc-port")
FREE_PORTS = tuple(word for flag in PORTS for word in (flag, "0"))


class Up:
    """A running `fairway up` and what it has written."""

    def __init__(self, home: Path, environment: dict[str, str], *words: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "fairway", "up", *FREE_PORTS, *words],
            cwd=home,
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.output = ""
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.output += line

    def wait_for(self, what: str | Callable[[], bool], timeout: float = 200) -> None:
        """Wait until the output holds a text, or a condition is true."""
        deadline = time.monotonic() + timeout
        while not (what in self.output if isinstance(what, str) else what()):
            assert self.process.poll() is None, self.output
            assert time.monotonic() < deadline, self.output
            time.sleep(0.05)

    def link(self, title: str) -> str:
        found = re.search(rf"^  {title} +(http\S+)$", self.output, re.MULTILINE)
        assert found, self.output
        return found[1]

    def children(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def child(self, command: str) -> psutil.Process:
        """Return the process of a part, by the name of its command."""
        return next(child for child in self.children() if _command(child) == command)

    def close(self) -> None:
        """Kill what is still running, and read the output to its end."""
        if self.process.poll() is None:
            for child in [*self.children(), psutil.Process(self.process.pid)]:
                with suppress(psutil.NoSuchProcess):
                    child.kill()
        self.process.wait()
        self._reader.join()
        assert self.process.stderr is not None
        self.process.stderr.close()

    def end(self, signum: signal.Signals) -> None:
        """Send a signal, wait for the end, and see that no process is left."""
        children = self.children()
        self.process.send_signal(signum)
        assert self.process.wait(timeout=40) == 0, self.output
        self.close()
        assert not [child for child in children if child.is_running()], self.output


def _command(process: psutil.Process) -> str:
    """Return the fairway command that a process runs; empty if it has just ended."""
    try:
        return "".join(process.cmdline()[3:4])
    except psutil.Error:
        return ""


@pytest.fixture
def up(tmp_path: Path, environment: dict[str, str]) -> Iterator[Callable[..., Up]]:
    """Start `fairway up` in the test's directory; what is still running afterwards is killed."""
    started: list[Up] = []

    def start(*words: str) -> Up:
        started.append(Up(tmp_path, environment, *words))
        return started[-1]

    yield start
    for one in started:
        one.close()


def test_whole_story_from_an_empty_directory(tmp_path: Path, up: Callable[..., Up]) -> None:
    running = up("--dataset", "embedded")
    running.wait_for("Ctrl-C stops all")
    assert "test accuracy 9" in running.output
    for title in ("Draw a digit", "TensorBoard", "Model server"):
        assert httpx.get(running.link(title), trust_env=False).status_code == 200
    answer = httpx.post(running.link("Draw a digit") + "api/random", trust_env=False).json()
    (version,) = (path.name for path in (tmp_path / "mnist" / "export").iterdir())
    assert str(answer["version"]) == version
    assert len(answer["probabilities"]) == 10
    tags = httpx.get(running.link("TensorBoard") + "data/plugin/scalars/tags", trust_env=False).json()
    assert "loss" in tags["events/train"]
    assert "Traceback" not in running.output

    # A part that dies comes back, and what is exported later is served.
    running.child("serve").kill()
    running.wait_for("serve crashed (SIGKILL); restarting it")
    server = running.link("Model server")

    def serves_again() -> bool:
        try:
            return "AVAILABLE" in httpx.get(server, trust_env=False).text
        except httpx.HTTPError:
            return False

    running.wait_for(serves_again)
    running.end(signal.SIGINT)
    assert "stopping" in running.output


@pytest.mark.slow  # as long as the story on a disk
def test_whole_story_in_an_object_store(
    environment: dict[str, str], up: Callable[..., Up], moto: Moto
) -> None:
    environment.update(moto.environment)
    uri = f"{moto.new_bucket()}/digits"
    directories = ("--model-dir", f"{uri}/model", "--export-dir", f"{uri}/export")
    running = up("--dataset", "embedded", "--train-steps", "100", *directories)
    running.wait_for("Ctrl-C stops all")
    answer = httpx.post(running.link("Draw a digit") + "api/random", trust_env=False).json()
    assert f"exported version {answer['version']} to {uri}/export" in running.output

    def is_recorded() -> bool:
        state = httpx.get(running.link("Draw a digit") + "api/state", trust_env=False).json()
        return bool(state["record"] and state["record"]["version"] == answer["version"])

    def is_watched() -> bool:
        tags = httpx.get(running.link("TensorBoard") + "data/plugin/scalars/tags", trust_env=False).json()
        return "loss" in tags.get("events/train", {})

    running.wait_for(is_recorded)
    running.wait_for(is_watched)
    assert "Traceback" not in running.output
    running.end(signal.SIGINT)


def test_exported_model_is_served_without_training(
    trained_export: Path, tmp_path: Path, up: Callable[..., Up]
) -> None:
    running = up("--export-dir", str(trained_export), "--dataset", "embedded")
    running.wait_for("Ctrl-C stops all")
    assert "serving what is exported" in running.output
    assert "training" not in running.output.replace("train a new version", "")
    assert len(list(trained_export.iterdir())) == 1
    running.end(signal.SIGTERM)


def test_stop_in_mid_training_saves_and_the_next_up_resumes(tmp_path: Path, up: Callable[..., Up]) -> None:
    words = ("--dataset", "embedded", "--train-steps", "2000", "--checkpoint-steps", "100000")
    first = up(*words)
    first.wait_for(lambda: (tmp_path / "mnist" / "model" / "metrics.jsonl").exists())
    first.wait_for("training: ")
    first.end(signal.SIGINT)
    assert "a checkpoint is saved" in first.output
    second = up(*words)
    second.wait_for("resuming at step")
    second.end(signal.SIGINT)


def test_trainer_that_is_killed_resumes(tmp_path: Path, up: Callable[..., Up]) -> None:
    running = up("--dataset", "embedded", "--train-steps", "400", "--checkpoint-steps", "50")
    running.wait_for(lambda: bool(list((tmp_path / "mnist" / "model").glob("checkpoints/*.index"))))
    running.child("train").kill()
    running.wait_for("train crashed (SIGKILL); restarting it")
    running.wait_for("resuming at step")
    running.wait_for("Ctrl-C stops all")
    assert len(list((tmp_path / "mnist" / "export").iterdir())) == 1
    running.end(signal.SIGINT)


def test_children_end_when_up_is_killed(up: Callable[..., Up]) -> None:
    running = up("--dataset", "embedded")
    running.wait_for(lambda: len(running.children()) == 4)
    children = running.children()
    running.process.kill()
    _, alive = psutil.wait_procs(children, timeout=30)
    assert not alive


def test_mistake_of_the_user_ends_up_with_the_trainers_words(fairway: Fairway) -> None:
    done = fairway("up", *FREE_PORTS, "--data-dir", "nowhere")
    assert done.returncode == 1
    assert "error: no MNIST files in data directory nowhere" in done.stderr
    assert "train ended with exit code 1" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("flag", PORTS)
def test_taken_port_is_named_before_anything_starts(tmp_path: Path, fairway: Fairway, flag: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
        words = [word for word in FREE_PORTS if word != "0"]
        words.remove(flag)
        done = fairway("up", flag, port, *(part for word in words for part in (word, "0")))
    assert done.returncode == 1
    assert f"port {port} on 127.0.0.1 is taken by process {os.getpid()}" in done.stderr
    assert flag in done.stderr
    assert not (tmp_path / "mnist").exists()
