"""`fairway predict`: what is asked, and how answers are shown."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fairway.cli.predict import predict
from fairway.client import rest
from fairway.client.answers import Prediction
from fairway.config import PredictSettings
from fairway.errors import DataError, UsageError


class Answers:
    """Stands in for a client: answers in turn, and notes what it was asked."""

    def __init__(self, *certainties: float) -> None:
        self.certainties = list(certainties)
        self.images: list[Any] = []
        self.asked: list[Any] = []
        self.closed = False

    def __call__(self, *args: Any, **options: Any) -> Answers:
        self.asked += [*args, options]
        return self

    async def predict(self, image: Any) -> Prediction:
        self.images.append(image)
        certainty = self.certainties.pop(0)
        rest = (1 - certainty) / 9
        return Prediction(3, [certainty if digit == 3 else rest for digit in range(10)], 12, 0.0123)

    async def close(self) -> None:
        self.closed = True


@pytest.fixture
def pictures(tmp_path: Path) -> Sequence[str]:
    """Two pictures of a stroke, the first of which stands, the second lies."""
    names = []
    for name, box in (("one.png", (45, 10, 55, 90)), ("a dash.png", (10, 45, 90, 55))):
        image = Image.new("L", (100, 100), 255)
        image.paste(0, box)
        image.save(tmp_path / name)
        names.append(str(tmp_path / name))
    return names


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Answers:
    answers = Answers(0.999, 0.25)
    monkeypatch.setattr(rest, "RestClient", answers)
    return answers


def test_each_picture_is_asked_by_itself_and_shown_in_a_line(
    answers: Answers, pictures: Sequence[str], capsys: pytest.CaptureFixture[str]
) -> None:
    predict(*pictures)
    standing, lying = answers.images
    assert standing.shape == lying.shape == (28, 28)
    assert standing.dtype == np.float32
    assert np.ptp(np.nonzero(standing)[0]) > np.ptp(np.nonzero(lying)[0])
    assert answers.closed
    header, first, second = capsys.readouterr().out.splitlines()
    assert header.split() == ["FILE", "DIGIT", "PROBABILITY", "VERSION", "LATENCY"]
    assert first.split() == [pictures[0], "3", "99.90%", "12", "12.3", "ms"]
    assert second.startswith(pictures[1])
    assert first.index("%") == second.index("%")


def test_programs_get_all_probabilities(
    answers: Answers, pictures: Sequence[str], capsys: pytest.CaptureFixture[str]
) -> None:
    predict(*pictures, settings=PredictSettings(output="json"))
    first, second = json.loads(capsys.readouterr().out)
    assert first["probabilities"][3] == 0.999
    assert len(first.pop("probabilities")) == 10
    assert first == {"file": pictures[0], "digit": 3, "version": 12, "latency_ms": 12.3}
    assert second["file"] == pictures[1]


@pytest.mark.parametrize(
    ("settings", "asked"),
    [
        (PredictSettings(), ["127.0.0.1:8500", "mnist", {"version": None, "label": ""}]),
        (
            PredictSettings(server="a:1", model_name="m", model_version=4),
            ["a:1", "m", {"version": 4, "label": ""}],
        ),
        (
            PredictSettings(version_label="stable"),
            ["127.0.0.1:8500", "mnist", {"version": None, "label": "stable"}],
        ),
    ],
)
def test_the_model_that_is_named_is_asked(
    answers: Answers, pictures: Sequence[str], settings: PredictSettings, asked: list[Any]
) -> None:
    predict(pictures[0], settings=settings)
    assert answers.asked == asked


def test_over_grpc_another_port_is_the_default(
    monkeypatch: pytest.MonkeyPatch, pictures: Sequence[str]
) -> None:
    from fairway.client import grpc

    answers = Answers(0.9)
    monkeypatch.setattr(grpc, "GrpcClient", answers)
    monkeypatch.setenv("GRPC_VERBOSITY", "INFO")  # and the variable that the command sets goes afterwards
    predict(pictures[0], settings=PredictSettings(grpc=True))
    assert answers.asked[0] == "127.0.0.1:9000"


def test_on_a_terminal_what_the_model_is_unsure_of_is_yellow(
    answers: Answers,
    pictures: Sequence[str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    predict(*pictures)
    _, sure, unsure = capsys.readouterr().out.splitlines()
    assert "\x1b" not in sure
    assert unsure.startswith(f"\x1b[33m{pictures[1]}")
    assert unsure.endswith("\x1b[0m")


def test_no_colour_where_none_is_wanted(
    answers: Answers,
    pictures: Sequence[str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    predict(*pictures)
    assert "\x1b" not in capsys.readouterr().out


def test_a_hyphen_is_standard_input(
    answers: Answers,
    pictures: Sequence[str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(Path(pictures[0]).read_bytes())))
    predict("-")
    assert capsys.readouterr().out.splitlines()[1].startswith("-     3")
    assert np.count_nonzero(answers.images[0])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "cannot be read: No such file"),
        (b"", "the picture is empty: 0 bytes"),
        (b"hello", "that is not a picture"),
        (b"\x89PNG\r\n\x1a\n", "the picture is damaged"),
    ],
)
def test_a_file_that_is_no_picture_is_named_before_one_is_sent(
    answers: Answers, pictures: Sequence[str], tmp_path: Path, content: bytes | None, words: str
) -> None:
    file = tmp_path / "other.png"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(DataError, match=words) as raised:
        predict(pictures[0], str(file))
    assert raised.value.message.startswith(str(file))
    assert raised.value.hint
    assert answers.images == []


def test_a_picture_of_nothing_is_named(answers: Answers, tmp_path: Path) -> None:
    Image.new("L", (50, 50), 255).save(tmp_path / "white.png")
    with pytest.raises(DataError, match="white.png: the picture is empty"):
        predict(str(tmp_path / "white.png"))


def test_an_option_that_does_not_exist_is_no_file() -> None:
    with pytest.raises(UsageError, match="unknown option --fast"):
        predict("--fast")


def test_only_one_of_version_and_label_can_be_asked() -> None:
    with pytest.raises(UsageError, match="only one of them"):
        PredictSettings(model_version=1, version_label="stable")
