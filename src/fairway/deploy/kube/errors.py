"""What an API server refuses, or why it cannot be asked, in one sentence.

Bodies of refusals are `Status` objects:
https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/status/
"""

from __future__ import annotations

import json
import re
import socket
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import httpx2

from fairway.deploy.resources import RESOURCES
from fairway.errors import ClusterError

MAX_CHARS = 300
"""Longest text of a server that a message quotes: some quote the whole object."""
_OPERATORS = {
    "kubeflow.org": (
        "Kubeflow's training operator",
        "Install it, or train without it: fairway param set COMPONENT launcher job",
    ),
    "jobset.x-k8s.io": (
        "the JobSet controller",
        "Install it, or train without it: fairway param set COMPONENT launcher job",
    ),
    "gateway.networking.k8s.io": ("the Gateway API", "Install its CRDs, or leave the routes out."),
}
# The first where the group is served, the second where it is not.
_NOT_SERVED = ("the server could not find the requested resource", "404 page not found")
_NO_NAMESPACE = re.compile(r'^namespaces "(?P<namespace>[^"]+)" not found')
_QUOTA = re.compile(
    r"exceeded quota: (?P<quota>[^,]+), requested: (?P<requested>.+), used: (?P<used>.+), "
    r"limited: (?P<limited>.+)"
)
_RBAC = re.compile(r'User "(?P<user>[^"]*)" cannot (?P<verb>\S+) resource "(?P<resource>[^"]+)"')
_MANAGER = re.compile(r'conflict with "(?P<manager>[^"]+)"')
# The API server says so with HTTP 500.
_TYPED_PATCH = re.compile(r"failed to create typed patch object \(.*?\): (?P<cause>.+)")
_IMMUTABLE = re.compile(r"\bimmutable\b|may not be changed|may not change once set")


@dataclass(frozen=True)
class Target:
    """What a request was about, as messages name it.

    Attributes:
        context: Name of the context.
        server: URL of the API server.
        namespace: That the request was for.
        kind: Of the object; empty where it was about none.
        name: Of the object; empty where it was about all of a kind.
    """

    context: str
    server: str
    namespace: str = ""
    kind: str = ""
    name: str = ""

    def __str__(self) -> str:
        return f"{self.kind} {self.name}".strip() or "the request"


@dataclass(frozen=True)
class Conflict:
    """A field that another field manager has set.

    Attributes:
        manager: Who, such as `kubectl-client-side-apply`.
        field: Its path, `.spec.replicas`.
    """

    manager: str
    field: str


class AwayError(ClusterError):
    """The API server cannot be reached, or not at the moment."""


class ExpiredError(ClusterError):
    """What was asked to be continued is too old for the API server; to be begun anew."""


class ForbiddenError(ClusterError):
    """The user lacks a right."""


class QuotaError(ClusterError):
    """The namespace's quota does not leave enough for the object."""


class OtherObjectError(ClusterError):
    """The object that was meant is gone, and another one has its name."""


class NamespaceMissingError(ClusterError):
    """The namespace does not exist."""


class NotServedError(ClusterError):
    """The cluster does not know the kind."""


class ImmutableError(ClusterError):
    """The object exists, and what differs cannot be changed in it."""


class ConflictError(ClusterError):
    """Others have set fields of the object to other values.

    Args:
        conflicts: Those fields.
    """

    def __init__(self, message: str, conflicts: tuple[Conflict, ...], *, hint: str) -> None:
        super().__init__(message, hint=hint)
        self.conflicts = conflicts


def refused(code: int, body: bytes, target: Target) -> ClusterError:
    """Return the error for a refusal.

    Args:
        code: HTTP status.
        body: What came with it.
        target: What the request was about.
    """
    status = _status(body)
    said = body.decode(errors="replace") if status is None else str(status.get("message") or f"HTTP {code}")
    message = _brief(said)
    if code == 404 and message in _NOT_SERVED and target.kind in RESOURCES:
        return _not_served(target)
    if status is None:
        return _no_api_server(code, message, target)
    causes = (status.get("details") or {}).get("causes") or []
    match code:
        case 401:
            return ClusterError(
                f"the cluster of context {target.context} does not accept the credentials:"
                " there are none, or they are wrong or expired",
                hint="Log in to it again; to see who you are there: "
                f"kubectl --context {target.context} auth whoami",
            )
        case 403:
            return _forbidden(message, causes, target)
        case 404:
            return _missing(message, target)
        case 409 if conflicts := _conflicts(causes):
            return _conflict(conflicts, target)
        case 409 if "UID in precondition" in message:
            return OtherObjectError(f"{target} is another one by now")
        case 410:
            return ExpiredError(f"the cluster of context {target.context} cannot go on: {message}")
        case 422:
            return _invalid(message, causes, target)
        case 429 | 502 | 503 | 504:
            return AwayError(
                f"the cluster of context {target.context} is not able to answer: {message}",
                hint="Try again in a moment.",
            )
        case 500 if found := _TYPED_PATCH.search(message):
            return ClusterError(f"{target} is not valid: {found['cause']}")
    return ClusterError(f"the cluster of context {target.context} refuses {target}: {message}")


def unreachable(err: Exception, target: Target) -> ClusterError:
    """Return the error for an API server that could not be asked.

    Args:
        err: What httpx or the ssl module raised.
        target: What the request was about.
    """
    chain = list(_chain(err))
    for each in chain:
        if isinstance(each, ssl.SSLCertVerificationError):
            return ClusterError(
                f"the certificate of {target.server} is not trusted: {each.verify_message}",
                hint=f"Context {target.context} names another CA or another server; get its kubeconfig anew.",
            )
    return AwayError(
        f"the cluster of context {target.context} does not answer at {target.server}: {_cause(err, chain)}",
        hint=f"See whether it runs and can be reached from here: kubectl --context {target.context} version",
    )


