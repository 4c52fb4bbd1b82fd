"""The story of `fairway up ENV`, against a cluster in memory."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from fairway.deploy.kube.errors import Conflict, ConflictError, NamespaceMissingError
from fairway.deploy.settings import ApplySettings, ClusterUpSettings
from fairway.deploy.state.record import Record, State
from fairway.deploy.state.training_log import TrainingProgress
from fairway.deploy.verbs import apply, up
from fairway.deploy.verbs.forwards import Opened
from fairway.deploy.verbs.up import Story, TrainingBar
from fairway.errors import ClusterError, UsageError
from tests.unit.deploy.fake import Cluster, make_target

SUCCEEDED = {"conditions": [{"type": "Succeeded", "status": "True"}]}
FAILED = {"conditions": [{"type": "Failed", "status": "True", "message": "no data"}]}
FIRST = ["PersistentVolumeClaim model", "NetworkPolicy mnist-train", "TFJob mnist-train"]


class Ports:
    """In the place of the opened ports: nothing is waited for."""

    waiting: frozenset[str] = frozenset()

    @contextmanager
    def noted(self) -> Iterator[None]:
        yield


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(up, "POLL_S", 0.01)
    caplog.set_level(logging.INFO, "fairway")


def story(cluster: Cluster, directory: Path, *overrides: str, **settings: Any) -> Story:
    target = make_target(directory, *overrides)
    return Story(cluster.kube, target, ClusterUpSettings(**settings), cast(Opened, Ports()))


def train_before(cluster: Cluster, directory: Path, **status: Any) -> None:
    """Have a training there, as applied with other settings than the tests' own."""
    target = make_target(directory)
    settings = ApplySettings(component=("storage", "train"))
    asyncio.run(apply.run(cluster.kube, target, settings, lambda change: None))
    cluster.set_status("TFJob", "mnist-train", **status)
    cluster.requests.clear()


def until(condition: Callable[[], bool], told: Story) -> None:
    """Go on with a story until a condition is true."""

    async def run() -> None:
        going = asyncio.create_task(told.go_on())
        try:
            async with asyncio.timeout(10):
                while not condition():
                    assert not going.done() or going.result()
                    await asyncio.sleep(0.01)
        finally:
            going.cancel()
            await asyncio.gather(going, return_exceptions=True)

    asyncio.run(run())


def test_without_a_model_nothing_is_applied_that_serves_one(tmp_path: Path) -> None:
    cluster = Cluster()
    asyncio.run(story(cluster, tmp_path).begin())
    assert cluster.changes("apply") == FIRST


def test_params_of_what_comes_after_the_training_are_checked_before_it(tmp_path: Path) -> None:
    cluster = Cluster()
    told = story(cluster, tmp_path, "serving.replicas=3", "serving.maxReplicas=2")
    with pytest.raises(UsageError, match="maxReplicas is 2, less than replicas, which is 3"):
        asyncio.run(told.begin())
    assert cluster.requests == []


def test_what_serves_the_model_comes_when_the_training_has_succeeded(tmp_path: Path) -> None:
    cluster = Cluster()
    told = story(cluster, tmp_path)
    asyncio.run(told.begin())
    cluster.set_status("PersistentVolumeClaim", "model", phase="Bound")
    cluster.set_status("TFJob", "mnist-train", **SUCCEEDED)
    until(lambda: ("Deployment", "web-ui") in cluster.objects, told)
    assert "Deployment server" in cluster.changes("apply")
    assert "Service mnist-service" in cluster.changes("apply")


def test_a_training_that_went_away_after_its_end_is_not_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fairway.deploy.verbs.wait.GRACE_S", 0.0)
    cluster = Cluster()
    told = story(cluster, tmp_path)
    asyncio.run(told.begin())
    cluster.set_status("PersistentVolumeClaim", "model", phase="Bound")
    cluster.set_status("TFJob", "mnist-train", **SUCCEEDED)
    seen = []

    def went_away() -> bool:
        if ("Deployment", "web-ui") not in cluster.objects:
            return False
        cluster.objects.pop(("TFJob", "mnist-train"), None)
        seen.append(True)
        return len(seen) > 10

    until(went_away, told)


def test_a_failed_training_ends_it(tmp_path: Path) -> None:
    cluster = Cluster()
    told = story(cluster, tmp_path)
    asyncio.run(told.begin())
    cluster.set_status("TFJob", "mnist-train", **FAILED)
    with pytest.raises(ClusterError, match="^train has failed: has failed: no data$"):
        asyncio.run(told.go_on())
    assert ("Deployment", "server") not in cluster.objects


def test_a_finished_training_is_not_repeated(tmp_path: Path) -> None:
    cluster = Cluster()
    train_before(cluster, tmp_path, **SUCCEEDED)
    asyncio.run(story(cluster, tmp_path).begin())
    assert "TFJob mnist-train" not in cluster.changes("apply")
    assert cluster.changes("delete") == []
    assert "Deployment server" in cluster.changes("apply")


