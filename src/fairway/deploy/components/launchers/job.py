"""A training as plain Jobs, one for each role, which find each other through a headless Service.

How they end: the lead tells the others when the training is exported, and when an error ends it. Whoever
hears nothing of the lead ends by itself after `peerWaitSeconds`, the evaluator likewise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fairway.deploy.components.base import Placement
from fairway.deploy.components.launchers.tasks import (
    CONTAINER,
    CONTROL_PORT,
    PORT,
    count_tasks,
    pod_template,
    role_names,
    task_variables,
)
from fairway.deploy.components.objects import headless_service, service_port
from fairway.deploy.resources import Manifest, manifest, with_hash
from fairway.errors import RETRYABLE
from fairway.net.cluster import Task

if TYPE_CHECKING:
    from fairway.deploy.components.train import TrainParams

_RETRYABLE = (*range(RETRYABLE, RETRYABLE + 32), 255)
"""What signals end with, and what containers end with when their node is started again. Fewer, so easier to
read, than all other exit codes from 128 on, which nothing ends with."""


def build(params: TrainParams, placement: Placement) -> list[Manifest]:
    """Return the Service, if there is more than one task, and the Jobs.

    Raises:
        UsageError: params do not fit together.
    """
    counts = count_tasks(params)
    domain = f"{params.name}.{placement.namespace}.svc"
    names = role_names(params, placement, "-{}")
    addresses = {
        Task(role, index): f"{names[role]}-{index}.{domain}:{PORT}"
        for role, count in counts.items()
        for index in range(count)
    }
    services = []
    if len(addresses) > 1:
        ports = [service_port("tfjob-port", PORT, PORT), service_port("control", CONTROL_PORT, CONTROL_PORT)]
        services = [headless_service(placement, params.name, placement.selector(params.name), ports)]
    ttl = params.ttl_seconds_after_finished
    more = {} if ttl is None else {"ttlSecondsAfterFinished": ttl}
    jobs = [
        manifest(
            "Job",
            placement.metadata(names[role], params.name),
            job_spec(params, placement, role, count, addresses, subdomain=params.name) | more,
        )
        for role, count in counts.items()
    ]
    return services + [with_hash(job) for job in jobs]


def job_spec(
    params: TrainParams,
    placement: Placement,
    role: str,
    count: int,
    addresses: dict[Task, str],
    **pod: str,
) -> Manifest:
    """Return the spec of the Job of a role.

    Args:
        params: The component's.
        placement: Where it goes.
        role: Whose Job it is.
        count: How many tasks the role has.
        addresses: "host:port" of all tasks of the training.
        pod: Further fields of the pods' spec.
    """
    deadline = params.active_deadline_seconds
    never = params.restart_policy == "Never"
    return {
        "completionMode": "Indexed",
        "completions": count,
        "parallelism": count,
        # Kubernetes counts pods. Where tasks train in step, the loss of one fails them all: one loss of the
        # training is then as many failed pods of this Job as the role has tasks.
        "backoffLimit": 0 if never else params.backoff_limit * count,
        **({} if deadline is None else {"activeDeadlineSeconds": deadline}),
        # Two pods of one task would both train.
        "podReplacementPolicy": "Failed",
        **_failure_policy(params),
        "template": pod_template(
            params,
            placement,
            role,
            task_variables(role, addresses),
            restartPolicy="OnFailure" if params.restart_policy == "OnFailure" else "Never",
            **pod,
        ),
    }


def _failure_policy(params: TrainParams) -> dict[str, Any]:
    """Return which failures end the job, as the training operator's restart policy ExitCode has it."""
    if params.restart_policy != "ExitCode":
        return {}
    permanent = {"containerName": CONTAINER, "operator": "NotIn", "values": list(_RETRYABLE)}
    rules = [
        # The node was drained or a pod of a higher priority came: no failure of the task's.
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
        {"action": "FailJob", "onExitCodes": permanent},
    ]
    return {"podFailurePolicy": {"rules": rules}}
