"""Which models are served as the configuration changes; loading is a fake."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fairway.errors import FairwayError, UsageError
from fairway.serve.versions import cache as cache_module
from fairway.serve.versions.decider import Decider
from fairway.tfs.configs import All, Latest, ModelConfig, Specific
from fairway.tfs.status import Code, RequestError
from tests.manifests import make_version
from tests.unit.serve.fakes import FakeBackend, publish

DEADLINE_S = 10.0
Start = Callable[..., Decider]


def config(
    name: str,
    path: Path,
    policy: Latest | All | Specific = Latest(),  # noqa: B008 - frozen
    **labels: int,
) -> ModelConfig:
    return ModelConfig(name, str(path), policy, labels)


@pytest.fixture
def backend() -> FakeBackend:
    return FakeBackend()


@pytest.fixture
def start(backend: FakeBackend) -> Iterator[Start]:
    started: list[Decider] = []

    def start(*configs: ModelConfig, allow_labels: bool = False) -> Decider:
        decider = Decider(configs, backend, poll_s=0.01, allow_labels=allow_labels, record=lambda *_: None)
        started.append(decider)
        decider.start()
        return decider

    yield start
    for decider in started:
        decider.close()


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.002)


def serving(backend: FakeBackend) -> dict[str, tuple[int, ...]]:
    return {name: table.serving for name, table in backend.tables.items()}


def loaded(backend: FakeBackend) -> list[tuple[str, int]]:
    return sorted((model, version.number) for model, version in backend.loaded.values())


def test_models_are_served_side_by_side(start: Start, backend: FakeBackend, tmp_path: Path) -> None:
    publish(tmp_path / "a", 1)
    publish(tmp_path / "b", 7)
    start(config("a", tmp_path / "a"), config("b", tmp_path / "b"), config("c", tmp_path / "c"))

    wait_for(lambda: serving(backend) == {"a": (1,), "b": (7,), "c": ()})
    assert backend.tables["c"].problem == f"no version in {tmp_path / 'c'} yet"


def test_names_are_published_before_anything_is_loaded(
    start: Start, backend: FakeBackend, tmp_path: Path
) -> None:
    start(config("a", tmp_path / "a"))
    assert [table.serving for table in backend.published[0].values()] == [()]


def test_one_version_is_loaded_at_a_time(start: Start, backend: FakeBackend, tmp_path: Path) -> None:
    names = "abcd"
    for name in names:
        publish(tmp_path / name, 1)
    loading, most = threading.Semaphore(1), []

    def count() -> None:
        most.append(loading.acquire(blocking=False))
        time.sleep(0.005)
        loading.release()

    backend.while_loading = count
    start(*(config(name, tmp_path / name) for name in names))
    wait_for(lambda: serving(backend) == dict.fromkeys(names, (1,)))
    assert most == [True] * len(names)


def test_a_model_is_added_and_another_removed_without_touching_the_third(
    start: Start, backend: FakeBackend, tmp_path: Path
) -> None:
    for name in "abc":
        publish(tmp_path / name, 1)
    a, b, c = (config(name, tmp_path / name) for name in "abc")
    decider = start(a, b)
    wait_for(lambda: serving(backend) == {"a": (1,), "b": (1,)})
    key = backend.keys["a"][1]

    decider.reload((a, c))

    assert serving(backend) == {"a": (1,), "c": (1,)}
    assert backend.keys["a"][1] == key
    wait_for(lambda: loaded(backend) == [("a", 1), ("c", 1)])
    publish(tmp_path / "c", 2)
    wait_for(lambda: serving(backend) == {"a": (1,), "c": (2,)})


def test_a_model_that_goes_while_it_loads_leaves_nothing(
    start: Start, backend: FakeBackend, tmp_path: Path
) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def wait() -> None:
        begun.set()
        assert go_on.wait(DEADLINE_S)

    backend.while_loading = wait
    publish(tmp_path / "a", 1)
    decider = start(config("a", tmp_path / "a"))
    assert begun.wait(DEADLINE_S)
    decider.reload(())
    go_on.set()
    wait_for(lambda: backend.asked == [1] and loaded(backend) == [])
    assert backend.tables == {}


def test_a_changed_base_path_is_loaded_beside_what_serves(
    start: Start, backend: FakeBackend, tmp_path: Path
) -> None:
    publish(tmp_path / "old", 1)
    publish(tmp_path / "new", 1)
    decider = start(config("m", tmp_path / "old"))
    wait_for(lambda: serving(backend) == {"m": (1,)})
    backend.published.clear()

    decider.reload((config("m", tmp_path / "new"),))

    assert [tables["m"].serving for tables in backend.published] == [(1,)]
    wait_for(lambda: len(backend.loaded) == 1)
    assert [version.uri for _, version in backend.loaded.values()] == [str(tmp_path / "new" / "1")]


def test_a_changed_policy_keeps_what_is_loaded(start: Start, backend: FakeBackend, tmp_path: Path) -> None:
    for number in (1, 2):
        publish(tmp_path / "m", number)
    decider = start(config("m", tmp_path / "m"))
    wait_for(lambda: serving(backend) == {"m": (2,)})
    decider.reload((config("m", tmp_path / "m", All()),))
    wait_for(lambda: serving(backend) == {"m": (2, 1)})
    decider.reload((config("m", tmp_path / "m", Specific((1,))),))
    wait_for(lambda: serving(backend) == {"m": (1,)})
    assert backend.asked == [2, 1]


@pytest.mark.parametrize("broken", [False, True])
def test_a_new_model_that_does_not_serve_changes_nothing(
    start: Start, backend: FakeBackend, tmp_path: Path, broken: bool
) -> None:
    publish(tmp_path / "a", 1)
    publish(tmp_path / "good", 5)
    decider = start(config("a", tmp_path / "a"))
    wait_for(lambda: serving(backend) == {"a": (1,)})
    if broken:
        publish(tmp_path / "b", 3)
        backend.broken[3] = FairwayError("it is corrupt")

    with pytest.raises(RequestError) as caught:
        decider.reload((config("good", tmp_path / "good"), config("b", tmp_path / "b")))

    reason = "version 3 cannot be served: it is corrupt" if broken else f"no version in {tmp_path / 'b'} yet"
    assert caught.value.message == f"1 model(s) did not become available: {{b: {reason}}}"
    assert caught.value.code is Code.UNKNOWN
    assert serving(backend) == {"a": (1,)}
    assert loaded(backend) == [("a", 1)]


@pytest.mark.parametrize(
    ("base_path", "code", "message"),
    [
        ("file", Code.FAILED_PRECONDITION, "is a file, but must be a directory of versions"),
        ("http://host/models", Code.INVALID_ARGUMENT, "unknown scheme 'http'"),
    ],
)
def test_a_base_path_that_cannot_be_one_changes_nothing(
    start: Start, backend: FakeBackend, tmp_path: Path, base_path: str, code: Code, message: str
) -> None:
    (tmp_path / "file").touch()
    decider = start()
    path = base_path if "://" in base_path else str(tmp_path / base_path)
    with pytest.raises(RequestError, match=message) as caught:
        decider.reload((ModelConfig("m", path),))
    assert caught.value.code is code
    assert serving(backend) == {}


NOT_AVAILABLE = (
    "Request to assign label to version 9 of model m, which is not currently available for inference"
)


def test_labels_name_versions_that_serve(start: Start, backend: FakeBackend, tmp_path: Path) -> None:
    for number in (1, 2):
        publish(tmp_path / "m", number)
    decider = start(config("m", tmp_path / "m", All()))
    wait_for(lambda: serving(backend) == {"m": (2, 1)})

    decider.reload((config("m", tmp_path / "m", All(), stable=1, canary=2),))
    assert backend.tables["m"].labels == {"stable": 1, "canary": 2}

    with pytest.raises(RequestError, match=NOT_AVAILABLE) as caught:
        decider.reload((config("m", tmp_path / "m", All(), stable=9),))
    assert caught.value.code is Code.FAILED_PRECONDITION
    assert backend.tables["m"].labels == {"stable": 1, "canary": 2}


@pytest.mark.parametrize("allow_labels", [True, False])
def test_a_label_moves_together_with_the_policy_that_wants_its_version(
    start: Start, backend: FakeBackend, tmp_path: Path, allow_labels: bool
) -> None:
    for number in (1, 2, 3):
        publish(tmp_path / "m", number)
    decider = start(config("m", tmp_path / "m", Specific((1,)), stable=1), allow_labels=allow_labels)
    wait_for(lambda: serving(backend) == {"m": (1,)})
    backend.published.clear()

    decider.reload((config("m", tmp_path / "m", Specific((2, 3)), stable=2),))
    assert backend.tables["m"].labels == {"stable": 2}
    wait_for(lambda: serving(backend) == {"m": (3, 2)})
    labelled = [(tables["m"].labels["stable"], tables["m"].serving) for tables in backend.published]
    assert all(label in numbers for label, numbers in labelled)  # without a gap
    assert sorted(backend.asked) == [1, 2, 3]


def test_a_label_of_a_version_that_cannot_be_loaded_or_is_not_wanted_changes_nothing(
    start: Start, backend: FakeBackend, tmp_path: Path
) -> None:
    for number in (1, 9):
        publish(tmp_path / "m", number)
    backend.broken[9] = FairwayError("it is corrupt")
    decider = start(config("m", tmp_path / "m", Specific((1,)), stable=1))
    wait_for(lambda: serving(backend) == {"m": (1,)})

    for policy, reason in (
        (Specific((1,)), "first have its policy serve it, then give it the label"),
        (Specific((1, 9)), "it is corrupt"),
    ):
        with pytest.raises(RequestError, match=f"{NOT_AVAILABLE}: {reason}"):
            decider.reload((config("m", tmp_path / "m", policy, stable=9),))
        assert backend.tables["m"].labels == {"stable": 1}
    assert serving(backend) == {"m": (1,)}


def test_what_cannot_be_applied_is_refused_before_anything_is_loaded(
    start: Start, backend: FakeBackend, tmp_path: Path
) -> None:
    publish(tmp_path / "good", 5)
    decider = start()
    good = config("good", tmp_path / "good")
    for other in (config("b", tmp_path / "none"), config("b", tmp_path / "good", stable=9)):
        with pytest.raises(RequestError):
            decider.reload((good, other))
    assert backend.asked == []


def test_a_version_is_said_to_serve_once_it_does(
    start: Start, backend: FakeBackend, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    publish(tmp_path / "good", 5)
    publish(tmp_path / "b", 6)
    backend.broken[6] = FairwayError("it is corrupt")
    decider = start()
    good, broken = config("good", tmp_path / "good"), config("b", tmp_path / "b")
    with pytest.raises(RequestError):
        decider.reload((good, broken))
    assert "serves, on" not in caplog.text
    decider.reload((good,))
    assert "version 5 of good serves, on LiteRT" in caplog.text


def test_labels_of_a_new_model_name_what_it_then_serves(
    start: Start, backend: FakeBackend, tmp_path: Path
) -> None:
    publish(tmp_path / "m", 1)
    decider = start()
    with pytest.raises(RequestError, match=NOT_AVAILABLE):
        decider.reload((config("m", tmp_path / "m", stable=9),))
    assert loaded(backend) == []
    decider.reload((config("m", tmp_path / "m", stable=1),))
    assert backend.tables["m"].labels == {"stable": 1}


def test_labels_at_the_start_need_the_flag(start: Start, backend: FakeBackend, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=NOT_AVAILABLE) as caught:
        start(config("m", tmp_path / "m", stable=9))
    assert "--allow_version_labels_for_unavailable_models" in caught.value.hint

    decider = start(config("m", tmp_path / "m", stable=9), allow_labels=True)
    assert backend.tables["m"].labels == {"stable": 9}
    with pytest.raises(RequestError, match="version 8 of model m"):  # a moved label must name what serves
        decider.reload((config("m", tmp_path / "m", stable=8),))
    decider.reload((config("m", tmp_path / "m", stable=9, canary=8),))
    assert backend.tables["m"].labels == {"stable": 9, "canary": 8}


@pytest.mark.parametrize("policy", [All(), Specific((1, 9))])
def test_labels_at_the_start_of_versions_that_the_policy_names(
    start: Start, backend: FakeBackend, tmp_path: Path, policy: All | Specific
) -> None:
    start(config("m", tmp_path / "m", policy, stable=9))
    assert backend.tables["m"].labels == {"stable": 9}


def test_a_store_beside_a_local_model(
    start: Start, backend: FakeBackend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store is a directory here, which the decider takes for one that has to be fetched."""
    monkeypatch.setattr(
        cache_module, "cache_path", lambda *words: tmp_path / "-".join((words[0], *words[2:]))
    )
    store = tmp_path / "store"
    monkeypatch.setattr(
        "fairway.serve.versions.decider.local_path", lambda uri: None if uri == str(store) else Path(uri)
    )
    make_version(store, 1)
    make_version(store, 2)
    publish(tmp_path / "local", 7)
    local, stored = config("local", tmp_path / "local"), config("stored", store)
    decider = start(local, stored)
    wait_for(lambda: serving(backend) == {"local": (7,), "stored": (2,)})

    decider.reload((local, config("stored", store, Specific((1,)))))
    assert serving(backend) == {"local": (7,), "stored": (1,)}
    shutil.rmtree(store / "1")
    decider.reload((local, config("stored", store, Specific((1, 2)))))
    wait_for(lambda: serving(backend) == {"local": (7,), "stored": (2,)})


