"""The component `train`: tasks, TF_CONFIG, environment, and params that do not fit together."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from fairway.deploy.components.train import TrainParams
from fairway.deploy.params import help_texts
from fairway.deploy.resources import JOBS, MANIFEST_HASH, Manifest, manifest_hash
from fairway.errors import UsageError
from fairway.net.cluster import Task, parse_tf_config
from tests.unit.deploy.components.cases import LAUNCHERS, PVC, S3, build

ROLE = "fairway/role"


def templates(manifests: list[Manifest]) -> dict[str, Manifest]:
    """Return the pod template of each role, whatever starts it."""
    found: list[Manifest] = []
    for each in manifests:
        spec = each["spec"]
        if each["kind"] == "TFJob":
            found += [replica["template"] for replica in spec["tfReplicaSpecs"].values()]
        elif each["kind"] == "Job":
            found.append(spec["template"])
        elif each["kind"] == "JobSet":
            found += [job["template"]["spec"]["template"] for job in spec["replicatedJobs"]]
    return {template["metadata"]["labels"][ROLE]: template for template in found}


def environment(template: Manifest) -> dict[str, Any]:
    """Return the variables of a template's container that have a value."""
    (container,) = template["spec"]["containers"]
    return {each["name"]: each.get("value") for each in container.get("env", [])}


def only(manifests: list[Manifest], kind: str) -> Manifest:
    """Return the one manifest of a kind."""
    (found,) = [each for each in manifests if each["kind"] == kind]
    return found


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_only_settings_that_are_not_the_command_s_own_defaults_are_given(launcher: str) -> None:
    written = {
        "trainSteps": 200,
        "batchSize": 128,
        "augment": False,
        "dataUrl": "http://a/b",
        "profile": True,
    }
    chief = templates(build("train", launcher=launcher, **PVC, **written))["chief"]
    assert environment(chief) == {
        "FAIRWAY_DATA_URL": "http://a/b",
        "TF_TRAIN_STEPS": "200",
        "TF_AUGMENT": "false",
        "TF_MODEL_DIR": "/mnt",
        "TF_EXPORT_DIR": "/mnt/export",
        "TF_PROFILE": "true",
    }


@pytest.mark.parametrize(("launcher", "suffix"), [("job", ""), ("jobset", "-0")])
def test_each_pod_is_told_which_task_it_is(launcher: str, suffix: str) -> None:
    written: dict[str, Any] = {"numWorkers": 2, "numPs": 1, "evaluator": True}
    pods = templates(build("train", launcher=launcher, **PVC, **written))
    assert list(pods) == ["chief", "worker", "ps", "evaluator"]
    for role, template in pods.items():
        names = [each["name"] for each in template["spec"]["containers"][0]["env"]]
        assert names.index("JOB_COMPLETION_INDEX") < names.index("TF_CONFIG")
        for index in range(2 if role == "worker" else 1):
            text = environment(template)["TF_CONFIG"].replace("$(JOB_COMPLETION_INDEX)", str(index))
            cluster = parse_tf_config(text)
            assert cluster is not None
            assert cluster.this == Task(role, index)
            assert cluster.mode == "asynchronous"
            assert cluster.addresses[Task("worker", 1)] == (
                f"mnist-train-worker{suffix}-1.mnist-train.mnist.svc:2222"
            )
            assert Task("evaluator", 0) not in cluster.addresses
        assert "$(" not in re.sub(r"\$\(JOB_COMPLETION_INDEX\)", "", environment(template)["TF_CONFIG"])


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_a_single_task_is_told_nothing_and_needs_no_address(launcher: str) -> None:
    manifests = build("train", launcher=launcher, **PVC)
    assert "TF_CONFIG" not in environment(templates(manifests)["chief"])
    assert "Service" not in [each["kind"] for each in manifests]
    assert only(manifests, "NetworkPolicy")["spec"]["ingress"] == []


def test_the_jobs_names_are_those_in_the_addresses() -> None:
    manifests = build("train", launcher="job", **PVC, numWorkers=2)
    service = only(manifests, "Service")
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["publishNotReadyAddresses"]
    config = json.loads(
        environment(templates(manifests)["chief"])["TF_CONFIG"].replace("$(", '"').replace(")", '"')
    )
    for job in (each for each in manifests if each["kind"] == "Job"):
        spec = job["spec"]
        hosts = [
            f"{job['metadata']['name']}-{index}.{spec['template']['spec']['subdomain']}.mnist.svc:2222"
            for index in range(spec["completions"])
        ]
        role = spec["template"]["metadata"]["labels"][ROLE]
        assert config["cluster"][role] == hosts
        assert spec["template"]["spec"]["subdomain"] == service["metadata"]["name"]
        assert service["spec"]["selector"].items() <= spec["template"]["metadata"]["labels"].items()


