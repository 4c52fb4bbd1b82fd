"""The file with the models, as it changes while the server runs."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from fairway.errors import FairwayError, StorageError, UsageError
from fairway.serve.config_file import ConfigFile
from fairway.tfs.configs import ModelConfig

DEADLINE_S = 10.0


def text(name: str) -> str:
    return f'model_config_list {{ config {{ name: "{name}" base_path: "/models" }} }}'


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "models.config"
    path.write_text(text("a"))
    return path


class Applied:
    """Takes configurations, or refuses them."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.refusal = ""
        self.calls = 0
        self.applied = threading.Event()

    def __call__(self, configs: tuple[ModelConfig, ...]) -> None:
        self.calls += 1
        if self.refusal:
            raise FairwayError(self.refusal, hint="Copy it.")
        self.names += [config.name for config in configs]
        self.applied.set()


def test_what_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--model_config_file .*nothing cannot be read: No such file"):
        ConfigFile(str(tmp_path / "nothing"))
    (tmp_path / "binary").write_bytes(b"\xff")
    with pytest.raises(UsageError, match=r"--model_config_file .*binary cannot be read: it is not UTF-8"):
        ConfigFile(str(tmp_path / "binary"))
    (tmp_path / "other").write_text("no config")
    with pytest.raises(UsageError, match=r"--model_config_file .*other: not a ModelServerConfig"):
        ConfigFile(str(tmp_path / "other"))


def test_a_change_is_applied_once(path: Path) -> None:
    file, applied = ConfigFile(str(path)), Applied()
    assert [config.name for config in file.configs] == ["a"]
    file.look(applied)
    assert applied.names == []
    path.write_text(text("b"))
    for _ in range(2):
        file.look(applied)
    assert applied.names == ["b"]


def test_what_cannot_be_applied_is_said_once_and_tried_again_ever_more_rarely(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    now = 0
    file, applied = ConfigFile(str(path), lambda: now), Applied()
    applied.refusal = "the model is not there"
    path.write_text(text("b"))
    for now in range(300):  # noqa: B007 - the clock
        file.look(applied)
    assert 9 <= applied.calls <= 11
    assert caplog.messages == [f"{path} is not applied, all stays as it is: the model is not there (Copy it)"]

    applied.refusal = ""
    path.write_text(text("c"))  # at once
    file.look(applied)
    assert applied.names == ["c"]


def test_what_came_later_is_applied_then(path: Path) -> None:
    now = 0.0
    file, applied = ConfigFile(str(path), lambda: now), Applied()
    applied.refusal = "the model is not there"
    path.write_text(text("b"))
    file.look(applied)
    applied.refusal = ""
    file.look(applied)
    assert applied.names == []
    now = 60.0
    file.look(applied)
    assert applied.names == ["b"]


def test_errors_of_what_uses_it_name_the_file(path: Path) -> None:
    with pytest.raises(StorageError) as caught, ConfigFile(str(path)).named():
        raise StorageError("it is a file", hint="Give a directory.")
    assert str(caught.value) == caught.value.message == f"--model_config_file {path}: it is a file"
    assert caught.value.hint == "Give a directory."


@pytest.mark.parametrize("content", ["half a", None])
def test_a_damaged_or_missing_file_changes_nothing(
    path: Path, caplog: pytest.LogCaptureFixture, content: str | None
) -> None:
    file, applied = ConfigFile(str(path)), Applied()
    if content is None:
        path.unlink()
    else:
        path.write_text(content)
    for _ in range(2):
        file.look(applied)
    assert applied.names == []
    assert len(caplog.messages) == 1
    path.write_text(text("b"))
    file.look(applied)
    assert applied.names == ["b"]


def test_the_thread_looks_until_it_is_stopped(path: Path) -> None:
    file, applied = ConfigFile(str(path)), Applied()
    file.watch(0.01, applied)
    path.write_text(text("b"))
    assert applied.applied.wait(DEADLINE_S)
    file.stop()
    assert applied.names == ["b"]
