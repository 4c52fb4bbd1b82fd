"""What is copied from one export directory to another, in which order, and what is never lost by it."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from fairway.errors import StorageError, UsageError
from fairway.storage.exports import list_versions
from fairway.storage.files import ABANDONED_S
from fairway.storage.manifest import MANIFEST, SAVED_MODEL
from fairway.storage.publish import remove_version
from fairway.storage.sync import FIRST_RETRY_S, MAX_RETRY_S, StoppedError, Sync
from tests.manifests import make_version


class Clock:
    """Goes on when it is told to."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return tmp_path / "source"


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "target"


def sync(source: Path, target: Path, **options: Any) -> Sync:
    return Sync(str(source), str(target), **options)


def numbers(target: Path) -> list[int]:
    return [version.number for version in list_versions(target) if not version.problem]


def damage(path: Path) -> None:
    """Change a byte, so that only a checksum tells."""
    content = (path / SAVED_MODEL).read_bytes()
    (path / SAVED_MODEL).write_bytes(bytes([content[0] ^ 255]) + content[1:])


def test_the_newest_comes_first_and_all_in_the_end(source: Path, target: Path) -> None:
    for number in (9, 10, 11):
        make_version(source, number)
    one = sync(source, target)
    assert one.step() is not None
    assert numbers(target) == [11]
    assert not one.settled

    assert [version.number for version in one.run()] == [10, 9]
    assert numbers(target) == [9, 10, 11]
    assert sorted(path.name for path in target.iterdir()) == ["10", "11", "9"]
    assert (target / "9" / SAVED_MODEL).read_bytes() == (source / "9" / SAVED_MODEL).read_bytes()
    assert list(sync(source, target).run()) == []


def test_a_source_that_is_not_there_is_like_an_empty_one(source: Path, target: Path) -> None:
    one = sync(source, target, keep=1, delete=True)
    assert one.step() is None
    make_version(source, 1)
    assert [version.number for version in one.run()] == [1]


def test_paths_and_file_uris_are_the_same(source: Path, target: Path) -> None:
    make_version(source, 1)
    (version,) = Sync(f"file://{source}", f"file://{target}").run()
    assert version.path == target / "1"
    assert numbers(target) == [1]


def test_models_of_other_programs_are_copied_between_disks(source: Path, target: Path) -> None:
    (source / "3" / "variables").mkdir(parents=True)
    (source / "3" / SAVED_MODEL).write_bytes(b"model")
    (source / "3" / "variables" / "data").write_bytes(b"weights")
    assert [version.number for version in sync(source, target).run()] == [3]
    assert (target / "3" / "variables" / "data").read_bytes() == b"weights"
    assert list(sync(source, target).run()) == []


def test_incomplete_versions_are_passed_over_and_said_to_be_once(
    source: Path, target: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "fairway")
    make_version(source, 1)
    (make_version(source, 2).path / SAVED_MODEL).unlink()
    one = sync(source, target)
    for _ in range(3):
        one.step()
    assert numbers(target) == [1]
    assert len([message for message in caplog.messages if "version 2" in message]) == 1

    shutil.rmtree(source / "2")
    make_version(source, 2)
    one.step()
    assert numbers(target) == [1, 2]