@pytest.mark.parametrize("launcher", LAUNCHERS)
@pytest.mark.parametrize(
    ("written", "computing"),
    [
        ({"numWorkers": 2}, {"chief", "worker"}),
        ({"numWorkers": 2, "numPs": 1, "evaluator": True}, {"worker"}),
        ({"evaluator": True}, {"chief"}),
    ],
)
def test_gpus_are_for_tasks_that_compute_gradients(
    launcher: str, written: dict[str, Any], computing: set[str]
) -> None:
    pods = templates(build("train", launcher=launcher, **PVC, **written, numGpus=2))
    with_gpus = {
        role
        for role, pod in pods.items()
        if pod["spec"]["containers"][0]["resources"]["limits"].get("nvidia.com/gpu") == "2"
    }
    assert with_gpus == computing


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_the_claim_is_mounted_only_if_something_lies_on_it(launcher: str) -> None:
    def volumes(**written: str) -> list[str]:
        pod = templates(build("train", launcher=launcher, **written))["chief"]["spec"]
        return [volume["name"] for volume in pod["volumes"]]

    assert volumes(**PVC) == ["tmp", "model"]
    assert volumes(**S3, pvcName="mnist-model") == ["tmp"]
    assert volumes(**S3, pvcName="mnist-model", dataDir="/mnt/data") == ["tmp", "model"]
    assert volumes(**S3, dataDir="/data") == ["tmp"]
    assert volumes(**{**S3, "exportDir": "file:///mnt/x"}, pvcName="mnist-model") == ["tmp", "model"]


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_the_hash_tells_one_training_from_another(launcher: str) -> None:
    def hashes(**written: Any) -> list[str]:
        jobs = [each for each in build("train", launcher=launcher, **written) if each["kind"] in JOBS]
        assert all(each["metadata"]["annotations"][MANIFEST_HASH] == manifest_hash(each) for each in jobs)
        return [each["metadata"]["annotations"][MANIFEST_HASH] for each in jobs]

    assert hashes(**PVC) == hashes(**PVC)
    assert hashes(**PVC) != hashes(**PVC, trainSteps=3)
    assert all(re.fullmatch("[0-9a-f]{16}", digest) for digest in hashes(**PVC, numWorkers=1))


def test_the_hash_is_the_same_for_what_is_written_in_another_order() -> None:
    (first, second) = (
        build("train", **PVC, nodeSelector=words)[-1]
        for words in ({"a": "1", "b": "2"}, {"b": "2", "a": "1"})
    )
    assert manifest_hash(first) == manifest_hash(second)


@pytest.mark.parametrize("launcher", ["job", "jobset"])
@pytest.mark.parametrize(
    ("policy", "pod_policy", "backoff_limit", "ends_at_once"),
    [("ExitCode", "Never", 20, True), ("OnFailure", "OnFailure", 20, False), ("Never", "Never", 0, False)],
)
def test_restart_policies_of_jobs(
    launcher: str, policy: str, pod_policy: str, backoff_limit: int, ends_at_once: bool
) -> None:
    manifests = build("train", launcher=launcher, **PVC, restartPolicy=policy)
    spec = manifests[-1]["spec"]
    spec = spec["replicatedJobs"][0]["template"]["spec"] if launcher == "jobset" else spec
    assert spec["template"]["spec"]["restartPolicy"] == pod_policy
    assert spec["backoffLimit"] == backoff_limit
    assert ("podFailurePolicy" in spec) == ends_at_once


@pytest.mark.parametrize("launcher", ["job", "jobset"])
@pytest.mark.parametrize("policy", ["ExitCode", "OnFailure"])
def test_losses_of_the_training_are_counted_and_not_pods(launcher: str, policy: str) -> None:
    """In step, the loss of one of three workers fails the pods of all three."""
    written: dict[str, Any] = {**PVC, "numWorkers": 3, "backoffLimit": 5, "restartPolicy": policy}
    manifests = [each for each in build("train", launcher=launcher, **written) if each["kind"] in JOBS]
    specs = [each["spec"] for each in manifests]
    if launcher == "jobset":
        specs = [job["template"]["spec"] for job in specs[0]["replicatedJobs"]]
    assert [(spec["completions"], spec["backoffLimit"]) for spec in specs] == [(1, 5), (3, 15)]


