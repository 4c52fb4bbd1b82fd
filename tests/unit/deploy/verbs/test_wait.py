"""When waiting ends, and what it tells meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from fairway.deploy.settings import ApplySettings
from fairway.deploy.state.pods import Cause
from fairway.deploy.state.record import Record, State
from fairway.deploy.state.training_log import TrainingProgress
from fairway.deploy.verbs import apply
from fairway.deploy.verbs.wait import (
    GRACE_S,
    GRACES_S,
    LINE_S,
    MAX_INTERRUPTIONS,
    Arrivals,
    Changes,
    Patience,
    wait_until_ready,
)
from fairway.errors import ClusterError
from tests.unit.deploy.fake import Cluster, make_target


def record(state: State, cause: Cause = Cause.NONE, reason: str = "") -> Record:
    return Record("train", "train", state, cause, reason)


async def no_resume(components: Sequence[str]) -> None:
    raise AssertionError(f"{components} were not interrupted")


def test_only_what_is_new_is_told() -> None:
    changes = Changes()
    starting = record(State.STARTING, reason="0 of 1")
    assert changes.among([starting], 0) == [starting]
    assert changes.among([starting], 1) == []
    stuck = record(State.STUCK, Cause.IMAGE, "no image")
    assert changes.among([stuck], 2) == [stuck]


def test_progress_is_told_every_few_seconds() -> None:
    changes = Changes()
    first, second, third = (record(State.RUNNING, reason=f"step {step}") for step in range(3))
    assert changes.among([first], 0) == [first]
    assert changes.among([second], LINE_S - 0.1) == []
    assert changes.among([third], LINE_S) == [third]


def test_a_failed_training_ends_the_wait() -> None:
    with pytest.raises(ClusterError, match="^train has failed: no data$"):
        Patience().check([record(State.FAILED, Cause.CRASH, "no data")], 0)


@pytest.mark.parametrize("cause", [Cause.SECRET, Cause.IMAGE])
def test_what_is_stuck_has_a_while_to_heal(cause: Cause) -> None:
    patience, grace = Patience(), GRACES_S.get(cause, GRACE_S)
    stuck = record(State.STUCK, cause, "it is missing")
    patience.check([stuck], 0)
    patience.check([stuck], grace - 1)
    patience.check([record(State.STARTING)], grace)
    patience.check([stuck], grace + 1)
    with pytest.raises(ClusterError, match="^train cannot go on: it is missing$"):
        patience.check([stuck], 2 * grace + 1)


def test_another_cause_begins_anew() -> None:
    patience = Patience()
    patience.check([record(State.STUCK, Cause.SECRET)], 0)
    patience.check([record(State.STUCK, Cause.CLAIM)], GRACE_S)


def test_it_ends_when_all_is_there(tmp_path: Path) -> None:
    cluster, target = Cluster(), make_target(tmp_path)
    asyncio.run(apply.run(cluster.kube, target, ApplySettings(), lambda change: None))
    said: list[Record] = []

    def come_up(told: Record) -> None:
        said.append(told)
        counts = {"replicas": 1, "updatedReplicas": 1, "availableReplicas": 1, "observedGeneration": 1}
        for name in ("server", "web-ui"):
            cluster.set_status("Deployment", name, **counts)
        cluster.set_status("TFJob", "mnist-train", conditions=[{"type": "Succeeded", "status": "True"}])

    records = asyncio.run(wait_until_ready(cluster.kube, target, (), come_up, no_resume, timeout_s=60))
    assert {each.state for each in records} == {State.READY, State.DONE, State.WAITING}
    assert [(each.component, each.state) for each in said if each.component == "web-ui"] == [
        ("web-ui", State.STARTING),
        ("web-ui", State.READY),
    ]


def test_time_is_up(tmp_path: Path) -> None:
    cluster, target = Cluster(), make_target(tmp_path)
    asyncio.run(apply.run(cluster.kube, target, ApplySettings(), lambda change: None))
    with pytest.raises(ClusterError) as caught:
        asyncio.run(
            wait_until_ready(cluster.kube, target, ["web-ui"], lambda told: None, no_resume, timeout_s=0.001)
        )
    assert caught.value.message == "after 0.001 s web-ui is starting: 0 of 1 pods are ready"


def test_a_training_that_was_cut_short_is_started_again_but_not_for_ever() -> None:
    patience, cut = Patience(), record(State.FAILED, Cause.INTERRUPTED, "a pod was deleted")
    for step in range(1, MAX_INTERRUPTIONS + 1):
        patience.interrupted([replace(record(State.RUNNING), training=TrainingProgress(step, 99))])
        assert patience.interrupted([cut]) == ["train"]
        patience.check([cut], 0)
    assert patience.interrupted([cut]) == []
    with pytest.raises(ClusterError, match="^train has failed: a pod was deleted$"):
        patience.check([cut], 0)


def test_a_training_that_is_cut_short_and_gets_nowhere_is_let_be() -> None:
    patience, cut = Patience(), record(State.FAILED, Cause.INTERRUPTED, "a pod was deleted")
    for step, goes_on in ((5, True), (5, True), (3, True), (6, True), (6, True), (6, True), (6, False)):
        patience.interrupted([replace(record(State.RUNNING), training=TrainingProgress(step, 99))])
        assert patience.interrupted([cut]) == (["train"] if goes_on else [])
    with pytest.raises(ClusterError, match="^train has failed: a pod was deleted$"):
        patience.check([cut], 0)


def test_other_words_of_the_scheduler_begin_anew() -> None:
    patience, grace = Patience(), GRACES_S[Cause.UNSCHEDULABLE]
    for turn, words in enumerate(("no node", "a node is not ready")):
        patience.check([record(State.STUCK, Cause.UNSCHEDULABLE, words)], turn * grace)
    with pytest.raises(ClusterError, match="a node is not ready"):
        patience.check([record(State.STUCK, Cause.UNSCHEDULABLE, words)], 2 * grace)


def test_a_training_that_goes_away_after_its_end_has_arrived() -> None:
    arrivals = Arrivals()
    absent, done = record(State.ABSENT, Cause.NOT_APPLIED), record(State.DONE)
    assert arrivals.among([absent]) == [absent]
    assert arrivals.among([done]) == [done]
    assert arrivals.among([absent]) == [done]
    running = record(State.RUNNING)
    assert arrivals.among([running]) == [running]
    assert Arrivals([done]).among([absent]) == [done]


def test_waiting_goes_on_with_a_training_that_was_cut_short(tmp_path: Path) -> None:
    cluster, target = Cluster(), make_target(tmp_path)

    async def apply_train(components: Sequence[str]) -> None:
        await apply.run(cluster.kube, target, ApplySettings(component=tuple(components)), lambda change: None)
        cluster.set_status("TFJob", "mnist-train", conditions=[{"type": "Succeeded", "status": "True"}])

    async def story() -> None:
        await apply.run(cluster.kube, target, ApplySettings(component=("train",)), lambda change: None)
        lost = {
            "type": "Failed",
            "status": "True",
            "message": "TFJob has failed because 1 PS replica(s) failed.",
        }
        cluster.set_status("TFJob", "mnist-train", conditions=[lost])
        await wait_until_ready(cluster.kube, target, ["train"], lambda told: None, apply_train, timeout_s=60)

    asyncio.run(story())
    assert cluster.changes("delete") == ["TFJob mnist-train"]