def test_a_finished_training_of_other_params_stays_until_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cluster, other = Cluster(), "train.trainSteps=7"
    train_before(cluster, tmp_path, **SUCCEEDED)
    asyncio.run(story(cluster, tmp_path, other).begin())
    assert "train has succeeded with other params than now" in caplog.text
    assert "fairway up dev --replace" in caplog.text
    assert "Deployment server" in cluster.changes("apply")
    assert cluster.changes("delete") == []

    asyncio.run(story(cluster, tmp_path, other, replace=True).begin())
    assert cluster.changes("delete") == ["TFJob mnist-train"]
    assert "TFJob mnist-train" in cluster.changes("apply")


def test_a_running_training_of_other_params_is_followed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cluster = Cluster()
    train_before(cluster, tmp_path)
    asyncio.run(story(cluster, tmp_path, "train.trainSteps=7", replace=True).begin())
    assert "train runs with other params than now; following it" in caplog.text
    assert "fairway delete dev -c train" in caplog.text
    assert "TFJob mnist-train" not in cluster.changes("apply")
    assert cluster.changes("delete") == []


def test_a_failed_training_of_other_params_is_an_error_until_told(tmp_path: Path) -> None:
    cluster, other = Cluster(), "train.trainSteps=7"
    train_before(cluster, tmp_path, **FAILED)
    with pytest.raises(ClusterError, match="is of other params, and has failed") as refused:
        asyncio.run(story(cluster, tmp_path, other).begin())
    assert "--replace" in refused.value.hint
    asyncio.run(story(cluster, tmp_path, other, replace=True).begin())
    assert "TFJob mnist-train" in cluster.changes("apply")


def test_what_has_succeeded_with_these_params_is_not_replaced_again(tmp_path: Path) -> None:
    cluster, other = Cluster(), "train.trainSteps=7"
    train_before(cluster, tmp_path, **SUCCEEDED)
    asyncio.run(story(cluster, tmp_path, other, replace=True).begin())
    assert cluster.changes("delete") == ["TFJob mnist-train"]
    cluster.set_status("TFJob", "mnist-train", **SUCCEEDED)
    cluster.requests.clear()
    asyncio.run(story(cluster, tmp_path, other, replace=True).begin())
    assert cluster.changes("delete") == []
    assert "Deployment server" in cluster.changes("apply")


def test_a_training_that_is_gone_when_it_is_first_looked_at_had_succeeded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fairway.deploy.verbs.wait.GRACE_S", 0.0)
    cluster = Cluster()
    train_before(cluster, tmp_path, **SUCCEEDED)
    cluster.set_status("PersistentVolumeClaim", "model", phase="Bound")
    told = story(cluster, tmp_path)
    asyncio.run(told.begin())
    del cluster.objects["TFJob", "mnist-train"]
    cluster.requests.clear()
    until(lambda: "Deployment server" in cluster.changes("apply"), told)


def test_a_conflict_names_a_command_that_takes_the_flag(tmp_path: Path) -> None:
    cluster = Cluster()
    conflict = ConflictError(
        "managed by others", (Conflict("kubectl", ".spec"),), hint="add --force-conflicts"
    )
    cluster.refused["NetworkPolicy", "mnist-train"] = conflict
    with pytest.raises(ConflictError) as refused:
        asyncio.run(story(cluster, tmp_path).begin())
    assert refused.value.hint.endswith("fairway apply dev --force-conflicts")


def test_a_missing_namespace_is_made_when_told(tmp_path: Path) -> None:
    cluster = Cluster()
    del cluster.objects["Namespace", "ns"]
    with pytest.raises(NamespaceMissingError) as refused:
        asyncio.run(story(cluster, tmp_path).begin())
    assert refused.value.hint == "Have it made: fairway up dev --create-namespace"
    asyncio.run(story(cluster, tmp_path, create_namespace=True).begin())
    assert cluster.changes("apply")[0] == "Namespace ns"


def test_an_app_without_a_training_is_served_at_once(tmp_path: Path) -> None:
    cluster = Cluster()
    asyncio.run(story(cluster, tmp_path, "train.enabled=false").begin())
    assert "TFJob mnist-train" not in cluster.changes("apply")
    assert "Deployment server" in cluster.changes("apply")


def test_progress_is_shown_where_there_is_no_terminal(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fairway.progress.LINE_INTERVAL_S", 0.0)

    def record(step: int) -> Record:
        progress = TrainingProgress(step, 60, loss=0.5, accuracy=0.9)
        return Record("train", "train", State.RUNNING, training=progress)

    with TrainingBar() as bar:
        bar.show([Record("tensorboard", "tensorboard", State.READY)])
        assert caplog.text == ""
        for step in (20, 20, 40):
            bar.show([record(step)])
        bar.show([Record("train", "train", State.DONE)])
    assert caplog.text.count("training: 20 of 60 steps · loss 0.500 · accuracy 90.0%") == 1
    assert caplog.text.count("training: 40 of 60 steps") == 1
    assert caplog.text.count("training: 60 of 60 steps") == 1