@pytest.mark.parametrize(
    ("written", "words", "hint"),
    [
        (
            {"launcher": "job", "cleanPodPolicy": "All"},
            "train: cleanPodPolicy is All, which has no effect without launcher tfjob",
            "Set launcher tfjob, or cleanPodPolicy back to Running.",
        ),
        (
            {"launcher": "jobset", "cleanPodPolicy": "None"},
            "train: cleanPodPolicy is None, which has no effect without launcher tfjob",
            "Set launcher tfjob, or cleanPodPolicy back to Running.",
        ),
        (
            {"restartPolicy": "Never", "backoffLimit": 3},
            "train: backoffLimit is 3, which has no effect without restartPolicy ExitCode or OnFailure",
            "Set restartPolicy ExitCode or OnFailure, or backoffLimit back to 20.",
        ),
    ],
)
def test_params_without_an_effect_are_refused(written: dict[str, Any], words: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        build("train", **PVC, **written)
    assert (caught.value.message, caught.value.hint) == (words, hint)
    build("train", **PVC, **{"launcher": "tfjob", "restartPolicy": "OnFailure", "backoffLimit": 3})


def test_the_help_says_what_the_operator_does_not_count() -> None:
    assert "restartPolicy OnFailure only" in help_texts(TrainParams)["backoffLimit"]


def test_exit_codes_that_a_new_start_can_mend_do_not_end_the_job() -> None:
    spec = build("train", launcher="job", **PVC)[-1]["spec"]
    disruption, permanent = spec["podFailurePolicy"]["rules"]
    assert disruption["action"] == "Ignore"
    assert permanent["action"] == "FailJob"
    assert permanent["onExitCodes"]["operator"] == "NotIn"
    codes = permanent["onExitCodes"]["values"]
    assert {130, 137, 138, 139, 143, 255} <= set(codes)
    assert min(codes) == 128


def test_the_operator_s_policy_is_on_the_replicas() -> None:
    spec = only(build("train", **PVC, numWorkers=1), "TFJob")["spec"]
    assert spec["runPolicy"] == {"cleanPodPolicy": "Running", "backoffLimit": 20}
    for replica in spec["tfReplicaSpecs"].values():
        assert replica["restartPolicy"] == "ExitCode"
        assert "restartPolicy" not in replica["template"]["spec"]
        assert replica["template"]["spec"]["containers"][0]["name"] == "tensorflow"


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_only_tasks_of_the_training_reach_each_other(launcher: str) -> None:
    manifests = build("train", launcher=launcher, **PVC, numWorkers=1, numPs=1)
    policy = only(manifests, "NetworkPolicy")["spec"]
    (rule,) = policy["ingress"]
    assert [port["port"] for port in rule["ports"]] == [2222, 2223]
    assert rule["from"] == [{"podSelector": policy["podSelector"]}]
    for template in templates(manifests).values():
        assert policy["podSelector"]["matchLabels"].items() <= template["metadata"]["labels"].items()


@pytest.mark.parametrize("launcher", LAUNCHERS)
@pytest.mark.parametrize(
    ("written", "words"),
    [
        ({}, ["modelDir is /mnt", "pvcName is not set", "lost with the pod"]),
        ({**S3, "exportDir": "/mnt/export"}, ["exportDir is /mnt/export", "pvcName is not set"]),
        ({**S3, "dataDir": "/mnt/data"}, ["dataDir is /mnt/data", "pvcName is not set"]),
        ({**PVC, "modelDir": "/data/model"}, ["modelDir is /data/model", "not on the claim mnist-model"]),
        ({**PVC, "modelDir": "/mnt/../etc"}, ["modelDir is /mnt/../etc", "not on the claim"]),
        ({**PVC, "exportDir": "mnt/export"}, ["exportDir is mnt/export", "not on the claim"]),
        ({**S3, "modelDir": "s3:///x"}, ["s3:///x names no bucket"]),
        ({**PVC, "modelDir": "hdfs://a/b"}, ["unknown scheme 'hdfs'"]),
        ({**PVC, "numPs": 1}, ["numPs is 1", "no workers"]),
        (
            {**PVC, "envVariables": "A=1,TF_MODEL_DIR=/x"},
            ["TF_MODEL_DIR is set twice", "another param", "envVariables"],
        ),
        (
            {**PVC, "envVariables": "A=1", "secretKeyRefs": "A=s.k"},
            ["A is set twice: by secretKeyRefs and by envVariables"],
        ),
        ({**PVC, "envVariables": "TF_CONFIG={}"}, ["TF_CONFIG is in envVariables", "launcher sets it"]),
        ({**PVC, "secret": "keys=/mnt/"}, ["secret is to be mounted at /mnt,"]),
        ({**PVC, "secret": "keys=/tmp"}, ["secret is to be mounted at /tmp,"]),
        ({**PVC, "secret": "keys=/"}, ["secret is to be mounted at /,"]),
        ({**PVC, "name": "m" * 60}, ["name is 'mmm", "too many"]),
    ],
)
def test_params_that_do_not_fit_together(launcher: str, written: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(UsageError) as caught:
        build("train", launcher=launcher, **written)
    for word in words:
        assert word in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_the_hint_says_how_long_a_name_may_be(launcher: str) -> None:
    written: dict[str, Any] = {**PVC, "launcher": launcher, "numWorkers": 11}
    with pytest.raises(UsageError) as caught:
        build("train", name="m" * 60, **written)
    (length,) = re.findall(r"at most (\d+) characters", caught.value.hint)
    with pytest.raises(UsageError):
        build("train", name="m" * (int(length) + 1), **written)
    build("train", name="m" * int(length), **written)


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ({"ttlSecondsAfterFinished": 59}, "ttlSecondsAfterFinished is 59, but must be at least 60"),
        ({"ttlSecondsAfterFinished": 2**31}, "but must be at least 60 and at most 1e[+]09"),
        ({"activeDeadlineSeconds": 2**31}, "but must be at least 1 and at most 1e[+]09"),
    ],
)
def test_seconds_that_a_cluster_does_not_take_or_nobody_sees(written: dict[str, int], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        build("train", **PVC, **written)
    build("train", **PVC, ttlSecondsAfterFinished=60, activeDeadlineSeconds=10**9)
