"""Who takes part in a distributed training, and where: the operator's `TF_CONFIG`, read and written.

    {"cluster": {"chief": ["host:2222"], "worker": ["host:2222", …], "ps": […]},
     "task": {"type": "worker", "index": 0}}

Source of the format: https://www.tensorflow.org/guide/distributed_training#TF_CONFIG
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from reprlib import repr as brief
from typing import Any, Literal

from fairway.errors import UsageError

Mode = Literal["single", "synchronous", "asynchronous"]

ROLES = ("chief", "worker", "ps", "evaluator")
ALIASES = {"master": "chief"}
"""TensorFlow 1's names, which the training operator still accepts."""
MAX_PORT = 65535

_ADDRESS = re.compile(r"(?P<host>\[[0-9A-Fa-f:.%]+\]|[\w.-]+):(?P<port>[0-9]{1,5})", re.ASCII)
_SHAPE = (
    'It looks like {"cluster": {"chief": ["host:2222"], "worker": ["host:2222"]}, '
    '"task": {"type": "worker", "index": 0}}; the operator sets it, and outside a cluster it is to be unset.'
)


@dataclass(frozen=True, order=True)
class Task:
    """One process of a training.

    Attributes:
        role: One of `ROLES`; `master`, the older name, is `chief`.
        index: Number among those of its role.
    """

    role: str
    index: int

    def __str__(self) -> str:
        return self.role if self.role == "chief" else f"{self.role} {self.index}"


@dataclass(frozen=True)
class Cluster:
    """All tasks of a training, as one of them sees them.

    Attributes:
        addresses: "host:port" of every task's TensorFlow server. An evaluator takes no part in the
            training and need not be among them.
        this: The task of this process.
    """

    addresses: dict[Task, str]
    this: Task

    @property
    def mode(self) -> Mode:
        """How the tasks work together: alone, in step, or each at its own pace through parameter servers."""
        if self._of("ps"):
            return "asynchronous"
        return "synchronous" if self.followers else "single"

    @property
    def lead(self) -> Task:
        """The task that the others follow, and that exports: the chief; without one, worker 0."""
        return self._of("chief", "worker")[0]

    @property
    def is_lead(self) -> bool:
        """Whether this process is the lead."""
        return self.this == self.lead

    @property
    def followers(self) -> list[Task]:
        """All tasks but the lead and evaluators: chief before worker before ps, then by index."""
        return [task for task in self._of("chief", "worker", "ps") if task != self.lead]

    @property
    def workers(self) -> list[Task]:
        """The tasks that compute gradients; beside parameter servers the lead only hands out work."""
        workers = self._of("chief", "worker")
        return [task for task in workers if task != self.lead] if self.mode == "asynchronous" else workers

    @property
    def control_address(self) -> tuple[str, int]:
        """Host and port where the lead tells who is there (`net/control`): one above its TensorFlow port."""
        host, port = _split(self.addresses[self.lead])
        return host, port + 1

    @property
    def spec(self) -> dict[str, list[str]]:
        """The addresses as TensorFlow takes them, the lead as the chief; jobs without a task are left out."""
        jobs: dict[str, list[str]] = {"chief": [self.addresses[self.lead]]}
        for task in self.followers:
            jobs.setdefault(task.role, []).append(self.addresses[task])
        return jobs

    @property
    def job(self) -> tuple[str, int]:
        """This task's job and index in `spec`; an evaluator's is its own, outside of it."""
        if self.is_lead:
            return "chief", 0
        if self.this.role == "evaluator":
            return self.this.role, self.this.index
        return self.this.role, self.spec[self.this.role].index(self.addresses[self.this])

    def _of(self, *roles: str) -> list[Task]:
        return _in_order(task for task in self.addresses if task.role in roles)


def parse_tf_config(text: str | None) -> Cluster | None:
    """Return the cluster that the value of `TF_CONFIG` describes.

    Args:
        text: The variable's value; None or blank where there is none.

    Returns:
        The cluster, of one task or more; None if there is no `TF_CONFIG`.

    Raises:
        UsageError: the value cannot be right. The message says what of it.
    """
    if text is None or not text.strip():
        return None
    try:
        config = json.loads(text)
    except (ValueError, RecursionError) as err:
        raise UsageError(f"TF_CONFIG is no JSON ({err}): {brief(text)}", hint=_SHAPE) from err
    if not isinstance(config, dict):
        raise UsageError(f"TF_CONFIG is no JSON object: {brief(config)}", hint=_SHAPE)
    addresses = _addresses(config.get("cluster"))
    cluster = Cluster(addresses, _this(config.get("task"), addresses))
    _check_lead(cluster)
    return cluster