def _status(body: bytes) -> Mapping[str, Any] | None:
    try:
        content = json.loads(body)
    except ValueError:
        return None
    return content if isinstance(content, dict) and content.get("kind") == "Status" else None


def _no_api_server(code: int, message: str, target: Target) -> ClusterError:
    quoted = f": {message}" if message and not message.startswith("<") else ""
    kind = AwayError if code in (429, 502, 503, 504) else ClusterError
    return kind(
        f"{target.server} answers HTTP {code} for {target}{quoted}",
        hint=f"See whether that is the API server of context {target.context}: kubectl config view",
    )


def _forbidden(message: str, causes: list[Mapping[str, Any]], target: Target) -> ClusterError:
    where = f"--context {target.context} -n {target.namespace}"
    if quota := _QUOTA.search(message):
        return QuotaError(
            f"{target} exceeds quota {quota['quota']} of namespace {target.namespace}:"
            f" it asks for {quota['requested']}; in use are {quota['used']} of {quota['limited']}",
            hint="Ask for less, end what is no longer needed, or have the quota raised:"
            f" kubectl {where} describe quota",
        )
    if access := _RBAC.search(message):
        scope = "in the whole cluster" if "cluster scope" in message else f"in namespace {target.namespace}"
        return ForbiddenError(
            f"{access['user']} may not {access['verb']} {access['resource']} {scope}"
            f" of context {target.context}",
            hint=f"Ask for that right; these you have: kubectl {where} auth can-i --list",
        )
    if any(cause.get("reason") == "NamespaceTerminating" for cause in causes):
        return ClusterError(
            f"namespace {target.namespace} of context {target.context} is being deleted",
            hint="Wait until it is gone and make it anew, or use another.",
        )
    reason = message.partition(" is forbidden: ")[2] or message
    return ClusterError(f"the cluster of context {target.context} forbids {target}: {reason}")


def _missing(message: str, target: Target) -> ClusterError:
    if found := _NO_NAMESPACE.match(message):
        return NamespaceMissingError(
            f"namespace {found['namespace']} does not exist in the cluster of context {target.context}",
            hint=f"Make it: kubectl --context {target.context} create namespace {found['namespace']}",
        )
    if message.endswith(f'"{target.name}" not found'):
        return ClusterError(
            f"{target} does not exist in namespace {target.namespace} of context {target.context}"
        )
    return ClusterError(f"the cluster of context {target.context} refuses {target}: {message}")


def _not_served(target: Target) -> NotServedError:
    version = RESOURCES[target.kind].api_version
    operator, hint = _OPERATORS.get(version.partition("/")[0], (None, "Its Kubernetes may be too old."))
    absent = f": {operator} is not installed" if operator else ""
    return NotServedError(
        f"the cluster of context {target.context} has no {target.kind} ({version}){absent}", hint=hint
    )


def _conflicts(causes: list[Mapping[str, Any]]) -> tuple[Conflict, ...]:
    return tuple(
        Conflict(found["manager"], str(cause.get("field", "")))
        for cause in causes
        if cause.get("reason") == "FieldManagerConflict"
        and (found := _MANAGER.search(str(cause.get("message"))))
    )


def _conflict(conflicts: tuple[Conflict, ...], target: Target) -> ConflictError:
    fields: dict[str, list[str]] = {}
    for conflict in conflicts:
        fields.setdefault(conflict.manager, []).append(conflict.field)
    said = "; ".join(f"{manager} has set {', '.join(those)}" for manager, those in fields.items())
    return ConflictError(
        f"{target} is also managed by others: {said}",
        conflicts,
        hint="Set the params to the same values, or take the fields over with --force-conflicts.",
    )


def _invalid(message: str, causes: list[Mapping[str, Any]], target: Target) -> ClusterError:
    fixed = [cause for cause in causes if _IMMUTABLE.search(str(cause.get("message")))]
    if fixed or (not causes and _IMMUTABLE.search(message)):
        fields = ", ".join(dict.fromkeys(str(cause.get("field")) for cause in fixed))
        return ImmutableError(
            f"{target} is there already, and {fields or 'what differs'} cannot be changed in it",
            hint="Delete it first, and it will be made anew.",
        )
    said = "; ".join(f"{cause.get('field')}: {_brief(str(cause.get('message')))}" for cause in causes)
    return ClusterError(f"{target} is not valid: {said or message}")


def _brief(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= MAX_CHARS else f"{line[: MAX_CHARS // 2]} … {line[-MAX_CHARS // 2 :]}"


def _chain(err: BaseException | None) -> Iterator[BaseException]:
    while err is not None:
        yield err
        if isinstance(err, BaseExceptionGroup):
            for each in err.exceptions:
                yield from _chain(each)
        err = err.__cause__ or err.__context__


def _cause(err: BaseException, chain: list[BaseException]) -> str:
    if isinstance(err, httpx2.ConnectTimeout):
        return "no connection in time"
    if isinstance(err, httpx2.TimeoutException):
        return "it was silent for too long"
    if isinstance(err, httpx2.LocalProtocolError):  # its text has the token in it
        return "the request could not be sent; is there a line break in the token?"
    if isinstance(err, httpx2.ProxyError):
        return f"the proxy refuses ({err})"
    for each in chain:
        if isinstance(each, socket.gaierror):
            return "the name of its host is not known"
        if isinstance(each, ConnectionRefusedError):
            return "nothing listens there"
        if isinstance(each, ssl.SSLError):
            return f"TLS fails ({(each.reason or str(each)).lower().replace('_', ' ')})"
    return re.sub(r"^\[Errno -?\d+\] ", "", _brief(str(err))) or "the connection broke"
