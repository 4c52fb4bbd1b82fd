"""`fairway predict` as a user runs it, against a real server with a really trained model."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image, ImageOps

from fairway.config import DataSettings
from fairway.net.ports import claim_port
from fairway.workloads.mnist.data import load_test
from tests.conftest import Fairway, clean_environment

DEADLINE_S = 60.0
PROTOCOLS = ("rest", "grpc")


class ModelServer:
    """`fairway serve` with its two APIs."""

    def __init__(self, export: Path, output: Path) -> None:
        self.export, self._output = export, output
        rest, grpc = (claim_port("127.0.0.1", 0, "") for _ in PROTOCOLS)
        self.flags = {
            "rest": ("--server", f"127.0.0.1:{rest}"),
            "grpc": ("--server", f"127.0.0.1:{grpc}", "--grpc"),
        }
        words = [f"--rest_api_port={rest}", f"--port={grpc}", f"--model_base_path={export}"]
        with output.open("wb") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "fairway", "serve", *words],
                stdout=file,
                stderr=file,
                env=clean_environment(output.parent),
            )
        self._ready_at = f"http://127.0.0.1:{rest}/readyz"

    def wait(self) -> None:
        """Wait until it is ready; fail with its output if it never is."""
        end = time.monotonic() + DEADLINE_S
        while not self._is_ready():
            assert self.process.poll() is None, self._output.read_text()
            assert time.monotonic() < end, self._output.read_text()
            time.sleep(0.02)

    def _is_ready(self) -> bool:
        try:
            return httpx.get(self._ready_at, trust_env=False).is_success
        except httpx.TransportError:
            return False


@pytest.fixture(scope="module")
def server(trained_export: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModelServer]:
    server = ModelServer(trained_export, tmp_path_factory.mktemp("server") / "output")
    try:
        server.wait()
        yield server
    finally:
        server.process.terminate()
        server.process.wait(DEADLINE_S)


@pytest.fixture
def digits(tmp_path: Path) -> list[str]:
    """Four of the embedded test images of each digit as PNG files, called after it; their names."""
    test = load_test(DataSettings(dataset="embedded"))
    names = []
    for digit in range(10):
        for index in np.flatnonzero(test.labels == digit)[:4]:
            names.append(f"{digit}-{index}.png")
            Image.fromarray(test.images[index]).save(tmp_path / names[-1])
    return names


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_digits_are_recognised(
    server: ModelServer, fairway: Fairway, digits: list[str], protocol: str
) -> None:
    done = fairway("predict", *digits, *server.flags[protocol], "-o", "json")
    assert (done.returncode, done.stderr) == (0, "")
    answers = json.loads(done.stdout)
    assert [answer["file"] for answer in answers] == digits
    assert sum(answer["file"][0] == str(answer["digit"]) for answer in answers) >= 38
    [version] = [int(path.name) for path in server.export.iterdir() if path.name.isdigit()]
    assert {answer["version"] for answer in answers} == {version}
    for answer in answers:
        assert len(answer["probabilities"]) == 10
        assert sum(answer["probabilities"]) == pytest.approx(1, abs=1e-3)
        assert int(np.argmax(answer["probabilities"])) == answer["digit"]
        assert 0 < answer["latency_ms"] < 10_000


def test_both_protocols_say_the_same(server: ModelServer, fairway: Fairway, digits: list[str]) -> None:
    over_rest, over_grpc = (
        json.loads(fairway("predict", *digits, *server.flags[protocol], "-o", "json").stdout)
        for protocol in PROTOCOLS
    )
    for one, other in zip(over_rest, over_grpc, strict=True):
        assert one["probabilities"] == pytest.approx(other["probabilities"], abs=1e-6)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_table_is_for_people(
    server: ModelServer, fairway: Fairway, digits: list[str], tmp_path: Path, protocol: str
) -> None:
    drawing = ImageOps.invert(Image.open(tmp_path / digits[0])).resize((300, 300))
    drawing.convert("RGB").save(tmp_path / "on paper.jpg")
    done = fairway("predict", digits[0], "on paper.jpg", *server.flags[protocol])
    assert (done.returncode, done.stderr) == (0, "")
    header, first, second = done.stdout.splitlines()
    assert header.split() == ["FILE", "DIGIT", "PROBABILITY", "VERSION", "LATENCY"]
    assert first.split()[:2] == [digits[0], "0"]
    assert second.startswith("on paper.jpg  0  ")
    assert first.endswith(" ms")
    assert first.index("%") == second.index("%")
    assert "\x1b" not in done.stdout


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_version_that_was_asked_answers(
    server: ModelServer, fairway: Fairway, digits: list[str], protocol: str
) -> None:
    [version] = [path.name for path in server.export.iterdir() if path.name.isdigit()]
    flags = server.flags[protocol]
    done = fairway("predict", digits[0], *flags, "-o", "json", "--model-version", version)
    assert json.loads(done.stdout)[0]["version"] == int(version), done.stderr
    done = fairway("predict", digits[0], *flags, "--model-version", "5")
    assert (done.returncode, done.stdout) == (1, "")
    assert "has no version 5 of mnist" in done.stderr


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_wrong_name_is_explained_in_the_servers_words(
    server: ModelServer, fairway: Fairway, digits: list[str], protocol: str
) -> None:
    done = fairway("predict", digits[0], *server.flags[protocol], "--model-name", "nobody")
    assert (done.returncode, done.stdout) == (1, "")
    first, hint = done.stderr.splitlines()
    assert "no version of nobody" in first
    assert "nobody" in first.rpartition(": ")[2]
    assert "--model-name" in hint


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_other_apis_port_is_recognised(
    server: ModelServer, fairway: Fairway, digits: list[str], protocol: str
) -> None:
    _, address, *_ = server.flags["grpc" if protocol == "rest" else "rest"]
    words = ("--grpc",) if protocol == "grpc" else ()
    done = fairway("predict", digits[0], "--server", address, *words)
    assert (done.returncode, done.stdout) == (1, "")
    first, hint = done.stderr.splitlines()
    assert "but not as a model server does" in first
    assert {"rest": "8500", "grpc": "9000"}[protocol] in hint


@pytest.mark.parametrize("flags", [(), ("--grpc",)])
def test_a_server_that_is_away_is_one_sentence(
    fairway: Fairway, digits: list[str], flags: tuple[str]
) -> None:
    done = fairway("predict", digits[0], "--server", "127.0.0.1:1", *flags)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines() == [
        "error: model server at 127.0.0.1:1 does not answer: nothing listens there",
        "  Start one with: fairway serve. If it runs elsewhere, name it with --server.",
    ]


def test_standard_input_is_a_file(
    server: ModelServer, environment: dict[str, str], digits: list[str], tmp_path: Path
) -> None:
    with (tmp_path / digits[-1]).open("rb") as file:
        done = subprocess.run(
            [sys.executable, "-m", "fairway", "predict", "-", *server.flags["rest"], "-o", "json"],
            env=environment,
            stdin=file,
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
            check=False,
        )
    [answer] = json.loads(done.stdout)
    assert (answer["file"], answer["digit"]) == ("-", 9)


def test_all_files_are_checked_before_one_is_sent(
    fairway: Fairway, digits: list[str], tmp_path: Path
) -> None:
    (tmp_path / "notes.txt").write_text("not a picture")
    for name, words in (
        ("notes.txt", "notes.txt: that is not a picture"),
        ("7", "7 cannot be read: No such"),
    ):
        # Nobody listens at the address: it is not asked.
        done = fairway("predict", digits[0], name, "--server", "127.0.0.1:1")
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith(f"error: {words}")


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("--foo", "a.png"),
        ("a.png", "--model-version", "x"),
        ("a.png", "--model-version", "1", "--version-label", "a"),
    ],
)
def test_bad_usage_exits_with_2(fairway: Fairway, words: tuple[str, ...]) -> None:
    done = fairway("predict", *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("flags", [(), ("--grpc",)])
def test_ctrl_c_ends_it_without_a_word(
    environment: dict[str, str], digits: list[str], tmp_path: Path, flags: tuple[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        process = subprocess.Popen(
            [sys.executable, "-m", "fairway", "predict", digits[0], "--server", address, *flags],
            cwd=tmp_path,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        silent.settimeout(DEADLINE_S)
        connection, _ = silent.accept()  # now it waits for the answer
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=DEADLINE_S)
        connection.close()
    assert (process.returncode, output) == (130, b"")
