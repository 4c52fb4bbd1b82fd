"""Why a pod does not run, in one sentence, from what the API server says of it. Pure.

Where these words and reasons come from: the kubelet's and the scheduler's sources, and
https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/
"""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from fairway.deploy.resources import Manifest
from fairway.errors import START_AGAIN

MAX_CHARS = 200
CRASHES = 3
"""Restarts after which a container is not expected to come up by itself."""
NODE = timedelta(minutes=15)
"""How long a new node may take; after that the autoscalers give up on it too."""
_IMAGE_REASONS = (
    *("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"),
    *("RegistryUnavailable", "ImageInspectError"),
)
_STARTING_REASONS = ("", "ContainerCreating", "PodInitializing")
_KUBE_QUOTE = re.compile(r'\b(?P<kind>secret|configmap) "(?P<name>[^"]+)" not found')
_NO_KEY = re.compile(r"couldn't find key (?P<key>\S+) in (?:Secret|ConfigMap) (?:[^/\s]+/)?(?P<name>\S+)")
_NO_VOLUME_KEY = re.compile(r"references non-existent secret key: (?P<key>\S+)")
_NO_CLAIM = re.compile(r'persistentvolumeclaim "(?P<name>[^"]+)" not found')
_NODES = re.compile(r"^\d+/\d+ nodes are available: ")
_MULTI_ATTACH = re.compile(r'Multi-Attach error for volume "[^"]+" (?P<why>.+)')
_PULL_PREFIXES = re.compile(
    r"^(?:Back-off pulling image \"[^\"]*\": )?(?:ErrImagePull: )?"
    r"(?:rpc error: code = \w+ desc = )?(?:failed to pull and unpack image \"[^\"]*\": )?"
    r"(?:failed to resolve reference \"[^\"]*\": )?"
)


class Cause(StrEnum):
    """What is the matter; the same words in JSON."""

    NONE = ""
    NOT_APPLIED = "not-applied"
    NAMESPACE = "namespace"
    OPERATOR = "operator"
    IMAGE = "image"
    SECRET = "secret"
    CONFIG_MAP = "config-map"
    SERVICE_ACCOUNT = "service-account"
    CLAIM = "claim"
    SHARED_CLAIM = "shared-claim"
    VOLUME = "volume"
    QUOTA = "quota"
    UNSCHEDULABLE = "unschedulable"
    CONTAINER = "container"
    CRASH = "crash"
    MEMORY = "memory"
    EVICTED = "evicted"
    REFUSED = "refused"
    NOT_READY = "not-ready"
    STARTING = "starting"
    SUSPENDED = "suspended"
    FAILED = "failed"
    INTERRUPTED = "interrupted"


@dataclass(frozen=True)
class Problem:
    """Why something is not as it should be.

    Attributes:
        cause: What is the matter.
        reason: The same in a sentence that names the values.
        needs_help: Whether it is not expected to go away by itself.
        hint: What to do; empty where there is nothing useful to say.
    """

    cause: Cause
    reason: str
    needs_help: bool = True
    hint: str = ""


@dataclass(frozen=True)
class Surroundings:
    """What else a pod's state is explained with.

    Attributes:
        events: Of the namespace, oldest first.
        claims: Of the namespace, by name; `None` if they may not be seen.
        taken: When that was so.
    """

    events: Sequence[Manifest]
    claims: Mapping[str, Manifest] | None
    taken: datetime | None = None

    def of(self, manifest: Manifest) -> list[Manifest]:
        """Return the events of an object, the newest first."""
        uid = manifest["metadata"].get("uid")
        return [each for each in reversed(self.events) if each.get("involvedObject", {}).get("uid") == uid]


