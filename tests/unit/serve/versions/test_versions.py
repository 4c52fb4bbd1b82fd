"""Which versions of a model serve, as they come, break and go; loading is a fake."""

import shutil
import threading
from pathlib import Path

import pytest

from fairway.errors import FairwayError
from fairway.storage.manifest import SAVED_MODEL
from fairway.tfs.configs import All, Latest, ModelConfig, Specific
from fairway.tfs.versions import State, VersionStatus
from tests.unit.serve.fakes import FakeBackend, OneModel, publish

DEADLINE_S = 10.0


@pytest.fixture
def backend() -> FakeBackend:
    return FakeBackend()


@pytest.fixture
def export(tmp_path: Path) -> Path:
    return tmp_path / "export"


@pytest.fixture
def model(backend: FakeBackend, export: Path) -> OneModel:
    return OneModel(backend, export)


def test_a_base_path_that_does_not_exist_is_waited_for(model: OneModel, export: Path) -> None:
    assert model.poll() == ()
    assert model.table.problem == f"no version in {export} yet"

    publish(export, 1)
    assert model.poll() == (1,)
    assert model.table.statuses == (VersionStatus(1, State.AVAILABLE),)
    assert model.table.problem == ""


def test_the_newest_serves_and_is_loaded_once(model: OneModel, backend: FakeBackend, export: Path) -> None:
    for number in (9, 10):
        publish(export, number)
    (export / "not-a-version").mkdir()

    model.poll()
    assert model.poll() == (10,)
    assert backend.asked == [10]


def test_a_version_is_seen_to_load_and_to_serve(model: OneModel, backend: FakeBackend, export: Path) -> None:
    publish(export, 1)
    model.poll()

    states = [[status.state for status in tables["m"].statuses] for tables in backend.published]
    assert states == [[State.START], [State.LOADING], [State.AVAILABLE]]
    problems = [tables["m"].problem for tables in backend.published]
    assert problems == ["version 1 is loading", "version 1 is loading", ""]


def test_the_old_version_serves_until_the_new_one_does_and_goes_when_no_request_holds_it(
    model: OneModel, backend: FakeBackend, export: Path
) -> None:
    publish(export, 1)
    model.poll()
    publish(export, 2)
    backend.in_flight = {1}
    backend.published.clear()

    assert model.poll() == (2,)
    assert [tables["m"].serving for tables in backend.published] == [(1,), (1,), (2, 1), (2,)]
    assert model.states == {2: State.AVAILABLE, 1: State.UNLOADING}

    backend.in_flight = set()
    model.poll()
    assert model.states == {2: State.AVAILABLE, 1: State.END}
    assert [version.number for _, version in backend.loaded.values()] == [2]


def test_what_no_process_has_any_more_is_tried_again_and_made_up_for(
    model: OneModel, backend: FakeBackend, export: Path
) -> None:
    publish(export, 1)
    publish(export, 2)
    assert model.poll() == (2,)
    backend.gone = {2: "its file is gone"}
    backend.broken = {2: FairwayError("its file is gone")}
    assert model.poll() == (1,)
    assert VersionStatus(2, State.END, "its file is gone") in model.table.statuses

    backend.gone, backend.broken = {}, {}
    backend.now += 1
    assert model.poll() == (2,)


def test_what_fails_as_the_server_ends_is_no_failure(
    model: OneModel, backend: FakeBackend, export: Path, caplog: pytest.LogCaptureFixture
) -> None:
    publish(export, 1)
    backend.broken = {1: FairwayError("the server ends")}
    backend.while_loading = model.versions.stop
    model.poll()
    assert backend.asked == [1]
    assert caplog.messages == []


def test_deleting_the_newest_rolls_back(model: OneModel, export: Path) -> None:
    publish(export, 1)
    newest = publish(export, 2)
    model.poll()

    shutil.rmtree(newest)
    assert model.poll() == (1,)
    assert model.states == {1: State.AVAILABLE}


