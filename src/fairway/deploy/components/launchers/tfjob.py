"""A training as a TFJob, for Kubeflow's training operator.

Source of the fields: https://www.kubeflow.org/docs/components/trainer/legacy-v1/user-guides/tensorflow/
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fairway.deploy.components.base import Placement
from fairway.deploy.components.launchers.tasks import count_tasks, pod_template, role_names
from fairway.deploy.resources import Manifest, manifest, with_hash

if TYPE_CHECKING:
    from fairway.deploy.components.train import TrainParams

_REPLICA_TYPES = {"chief": "Chief", "worker": "Worker", "ps": "PS", "evaluator": "Evaluator"}


def build(params: TrainParams, placement: Placement) -> list[Manifest]:
    """Return the TFJob.

    Raises:
        UsageError: params do not fit together.
    """
    # The operator makes the names itself: here they are only checked.
    role_names(params, placement, "-{}")
    limits = {
        "activeDeadlineSeconds": params.active_deadline_seconds,
        "ttlSecondsAfterFinished": params.ttl_seconds_after_finished,
    }
    spec = {
        "runPolicy": {
            "cleanPodPolicy": params.clean_pod_policy,
            "backoffLimit": params.backoff_limit,
            **{name: value for name, value in limits.items() if value is not None},
        },
        "tfReplicaSpecs": {
            _REPLICA_TYPES[role]: _replicas(params, placement, role, count)
            for role, count in count_tasks(params).items()
        },
    }
    return [with_hash(manifest("TFJob", placement.metadata(params.name, params.name), spec))]


def _replicas(params: TrainParams, placement: Placement, role: str, count: int) -> Manifest:
    return {
        "replicas": count,
        "restartPolicy": params.restart_policy,  # in the template it would be overwritten
        "template": pod_template(params, placement, role),
    }