def find_problem(pod: Manifest, around: Surroundings) -> Problem | None:
    """Return why a pod does not run, or is not ready; `None` if all is well or it has done its work."""
    status = pod.get("status") or {}
    if status.get("phase") == "Succeeded" or pod["metadata"].get("deletionTimestamp"):
        return None
    if status.get("reason") == "Evicted":
        return Problem(Cause.EVICTED, f"was evicted: {brief(status.get('message', ''))}", needs_help=False)
    for each in _conditions(pod, "PodScheduled", "False"):
        if each.get("reason") == "SchedulerError":  # a passing one; what stays is Unschedulable
            return Problem(Cause.STARTING, "waits for a node", needs_help=False)
        return _unscheduled(pod, " ".join(each.get("message", "").split()), around)
    problems = [found for each in _containers(pod) if (found := _container_problem(pod, each, around))]
    if problems:
        return max(problems, key=lambda problem: problem.needs_help)
    if status.get("phase") == "Failed":
        return Problem(Cause.FAILED, brief(status.get("message") or status.get("reason") or "it failed"))
    if status.get("phase") == "Running" and not is_ready(pod):
        return _not_ready(pod, around)
    return None


def is_ready(pod: Manifest) -> bool:
    """Return whether a pod is ready, as its probes say."""
    return any(_conditions(pod, "Ready", "True"))


def claim_problem(name: str, around: Surroundings) -> Problem | None:
    """Return why a claim cannot be mounted; `None` if it can, or will be once a pod wants it."""
    if around.claims is None:
        return None
    claim = around.claims.get(name)
    if claim is None:
        return _no_claim(name)
    phase = (claim.get("status") or {}).get("phase")
    if phase == "Lost":
        return Problem(Cause.CLAIM, f"claim {name} has lost its volume")
    if phase == "Bound":
        return None
    for event in around.of(claim):
        said = brief(event.get("message", ""))
        match event.get("reason"):
            case "WaitForFirstConsumer":
                return None
            case "FailedBinding" | "ProvisioningFailed":
                return Problem(
                    Cause.CLAIM,
                    f"claim {name} is not bound: {said}",
                    hint="See which storage classes there are: kubectl get storageclass",
                )
    return None


def _no_claim(name: str) -> Problem:
    return Problem(
        Cause.CLAIM,
        f"claim {name} does not exist",
        hint="Set pvcName to one that exists, or to the name of the component of kind storage.",
    )


def last_words(message: str) -> str:
    """Return the line of a container's last output that says why it ended: an error's, else the last one."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("error: ")]
    return brief((errors or lines or [""])[-1])


def refusal_problem(message: str) -> Problem:
    """Return what the API server's refusal to make a pod means; its words come from a controller."""
    if found := re.search(r'serviceaccount "(?P<name>[^"]+)" not found', message):
        name = found["name"]
        return Problem(
            Cause.SERVICE_ACCOUNT,
            f"service account {name} does not exist",
            hint=f"Make it: kubectl create serviceaccount {name}",
        )
    if found := re.search(r"exceeded quota: .+", message):
        return Problem(
            Cause.QUOTA,
            f"no pod may be made: {brief(found[0])}",
            hint="Ask for less (cpu, memory, replicas), or have the quota raised.",
        )
    said = message.partition(" is forbidden: ")[2] or message
    return Problem(Cause.REFUSED, f"no pod may be made: {brief(said)}")


def brief(text: str) -> str:
    """Return a server's words as one line of bearable length."""
    line = " ".join(text.split())
    return line if len(line) <= MAX_CHARS else f"{line[: MAX_CHARS - 2]} …"


def _conditions(pod: Manifest, type_: str, status: str) -> Iterator[Mapping[str, Any]]:
    for each in (pod.get("status") or {}).get("conditions") or ():
        if each.get("type") == type_ and each.get("status") == status:
            yield each


def _containers(pod: Manifest) -> list[Mapping[str, Any]]:
    status = pod.get("status") or {}
    return [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]