def test_a_rollback_while_requests_still_hold_that_version(
    model: OneModel, backend: FakeBackend, export: Path
) -> None:
    publish(export, 1)
    model.poll()
    newest = publish(export, 2)
    backend.in_flight = {1}
    model.poll()

    shutil.rmtree(newest)
    assert model.poll() == (1,)
    backend.in_flight = set()
    model.poll()
    assert model.states == {1: State.AVAILABLE}


def test_what_serves_stays_while_its_directory_is_half_deleted(model: OneModel, export: Path) -> None:
    publish(export, 1)
    newest = publish(export, 2)
    model.poll()

    (newest / SAVED_MODEL).unlink()
    assert model.poll() == (2,)


def test_deleting_all_ends_service(model: OneModel, export: Path) -> None:
    path = publish(export, 1)
    model.poll()

    shutil.rmtree(path)
    assert model.poll() == ()
    assert model.table.statuses == ()


@pytest.mark.parametrize("error", [FairwayError("it is corrupt"), RuntimeError("it is corrupt")])
def test_a_broken_version_is_skipped_and_said_to_be_broken_once(
    model: OneModel,
    backend: FakeBackend,
    export: Path,
    error: Exception,
    caplog: pytest.LogCaptureFixture,
) -> None:
    publish(export, 1)
    publish(export, 2)
    backend.broken[2] = error

    for backend.now in range(100):
        assert model.poll() == (1,)

    status = model.table.statuses[0]
    assert (status.number, status.state) == (2, State.END)
    assert "it is corrupt" in status.error
    assert sum("version 2 of m is skipped" in message for message in caplog.messages) == 1


def test_a_broken_version_is_tried_again_ever_more_rarely(
    model: OneModel, backend: FakeBackend, export: Path
) -> None:
    publish(export, 1)
    backend.broken[1] = FairwayError("the disk is away", hint="Mount it.")

    for backend.now in range(200):
        model.poll()
    assert 6 <= len(backend.asked) <= 9
    assert model.table.problem == "version 1 cannot be served: the disk is away (Mount it.)"

    backend.broken.clear()
    backend.now += 60
    assert model.poll() == (1,)


def test_a_broken_version_is_tried_at_once_when_a_file_changes(
    model: OneModel, backend: FakeBackend, export: Path
) -> None:
    publish(export, 1)
    backend.broken[1] = FairwayError("it is corrupt")
    for _ in range(3):
        model.poll()
    assert backend.asked == [1]

    backend.broken.clear()
    publish(export, 1, "mended model")
    assert model.poll() == (1,)


def test_an_incomplete_version_is_not_loaded(model: OneModel, backend: FakeBackend, export: Path) -> None:
    (export / "1").mkdir(parents=True)

    model.poll()
    assert backend.asked == []
    assert model.table.problem == f"version 1 cannot be served: incomplete: no {SAVED_MODEL}"

    publish(export, 1)
    assert model.poll() == (1,)


def test_a_base_path_that_cannot_be_read_takes_nothing_down(
    model: OneModel, export: Path, caplog: pytest.LogCaptureFixture
) -> None:
    publish(export, 1)
    model.poll()
    export.rename(export.with_name("moved"))
    export.write_text("a file")

    for _ in range(2):
        assert model.poll() == (1,)
    assert len([message for message in caplog.messages if "cannot read" in message]) == 1


def test_a_base_path_that_goes_takes_nothing_down(
    model: OneModel, backend: FakeBackend, export: Path, caplog: pytest.LogCaptureFixture
) -> None:
    publish(export, 1)
    model.poll()
    away = export.rename(export.with_name("export.gone"))
    for _ in range(2):
        assert model.poll() == (1,)
    assert caplog.messages == [
        f"model m: cannot read {export}: it does not exist; what serves goes on serving"
    ]

    away.rename(export)
    assert model.poll() == (1,)
    assert backend.asked == [1]
    shutil.rmtree(export / "1")
    assert model.poll() == ()


def test_a_file_is_no_version(model: OneModel, export: Path) -> None:
    publish(export, 1)
    (export / "15").touch()
    assert model.poll() == (1,)
    assert model.states == {1: State.AVAILABLE}


