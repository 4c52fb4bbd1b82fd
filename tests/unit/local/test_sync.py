"""What `fairway sync` does once, and what it says."""

from __future__ import annotations

from pathlib import Path

import pytest

from fairway.config import SyncSettings
from fairway.errors import StorageError, UsageError
from fairway.local import sync as module
from fairway.local.sync import run
from fairway.storage.exports import Version
from fairway.storage.manifest import SAVED_MODEL
from tests.manifests import make_version


@pytest.fixture(autouse=True)
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level("INFO", "fairway")
    return caplog


def copied(source: Path, target: Path, **settings: object) -> list[int]:
    shown: list[Version] = []
    run(str(source), str(target), SyncSettings(**settings), shown.append)  # type: ignore[arg-type]
    return [version.number for version in shown]


def test_each_copy_is_shown_and_the_end_is_said(tmp_path: Path, log: pytest.LogCaptureFixture) -> None:
    for number in (1, 2, 3):
        make_version(tmp_path / "a", number)
    assert copied(tmp_path / "a", tmp_path / "b") == [3, 2, 1]
    assert log.messages[-1] == "copied 3 versions"
    assert copied(tmp_path / "a", tmp_path / "b") == []
    assert log.messages[-1] == "everything is there already: 3 versions"
    assert copied(tmp_path / "a", tmp_path / "b", keep=1) == []
    assert log.messages[-1] == "everything is there already: 1 version"


@pytest.mark.parametrize("kind", ["missing", "empty", "incomplete"])
def test_nothing_to_copy_is_an_error(tmp_path: Path, kind: str) -> None:
    if kind != "missing":
        (tmp_path / "a").mkdir()
    if kind == "incomplete":
        (make_version(tmp_path / "a", 7).path / SAVED_MODEL).unlink()
    problem = r" \(version 7: saved_model.pb is missing\)" if kind == "incomplete" else ""
    with pytest.raises(StorageError, match=f"^no complete version in {tmp_path / 'a'}{problem}$") as caught:
        copied(tmp_path / "a", tmp_path / "b")
    assert "--watch" in caught.value.hint


def test_what_could_not_be_copied_is_named(tmp_path: Path) -> None:
    make_version(tmp_path / "a", 1)
    make_version(tmp_path / "a", 2)
    make_version(tmp_path / "b", 2, seed=7)
    with pytest.raises(
        StorageError, match="1 of 2 versions could not be copied: version 2: .* another writer"
    ):
        copied(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b" / "1").is_dir()


def test_a_model_directory_is_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    sent: list[tuple[Path, str]] = []
    monkeypatch.setattr(module, "send_model_dir", lambda path, uri: sent.append((path, uri)))
    run(str(tmp_path / "model"), "s3://bucket/model", SyncSettings(), lambda _: None)
    assert sent == [(tmp_path / "model", "s3://bucket/model")]
    for settings in (SyncSettings(watch=True), SyncSettings(keep=1), SyncSettings(delete=True)):
        with pytest.raises(UsageError, match="is the model directory of a training"):
            run(str(tmp_path / "model"), "s3://bucket/model", settings, lambda _: None)


@pytest.mark.parametrize("settings", [{"keep": 0}, {"poll_seconds": 0.0}, {"poll_seconds": float("nan")}])
def test_nonsense_is_refused(settings: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        SyncSettings(**settings)  # type: ignore[arg-type]