def _claims_of(pod: Manifest) -> list[str]:
    volumes = pod.get("spec", {}).get("volumes") or ()
    return [each["persistentVolumeClaim"]["claimName"] for each in volumes if "persistentVolumeClaim" in each]


def _unscheduled(pod: Manifest, message: str, around: Surroundings) -> Problem:
    if missing := _NO_CLAIM.search(message):
        if around.claims is None:
            return _no_claim(missing["name"])
        found = claim_problem(missing["name"], around)
        return found or Problem(Cause.CLAIM, f"claim {missing['name']} was not there", needs_help=False)
    if "PersistentVolumeClaim" in message or "persistentvolumeclaim" in message:
        for name in _claims_of(pod):
            if found := claim_problem(name, around):
                return found
        if "unbound immediate" in message:
            return Problem(Cause.CLAIM, f"waits for claim {', '.join(_claims_of(pod))}", needs_help=False)
    if "volume node affinity conflict" in message or "ReadWriteOncePod" in message:
        return _shared_claim(pod, "its volume is on another node, or held by another pod")
    said = brief(_NODES.sub("", message).partition(" preemption:")[0].rstrip(". "))
    if _has_node_coming(pod, around):
        return Problem(
            Cause.UNSCHEDULABLE, f"waits for a new node, as no node takes it: {said}", needs_help=False
        )
    return Problem(
        Cause.UNSCHEDULABLE,
        f"no node takes it: {said}",
        hint="Ask for less (cpu, memory), see nodeSelector and tolerations, or add a node.",
    )


def _has_node_coming(pod: Manifest, around: Surroundings) -> bool:
    """Return whether an autoscaler has said lately that it makes a node for a pod, and nothing else since.

    Sources: https://github.com/kubernetes/autoscaler/blob/master/cluster-autoscaler/FAQ.md (TriggeredScaleUp)
    and https://karpenter.sh/docs/troubleshooting/ (Nominated).
    """
    for event in around.of(pod):
        if event.get("reason") in ("TriggeredScaleUp", "Nominated"):
            last = time_of(event)
            return not (last and around.taken) or around.taken - datetime.fromisoformat(last) < NODE
        if event.get("reason") == "NotTriggerScaleUp":
            return False
    return False


def time_of(event: Manifest) -> str:
    """Return when an event was last seen; newer API clients leave the old fields empty."""
    times = (
        event.get("lastTimestamp"),
        event.get("eventTime"),
        event.get("metadata", {}).get("creationTimestamp"),
    )
    return next((str(each) for each in times if each), "")


def _shared_claim(pod: Manifest, why: str) -> Problem:
    names = ", ".join(_claims_of(pod))
    return Problem(
        Cause.SHARED_CLAIM,
        f"claim {names} cannot be mounted here, as several pods share it: {why}",
        hint="Use a claim with accessMode ReadWriteMany, or keep all pods on one node with nodeSelector.",
    )


def _container_problem(pod: Manifest, status: Mapping[str, Any], around: Surroundings) -> Problem | None:
    state = status.get("state") or {}
    if "waiting" in state:
        return _waiting(pod, status, state["waiting"], around)
    if "terminated" in state:
        return _ended(status, state["terminated"], is_last=(pod.get("status") or {}).get("phase") == "Failed")
    last = (status.get("lastState") or {}).get("terminated")
    return _ended(status, last, is_last=False) if last and not status.get("ready") else None


def _waiting(
    pod: Manifest, status: Mapping[str, Any], waiting: Mapping[str, Any], around: Surroundings
) -> Problem | None:
    reason, message = waiting.get("reason", ""), waiting.get("message", "")
    if reason in _IMAGE_REASONS:
        said = brief(_PULL_PREFIXES.sub("", message)) or reason
        return Problem(
            Cause.IMAGE,
            f"image {status.get('image')} cannot be pulled: {said}",
            hint="Push it where the cluster finds it, and set the param image (and imagePullSecret).",
        )
    if reason == "CreateContainerConfigError":
        return _config_problem(message)
    if reason == "CrashLoopBackOff":
        return _ended(status, (status.get("lastState") or {}).get("terminated") or {}, is_last=False)
    if reason in _STARTING_REASONS:
        return _volume_problem(pod, around)
    return Problem(Cause.CONTAINER, f"container {status['name']} does not start: {brief(message) or reason}")