def test_a_base_path_that_cannot_be_read_is_why_nothing_serves(model: OneModel, export: Path) -> None:
    export.write_text("a file")
    model.poll()
    assert "a part of the path is a file" in model.table.problem


def test_the_latest_versions_serve(backend: FakeBackend, export: Path) -> None:
    model = OneModel(backend, export, Latest(2))
    for number in (1, 2, 3):
        publish(export, number)
    assert model.poll() == (3, 2)

    publish(export, 4)
    assert model.poll() == (4, 3)
    assert backend.asked == [3, 2, 4]


def test_a_broken_one_among_the_latest_is_made_up_for_by_an_older_one(
    backend: FakeBackend, export: Path
) -> None:
    model = OneModel(backend, export, Latest(2))
    backend.broken[2] = FairwayError("it is corrupt")
    for number in (1, 2, 3):
        publish(export, number)
    assert model.poll() == (3, 1)


def test_all_versions_serve_but_the_broken_ones(backend: FakeBackend, export: Path) -> None:
    model = OneModel(backend, export, All())
    backend.broken[2] = FairwayError("it is corrupt")
    paths = [publish(export, number) for number in (1, 2, 3)]
    assert model.poll() == (3, 1)

    shutil.rmtree(paths[2])
    publish(export, 4)
    assert model.poll() == (4, 1)


def test_specific_versions_serve(backend: FakeBackend, export: Path) -> None:
    model = OneModel(backend, export, Specific((1, 3, 7)))
    for number in (1, 2, 3):
        publish(export, number)
    assert model.poll() == (3, 1)
    publish(export, 4)
    publish(export, 7)
    assert model.poll() == (7, 3, 1)


def test_a_specific_version_that_is_not_there_is_waited_for(backend: FakeBackend, export: Path) -> None:
    model = OneModel(backend, export, Specific((5,)))
    publish(export, 6)
    assert model.poll() == ()
    assert model.table.problem == f"no version 5 in {export} yet"


def test_another_policy_takes_over_without_a_gap(model: OneModel, backend: FakeBackend, export: Path) -> None:
    for number in (1, 2, 3):
        publish(export, number)
    backend.broken[1] = FairwayError("it is corrupt")
    assert model.poll() == (3,)

    for policy, serving in ((Specific((2,)), (2,)), (Specific((1,)), (2,)), (Latest(), (3,))):
        model.versions.configure(ModelConfig("m", str(export), policy, {}), None)
        assert model.poll() == serving


def test_labels_are_in_the_table_at_once(model: OneModel, backend: FakeBackend, export: Path) -> None:
    publish(export, 1)
    model.poll()
    model.versions.configure(ModelConfig("m", str(export), Latest(), {"stable": 1}), None)
    assert backend.tables["m"].labels == {"stable": 1}


def test_loads_are_recorded_with_their_seconds(backend: FakeBackend, export: Path) -> None:
    recorded: list[tuple[str, int, float | None]] = []
    model = OneModel(backend, export)
    model.versions._loading = backend.loading(lambda *load: recorded.append(load))
    backend.broken[2] = FairwayError("it is corrupt")

    def take_half_a_second() -> None:
        backend.now += 0.5

    backend.while_loading = take_half_a_second
    publish(export, 1)
    publish(export, 2)
    model.poll()
    assert recorded == [("m", 2, None), ("m", 1, 0.5)]


def test_the_thread_looks_until_it_is_stopped(backend: FakeBackend, export: Path) -> None:
    publish(export, 1)
    model = OneModel(backend, export, poll_s=3600)
    loading = threading.Event()
    backend.while_loading = loading.set

    model.versions.start()
    assert loading.wait(DEADLINE_S)
    model.versions.stop()
    model.versions.join(DEADLINE_S)

    assert model.table.serving == (1,)


def test_discarded_versions_are_freed(model: OneModel, backend: FakeBackend, export: Path) -> None:
    publish(export, 1)
    model.poll()
    backend.publish({}, {})
    model.versions.discard()
    assert backend.loaded == {}