def test_a_damaged_version_stops_no_other_and_is_tried_again_ever_more_rarely(
    source: Path, target: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    for number in (1, 2, 3):
        make_version(source, number)
    damage(source / "3")
    one = sync(source, target, clock=clock)

    copied = [one.step() for _ in range(4)]

    assert [version and version.number for version in copied] == [None, 2, 1, None]
    assert "3/saved_model.pb is damaged" in one.failures[3]
    tries = 0
    for clock.now in range(700):
        one.look()
        tries += not one.settled
        one.step()
    assert tries == pytest.approx(700 / MAX_RETRY_S + 7, abs=3)
    assert len([message for message in caplog.messages if "version 3 is not copied" in message]) == 1

    damage(source / "3")  # the same byte again: mended
    clock.now += MAX_RETRY_S
    assert one.step() is not None
    assert numbers(target) == [1, 2, 3]
    assert one.failures == {}
    assert not list(target.glob(".*"))


def test_run_tries_nothing_twice(source: Path, target: Path, clock: Clock) -> None:
    for number in (1, 2):
        make_version(source, number)
        damage(source / str(number))
    one = sync(source, target, clock=clock)
    steps = 0
    for _ in one.run():
        steps += 1
        clock.now += 2 * FIRST_RETRY_S
    assert steps == 0
    assert one.failures.keys() == {1, 2}


def test_a_number_that_belongs_to_another_version_is_left_alone(source: Path, target: Path) -> None:
    make_version(source, 1)
    make_version(source, 2)
    make_version(target, 2, seed=7)
    content = (target / "2" / SAVED_MODEL).read_bytes()
    one = sync(source, target, delete=True)

    assert [version.number for version in one.run()] == [1]

    assert "belongs to another writer" in one.failures[2]
    assert (target / "2" / SAVED_MODEL).read_bytes() == content


def test_keep_copies_only_the_newest_and_deletes_after_the_copy(
    source: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(1, 6):
        make_version(source, number)
    one = sync(source, target, keep=2)
    assert [version.number for version in one.run()] == [5, 4]
    make_version(source, 6)
    there: list[list[int]] = []

    def remove(export_dir: str, number: int) -> None:
        there.append(numbers(target))
        remove_version(export_dir, number)

    monkeypatch.setattr("fairway.storage.sync.remove_version", remove)
    assert [version.number for version in one.run()] == [6]
    assert there == [[4, 5, 6]]
    assert numbers(target) == [5, 6]
    assert not list(target.glob(".*"))


def test_keep_takes_the_next_older_one_for_one_that_cannot_be_copied(source: Path, target: Path) -> None:
    for number in (1, 2, 3, 4):
        make_version(source, number)
    damage(source / "4")
    assert [version.number for version in sync(source, target, keep=2).run()] == [3, 2]


def test_what_the_target_has_beyond_the_source_counts_for_keep(source: Path, target: Path) -> None:
    make_version(source, 1)
    make_version(source, 2)
    make_version(target, 3)
    one = sync(source, target, keep=2)
    assert [version.number for version in one.run()] == [2]
    assert numbers(target) == [2, 3]
    assert list(one.run()) == []


def test_without_delete_the_target_keeps_what_the_source_deletes(source: Path, target: Path) -> None:
    make_version(source, 1)
    make_version(source, 2)
    one = sync(source, target)
    list(one.run())
    shutil.rmtree(source / "2")
    assert list(one.run()) == []
    assert numbers(target) == [1, 2]


def test_delete_follows_a_rollback(source: Path, target: Path) -> None:
    make_version(source, 1)
    make_version(source, 2)
    one = sync(source, target, keep=2, delete=True)
    list(one.run())
    (source / "2" / SAVED_MODEL).unlink()
    one.step()
    assert numbers(target) == [1, 2]  # a part of it is still there

    shutil.rmtree(source / "2")
    one.step()
    assert numbers(target) == [1]


def test_delete_waits_for_the_version_that_comes_instead(source: Path, target: Path) -> None:
    make_version(target, 8)
    make_version(target, 9)
    for number in (5, 6, 7):
        make_version(source, number)
    one = sync(source, target, keep=2, delete=True)
    damage(source / "7")
    damage(source / "6")
    damage(source / "5")
    assert list(one.run()) == []
    assert numbers(target) == [8, 9]

    damage(source / "6")
    one = sync(source, target, keep=2, delete=True)
    assert [version.number for version in one.run()] == [6]
    assert numbers(target) == [6]


def test_what_the_reader_rejects_makes_room_for_older_ones(source: Path, target: Path) -> None:
    for number in range(1, 10):
        make_version(source, number)
    one = sync(source, target, keep=2, delete=True)
    one.hold = True
    for number in (9, 8, 7):
        copied = one.step()
        assert copied is not None
        assert copied.number == number
        one.rejected.add(number)

    assert [version.number for version in one.run()] == [6, 5]
    assert numbers(target) == [5, 6, 8, 9]

    make_version(source, 10)
    list(one.run())
    assert numbers(target) == [5, 6, 9, 10]
    one.hold = False
    list(one.run())
    assert numbers(target) == [6, 9, 10]


def test_what_has_gone_stays_while_its_successor_is_rejected(source: Path, target: Path) -> None:
    make_version(source, 1)
    one = sync(source, target, keep=2, delete=True)
    list(one.run())
    shutil.rmtree(source / "1")
    make_version(source, 2)
    assert one.step() is not None
    one.rejected.add(2)
    list(one.run())
    assert numbers(target) == [1, 2]

    one.rejected.clear()
    list(one.run())
    assert numbers(target) == [2]


def test_a_stopped_copy_leaves_nothing(source: Path, target: Path) -> None:
    make_version(source, 1)
    one = sync(source, target)
    one.stop()
    with pytest.raises(StoppedError):
        one.step()
    assert list(target.iterdir()) == []


@pytest.mark.parametrize("left", ["nothing", "incomplete"])
def test_an_emptied_source_empties_no_target(
    source: Path, target: Path, left: str, caplog: pytest.LogCaptureFixture
) -> None:
    for number in (1, 2, 3):
        make_version(source, number)
    one = sync(source, target, delete=True)
    list(one.run())
    shutil.rmtree(source)
    if left == "incomplete":
        (source / "4").mkdir(parents=True)
    one = sync(source, target, keep=1, delete=True)
    for _ in range(3):
        one.step()
    assert numbers(target) == [1, 2, 3]
    assert len([message for message in caplog.messages if "the 3 in" in message]) == 1


def test_a_source_that_cannot_be_read_empties_no_target(source: Path, target: Path) -> None:
    make_version(source, 1)
    one = sync(source, target, delete=True)
    list(one.run())
    shutil.rmtree(source)
    source.write_text("a file")
    with pytest.raises(StorageError, match="cannot read"):
        one.step()
    assert numbers(target) == [1]


def test_incomplete_versions_of_others_in_the_target_stay(source: Path, target: Path) -> None:
    make_version(source, 1)
    (target / "7").mkdir(parents=True)
    list(sync(source, target, keep=1, delete=True).run())
    assert (target / "7").is_dir()


def test_what_a_kill_left_in_the_target_is_removed_a_day_later(source: Path, target: Path) -> None:
    make_version(source, 1)
    left = target / ".new-killed"
    left.mkdir(parents=True)
    then = time.time() - ABANDONED_S - 60
    os.utime(left, (then, then))
    list(sync(source, target).run())
    assert not left.exists()


def test_a_manifest_that_names_files_outside_is_not_followed(source: Path, target: Path) -> None:
    path = make_version(source, 1).path
    (source / "secret").write_text("x")
    content = (path / MANIFEST).read_text().replace(SAVED_MODEL, "../secret")
    (path / MANIFEST).write_text(content)
    assert list(sync(source, target).run()) == []
    assert not target.exists() or not list(target.iterdir())


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("a", "a"),
        ("a", "./a/b/.."),
        ("a/b", "a"),
        ("s3://bucket", "s3://bucket/models"),
        ("s3://bucket/models/", "s3://bucket//models"),
        ("gs://bucket/a/b", "gs://bucket/a"),
    ],
)
def test_a_directory_is_not_copied_into_itself(source: str, target: str) -> None:
    with pytest.raises(UsageError, match=r"are the same directory|lie one in the other"):
        Sync(source, target)


def test_names_that_only_begin_alike_are_separate(tmp_path: Path) -> None:
    Sync(str(tmp_path / "models"), str(tmp_path / "models-copy"))
