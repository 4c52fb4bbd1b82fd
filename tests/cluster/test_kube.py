"""The client against a real API server."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from fairway.deploy.kube.client import Kube
from fairway.deploy.kube.errors import (
    Conflict,
    ConflictError,
    ImmutableError,
    NamespaceMissingError,
    NotServedError,
)
from fairway.deploy.kube.forward import serve_forward
from fairway.deploy.kube.kubeconfig import load_connection
from fairway.deploy.resources import RESOURCES, Manifest
from fairway.errors import ClusterError
from tests.cluster.apps import DEADLINE_S
from tests.cluster.conftest import Kubectl

IMAGE = "localhost/busybox:1"
LABELS = {"app": "kube-test"}


def config_map(name: str, **data: str) -> Manifest:
    metadata = {"name": name, "labels": LABELS}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}


def pod(script: str, **spec: Any) -> Manifest:
    container = {"name": "main", "image": IMAGE, "command": ["sh", "-c", script]}
    metadata = {"name": "p", "labels": LABELS}
    given = {"terminationGracePeriodSeconds": 0, "restartPolicy": "Never", "containers": [container], **spec}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": given}


@asynccontextmanager
async def connected(namespace: str) -> AsyncIterator[Kube]:
    async with asyncio.timeout(DEADLINE_S), Kube(load_connection(None), namespace) as kube:
        yield kube


async def started(kube: Kube, manifest: Manifest) -> None:
    """Apply a pod and wait until it runs."""
    await kube.apply(manifest)
    await until(kube, lambda pod: pod["status"]["phase"] in ("Running", "Succeeded"))


async def until(kube: Kube, condition: Callable[[Manifest], object]) -> None:
    """Wait until the pod is as it is to be."""
    while not (found := await kube.get("Pod", "p")) or not condition(found):
        await asyncio.sleep(0.2)


def run(main: Awaitable[None]) -> None:
    async def inner() -> None:
        await main

    asyncio.run(inner())


def test_objects_are_applied_listed_and_deleted(namespace: str, kubectl: Kubectl) -> None:
    async def main() -> None:
        async with connected(namespace) as kube:
            assert (await kube.apply(config_map("a", x="1"), dry_run=True))["data"] == {"x": "1"}
            assert await kube.get("ConfigMap", "a") is None
            await kube.apply(config_map("a", x="1", y="2"))
            await kube.apply(config_map("a", x="3"))
            assert json.loads(kubectl("-n", namespace, "get", "cm", "a", "-o", "json"))["data"] == {"x": "3"}
            found = await kube.get("ConfigMap", "a")
            assert found is not None
            assert found["metadata"]["managedFields"][0]["manager"] == "fairway"
            listed = await kube.list("ConfigMap", LABELS)
            assert [(each["kind"], each["metadata"]["name"]) for each in listed] == [("ConfigMap", "a")]
            assert await kube.list("ConfigMap", {"app": "other"}) == []
            assert await kube.delete("ConfigMap", "a") is True
            assert await kube.delete("ConfigMap", "a") is False

    run(main())


def test_lists_come_whole_page_by_page(namespace: str) -> None:
    async def main() -> None:
        async with connected(namespace) as kube:
            await asyncio.gather(*(kube.apply(config_map(f"c{n}")) for n in range(7)))
            whole = await kube._list("ConfigMap", LABELS, page=3)
            assert [each["metadata"]["name"] for each in whole] == [f"c{n}" for n in range(7)]

    run(main())


def test_every_kind_that_is_used_is_served(namespace: str) -> None:
    async def main() -> None:
        async with connected(namespace) as kube:
            for resource in RESOURCES.values():
                kinds = await kube.resources(resource.api_version)
                assert kinds is not None
                assert resource.kind in kinds
                if resource.kind != "SelfSubjectAccessReview":  # a question: there is nothing to list
                    await kube.list(resource.kind, {"app": "none"})
            assert await kube.resources("example.com/v1") is None
            assert (await kube.version()).startswith("v1.")

    run(main())


def test_conflicts_are_named_and_can_be_forced(namespace: str, kubectl: Kubectl) -> None:
    kubectl("-n", namespace, "apply", "-f", "-", stdin=json.dumps(config_map("a", x="1", y="2")))

    async def main() -> None:
        async with connected(namespace) as kube:
            with pytest.raises(ConflictError, match=r"kubectl-client-side-apply has set .data.x") as caught:
                await kube.apply(config_map("a", x="3"))
            assert caught.value.conflicts == (Conflict("kubectl-client-side-apply", ".data.x"),)
            assert (await kube.apply(config_map("a", x="3"), force=True))["data"] == {"x": "3", "y": "2"}

    run(main())


def test_refusals_are_told_in_a_sentence(namespace: str, kubectl: Kubectl) -> None:
    kubectl("-n", namespace, "create", "quota", "small", "--hard=pods=0")
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "j"}}
    template = {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": IMAGE}]}}

    async def main() -> None:
        async with connected(namespace) as kube:
            await kube.apply({**job, "spec": {"template": template}})
            template["spec"]["containers"] = [{"name": "c", "image": "other"}]
            with pytest.raises(ImmutableError, match=r"Job j is there already, and spec.template cannot"):
                await kube.apply({**job, "spec": {"template": template}})
            with pytest.raises(ClusterError, match=r"Pod p is not valid: .spec.nope: field not declared"):
                await kube.apply(pod("true", nope=1))
            with pytest.raises(ClusterError, match="Pod p is not valid: spec.restartPolicy: Unsupported"):
                await kube.apply(pod("true", restartPolicy="Sometimes"))
            async with asyncio.timeout(DEADLINE_S):
                while True:  # until the quota counts, the pod would be accepted
                    try:
                        await kube.apply(pod("true"), dry_run=True)
                    except ClusterError as err:
                        quota = err.message
                        break
            assert quota == (
                f"Pod p exceeds quota small of namespace {namespace}:"
                " it asks for pods=1; in use are pods=0 of pods=0"
            )
            with pytest.raises(ClusterError, match=f"Pod p does not exist in namespace {namespace}"):
                await anext(kube.logs("p"))

    run(main())


def test_a_missing_namespace_is_told() -> None:
    async def main() -> None:
        async with connected("no-such-namespace") as kube:
            with pytest.raises(NamespaceMissingError, match="namespace no-such-namespace does not exist"):
                await kube.apply(config_map("a"), dry_run=True)
            assert await kube.get("ConfigMap", "a") is None
            assert await kube.list("ConfigMap") == []

    run(main())


@pytest.mark.parametrize("version", ["kubeflow.org/v0", "nobody.example/v1"])
def test_a_kind_that_is_not_served_is_told(
    namespace: str, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    monkeypatch.setitem(RESOURCES, "TFJob", replace(RESOURCES["TFJob"], api_version=version))
    job = {"apiVersion": version, "kind": "TFJob", "metadata": {"name": "t"}}

    async def main() -> None:
        async with connected(namespace) as kube:
            for question in (kube.list("TFJob"), kube.get("TFJob", "t"), kube.apply(job)):
                with pytest.raises(NotServedError, match=f"has no TFJob \\({version}\\)"):
                    await question

    run(main())


def with_user(tmp_path: Path, kubectl: Kubectl, user: dict[str, Any]) -> Path:
    """Write the test's kubeconfig with another user."""
    config = yaml.safe_load(kubectl("config", "view", "--raw", "--minify", "--flatten"))
    config["users"][0]["user"] = user
    path = tmp_path / "config"
    path.write_text(yaml.safe_dump(config))
    return path


