"""The component `train`: a training, as a TFJob, as Jobs or as a JobSet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

from fairway.config import Count, Range, TrainSettings
from fairway.deploy.components.base import (
    CLAIM_PATH,
    TRAIN_IMAGE,
    EnvVariables,
    Placement,
    PodParams,
    Quantity,
    Secret,
    SecretKeyRefs,
    ServiceName,
    Subdomain,
)
from fairway.deploy.components.launchers import job, jobset, tfjob
from fairway.deploy.components.launchers.tasks import CONTROL_PORT, PORT, count_tasks
from fairway.deploy.components.needs import Needs, refuse_unread
from fairway.deploy.components.policies import allow, network_policy, pods
from fairway.deploy.components.volumes import require_claim
from fairway.deploy.resources import Manifest
from fairway.errors import UsageError

MAX_S = 10**9
"""Kubernetes' own bound is 2**31 - 1."""
MIN_TTL_S = 60
"""With less, `up` and `apply --wait` may look for the end of a training when it is gone already."""

Launcher = Literal["tfjob", "job", "jobset"]


@dataclass(frozen=True, kw_only=True)
class TrainParams(TrainSettings, PodParams):
    """What is trained, with how many tasks, and what starts them."""

    directories: ClassVar[tuple[str, ...]] = ("model_dir", "export_dir", "data_dir")

    name: ServiceName = "mnist-train"
    """Name of the job, and the first part of those of its tasks' Services."""

    launcher: Launcher = "tfjob"
    """tfjob: Kubeflow's training operator. job: plain Kubernetes. jobset: the JobSet controller."""

    num_workers: Annotated[Count, Range(minimum=0, maximum=1000)] = 0
    """Workers besides the chief."""

    num_ps: Annotated[Count, Range(minimum=0, maximum=100)] = 0
    """Parameter servers: with any, the workers train asynchronously."""

    evaluator: bool = False
    """Measure each new checkpoint on the test images, in a pod of its own."""

    model_dir: str = CLAIM_PATH
    """Directory for checkpoints, events and metrics: a path on the claim, s3://… or gs://…"""

    export_dir: str = f"{CLAIM_PATH}/export"
    """Directory that gets one servable version per finished training: likewise."""

    pvc_name: Subdomain | None = None
    """Claim that is mounted at /mnt, if a directory lies on a disk."""

    secret: Secret | None = None
    """Secret that is mounted as files."""

    secret_key_refs: SecretKeyRefs = field(default_factory=dict)
    """Environment variables whose values are in Secrets."""

    env_variables: EnvVariables = field(default_factory=dict)
    """Further environment variables."""

    service_account: Subdomain | None = None
    """Service account that pods run as. Default: the namespace's default."""

    image: str = TRAIN_IMAGE
    """Container image, with TensorFlow."""

    num_gpus: Annotated[Count, Range(minimum=0, maximum=16)] = 0
    """GPUs of each task that computes gradients (nvidia.com/gpu)."""

    cpu: Quantity = "250m"
    """Processor that is set aside for a pod: cores, or thousandths of one (m)."""

    memory: Quantity = "1Gi"
    """Memory that is set aside for a pod, in bytes (Mi, Gi)."""

    memory_limit: Quantity = "3Gi"
    """Memory at which a pod is ended."""

    restart_policy: Literal["ExitCode", "OnFailure", "Never"] = "ExitCode"
    """ExitCode: start a task again if that can help (exit codes from 128). OnFailure: always."""

    clean_pod_policy: Literal["Running", "All", "None"] = "Running"
    """Which pods of a finished TFJob are deleted; the other launchers keep them all."""

    backoff_limit: Annotated[Count, Range(minimum=0, maximum=1000)] = 20
    """Losses of tasks after which the job is given up. The training operator counts them with restartPolicy
    OnFailure only, and then each pod that is started again."""

    active_deadline_seconds: Annotated[Count | None, Range(minimum=1, maximum=MAX_S)] = None
    """Seconds after which the job is ended. Default: never."""

    ttl_seconds_after_finished: Annotated[Count | None, Range(minimum=MIN_TTL_S, maximum=MAX_S)] = None
    """Seconds after which a finished job is deleted; until then its end can be seen. Default: never."""


RETIRED: Mapping[str, str] = {
    "numSteps": "Set trainSteps.",
}
NEEDS = (
    Needs(["clean_pod_policy"], "launcher tfjob", lambda params: params.launcher == "tfjob"),
    Needs(
        ["backoff_limit"],
        "restartPolicy ExitCode or OnFailure",
        lambda params: params.restart_policy != "Never",
    ),
)

_LAUNCHERS = {"tfjob": tfjob.build, "job": job.build, "jobset": jobset.build}


def build(params: TrainParams, placement: Placement) -> list[Manifest]:
    """Return the training, and what keeps others away from its tasks.

    Raises:
        UsageError: params do not fit together.
    """
    refuse_unread(params, NEEDS, placement.component)
    require_claim(params, placement.component, "what is there would be lost with the pod")
    if params.num_ps and not params.num_workers:
        raise UsageError(
            f"{placement.component}: numPs is {params.num_ps}, but there are no workers to train with them",
            hint="Set numWorkers to 2, or numPs to 0.",
        )
    manifests = _LAUNCHERS[params.launcher](params, placement)
    return [_policy(params, placement), *manifests] if params.network_policy else manifests


def _policy(params: TrainParams, placement: Placement) -> Manifest:
    """Let in only the other tasks: TensorFlow's servers ask nobody for a password."""
    several = sum(count_tasks(params).values()) > 1
    peers = pods(placement.selector(params.name)) if several else []
    return network_policy(placement, params.name, params.name, allow(peers, PORT, CONTROL_PORT))
