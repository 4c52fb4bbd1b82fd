"""What fairway asks of an API server; objects go and come as plain dictionaries.

lightkube gives TLS and credentials of a context. Its requests are typed and do not know
fieldValidation; those here are few, and plain HTTP.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from types import TracebackType
from typing import Any, Self

import httpx2
from lightkube.core.exceptions import ConfigError

from fairway.deploy.kube.errors import (
    AwayError,
    ExpiredError,
    NotServedError,
    OtherObjectError,
    Target,
    refused,
    unreachable,
)
from fairway.deploy.kube.forward import PodStream, open_stream
from fairway.deploy.kube.http import new_client
from fairway.deploy.kube.kubeconfig import Connection
from fairway.deploy.resources import FIELD_MANAGER, RESOURCES, Manifest
from fairway.errors import ClusterError

CONNECT_S = 5.0
READ_S = 10.0
# Admission webhooks may take 30 s: https://kubernetes.io/docs/reference/access-authn-authz/extensible-admission-controllers/
WRITE_S = 35.0
PAGE = 500
ATTEMPTS = 5
"""How often a request is made that the API server puts off with 429 and Retry-After."""
RECONNECT_S = 60.0
"""How long a log that broke off tries to go on."""
RETRY_S = 1.0
_BROKEN = (httpx2.ReadError, httpx2.WriteError, httpx2.RemoteProtocolError)
_REVIEW = "SelfSubjectAccessReview"
_STAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}\S+")  # so they also sort as text
_WARNING = re.compile(r'^\d{3} \S+ "(?P<text>.*)"')

logger = logging.getLogger(__name__)

Manifests = list[Manifest]  # inside of `Kube`, `list` is its own method
Kinds = list[str]


class Kube:
    """A namespace of a cluster; to be used with `async with`.

    Every method raises `ClusterError` where the cluster is away or refuses; see `errors.py` for the cases
    that have a class of their own.

    Args:
        connection: Which cluster, as whom.
        namespace: Where objects are that name none.
    """

    def __init__(self, connection: Connection, namespace: str) -> None:
        self.connection, self.namespace = connection, namespace
        self._http = new_client(connection)
        self._warned: set[str] = set()

    async def __aenter__(self) -> Self:
        await self._http.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.__aexit__(kind, error, trace)

    async def get(self, kind: str, name: str) -> Manifest | None:
        """Return an object; None if there is no such one, or no such namespace.

        Raises:
            NotServedError: the cluster does not know the kind.
        """
        return await self._json("GET", self._path(kind, name), self._target(kind, name), absent=True)

    async def list(self, kind: str, labels: Mapping[str, str] | None = None) -> Manifests:
        """Return all objects of a kind that have all these labels.

        Raises:
            NotServedError: the cluster does not know the kind.
        """
        return await self._list(kind, labels)

    async def apply(
        self,
        manifest: Manifest,
        *,
        dry_run: bool = False,
        force: bool = False,
        manager: str = FIELD_MANAGER,
    ) -> Manifest:
        """Make an object be as a manifest has it.

        Fields that the manifest no longer has are removed where the same field manager had set them.

        Args:
            manifest: Is sent unchanged; a field that the kind does not have is an error.
            dry_run: Only have the cluster say what would be.
            force: Take over fields that others have set to other values.
            manager: The field manager.

        Returns:
            The whole object as it is (or would be) now.

        Raises:
            ConflictError: others have set fields to other values.
            ImmutableError: the object exists, and what differs cannot be changed.
            NamespaceMissingError: there is no such namespace.
            NotServedError: the cluster does not know the kind.
        """
        kind, metadata = manifest["kind"], manifest["metadata"]
        params = {"fieldManager": manager, "fieldValidation": "Strict"}
        params |= {"dryRun": "All"} if dry_run else {}
        params |= {"force": "true"} if force else {}
        path = self._path(kind, metadata["name"], namespace=metadata.get("namespace"))
        target = self._target(kind, metadata["name"], metadata.get("namespace"))
        applied = await self._json("PATCH", path, target, params, manifest)
        assert applied is not None
        return applied

    async def delete(self, kind: str, name: str, uid: str | None = None) -> bool:
        """Delete an object, and what it owns soon after; return whether it was there.

        Args:
            kind: Of the object.
            name: Its name.
            uid: Only the object that has this uid, and no later one of the same name.
        """
        options: Manifest = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background"}
        options |= {"preconditions": {"uid": uid}} if uid else {}
        try:
            found = await self._json(
                "DELETE", self._path(kind, name), self._target(kind, name), content=options, absent=True
            )
        except OtherObjectError:
            return False
        return found is not None

    async def logs(
        self,
        pod: str,
        *,
        container: str | None = None,
        follow: bool = False,
        tail: int | None = None,
        previous: bool = False,
        timestamps: bool = False,
    ) -> AsyncGenerator[str]:
        """Yield the lines of a container's log, without their ends.

        Args:
            pod: Its name.
            container: Which of the pod's; None: the only one, or the default one.
            follow: Wait for more until the container ends; goes on by itself after a broken connection.
            tail: Begin with that many of the last lines; None: with the first.
            previous: Of the container's run before its last restart.
            timestamps: Put the time before each line, and a blank; sorted as text they are in order. What has
                none gets that of the line before.

        Raises:
            ClusterError: there is no such log (yet), or the cluster is away, later for longer than a minute.
        """
        params: dict[str, Any] = {"container": container, "tailLines": tail, "timestamps": "true"}
        params |= {"follow": "true"} if follow else {}
        params |= {"previous": "true"} if previous else {}
        patience, last, resumed = _Patience(), "", ""
        path, target = self._path("Pod", pod, action="log"), self._target("Pod", pod)
        while True:
            try:
                async with self._stream(path, target, params, None if follow else READ_S) as response:
                    patience.renew()
                    async for line in _lines(response):
                        stamp, text = _split_stamp(line.decode(errors="replace"))
                        if stamp and stamp <= resumed:  # has been told before the connection broke
                            continue
                        last, resumed = stamp or last, ""
                        yield f"{last} {text}" if timestamps else text
                return
            except AwayError as err:
                if not (follow and patience.is_begun):
                    raise
                await patience.wait(err)
                resumed = last
                params |= {"tailLines": None, "sinceTime": last} if last else {}

    async def version(self) -> str:
        """Return the API server's version, such as `v1.32.13`."""
        found = await self._json("GET", "version", self._target())
        assert found is not None
        return str(found["gitVersion"])

    async def resources(self, group_version: str) -> Kinds | None:
        """Return the kinds of a group and version such as `kubeflow.org/v1`; None if it is not served."""
        found = await self._json("GET", _root(group_version), self._target(), absent=True)
        if found is None:
            return None
        return sorted(each["kind"] for each in found["resources"] if "/" not in each["name"])

    async def may(self, verb: str, kind: str, subresource: str = "") -> bool:
        """Return whether we have a right, in the namespace if the kind has one.

        Args:
            verb: Of the API: `get`, `list`, `watch`, `create`, `patch`, `delete`.
            kind: Of the objects.
            subresource: Such as `log` of pods.
        """
        resource = RESOURCES[kind]
        attributes = {
            "verb": verb,
            "group": resource.api_version.rpartition("/")[0],
            "resource": resource.plural,
            "subresource": subresource,
            "namespace": self.namespace if resource.namespaced else "",
        }
        review = {
            "apiVersion": RESOURCES[_REVIEW].api_version,
            "kind": _REVIEW,
            "spec": {"resourceAttributes": attributes},
        }
        found = await self._json("POST", self._path(_REVIEW), self._target(_REVIEW), content=review)
        assert found is not None
        return bool(found["status"]["allowed"])

    def forward(self, pod: str, port: int) -> AbstractAsyncContextManager[PodStream]:
        """Open a TCP connection to a port of a pod.

        Raises:
            ClusterError: there is no such pod, or it does not run.
        """
        target = self._target("Pod", pod)
        return open_stream(self._http, self._path("Pod", pod, action="portforward"), port, target)

    async def _list(self, kind: str, labels: Mapping[str, str] | None, *, page: int = PAGE) -> Manifests:
        resource, objects = RESOURCES[kind], []
        params = {**_selector(labels), "limit": str(page)}
        while True:
            try:
                found = await self._json("GET", self._path(kind), self._target(kind), params)
            except ExpiredError:
                return await self._list(kind, labels, page=0)  # all at once: that cannot grow old
            assert found is not None
            # In a list the API server leaves these two out.
            kind_of = {"apiVersion": resource.api_version, "kind": kind}
            objects += [{**kind_of, **item} for item in found.get("items") or ()]
            if not (rest := found["metadata"].get("continue")):
                return objects
            params["continue"] = rest

    async def _json(
        self,
        method: str,
        path: str,
        target: Target,
        params: Mapping[str, str] | None = None,
        content: Manifest | None = None,
        *,
        absent: bool = False,
    ) -> dict[str, Any] | None:
        """Return the answer's body.

        Args:
            method: Of HTTP.
            path: From `_path`.
            target: For messages.
            params: Of the query.
            content: To be applied, or to be asked, or how to delete.
            absent: Return None where there is no such object.
        """
        response = await self._send(method, path, target, params, content)
        if response.is_success:
            try:
                return dict(response.json())
            except ValueError as err:
                raise refused(response.status_code, response.content, target) from err
        error = refused(response.status_code, response.content, target)
        if (
            absent
            and response.status_code == httpx2.codes.NOT_FOUND
            and not isinstance(error, NotServedError)
        ):
            return None
        raise error

    async def _send(
        self,
        method: str,
        path: str,
        target: Target,
        params: Mapping[str, str] | None,
        content: Manifest | None,
    ) -> httpx2.Response:
        body = None if content is None else json.dumps(content).encode()  # JSON is YAML
        media_type = "application/apply-patch+yaml" if method == "PATCH" else "application/json"
        headers = None if content is None else {"Content-Type": media_type}
        timeout = httpx2.Timeout(READ_S if method == "GET" else WRITE_S, connect=CONNECT_S)
        for attempt in range(1, ATTEMPTS + 1):
            try:
                with _explained(target):
                    response = await self._http.request(
                        method, path, params=params, content=body, headers=headers, timeout=timeout
                    )
            except AwayError as err:
                # A connection that was kept open may have broken unseen. To read and to apply twice does no
                # harm; a second delete would say that nothing was there.
                if attempt > 1 or method == "DELETE" or not isinstance(err.__cause__, _BROKEN):
                    raise
                continue
            after = response.headers.get("Retry-After", "")
            if response.status_code != httpx2.codes.TOO_MANY_REQUESTS or not after.isdecimal():
                break
            if attempt < ATTEMPTS:
                await asyncio.sleep(min(float(after), READ_S))
        self._pass_warnings_on(response, target)
        return response

    @asynccontextmanager
    async def _stream(
        self, path: str, target: Target, params: Mapping[str, Any], read_s: float | None
    ) -> AsyncIterator[httpx2.Response]:
        given = {name: value for name, value in params.items() if value is not None}
        timeout = httpx2.Timeout(READ_S, connect=CONNECT_S, read=read_s)
        with _explained(target):
            async with self._http.stream("GET", path, params=given, timeout=timeout) as response:
                if not response.is_success:
                    raise refused(response.status_code, response.content, target)
                yield response

    def warn_once(self, text: str, about: str = "") -> None:
        """Log a warning, unless it was logged before.

        Args:
            text: The warning.
            about: What is said before it.
        """
        if text not in self._warned:
            self._warned.add(text)
            logger.warning("%s", f"{about}: {text}" if about else text)

    def _pass_warnings_on(self, response: httpx2.Response, target: Target) -> None:
        """Log what the API server warns of, such as a deprecated version: each text once."""
        for header in response.headers.get_list("Warning"):
            text = found["text"] if (found := _WARNING.match(header)) else header
            self.warn_once(text.replace('\\"', '"'), str(target))

    def _path(self, kind: str, name: str = "", action: str = "", namespace: str | None = None) -> str:
        resource = RESOURCES[kind]
        parts = [_root(resource.api_version)]
        if resource.namespaced:
            parts += ["namespaces", namespace or self.namespace]
        return "/".join([*parts, resource.plural, *filter(None, (name, action))])

    def _target(self, kind: str = "", name: str = "", namespace: str | None = None) -> Target:
        context, server = self.connection.context, self.connection.server
        return Target(context, server, namespace or self.namespace, kind, name)


