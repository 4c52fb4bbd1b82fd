"""What apply decides, and what it sends, against a cluster in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from fairway.deploy.kube.errors import (
    Conflict,
    ConflictError,
    NamespaceMissingError,
    NotServedError,
    QuotaError,
)
from fairway.deploy.settings import ApplySettings
from fairway.deploy.verbs import apply, diff
from fairway.errors import ClusterError, UsageError
from tests.unit.deploy.fake import APP, Cluster, make_target

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
        async def apply(self, manifest: Any, **options: Any) -> Any:
            if manifest["kind"] == "Service" and not options.get("dry_run"):
                raise ClusterError("the cluster is away", hint="Look.")
            return await super().apply(manifest, **options)

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
    with pytest.raises(NotServedError) as refused:
        run(cluster, tmp_path)
    assert refused.value.hint == "Or: fairway param set --env=dev train launcher job"
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
    assert "Deployment web-ui deleted (web-ui is switched off)" in deleted
    assert not [line for line in deleted if "train" in line]
    stop = "stop it with fairway delete dev -c train"
    assert f"TFJob mnist-train unchanged (kept: it is running; {stop})" in lines
    assert f"NetworkPolicy mnist-train unchanged (kept: its training is running; {stop})" in lines
    cluster.set_status("TFJob", "mnist-train", **SUCCEEDED)
    lines = run(cluster, tmp_path, *dropped, prune=True)
    assert "TFJob mnist-train deleted (train is switched off)" in lines
    assert ("PersistentVolumeClaim", "model") in cluster.objects
    assert ("Service", "foreign") in cluster.objects
    assert not [line for line in run(cluster, tmp_path, *dropped, prune=True) if " deleted" in line]


def test_prune_goes_without_components(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--prune"):
        run(Cluster(), tmp_path, prune=True, component=TRAIN)


def test_prune_tells_what_is_gone_from_what_takes_no_part(tmp_path: Path) -> None:
    cluster, scaled = Cluster(), "serving.maxReplicas=3"
    run(cluster, tmp_path, scaled)
    app = APP.replace("  web-ui: {kind: web-ui}\n", "")
    target = make_target(tmp_path, app=app)
    done: list[apply.Change] = []
    asyncio.run(apply.run(cluster.kube, target, ApplySettings(prune=True), done.append))
    pruned = [str(each) for each in done if each.action == "deleted"]
    assert "Deployment web-ui deleted (the app no longer has web-ui)" in pruned
    assert "HorizontalPodAutoscaler server deleted (serving no longer makes it)" in pruned

    lines = run(cluster, tmp_path, "serving.storage=aws", prune=True)
    kept = "kept: serving takes no part here; delete it with fairway delete dev -c serving"
    assert f"Deployment server unchanged ({kept})" in lines
    assert ("Deployment", "server") in cluster.objects


LABELS = {"app.kubernetes.io/managed-by": "fairway", "app.kubernetes.io/part-of": "digits"}


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize(
    ("kind", "name", "component"),
    [("Service", "mnist-service", "mnist-service"), ("PersistentVolumeClaim", "model", "storage")],
)
def test_what_belongs_to_another_environment_is_left_alone(
    kind: str, name: str, component: str, force: bool, tmp_path: Path
) -> None:
    cluster = Cluster()
    labels = LABELS | {"fairway/environment": "other", "app.kubernetes.io/component": component}
    cluster.put({"kind": kind, "metadata": {"name": name, "labels": labels}})
    with pytest.raises(ClusterError, match=f"^{kind} {name} belongs to environment other$") as refused:
        run(cluster, tmp_path, force_conflicts=force)
    assert f"fairway param set --env=dev {component} name NAME" in refused.value.hint
    assert not cluster.requests
    cluster.objects[kind, name]["metadata"]["labels"]["app.kubernetes.io/part-of"] = "letters"
    with pytest.raises(ClusterError, match="belongs to environment other of app letters$"):
        run(cluster, tmp_path, component=(component,))
    assert run(cluster, tmp_path, component=("web-ui",))


@pytest.mark.parametrize(
    ("kind", "name", "hint"),
    [
        ("PersistentVolumeClaim", "model", "fairway param set --env=dev storage enabled false"),
        ("TFJob", "mnist-train", "kubectl delete tfjob mnist-train"),
        ("Service", "mnist-service", "fairway apply dev --force-conflicts"),
    ],
)
def test_what_fairway_did_not_make_is_left_alone(kind: str, name: str, hint: str, tmp_path: Path) -> None:
    cluster = Cluster()
    cluster.put({"kind": kind, "metadata": {"name": name, "labels": {"app": "theirs"}}, "spec": {}})
    with pytest.raises(
        ClusterError, match=f"^{kind} {name} is there, and was not made by fairway$"
    ) as refused:
        run(cluster, tmp_path)
    assert hint in refused.value.hint
    assert not cluster.requests
    if kind == "Service":
        assert f"{kind} {name} configured" in run(cluster, tmp_path, force_conflicts=True)
    else:
        with pytest.raises(ClusterError, match="was not made by fairway"):
            run(cluster, tmp_path, force_conflicts=True)


def test_a_training_that_would_be_refused_is_not_made_room_for(tmp_path: Path) -> None:
    class Picky(Cluster):
        error: ClusterError = ClusterError("TFJob {} is not valid: spec.x: no")

        async def apply(self, manifest: Any, **options: Any) -> Any:
            name = manifest["metadata"]["name"]
            if manifest["kind"] == "TFJob" and options.get("dry_run") and name != "mnist-train":
                assert len(name) == len("mnist-train")
                raise type(self.error)(self.error.message.format(name))
            return await super().apply(manifest, **options)

    cluster = Picky()
    run(cluster, tmp_path, component=TRAIN)
    cluster.set_status("TFJob", "mnist-train", **SUCCEEDED)
    with pytest.raises(ClusterError, match="^TFJob mnist-train is not valid: spec.x: no$"):
        run(cluster, tmp_path, component=TRAIN, replace=True)
    assert not cluster.changes("delete")
    cluster.error = QuotaError("TFJob {} exceeds quota")
    assert "TFJob mnist-train created" in run(cluster, tmp_path, component=TRAIN, replace=True)
    cluster.set_status("TFJob", "mnist-train", **SUCCEEDED)
    cluster.error = ClusterError("TFJob {} is not valid: metadata.name: taken")
    assert "TFJob mnist-train created" in run(cluster, tmp_path, component=TRAIN, replace=True)


@pytest.mark.parametrize("ending", [ClusterError("the cluster is away"), asyncio.CancelledError()], ids=str)
def test_a_training_that_was_deleted_and_not_started_is_told_of(
    ending: BaseException, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Failing(Cluster):
        fails = False

        async def apply(self, manifest: Any, **options: Any) -> Any:
            if self.fails and manifest["kind"] == "TFJob" and not options.get("dry_run"):
                raise ending
            return await super().apply(manifest, **options)

    cluster = Failing()
    run(cluster, tmp_path, component=TRAIN)
    cluster.set_status("TFJob", "mnist-train", **SUCCEEDED)
    cluster.fails, words = True, ("train.envVariables=A=b c",)
    with pytest.raises(type(ending)) as caught:
        run(cluster, tmp_path, *words, component=TRAIN, replace=True, set=words)
    said = caplog.text
    if isinstance(caught.value, ClusterError):
        said = f"{caught.value.message}. {caught.value.hint}"
    assert "train was deleted and not started again. Start it with: fairway apply dev -c train" in said
    assert "--set 'train.envVariables=A=b c'" in said


def owned_by(*managers: str) -> list[dict[str, Any]]:
    return [{"manager": each, "fieldsV1": {"f:spec": {"f:replicas": {}}}} for each in managers]


def test_replicas_are_handed_over_to_an_autoscaler(tmp_path: Path) -> None:
    class Recording(Cluster):
        def __init__(self) -> None:
            super().__init__()
            self.sent: list[tuple[str, Any]] = []

        async def apply(self, manifest: Any, *, dry_run: bool = False, **options: Any) -> Any:
            if manifest["kind"] == "Deployment" and not dry_run:
                self.sent.append((options.get("manager", "fairway"), manifest))
            applied = await super().apply(manifest, dry_run=dry_run, **options)
            if manifest["kind"] == "Deployment" and dry_run and "replicas" not in manifest["spec"]:
                applied["spec"]["replicas"] = 1
            return applied

    cluster, scaled = Recording(), ("serving.replicas=2", "serving.maxReplicas=4")
    run(cluster, tmp_path, "serving.replicas=2", component=("serving",))
    live = cluster.objects["Deployment", "server"]
    live["spec"]["replicas"], live["metadata"]["managedFields"] = 3, owned_by("fairway")
    cluster.sent.clear()
    assert not [
        each.diff
        for each in asyncio.run(diff.run(cluster.kube, make_target(tmp_path, *scaled), ("serving",)))
        if "replicas: 1" in each.diff and each.kind == "Deployment"
    ]
    run(cluster, tmp_path, *scaled, component=("serving",))
    (first, minimal), (second, _) = cluster.sent
    assert (first, second) == ("fairway-replicas", "fairway")
    assert minimal["spec"] == {"replicas": 3}
    assert set(minimal["metadata"]) <= {"name", "namespace"}

    cluster.objects["Deployment", "server"]["metadata"]["managedFields"] = owned_by("fairway", "hpa")
    cluster.sent.clear()
    run(cluster, tmp_path, *scaled, component=("serving",))
    assert len(cluster.sent) == 1


def test_replicas_are_taken_back_without_force(tmp_path: Path) -> None:
    cluster = Cluster()
    run(cluster, tmp_path, component=("serving",))
    for managers, is_ours in ((["fairway-replicas"], True), (["fairway-replicas", "kubectl"], False)):
        conflicts = tuple(Conflict(each, ".spec.replicas") for each in managers)
        cluster.refused["Deployment", "server"] = ConflictError("managed by others", conflicts, hint="")
        if is_ours:
            assert "Deployment server configured" in run(
                cluster, tmp_path, "serving.replicas=5", component=("serving",)
            )
        else:
            with pytest.raises(ConflictError):
                run(cluster, tmp_path, component=("serving",))
