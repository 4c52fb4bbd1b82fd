"""The tasks of a training and their pods, whatever starts them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from fairway.deploy.components import pods
from fairway.deploy.components.base import Placement, join_name
from fairway.deploy.components.environment import Environment, from_field, merge, train_settings
from fairway.deploy.components.volumes import check_paths, claim_volumes, secret_volumes
from fairway.deploy.resources import Manifest
from fairway.errors import UsageError
from fairway.net.cluster import Task, tf_config

if TYPE_CHECKING:
    from fairway.deploy.components.train import TrainParams

CONTAINER = "tensorflow"
"""The name by which the training operator finds the container."""
PORT = 2222
CONTROL_PORT = PORT + 1
"""Where the lead tells who is there."""
_GRACE_S = 60
"""Enough for the steps under way and a checkpoint, also into an object store."""
_INDEX = "JOB_COMPLETION_INDEX"
_OWN = ("TF_CONFIG", _INDEX)


def count_tasks(params: TrainParams) -> dict[str, int]:
    """Return how many tasks of each role there are; roles without any are left out."""
    counts = {
        "chief": 1,
        "worker": params.num_workers,
        "ps": params.num_ps,
        "evaluator": int(params.evaluator),
    }
    return {role: count for role, count in counts.items() if count}


def role_names(params: TrainParams, placement: Placement, pod: str) -> dict[str, str]:
    """Return the name of each role's job: `mnist-train-worker`.

    Args:
        params: Have the training's name and how many tasks it has.
        placement: Has the component's name.
        pod: What follows in the names of its pods, with `{}` for the index; they are not to be too long.

    Raises:
        UsageError: a name is too long.
    """
    ends = {role: pod.format(count - 1) for role, count in count_tasks(params).items()}
    # The longest first: then the message says how many characters are too many for all of them.
    by_length = sorted(ends, key=lambda role: -len(role + ends[role]))
    names = {role: join_name(placement.component, params.name, role, ends[role]) for role in by_length}
    return {role: names[role] for role in ends}


def pod_template(
    params: TrainParams, placement: Placement, role: str, more: Environment | None = None, **spec: str
) -> Manifest:
    """Return the template of a role's pods.

    Args:
        params: The component's.
        placement: Where it goes.
        role: One of `count_tasks`.
        more: Variables that the launcher adds.
        spec: Further fields of the pod's spec.

    Raises:
        UsageError: a directory or a variable cannot be as it is.
    """
    component = placement.component
    volumes = [*claim_volumes(params, component, read_only=False), *secret_volumes(params.secret)]
    check_paths(component, volumes)
    _check_own(component, params)
    own = (more or {}) | train_settings(params)
    computes = role == "worker" or (role == "chief" and not params.num_ps)  # as net.cluster.Cluster.workers
    container = pods.container(
        CONTAINER,
        params.image,
        ["train"],
        merge(component, own, params.secret_key_refs, params.env_variables),
        volumes,
        pods.resources(params, params.num_gpus if computes else 0),
        ports=[pods.port("tfjob-port", PORT), pods.port("control", CONTROL_PORT)],
    )
    return pods.pod_template(
        placement.labels(params.name) | {"fairway/role": role},
        pods.pod_spec(
            params,
            placement,
            container,
            volumes,
            service_account=params.service_account,
            grace_s=_GRACE_S,
        )
        | spec,
    )


def task_variables(role: str, addresses: dict[Task, str]) -> Environment:
    """Return what tells a pod of an Indexed Job which task it is: nothing if there is only one.

    Args:
        role: The pod's.
        addresses: "host:port" of every task; evaluators' are not looked at.
    """
    if len(addresses) == 1:
        return {}
    config = json.loads(tf_config(addresses, Task(role, 0)))
    config["task"]["index"] = _INDEX
    # Kubernetes expands $(NAME) only where it was defined before. The Job controller adds the index too, but
    # as the last one, and only if it is not there.
    text = json.dumps(config).replace(f'"{_INDEX}"', f"$({_INDEX})")
    index = from_field("metadata.annotations['batch.kubernetes.io/job-completion-index']")
    return {_INDEX: index, "TF_CONFIG": {"value": text}}


def _check_own(component: str, params: TrainParams) -> None:
    for param, names in (("envVariables", params.env_variables), ("secretKeyRefs", params.secret_key_refs)):
        for name in _OWN:
            if name in names:
                raise UsageError(
                    f"{component}: {name} is in {param}, but the launcher sets it",
                    hint=f"Take it out of {param}; numWorkers and numPs say who takes part.",
                )
