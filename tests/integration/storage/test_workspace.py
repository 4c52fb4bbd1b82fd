"""The directories in which a training works, while its own lie in a store."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from fairway.errors import StorageError, StoreAwayError
from fairway.storage.exports import Version, list_versions
from fairway.storage.model_dir import CHECKPOINTS, CONFIG, METRICS
from fairway.storage.publish import publish_version
from fairway.storage.stores import retry
from fairway.storage.stores.uri import open_store
from fairway.train import workspace as workspaces
from fairway.train.workspace import open_workspace
from tests.integration.storage.writers import write_checkpoint
from tests.manifests import make_version
from tests.servers.fixtures import use
from tests.servers.moto import Moto
from tests.servers.proxy import Answer, FaultProxy, Request


@pytest.fixture
def bucket(moto: Moto, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A new bucket; the cache is this test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    use(moto, monkeypatch)
    return moto.new_bucket()


@pytest.mark.parametrize("is_remote", [True, False])
def test_a_second_training_leaves_the_first_ones_export_alone(
    bucket: str, tmp_path: Path, is_remote: bool
) -> None:
    model_dir = f"{bucket}/model" if is_remote else str(tmp_path / "model")
    with open_workspace(model_dir, f"{bucket}/export") as first:
        (first.export_dir / "1").mkdir()
        with (
            pytest.raises(StorageError, match="another process is at work"),
            open_workspace(model_dir, f"{bucket}/export"),
        ):
            pass
        assert (first.export_dir / "1").is_dir()


def test_what_an_earlier_training_has_exported_is_published_once(bucket: str, tmp_path: Path) -> None:
    uris = (str(tmp_path / "model"), f"{bucket}/export")

    def export(number: int) -> Version:
        with pytest.raises(KeyboardInterrupt), open_workspace(*uris) as workspace:
            version = make_version(workspace.export_dir, number)
            raise KeyboardInterrupt  # before it could publish
        return version

    def numbers() -> list[int]:
        with open_workspace(*uris) as workspace:
            assert not list(workspace.export_dir.iterdir())
        return [version.number for version in list_versions(uris[1]) if not version.problem]

    export(2_000_000_001)
    assert numbers() == [2_000_000_001]
    publish_version(export(2_000_000_002), uris[1])  # as `fairway sync` does
    assert numbers() == [2_000_000_001, 2_000_000_002]


def test_a_half_published_version_is_completed_under_its_number(
    moto: Moto, bucket: str, tmp_path: Path, via_proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However often it takes, and although the number that is next goes on with the clock."""
    monkeypatch.setattr(retry, "DEADLINE_S", 0.2)
    monkeypatch.setattr(workspaces, "PATIENCE_S", 0.5)
    uris = (str(tmp_path / "model"), f"{bucket}/export")

    def fail(request: Request) -> Answer | None:
        return Answer(503, "SlowDown") if request.method == "PUT" and "part-01" in request.path else None

    via_proxy.fault = fail
    with pytest.raises(StoreAwayError, match="could not be written"), open_workspace(*uris) as workspace:
        workspace.publish(make_version(workspace.export_dir, 5))
    (begun,) = list_versions(uris[1])
    assert begun.problem
    assert begun.number > 5
    time.sleep(1.1)
    with pytest.raises(StoreAwayError, match="could not be written"), open_workspace(*uris):
        pass
    via_proxy.fault = lambda _: None
    with open_workspace(*uris):
        pass
    assert [(each.number, each.problem) for each in list_versions(uris[1])] == [(begun.number, "")]


def test_a_number_that_another_version_has_is_not_taken(bucket: str, tmp_path: Path) -> None:
    other = make_version(tmp_path / "other", 2_000_000_001, seed=7)
    publish_version(other, f"{bucket}/export")
    with open_workspace(str(tmp_path / "model"), f"{bucket}/export") as workspace:
        version = make_version(workspace.export_dir, 2_000_000_001)
        assert workspace.publish(version).number == 2_000_000_002
    assert [each.number for each in list_versions(f"{bucket}/export")] == [2_000_000_001, 2_000_000_002]


def test_after_a_conflict_the_results_are_not_to_be_sent_there(bucket: str) -> None:
    uri = f"{bucket}/model"
    with (
        pytest.raises(StorageError, match="another training has written") as caught,
        open_workspace(uri, f"{bucket}/export") as workspace,
    ):
        workspace.start()
        open_store(uri).create(f"{CHECKPOINTS}/ckpt-00000010.json", b"of another one")
        write_checkpoint(workspace.model_dir, 10)
    assert list((workspace.model_dir / CHECKPOINTS).iterdir())
    assert f"fairway sync {workspace.model_dir} ANOTHER-URI" in caught.value.hint


def test_a_training_that_never_began_sends_nothing(bucket: str) -> None:
    store = open_store(f"{bucket}/model")
    store.write(CONFIG, json.dumps({"run": "r1"}).encode())
    store.write(METRICS, b"older\n")
    with (
        pytest.raises(KeyboardInterrupt),
        open_workspace(f"{bucket}/model", f"{bucket}/export") as workspace,
    ):
        assert (workspace.model_dir / METRICS).read_bytes() == b"older\n"
        store.write(METRICS, b"older\nnewer\n")  # by another machine
        raise KeyboardInterrupt  # while it loads its data
    assert store.read(METRICS) == b"older\nnewer\n"