def test_what_an_account_may_not_do_is_told(
    namespace: str, kubectl: Kubectl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The token comes from a credential plugin, as those of cloud providers do."""
    kubectl("-n", namespace, "create", "serviceaccount", "guest")
    token = kubectl("-n", namespace, "create", "token", "guest").strip()
    api = "client.authentication.k8s.io/v1"
    printed = json.dumps({"apiVersion": api, "kind": "ExecCredential", "status": {"token": token}})
    (tmp_path / "printed").write_text(printed)
    spec = {
        "apiVersion": api,
        "command": "cat",
        "args": [str(tmp_path / "printed")],
        "interactiveMode": "Never",
    }
    monkeypatch.setenv("KUBECONFIG", str(with_user(tmp_path, kubectl, {"exec": spec})))

    async def main() -> None:
        async with connected(namespace) as kube:
            with pytest.raises(ClusterError) as caught:
                await kube.list("Pod")
            assert caught.value.message.startswith(
                f"system:serviceaccount:{namespace}:guest may not list pods in namespace {namespace} of"
            )

    run(main())


def test_an_expired_token_is_told(
    namespace: str, kubectl: Kubectl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(with_user(tmp_path, kubectl, {"token": "expired"})))

    async def main() -> None:
        async with connected(namespace) as kube:
            with pytest.raises(ClusterError, match="does not accept the credentials"):
                await kube.version()
            with pytest.raises(ClusterError, match="does not accept the credentials"):
                async with kube.forward("p", 80):
                    pass

    run(main())


def test_logs_are_followed_to_the_end(namespace: str) -> None:
    async def main() -> None:
        async with connected(namespace) as kube:
            await started(kube, pod("for i in 1 2 3; do echo line $i; sleep 0.5; done"))
            assert [line async for line in kube.logs("p", follow=True)] == ["line 1", "line 2", "line 3"]
            assert [line async for line in kube.logs("p", container="main", tail=1)] == ["line 3"]
            with pytest.raises(ClusterError, match="previous terminated container .* not found"):
                await anext(kube.logs("p", previous=True))

    run(main())


@asynccontextmanager
async def relay(host: str, port: int) -> AsyncIterator[tuple[int, Callable[[], None]]]:
    """Pass connections on; yield the port and what cuts all that are open."""
    writers: set[asyncio.StreamWriter] = set()
    tasks: list[asyncio.Task[None]] = []

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
        writer.close()

    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection(host, port)
        writers.update((writer, far_writer))
        await asyncio.gather(copy(reader, far_writer), copy(far_reader, writer))

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.append(asyncio.create_task(connect(reader, writer)))

    def cut() -> None:
        for writer in writers:
            writer.transport.abort()
        writers.clear()

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1], cut
    finally:
        server.close()
        cut()
        await asyncio.gather(*tasks)


def test_logs_outlive_their_connections(
    namespace: str, kubectl: Kubectl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also shows that a server behind a tunnel is reached by its certificate's name."""
    config = yaml.safe_load(kubectl("config", "view", "--raw", "--minify", "--flatten"))
    cluster = config["clusters"][0]["cluster"]
    where = urlsplit(cluster["server"])

    async def main() -> None:
        async with relay(str(where.hostname), where.port or 443) as (port, cut):
            cluster.update({"server": f"https://127.0.0.1:{port}", "tls-server-name": where.hostname})
            (tmp_path / "config").write_text(yaml.safe_dump(config))
            monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
            async with connected(namespace) as kube:
                await started(kube, pod("for i in $(seq 40); do echo line $i; sleep 0.1; done"))
                lines: list[str] = []
                async for line in kube.logs("p", follow=True):
                    lines.append(line)
                    if len(lines) in (5, 15):
                        cut()
                assert lines == [f"line {number}" for number in range(1, 41)]

    run(main())


def test_a_pod_that_does_not_run_is_told(namespace: str) -> None:
    async def main() -> None:
        async with connected(namespace) as kube:
            await kube.apply(pod("", containers=[{"name": "main", "image": "registry.invalid/nothing:1"}]))
            await until(kube, lambda pod: pod["status"].get("containerStatuses"))
            with pytest.raises(ClusterError, match="^pod p does not run$"):
                async with kube.forward("p", 80):
                    pass
            with pytest.raises(ClusterError, match='container "main" in pod "p" is waiting to start'):
                await anext(kube.logs("p", follow=True))

    run(main())


WEB = """
mkdir /tmp/w && dd if=/dev/urandom of=/tmp/w/big bs=1M count=16 2>/dev/null
httpd -p 8080 -h /tmp/w
(while true; do nc -l -p 9001 -e sh -c 'head -n 1; sleep 2; echo done'; done) &
sha256sum < /tmp/w/big
sleep 1000
"""


def test_ports_of_a_pod_are_forwarded(namespace: str) -> None:
    async def ask(port: int, words: bytes) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(words)
        writer.write_eof()
        answer = await reader.read()
        writer.close()
        return answer

    async def main() -> None:
        reported: list[str] = []
        pod_port = 8080

        async def pick() -> tuple[str, int]:
            return "p", pod_port

        async with connected(namespace) as kube:
            await started(kube, pod(WEB))
            async with aclosing(kube.logs("p", follow=True)) as lines:
                digest = (await anext(lines)).split()[0]
            async with serve_forward(
                kube.forward,
                pick,
                host="127.0.0.1",
                port=0,
                flag="--port",
                report=lambda error: reported.append(error.message),
            ) as port:
                request = b"GET /big HTTP/1.0\r\n\r\n"
                answers = await asyncio.gather(*(ask(port, request) for _ in range(4)))
                for answer in answers:
                    body = answer.partition(b"\r\n\r\n")[2]
                    assert hashlib.sha256(body).hexdigest() == digest
                pod_port = 9001
                assert await ask(port, b"half-closed\n") == b"half-closed\ndone\n"
                assert reported == []
                pod_port = 7777
                assert [await ask(port, b"x"), await ask(port, b"x")] == [b"", b""]
                assert reported == ["nothing listens on port 7777 of pod p"]
                await kube.delete("Pod", "p")
                while await kube.get("Pod", "p"):
                    await asyncio.sleep(0.1)
                assert await ask(port, b"x") == b""
                assert reported[1:] == [
                    f"Pod p does not exist in namespace {namespace} of context {kube.connection.context}"
                ]

    run(main())
