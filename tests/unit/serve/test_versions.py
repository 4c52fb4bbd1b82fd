"""Which version serves, as versions come, break and go; loading is a fake."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import pytest

from fairway.errors import FairwayError
from fairway.serve.savedmodel import SavedModel
from fairway.serve.servable import Servable
from fairway.serve.versions import State, Versions, VersionStatus
from fairway.storage.exports import Version
from fairway.storage.manifest import SAVED_MODEL


@dataclass
class Loader:
    """Loads any version but the broken ones, and remembers what it was asked for."""

    broken: dict[int, Exception] = field(default_factory=dict)
    asked: list[int] = field(default_factory=list)
    now: float = 0.0

    def load(self, version: Version) -> Servable:
        self.asked.append(version.number)
        if version.number in self.broken:
            raise self.broken[version.number]
        return Servable(version.number, {}, SavedModel(version.path))

    def clock(self) -> float:
        return self.now


@pytest.fixture
def loader() -> Loader:
    return Loader()


@pytest.fixture
def versions(tmp_path: Path, loader: Loader) -> Versions:
    return Versions(tmp_path / "export", poll_s=1, load=loader.load, clock=loader.clock)


def publish(tmp_path: Path, number: int, content: str = "model") -> Path:
    path = tmp_path / "export" / str(number)
    path.mkdir(parents=True, exist_ok=True)
    (path / SAVED_MODEL).write_text(content)
    return path


def remove(path: Path) -> None:
    (path / SAVED_MODEL).unlink()
    path.rmdir()


def serving(versions: Versions) -> int | None:
    return versions.current.number if versions.current else None


def test_a_base_path_that_does_not_exist_is_waited_for(versions: Versions, tmp_path: Path) -> None:
    versions.poll()
    assert serving(versions) is None
    assert versions.problem == f"no version in {tmp_path / 'export'} yet"

    publish(tmp_path, 1)
    versions.poll()
    assert serving(versions) == 1
    assert versions.statuses == [VersionStatus(1, State.AVAILABLE)]


def test_the_newest_serves_and_is_loaded_once(versions: Versions, loader: Loader, tmp_path: Path) -> None:
    for number in (9, 10):
        publish(tmp_path, number)
    (tmp_path / "export" / "not-a-version").mkdir()

    versions.poll()
    versions.poll()

    assert serving(versions) == 10
    assert loader.asked == [10]


def test_a_newer_version_takes_over_while_requests_hold_the_old(versions: Versions, tmp_path: Path) -> None:
    publish(tmp_path, 1)
    versions.poll()
    held = cast(Servable, versions.current)
    publish(tmp_path, 2)

    versions.poll()

    assert serving(versions) == 2
    assert held.number == 1
    assert versions.statuses == [VersionStatus(2, State.AVAILABLE), VersionStatus(1, State.END)]


def test_deleting_the_newest_rolls_back(versions: Versions, tmp_path: Path) -> None:
    publish(tmp_path, 1)
    newest = publish(tmp_path, 2)
    versions.poll()

    remove(newest)
    versions.poll()

    assert serving(versions) == 1


def test_what_serves_stays_while_its_directory_is_half_deleted(versions: Versions, tmp_path: Path) -> None:
    publish(tmp_path, 1)
    newest = publish(tmp_path, 2)
    versions.poll()

    (newest / SAVED_MODEL).unlink()
    versions.poll()

    assert serving(versions) == 2


def test_deleting_all_ends_service(versions: Versions, tmp_path: Path) -> None:
    path = publish(tmp_path, 1)
    versions.poll()

    remove(path)
    versions.poll()

    assert serving(versions) is None
    assert versions.statuses == []


@pytest.mark.parametrize("error", [FairwayError("it is corrupt"), RuntimeError("it is corrupt")])
def test_a_broken_version_is_skipped_and_said_to_be_broken_once(
    versions: Versions,
    loader: Loader,
    tmp_path: Path,
    error: Exception,
    caplog: pytest.LogCaptureFixture,
) -> None:
    publish(tmp_path, 1)
    publish(tmp_path, 2)
    loader.broken[2] = error

    for loader.now in range(100):
        versions.poll()

    assert serving(versions) == 1
    status = versions.statuses[0]
    assert (status.number, status.state) == (2, State.END)
    assert "it is corrupt" in status.error
    assert sum("version 2 is skipped" in message for message in caplog.messages) == 1


def test_a_broken_version_is_tried_again_ever_more_rarely(
    versions: Versions, loader: Loader, tmp_path: Path
) -> None:
    publish(tmp_path, 1)
    loader.broken[1] = FairwayError("the disk is away", hint="Mount it.")

    for loader.now in range(200):
        versions.poll()
    assert 6 <= len(loader.asked) <= 9
    assert versions.problem == "version 1 cannot be served: the disk is away (Mount it.)"

    loader.broken.clear()
    loader.now += 60
    versions.poll()
    assert serving(versions) == 1


def test_a_broken_version_is_tried_at_once_when_a_file_changes(
    versions: Versions, loader: Loader, tmp_path: Path
) -> None:
    publish(tmp_path, 1)
    loader.broken[1] = FairwayError("it is corrupt")
    for _ in range(3):
        versions.poll()
    assert loader.asked == [1]

    loader.broken.clear()
    publish(tmp_path, 1, "mended model")
    versions.poll()

    assert serving(versions) == 1


def test_an_incomplete_version_is_not_loaded(versions: Versions, loader: Loader, tmp_path: Path) -> None:
    (tmp_path / "export" / "1").mkdir(parents=True)

    versions.poll()
    assert loader.asked == []
    assert versions.problem == f"version 1 cannot be served: incomplete: no {SAVED_MODEL}"

    publish(tmp_path, 1)
    versions.poll()
    assert serving(versions) == 1


def test_a_base_path_that_cannot_be_read_takes_nothing_down(
    versions: Versions, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    publish(tmp_path, 1)
    versions.poll()
    (tmp_path / "export").rename(tmp_path / "moved")
    (tmp_path / "export").write_text("a file")

    for _ in range(2):
        versions.poll()

    assert serving(versions) == 1
    assert "a part of the path is a file" in versions.problem
    assert len([message for message in caplog.messages if "cannot read" in message]) == 1


def test_the_thread_looks_until_it_is_stopped(tmp_path: Path, loader: Loader) -> None:
    publish(tmp_path, 1)
    versions = Versions(tmp_path / "export", poll_s=3600, load=loader.load)

    versions.start()
    versions.stop()

    assert serving(versions) == 1