class _Patience:
    """How long something that broke off is tried again.

    Attributes:
        is_begun: Whether it has worked at all.
    """

    def __init__(self) -> None:
        self.is_begun = False
        self._since: float | None = None

    def renew(self) -> None:
        """Say that it works."""
        self.is_begun, self._since = True, None

    async def wait(self, err: AwayError) -> None:
        """Wait for the next attempt.

        Raises:
            AwayError: that error; it has been tried for long enough.
        """
        now = time.monotonic()
        if self._since is None:
            self._since = now
            logger.info("%s; trying again for %g s", err, RECONNECT_S)
        if now - self._since > RECONNECT_S:
            raise err
        await asyncio.sleep(RETRY_S)


@contextmanager
def _explained(target: Target) -> Iterator[None]:
    """Turn what httpx raises into the error to show."""
    try:
        yield
    except ConfigError as err:
        raise ClusterError(f"the credentials of context {target.context} cannot be read: {err}") from err
    except (httpx2.HTTPError, OSError) as err:
        raise unreachable(err, target) from err


async def _lines(response: httpx2.Response) -> AsyncIterator[bytes]:
    """Yield lines that end with a line feed, and only that: not at what else Unicode calls a line's end."""
    rest = b""
    async for chunk in response.aiter_bytes():
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            yield line
    if rest:
        yield rest


def _split_stamp(line: str) -> tuple[str, str]:
    """Return a log line's time and text; what the kubelet itself has to say comes without a time."""
    stamp, _, text = line.partition(" ")
    return (stamp, text) if _STAMP.fullmatch(stamp) else ("", line)


def _root(group_version: str) -> str:
    return f"apis/{group_version}" if "/" in group_version else f"api/{group_version}"


def _selector(labels: Mapping[str, str] | None) -> dict[str, str]:
    return {"labelSelector": ",".join(f"{key}={value}" for key, value in labels.items())} if labels else {}