def tf_config(addresses: Mapping[Task, str], this: Task) -> str:
    """Return the `TF_CONFIG` that Kubeflow's training operator would give a task.

    Args:
        addresses: "host:port" of every task. Evaluators' are left out, as the operator does.
        this: The task that gets it.
    """
    cluster: dict[str, list[str]] = {}
    for task in _in_order(addresses):
        if task.role != "evaluator":
            cluster.setdefault(task.role, []).append(addresses[task])
    config = {
        "cluster": cluster,
        "task": {"type": this.role, "index": this.index},
        "environment": "cloud",
    }
    return json.dumps(config)


def _in_order(tasks: Iterable[Task]) -> list[Task]:
    return sorted(tasks, key=lambda task: (ROLES.index(task.role), task.index))


def _split(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def _addresses(cluster: Any) -> dict[Task, str]:
    if not isinstance(cluster, dict) or not cluster:
        raise UsageError(f"TF_CONFIG has no cluster: {brief(cluster)}", hint=_SHAPE)
    addresses: dict[Task, str] = {}
    for name, job in cluster.items():
        for index, address in enumerate(_job(name, job)):
            task = Task(_role(name), index)
            if task in addresses:
                raise UsageError(
                    "TF_CONFIG has both a chief and a master", hint="They are the same; leave one out."
                )
            addresses[task] = address
    _check_cluster(addresses)
    return addresses


def _role(name: object) -> str:
    role = ALIASES.get(name, name) if isinstance(name, str) else name
    if role not in ROLES:
        raise UsageError(
            f"TF_CONFIG has an unknown role: {brief(name)}", hint=f"The roles are: {', '.join(ROLES)}."
        )
    return str(role)


def _job(name: str, job: Any) -> list[str]:
    if not isinstance(job, list) or not job:
        raise UsageError(f"TF_CONFIG has no list of addresses for {brief(name)}: {brief(job)}", hint=_SHAPE)
    for address in job:
        match = _ADDRESS.fullmatch(address) if isinstance(address, str) else None
        if match is None or not 1 <= int(match["port"]) <= MAX_PORT:
            raise UsageError(
                f"TF_CONFIG has an address for {brief(name)} that is not host:port: {brief(address)}",
                hint=f"Write it as host:2222 or [::1]:2222, with a port from 1 to {MAX_PORT}.",
            )
    return job


def _check_cluster(addresses: Mapping[Task, str]) -> None:
    owners: dict[str, Task] = {}
    for task, address in addresses.items():
        if address in owners:
            raise UsageError(
                f"TF_CONFIG has {address} twice: for {owners[address]} and {task}",
                hint="Every task needs an address of its own.",
            )
        owners[address] = task
    counts = {role: sum(task.role == role for task in addresses) for role in ROLES}
    if counts["chief"] > 1:
        raise UsageError(
            f"TF_CONFIG has {counts['chief']} chiefs", hint="Name one; the others can be workers."
        )
    if counts["ps"] and counts["chief"] + counts["worker"] < 2:
        raise UsageError(
            f"TF_CONFIG has {counts['ps']} ps, but no worker that computes for them",
            hint="Beside parameter servers the chief (without one, worker 0) only leads; add a worker.",
        )
    if not counts["chief"] + counts["worker"]:
        raise UsageError(
            "TF_CONFIG has neither a chief nor a worker", hint="An evaluator cannot train alone."
        )


def _this(task: Any, addresses: Mapping[Task, str]) -> Task:
    if not isinstance(task, dict):
        raise UsageError(f"TF_CONFIG has no task: {brief(task)}", hint=_SHAPE)
    role, index = _role(task.get("type")), task.get("index")
    if not isinstance(index, int) or isinstance(index, bool) or index < 0:
        raise UsageError(f"TF_CONFIG has a task index that is no number: {brief(index)}", hint=_SHAPE)
    this = Task(role, index)
    count = sum(task.role == role for task in addresses)
    outside = role == "evaluator" and not count
    if this not in addresses and not outside:
        named = f"{count} {role}{'s' if count > 1 and role != 'ps' else ''}" if count else f"no {role}"
        raise UsageError(
            f"this is task {role} {brief(index)}, but TF_CONFIG has {named}",
            hint="Indices count from 0 within a role.",
        )
    return this


def _check_lead(cluster: Cluster) -> None:
    """Check that the control channel gets the port above the lead's."""
    host, port = cluster.control_address
    if port > MAX_PORT:
        raise UsageError(
            f"TF_CONFIG has no port above {cluster.addresses[cluster.lead]} of {cluster.lead}",
            hint="The training's control channel takes that one; choose a lower port.",
        )
    for task, address in cluster.addresses.items():
        if _split(address) == (host, port):
            raise UsageError(
                f"TF_CONFIG has {address} for {task}, which is where {cluster.lead} tells who is there",
                hint=f"The port above that of {cluster.lead} is to be left free; choose another for {task}.",
            )