def _config_problem(message: str) -> Problem:
    if missing := _KUBE_QUOTE.search(message):
        return _missing(missing["kind"], missing["name"])
    if no_key := _NO_KEY.search(message):
        name, missing_key = no_key["name"], no_key["key"]
        return Problem(
            Cause.SECRET,
            f"secret {name} has no key {missing_key}",
            hint=f"See its keys: kubectl describe secret {name}",
        )
    return Problem(Cause.CONTAINER, f"its container cannot be made: {brief(message)}")


def _missing(kind: str, name: str) -> Problem:
    if kind == "secret":
        return Problem(
            Cause.SECRET,
            f"secret {name} does not exist",
            hint=f"Make it: kubectl create secret generic {name} --from-literal=KEY=VALUE",
        )
    return Problem(Cause.CONFIG_MAP, f"config map {name} does not exist")


def _volume_problem(pod: Manifest, around: Surroundings) -> Problem | None:
    """Return what keeps a pod's volumes from being mounted, as its newest event of that kind says."""
    for event in around.of(pod):
        message = event.get("message", "")
        if event.get("reason") not in ("FailedMount", "FailedAttachVolume", "FailedCreatePodSandBox"):
            continue
        if shared := _MULTI_ATTACH.search(message):
            return _shared_claim(pod, brief(shared["why"]))
        if missing := _KUBE_QUOTE.search(message):
            return _missing(missing["kind"], missing["name"])
        if no_key := _NO_VOLUME_KEY.search(message):
            return Problem(Cause.SECRET, f"a mounted secret has no key {no_key['key']}")
        # The kubelet tries again and again; it is often a matter of seconds.
        return Problem(Cause.VOLUME, brief(message), needs_help=False)
    return None


def _ended(status: Mapping[str, Any], ended: Mapping[str, Any], *, is_last: bool) -> Problem | None:
    """Return why a container ended.

    Args:
        status: Of the container.
        ended: Its terminated state.
        is_last: It is not started again.
    """
    code, restarts = int(ended.get("exitCode", 0)), int(status.get("restartCount", 0))
    name = status["name"]
    if code == 0 and "terminated" in (status.get("state") or {}):
        return None
    needs_help = is_last or restarts >= CRASHES
    times = f", {restarts} times" if restarts > 1 else ""
    if ended.get("reason") == "OOMKilled":
        return Problem(
            Cause.MEMORY,
            f"container {name} was ended for its memory{times}",
            needs_help,
            hint="Raise its param memoryLimit.",
        )
    said = last_words(ended.get("message", ""))
    return Problem(
        Cause.CRASH,
        f"container {name} ended with {_exit(code)}{times}" + (f": {said}" if said else ""),
        needs_help,
    )


def _exit(code: int) -> str:
    if code == START_AGAIN:
        return f"exit code {code}, to be started again"
    if 128 < code < 160:
        try:
            return f"exit code {code} ({signal.Signals(code - 128).name})"
        except ValueError:
            pass
    return f"exit code {code}"


def _not_ready(pod: Manifest, around: Surroundings) -> Problem:
    said = next((each.get("message", "") for each in around.of(pod) if each.get("reason") == "Unhealthy"), "")
    waiting = [each["name"] for each in _containers(pod) if not each.get("ready")]
    where = f"container {', '.join(waiting)} is not ready yet" if waiting else "it is not ready yet"
    if "connection refused" in said:
        said = "it does not listen yet"
    return Problem(Cause.NOT_READY, where + (f": {brief(said)}" if said else ""), needs_help=False)
