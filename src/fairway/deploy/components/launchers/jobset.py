"""A training as a JobSet, one replicated job for each role: it is done when the chief is.

Source of the fields and host names: https://jobset.sigs.k8s.io/docs/
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fairway.deploy.components.base import Placement
from fairway.deploy.components.launchers.job import job_spec
from fairway.deploy.components.launchers.tasks import PORT, count_tasks, role_names
from fairway.deploy.resources import Manifest, manifest, with_hash
from fairway.net.cluster import Task

if TYPE_CHECKING:
    from fairway.deploy.components.train import TrainParams

_RANDOM = "-abcde"
"""As long as what is added to the names of pods; the JobSet's webhook checks their length."""


def build(params: TrainParams, placement: Placement) -> list[Manifest]:
    """Return the JobSet.

    Raises:
        UsageError: params do not fit together.
    """
    counts = count_tasks(params)
    domain = f"{params.name}.{placement.namespace}.svc"
    names = role_names(params, placement, f"-0-{{}}{_RANDOM}")
    addresses = {
        Task(role, index): f"{names[role]}-0-{index}.{domain}:{PORT}"
        for role, count in counts.items()
        for index in range(count)
    }
    ttl = params.ttl_seconds_after_finished
    spec = {
        "network": {"enableDNSHostnames": True, "publishNotReadyAddresses": True},
        "successPolicy": {"operator": "All", "targetReplicatedJobs": ["chief"]},
        # The Jobs start lost tasks again by themselves; to start all of them again would help nobody.
        "failurePolicy": {"maxRestarts": 0},
        **({} if ttl is None else {"ttlSecondsAfterFinished": ttl}),
        "replicatedJobs": [
            {
                "name": role,
                "replicas": 1,
                "template": {"spec": job_spec(params, placement, role, count, addresses)},
            }
            for role, count in counts.items()
        ],
    }
    return [with_hash(manifest("JobSet", placement.metadata(params.name, params.name), spec))]