def test_the_end_does_not_wait_for_a_reload(start: Start, backend: FakeBackend, tmp_path: Path) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def wait() -> None:
        begun.set()
        assert go_on.wait(DEADLINE_S)

    backend.while_loading = wait
    publish(tmp_path / "m", 1)
    decider = start()
    reload = threading.Thread(target=decider.reload, args=((config("m", tmp_path / "m"),),))
    reload.start()
    try:
        assert begun.wait(DEADLINE_S)
        decider.stop()
    finally:
        go_on.set()
        reload.join(DEADLINE_S)
    assert not reload.is_alive()


def test_the_end_waits_once_for_all_that_is_being_loaded(
    start: Start, backend: FakeBackend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fairway.serve.versions.decider._STOP_S", 0.1)
    begun, go_on = threading.Semaphore(0), threading.Event()

    def wait() -> None:
        begun.release()
        assert go_on.wait(DEADLINE_S)

    backend.while_loading = wait
    names = "abcdefgh"
    for name in names:
        publish(tmp_path / name, 1)
    decider = start(*(config(name, tmp_path / name) for name in names))
    try:
        assert begun.acquire(timeout=DEADLINE_S)
        started = time.monotonic()
        decider.close()
        assert time.monotonic() - started < 0.4
    finally:
        go_on.set()
    with pytest.raises(RequestError, match="the server is ending"):
        decider.reload(())
