"""The mirror of a model directory and the way back, against every kind of store."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from fairway.errors import StorageError
from fairway.storage import checkpoints as module
from fairway.storage.checkpoints import fetch_model_dir, list_checkpoints
from fairway.storage.mirror import ConflictError, Mirror, send_model_dir
from fairway.storage.model_dir import CHECKPOINTS, CONFIG, EVENTS, METRICS
from fairway.storage.stores import retry
from fairway.storage.stores.uri import open_store
from tests.integration.storage.writers import write_checkpoint
from tests.servers.moto import Moto
from tests.servers.process import StoreServer
from tests.servers.proxy import Answer, FaultProxy, LostAnswer, Truncate

EVENT_FILE = f"{EVENTS}/train/events.out.tfevents.1"


def make_model_dir(path: Path, *steps: int, run: str = "r1") -> Path:
    """Write a model directory as a training leaves it, with a checkpoint at each step."""
    (path / CHECKPOINTS).mkdir(parents=True)
    (path / EVENT_FILE).parent.mkdir(parents=True)
    (path / CONFIG).write_text(json.dumps({"run": run}))
    (path / EVENT_FILE).write_bytes(b"events")
    (path / METRICS).write_bytes(b"".join(b'{"step": %d}\n' % step for step in steps))
    for step in steps:
        write_checkpoint(path, step)
    return path


def checkpoint(path: Path, step: int) -> list[bytes]:
    return [each.read_bytes() for each in sorted((path / CHECKPOINTS).glob(f"ckpt-{step:08d}.*"))]


def test_there_and_back(server: StoreServer, tmp_path: Path) -> None:
    uri = f"{server.new_bucket()}/run"
    source = make_model_dir(tmp_path / "a", 10, 20)
    mirror = Mirror(source, open_store(uri))
    mirror.start()
    write_checkpoint(source, 30)
    with (source / METRICS).open("ab") as file:
        file.write(b'{"step": 30}\n{"step": 4')
    mirror.close()
    store = open_store(uri)
    assert store.read(EVENT_FILE) == b"events"
    assert store.read(METRICS).endswith(b'{"step": 30}\n'), "whole lines only"
    assert [each.step for each in list_checkpoints(store)] == [20, 30]
    assert fetch_model_dir(store, tmp_path / "b") == 30
    assert checkpoint(tmp_path / "b", 30) == checkpoint(source, 30)
    assert sorted(each.name for each in (tmp_path / "b").iterdir()) == [CHECKPOINTS, CONFIG, METRICS]


def test_nothing_there_is_a_fresh_start(server: StoreServer, tmp_path: Path) -> None:
    store = open_store(f"{server.new_bucket()}/run")
    make_model_dir(tmp_path / "a", 10)
    assert fetch_model_dir(store, tmp_path / "a") == 0
    assert [each.name for each in (tmp_path / "a").iterdir()] == [CHECKPOINTS]


def test_only_the_newest_checkpoints_stay(server: StoreServer, tmp_path: Path) -> None:
    uri = f"{server.new_bucket()}/run"
    source = make_model_dir(tmp_path / "a")
    for start in (10, 40):  # the second one resumes, and removes what the first has left
        mirror = Mirror(source, open_store(uri))
        for step in range(start, start + 30, 10):
            write_checkpoint(source, step)
            assert mirror.look()
    store = open_store(uri)
    assert [each.step for each in list_checkpoints(store)] == [40, 50, 60]
    assert len(store.list(f"{CHECKPOINTS}/")) == 3 * 3


def test_a_look_with_nothing_new_asks_nothing(moto: Moto, tmp_path: Path, via_proxy: FaultProxy) -> None:
    mirror = Mirror(make_model_dir(tmp_path / "a", 10), open_store(f"{moto.new_bucket()}/run"))
    assert mirror.look()
    via_proxy.requests.clear()
    assert not mirror.look()
    assert not via_proxy.requests
    (tmp_path / "a" / METRICS).write_bytes(b"{}\n")
    assert mirror.look()
    assert [each.method for each in via_proxy.requests] == ["GET", "PUT"], "one listing"


def test_outage_delays_the_mirror_only(
    moto: Moto,
    tmp_path: Path,
    via_proxy: FaultProxy,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(retry, "DEADLINE_S", 0.2)
    source = make_model_dir(tmp_path / "a", 10)
    store = open_store(f"{moto.new_bucket()}/run")
    mirror = Mirror(source, store, interval_s=0.02)
    with caplog.at_level("INFO", logger="fairway"):
        mirror.start()
        via_proxy.fault = lambda _: Answer(503, "ServiceUnavailable")
        write_checkpoint(source, 20)
        wait_for(lambda: len(caplog.records) == 1)
        mirror.check()
        asked = len(via_proxy.requests)
        wait_for(lambda: len(via_proxy.requests) > asked + 3)
        via_proxy.fault = lambda _: None
        wait_for(lambda: len(caplog.records) == 2)
        mirror.close()
    assert "the training goes on" in caplog.messages[0]
    assert "takes results again" in caplog.messages[1]
    assert [each.step for each in list_checkpoints(store)] == [10, 20]


def test_outage_at_the_end_is_an_error_after_a_while(
    moto: Moto, tmp_path: Path, via_proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retry, "DEADLINE_S", 0.2)
    uri = f"{moto.new_bucket()}/run"
    source = make_model_dir(tmp_path / "a", 10)
    mirror = Mirror(source, open_store(uri))
    mirror.start()
    write_checkpoint(source, 20)
    via_proxy.fault = lambda _: Answer(503, "ServiceUnavailable")
    started = time.monotonic()
    with pytest.raises(StorageError, match=uri):
        mirror.close(patience_s=2)
    assert time.monotonic() - started > 2
    via_proxy.fault = lambda _: None
    send_model_dir(source, uri)
    assert [each.step for each in list_checkpoints(open_store(uri))] == [10, 20]


def test_store_that_refuses_is_known_at_the_start(moto: Moto, tmp_path: Path, via_proxy: FaultProxy) -> None:
    mirror = Mirror(make_model_dir(tmp_path / "a", 10), open_store(f"{moto.new_bucket()}/run"))
    via_proxy.fault = lambda request: Answer(403, "AccessDenied") if request.method == "PUT" else None
    with pytest.raises(StorageError, match="write"):
        mirror.start()


def test_two_trainings_do_not_mix(conditional_server: StoreServer, tmp_path: Path) -> None:
    uri = f"{conditional_server.new_bucket()}/run"
    first, second = (make_model_dir(tmp_path / name) for name in "ab")
    mirrors = [Mirror(each, open_store(uri), interval_s=0.02) for each in (first, second)]
    for mirror in mirrors:
        mirror.start()
    write_checkpoint(first, 10)
    wait_for(lambda: bool(list_checkpoints(open_store(uri))))
    write_checkpoint(second, 10)
    wait_for(lambda: raises_conflict(mirrors[1]))
    mirrors[0].check()
    mirrors[0].close()
    with pytest.raises(ConflictError, match="another training has written .*ckpt-00000010"):
        mirrors[1].close()
    assert fetch_model_dir(open_store(uri), tmp_path / "c") == 10
    assert checkpoint(tmp_path / "c", 10) == checkpoint(first, 10)


def test_a_training_that_is_refused_leaves_nothing_of_its_own(server: StoreServer, tmp_path: Path) -> None:
    store = open_store(f"{server.new_bucket()}/run")
    first, second = (make_model_dir(tmp_path / name) for name in "ab")
    (second / EVENT_FILE).rename(second / EVENTS / "train" / "events.out.tfevents.2")
    (second / CONFIG).write_text('{"run": "r1", "train_steps": 99}')
    mirrors = [Mirror(each, store) for each in (first, second)]
    for mirror in mirrors:
        mirror.look()
    assert store.read(CONFIG) == (second / CONFIG).read_bytes(), "nobody can tell yet"
    write_checkpoint(first, 10)
    mirrors[0].look()
    with (first / METRICS).open("ab") as file:
        file.write(b'{"step": 10}\n')
    mirrors[0].look()
    before = {entry.key: store.read(entry.key) for entry in store.list() if "tfevents.2" not in entry.key}

    (second / METRICS).write_bytes(b"other\n")
    for _ in range(2):
        with pytest.raises(ConflictError, match="another training has written .*ckpt-00000010"):
            mirrors[1].look()

    expected = before | {CONFIG: (first / CONFIG).read_bytes()}
    assert {entry.key: store.read(entry.key) for entry in store.list()} == expected


def test_of_two_runs_at_one_place_the_second_is_refused_at_once(server: StoreServer, tmp_path: Path) -> None:
    store = open_store(f"{server.new_bucket()}/run")
    first, second = (make_model_dir(tmp_path / name, run=name) for name in "ab")
    mirrors = [Mirror(each, store) for each in (first, second)]
    mirrors[0].start()
    before = store.list()
    with pytest.raises(ConflictError, match=f"another training has written .*{CONFIG}"):
        mirrors[1].start()
    mirrors[0].close()
    assert store.list() == before


def test_a_training_that_is_taken_over_leaves_what_its_checkpoints_need(
    server: StoreServer, tmp_path: Path
) -> None:
    store = open_store(f"{server.new_bucket()}/run")
    first = make_model_dir(tmp_path / "a", 10)
    mirror = Mirror(first, store)
    mirror.look()
    second = make_model_dir(tmp_path / "b", 10, 20)
    (second / CONFIG).write_text('{"run": "r1", "train_steps": 99}')
    Mirror(second, store).look()
    before = store.list()
    (first / METRICS).write_bytes(b"other\n")
    with pytest.raises(ConflictError, match="ckpt-00000020"):
        mirror.look()
    assert store.list() == before


def test_damaged_checkpoints_are_passed_over(
    server: StoreServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    uri = f"{server.new_bucket()}/run"
    store = open_store(uri)
    source = make_model_dir(tmp_path / "a")
    mirror = Mirror(source, store)
    for step in (10, 20, 30):
        write_checkpoint(source, step)
        mirror.look()
    _, older, newest = list_checkpoints(store)
    store.write(next(iter(newest.files.values()))["key"], b"x")
    store.delete([next(iter(older.files.values()))["key"]])
    assert fetch_model_dir(store, tmp_path / "b") == 10
    assert sum("is damaged and passed over" in message for message in caplog.messages) == 2
    # What is trained again takes the place of what was damaged.
    resumed = Mirror(tmp_path / "b", store)
    for step in (20, 30):
        write_checkpoint(tmp_path / "b", step)
        resumed.look()
    assert fetch_model_dir(store, tmp_path / "c") == 30
    for each in list_checkpoints(store):
        store.write(f"{CHECKPOINTS}/ckpt-{each.step:08d}.json", b'{"step": 1, "files": {"../x": {}}}')
    assert not list_checkpoints(store)


def test_no_checkpoint_that_can_be_read_is_an_error(server: StoreServer, tmp_path: Path) -> None:
    store = open_store(f"{server.new_bucket()}/run")
    source = make_model_dir(tmp_path / "a", 10)
    Mirror(source, store).look()
    (only,) = list_checkpoints(store)
    store.delete([entry["key"] for entry in only.files.values()])
    with pytest.raises(StorageError, match="none of the 1 checkpoints in .*/run can be read"):
        fetch_model_dir(store, tmp_path / "b")
    assert list_checkpoints(store) == [only], "nothing is deleted then"


def test_what_is_further_on_this_machine_stays(server: StoreServer, tmp_path: Path) -> None:
    store = open_store(f"{server.new_bucket()}/run")
    source = make_model_dir(tmp_path / "a", 10)
    Mirror(source, store).look()
    write_checkpoint(source, 20)
    assert fetch_model_dir(store, source) == 20
    assert checkpoint(source, 20)
    Mirror(source, store).look()
    assert [each.step for each in list_checkpoints(store)] == [10, 20]
    other = make_model_dir(tmp_path / "b", 99, run="another")
    assert fetch_model_dir(store, other) == 20, "of another run it does not"
    assert not checkpoint(other, 99)


def test_what_followed_the_last_checkpoint_stays_on_this_machine(server: StoreServer, tmp_path: Path) -> None:
    store = open_store(f"{server.new_bucket()}/run")
    source = make_model_dir(tmp_path / "a", 10)
    Mirror(source, store).look()
    with (source / METRICS).open("ab") as file:  # what the store did not take any more
        file.write(b'{"step": 10, "test_loss": 0.3}\n')
    (source / EVENTS / "test").mkdir()
    (source / EVENTS / "test" / "events.out.tfevents.2").write_bytes(b"pictures")
    assert fetch_model_dir(store, source) == 10
    Mirror(source, store).look()
    assert store.read(METRICS).endswith(b'"test_loss": 0.3}\n')
    assert store.read(f"{EVENTS}/test/events.out.tfevents.2") == b"pictures"


@pytest.mark.parametrize("older", ["metrics", "checkpoint"])
def test_what_the_store_has_whole_or_longer_is_fetched(
    server: StoreServer, tmp_path: Path, older: str
) -> None:
    store = open_store(f"{server.new_bucket()}/run")
    source = make_model_dir(tmp_path / "a", 10)
    Mirror(source, store).look()
    expected = checkpoint(source, 10)
    if older == "metrics":
        store.write(METRICS, store.read(METRICS) + b'{"step": 10, "test_loss": 0.3}\n')
    else:
        (source / CHECKPOINTS / "ckpt-00000010.data-00000-of-00001").write_bytes(b"")  # power was lost
    assert fetch_model_dir(store, source) == 10
    assert (source / METRICS).read_bytes() == store.read(METRICS)
    assert checkpoint(source, 10) == expected


def test_sending_later_never_takes_a_training_back(server: StoreServer, tmp_path: Path) -> None:
    uri = f"{server.new_bucket()}/run"
    source = make_model_dir(tmp_path / "a", 10)
    send_model_dir(source, uri)
    send_model_dir(source, uri)
    further = make_model_dir(tmp_path / "b", 10, 20)
    send_model_dir(further, uri)
    with pytest.raises(ConflictError, match="is at step 20 already"):
        send_model_dir(source, uri)
    other = make_model_dir(tmp_path / "c", 30, run="another")
    with pytest.raises(ConflictError, match="holds another training"):
        send_model_dir(other, uri)
    assert fetch_model_dir(open_store(uri), tmp_path / "d") == 20


def test_remains_of_killed_mirrors_are_cleared_away(
    server: StoreServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(f"{server.new_bucket()}/run")
    Mirror(make_model_dir(tmp_path / "a", 10), store).look()
    store.write(f"{CHECKPOINTS}/dead/ckpt-00000020.index", b"x")
    fetch_model_dir(store, tmp_path / "b")
    assert store.stat(f"{CHECKPOINTS}/dead/ckpt-00000020.index"), "it may be in use still"
    monkeypatch.setattr(module, "ABANDONED_S", -60)
    fetch_model_dir(store, tmp_path / "b")
    assert not store.stat(f"{CHECKPOINTS}/dead/ckpt-00000020.index")
    assert fetch_model_dir(store, tmp_path / "c") == 10


def test_a_checkpoint_that_is_removed_while_it_is_sent_is_sent_whole(
    moto: Moto, tmp_path: Path, via_proxy: FaultProxy
) -> None:
    source = make_model_dir(tmp_path / "a", 10)
    store = open_store(f"{moto.new_bucket()}/run")
    mirror = Mirror(source, store)
    expected = checkpoint(source, 10)

    def remove(_: object) -> None:
        for each in (source / CHECKPOINTS).glob("ckpt-*"):
            each.unlink()

    via_proxy.fault = remove
    mirror.look()
    via_proxy.fault = lambda _: None
    fetch_model_dir(store, tmp_path / "b")
    assert checkpoint(tmp_path / "b", 10) == expected


def test_a_lost_answer_is_no_other_training(
    moto: Moto, tmp_path: Path, via_proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retry, "DEADLINE_S", 0.2)
    store = open_store(f"{moto.new_bucket()}/run")
    source = make_model_dir(tmp_path / "a", 10)
    mirror = Mirror(source, store)
    via_proxy.fault = lambda request: LostAnswer() if "ckpt-00000010.json" in request.path else None
    with pytest.raises(StorageError, match="write"):
        mirror.look()
    via_proxy.fault = lambda _: None
    assert [each.step for each in list_checkpoints(store)] == [10], "it was written all the same"
    assert mirror.look()
    write_checkpoint(source, 20)
    assert mirror.look()
    assert [each.step for each in list_checkpoints(store)] == [10, 20]


@pytest.mark.parametrize("damaged", ["ckpt-00000020.data", "ckpt-00000020.json"])
def test_what_arrives_damaged_is_not_deleted(
    moto: Moto, tmp_path: Path, via_proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch, damaged: str
) -> None:
    monkeypatch.setattr(module, "ABANDONED_S", -60)
    store = open_store(f"{moto.new_bucket()}/run")
    source = make_model_dir(tmp_path / "a")
    mirror = Mirror(source, store)
    for step in (10, 20):
        write_checkpoint(source, step)
        mirror.look()
    via_proxy.fault = lambda request: Truncate(5) if damaged in request.path else None
    assert fetch_model_dir(store, tmp_path / "b") == 10
    write_checkpoint(tmp_path / "b", 15)
    assert fetch_model_dir(store, tmp_path / "b") == 15, "nor is what this machine has instead"
    via_proxy.fault = lambda _: None
    assert fetch_model_dir(store, tmp_path / "c") == 20


def test_a_manifest_that_cannot_be_read_is_written_again(server: StoreServer, tmp_path: Path) -> None:
    store = open_store(f"{server.new_bucket()}/run")
    source = make_model_dir(tmp_path / "a")
    mirror = Mirror(source, store)
    for step in (10, 20):
        write_checkpoint(source, step)
        mirror.look()
    store.write(f"{CHECKPOINTS}/ckpt-00000020.json", b"{")
    assert fetch_model_dir(store, tmp_path / "b") == 10
    write_checkpoint(tmp_path / "b", 20)
    Mirror(tmp_path / "b", store).look()
    assert [each.step for each in list_checkpoints(store)] == [10, 20]
    for step in (10, 20):
        store.write(f"{CHECKPOINTS}/ckpt-{step:08d}.json", b"{")
    with pytest.raises(StorageError, match="none of the 2 checkpoints"):
        fetch_model_dir(store, tmp_path / "c")


def raises_conflict(mirror: Mirror) -> bool:
    try:
        mirror.check()
    except ConflictError:
        return True
    return False


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
