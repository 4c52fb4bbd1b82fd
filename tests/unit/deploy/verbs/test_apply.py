"""What apply decides, and what it sends, against a cluster in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from fairway.deploy.kube.errors import Conflict, ConflictError, NamespaceMissingError, NotServedError
from fairway.deploy.settings import ApplySettings
from fairway.deploy.verbs import apply
from fairway.errors import ClusterError, UsageError
from tests.unit.deploy.fake import Cluster, make_target

SUCCEEDED = {"conditions": [{"type": "Succeeded", "status": "True"}]}
TRAIN = ("train",)


def run(cluster: Cluster, directory: Path, *overrides: str, **settings: Any) -> list[str]:
    """Apply and return what is printed."""
    done: list[apply.Change] = []
    target = make_target(directory, *overrides)
    asyncio.run(apply.run(cluster.kube, target, ApplySettings(**settings), done.append))
    return [str(each) for each in done]


def job_lines(lines: Sequence[str]) -> list[str]:
    return [line for line in lines if "Job" in line]


def test_all_is_created_in_order_and_then_unchanged(tmp_path: Path) -> None:
    cluster = Cluster()
    lines = run(cluster, tmp_path)
    assert lines[0] == "PersistentVolumeClaim model created"
    assert "TFJob mnist-train created" in lines
    assert all(line.endswith(" created") for line in lines)
    assert cluster.changes("apply") == [line.removesuffix(" created") for line in lines]

    again = run(cluster, tmp_path)
    assert "TFJob mnist-train unchanged (running)" in again
    assert all(" unchanged" in line for line in again)


def test_a_change_is_told_from_what_controllers_write(tmp_path: Path) -> None:
    cluster = Cluster()
    run(cluster, tmp_path)
    cluster.set_status("Deployment", "web-ui", replicas=1)
    cluster.objects["Deployment", "web-ui"]["metadata"]["resourceVersion"] = "77"
    cluster.objects["Deployment", "server"]["spec"]["template"]["metadata"]["labels"]["version"] = "v0"
    lines = run(cluster, tmp_path)
    assert "Deployment web-ui unchanged" in lines
    assert "Deployment server configured" in lines


@pytest.mark.parametrize("dry_run", ["client", "server"])
def test_a_dry_run_changes_nothing(dry_run: str, tmp_path: Path) -> None:
    cluster = Cluster()
    run(cluster, tmp_path, component=("web-ui",))
    cluster.requests.clear()
    lines = run(cluster, tmp_path, "web-ui.cpu=200m", dry_run=dry_run, component=("web-ui", "storage"))
    assert "PersistentVolumeClaim model created (dry run)" in lines
    assert "Deployment web-ui configured (dry run)" in lines
    assert "Service web-ui unchanged (dry run)" in lines
    assert not cluster.changes("apply")
    assert bool(cluster.changes("dry run")) == (dry_run == "server")


def test_all_is_checked_before_anything_is_sent(tmp_path: Path) -> None:
    cluster = Cluster()
    conflict = ConflictError("also managed by others", (Conflict("kubectl", ".spec"),), hint="")
    cluster.refused["Deployment", "web-ui"] = conflict
    with pytest.raises(ConflictError):
        run(cluster, tmp_path)
    assert not cluster.changes("apply")
    assert "Deployment web-ui created" in run(cluster, tmp_path, force_conflicts=True)


def test_an_error_in_the_middle_says_what_was_applied(tmp_path: Path) -> None:
    class Failing(Cluster):
        async def apply(self, manifest: Any, *, dry_run: bool = False, force: bool = False) -> Any:
            if manifest["kind"] == "Service" and not dry_run:
                raise ClusterError("the cluster is away", hint="Look.")
            return await super().apply(manifest, dry_run=dry_run, force=force)

    with pytest.raises(ClusterError) as caught:
        run(Failing(), tmp_path, component=("storage", "mnist-service"))
    assert caught.value.message == (
        "the cluster is away; 1 of 2 objects are applied, not: Service mnist-service"
    )
    assert caught.value.hint == "Look. The same command then does the rest."


def test_the_namespace_is_made_only_when_asked(tmp_path: Path) -> None:
    cluster = Cluster()
    del cluster.objects["Namespace", "ns"]
    with pytest.raises(NamespaceMissingError):
        run(cluster, tmp_path)
    with pytest.raises(ClusterError, match="does not exist yet"):
        run(cluster, tmp_path, create_namespace=True, dry_run="server")
    assert run(cluster, tmp_path, create_namespace=True)[0] == "Namespace ns created"


def test_an_absent_operator_is_found_before_anything_is_sent(tmp_path: Path) -> None:
    cluster = Cluster(unserved=["TFJob"])
    with pytest.raises(NotServedError):
        run(cluster, tmp_path)
    assert not cluster.requests
    assert "Job mnist-train-chief created" in run(cluster, tmp_path, "train.launcher=job")


def test_a_finished_training_stays_unless_it_is_to_be_replaced(tmp_path: Path) -> None:
    cluster = Cluster()
    run(cluster, tmp_path, component=TRAIN)
    cluster.set_status("TFJob", "mnist-train", **SUCCEEDED)
    (line,) = job_lines(run(cluster, tmp_path, component=TRAIN))
    assert line == "TFJob mnist-train unchanged (has succeeded; --replace trains anew)"
    assert not cluster.changes("delete")

    lines = job_lines(run(cluster, tmp_path, component=TRAIN, replace=True))
    assert lines == ["TFJob mnist-train deleted (replaced)", "TFJob mnist-train created"]


def test_a_running_training_of_other_params_is_in_the_way(tmp_path: Path) -> None:
    cluster = Cluster()
    run(cluster, tmp_path)
    cluster.requests.clear()
    for replace in (False, True):
        with pytest.raises(ClusterError) as caught:
            run(cluster, tmp_path, "train.trainSteps=5", replace=replace)
        assert caught.value.message == "train: TFJob mnist-train is of other params, and still running"
        assert "fairway delete dev -c train" in caught.value.hint
    assert not cluster.requests


def test_a_finished_training_of_other_params_is_replaced_when_asked(tmp_path: Path) -> None:
    cluster = Cluster()
    run(cluster, tmp_path, component=TRAIN)
    cluster.set_status("TFJob", "mnist-train", conditions=[{"type": "Failed", "status": "True"}])
    with pytest.raises(ClusterError, match="has failed") as caught:
        run(cluster, tmp_path, "train.trainSteps=5", component=TRAIN)
    assert "--replace" in caught.value.hint
    lines = run(cluster, tmp_path, "train.trainSteps=5", component=TRAIN, replace=True, dry_run="server")
    assert job_lines(lines) == ["TFJob mnist-train deleted (dry run)", "TFJob mnist-train created (dry run)"]
    lines = run(cluster, tmp_path, "train.trainSteps=5", component=TRAIN, replace=True)
    assert job_lines(lines) == ["TFJob mnist-train deleted (replaced)", "TFJob mnist-train created"]


def test_a_training_of_another_launcher_is_in_the_way_too(tmp_path: Path) -> None:
    cluster = Cluster()
    run(cluster, tmp_path, component=TRAIN)
    with pytest.raises(ClusterError, match="TFJob mnist-train is of other params, and still running"):
        run(cluster, tmp_path, "train.launcher=job", component=TRAIN)
    cluster.set_status("TFJob", "mnist-train", **SUCCEEDED)
    lines = run(cluster, tmp_path, "train.launcher=job", component=TRAIN, replace=True)
    assert job_lines(lines) == ["TFJob mnist-train deleted (replaced)", "Job mnist-train-chief created"]


def test_the_jobs_of_one_training_are_one(tmp_path: Path) -> None:
    cluster = Cluster()
    two = ("train.launcher=job", "train.numWorkers=1")
    run(cluster, tmp_path, *two, component=TRAIN)
    lines = run(cluster, tmp_path, *two, component=TRAIN)
    assert job_lines(lines) == [
        "Job mnist-train-chief unchanged (running)",
        "Job mnist-train-worker unchanged (running)",
    ]
    complete = [{"type": "Complete", "status": "True"}]
    cluster.set_status("Job", "mnist-train-chief", conditions=complete)
    lines = run(cluster, tmp_path, "train.launcher=job", component=TRAIN, replace=True)
    assert job_lines(lines) == [
        "Job mnist-train-chief deleted (replaced)",
        "Job mnist-train-worker deleted (replaced)",
        "Job mnist-train-chief created",
    ]


def test_jobs_that_could_not_be_sent_are_sent_the_next_time(tmp_path: Path) -> None:
    cluster = Cluster()
    two = ("train.launcher=job", "train.numWorkers=1")
    run(cluster, tmp_path, *two, component=TRAIN)
    del cluster.objects["Job", "mnist-train-worker"]
    assert job_lines(run(cluster, tmp_path, *two, component=TRAIN)) == [
        "Job mnist-train-chief unchanged (running)",
        "Job mnist-train-worker created",
    ]


def test_prune_deletes_what_the_app_no_longer_has_but_no_claims(tmp_path: Path) -> None:
    cluster = Cluster()
    run(cluster, tmp_path)
    foreign = {"kind": "Service", "metadata": {"name": "foreign", "labels": {"app": "x"}}}
    cluster.put(foreign)
    dropped = ("web-ui.enabled=false", "storage.enabled=false", "train.enabled=false")
    lines = run(cluster, tmp_path, *dropped, prune=True)
    deleted = [line for line in lines if " deleted" in line]
    assert "Deployment web-ui deleted (the app no longer has it)" in deleted
    assert "TFJob mnist-train deleted (the app no longer has it)" in deleted
    assert ("PersistentVolumeClaim", "model") in cluster.objects
    assert ("Service", "foreign") in cluster.objects
    assert not [line for line in run(cluster, tmp_path, *dropped, prune=True) if " deleted" in line]


def test_prune_goes_without_components(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--prune"):
        run(Cluster(), tmp_path, prune=True, component=TRAIN)
