"""The client against a small real server, and against none."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse

from fairway.deploy.kube import client as module
from fairway.deploy.kube.client import Kube
from fairway.deploy.kube.errors import AwayError, ConflictError, NamespaceMissingError, NotServedError
from fairway.deploy.kube.kubeconfig import load_connection
from fairway.errors import ClusterError
from tests.unit.deploy.kube.api import Answer, kube, kubeconfig, pod, serve, status
from tests.unit.deploy.kube.tls import self_signed

CONFIG_MAP = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"a": "ä"}}
Ask = Callable[[Kube], Awaitable[Any]]


@pytest.fixture
def ask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Answer, Ask], Any]:
    """Run a question against a server that answers so."""

    def run(answer: Answer, question: Ask) -> Any:
        async def main() -> Any:
            async with kube(tmp_path, monkeypatch, answer) as client:
                return await question(client)

        return asyncio.run(main())

    return run


@pytest.fixture
def connect(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Kube]:
    """Make a client for a kubeconfig."""

    def client(server: str, user: dict[str, Any] | None = None, **cluster: Any) -> Kube:
        monkeypatch.setenv("KUBECONFIG", str(kubeconfig(tmp_path / "config", server, user, **cluster)))
        return Kube(load_connection(None), "mine")

    return client


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RETRY_S", 0.01)


def query(request: Request) -> dict[str, str]:
    return dict(request.query_params)


def test_apply_sends_the_manifest_as_it_is(ask: Any) -> None:
    seen: list[Any] = []

    async def answer(request: Request) -> Response:
        seen.append((request.method, request.url.path, query(request)))
        seen.append((request.headers["Content-Type"], await request.body()))
        return JSONResponse({"kind": "ConfigMap"}, status_code=201)

    assert ask(answer, lambda k: k.apply(CONFIG_MAP)) == {"kind": "ConfigMap"}
    always = {"fieldManager": "fairway", "fieldValidation": "Strict"}
    assert seen[0] == ("PATCH", "/api/v1/namespaces/mine/configmaps/c", always)
    assert seen[1][0] == "application/apply-patch+yaml"
    assert json.loads(seen[1][1]) == CONFIG_MAP
    ask(answer, lambda k: k.apply(CONFIG_MAP, dry_run=True, force=True))
    assert seen[2][2] == always | {"dryRun": "All", "force": "true"}


def test_a_manifest_may_name_its_namespace(ask: Any) -> None:
    paths: list[str] = []

    async def answer(request: Request) -> Response:
        paths.append(request.url.path)
        return JSONResponse({})

    other = {**CONFIG_MAP, "metadata": {"name": "c", "namespace": "other"}}
    ask(answer, lambda k: k.apply(other))
    ask(answer, lambda k: k.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "n"}}))
    job = {"apiVersion": "kubeflow.org/v1", "kind": "TFJob", "metadata": {"name": "t"}}
    ask(answer, lambda k: k.apply(job))
    assert paths == [
        "/api/v1/namespaces/other/configmaps/c",
        "/api/v1/namespaces/n",
        "/apis/kubeflow.org/v1/namespaces/mine/tfjobs/t",
    ]


def test_a_refusal_to_apply_has_its_class(ask: Any) -> None:
    async def conflict(_: Request) -> Response:
        cause = {
            "reason": "FieldManagerConflict",
            "message": 'conflict with "x" using v1',
            "field": ".data.a",
        }
        return status(409, "Apply failed with 1 conflict", cause)

    async def no_namespace(_: Request) -> Response:
        return status(404, 'namespaces "mine" not found', name="mine", kind="namespaces")

    for answer, error in ((conflict, ConflictError), (no_namespace, NamespaceMissingError)):
        with pytest.raises(error):
            ask(answer, lambda k: k.apply(CONFIG_MAP))


def test_what_is_not_there_is_none(ask: Any) -> None:
    async def answer(_: Request) -> Response:
        return status(404, 'configmaps "c" not found', name="c", kind="configmaps")

    assert ask(answer, lambda k: k.get("ConfigMap", "c")) is None
    assert ask(answer, lambda k: k.delete("ConfigMap", "c")) is False
    assert ask(answer, lambda k: k.resources("nope/v1")) is None


def test_a_kind_that_is_not_served_is_not_taken_for_an_object_that_is_not_there(ask: Any) -> None:
    async def answer(_: Request) -> Response:
        return PlainTextResponse("404 page not found\n", status_code=404)

    questions: tuple[Ask, ...] = (
        lambda k: k.get("TFJob", "t"),
        lambda k: k.list("TFJob"),
        lambda k: k.delete("TFJob", "t"),
    )
    for question in questions:
        with pytest.raises(NotServedError, match="has no TFJob"):
            ask(answer, question)


def test_delete_leaves_what_is_owned_to_the_cluster(ask: Any) -> None:
    async def answer(request: Request) -> Response:
        assert (request.method, request.headers["Content-Type"]) == ("DELETE", "application/json")
        options = await request.json()
        assert options["propagationPolicy"] == "Background"
        if options.get("preconditions", {}).get("uid", "now") != "now":
            said = "Precondition failed: UID in precondition: before, UID in object meta: now"
            return status(409, f'Operation cannot be fulfilled on pods "p": {said}')
        return JSONResponse({"kind": "Status", "status": "Success"})

    assert ask(answer, lambda k: k.delete("Pod", "p")) is True
    assert ask(answer, lambda k: k.delete("Pod", "p", uid="now")) is True
    assert ask(answer, lambda k: k.delete("Pod", "p", uid="before")) is False


def test_a_list_comes_in_pages(ask: Any) -> None:
    async def answer(request: Request) -> Response:
        asked = query(request)
        assert asked["labelSelector"] == "app=web,fairway/environment=prod"
        if "continue" not in asked:
            return JSONResponse({"metadata": {"continue": "x"}, "items": [pod("a", "1")]})
        return JSONResponse({"metadata": {"resourceVersion": "9"}, "items": [pod("b", "2")]})

    labels = {"app": "web", "fairway/environment": "prod"}
    found = ask(answer, lambda k: k.list("Pod", labels))
    assert [each["metadata"]["name"] for each in found] == ["a", "b"]
    assert {(each["apiVersion"], each["kind"]) for each in found} == {("v1", "Pod")}


def test_a_list_that_grew_old_between_its_pages_is_asked_for_at_once(ask: Any) -> None:
    async def answer(request: Request) -> Response:
        asked = query(request)
        if "continue" in asked:
            return status(410, "The provided continue parameter is too old")
        if asked["limit"] == "0":
            return JSONResponse(
                {"metadata": {"resourceVersion": "9"}, "items": [pod("a", "1"), pod("b", "2")]}
            )
        return JSONResponse({"metadata": {"continue": "x"}, "items": [pod("a", "1")]})

    assert len(ask(answer, lambda k: k.list("Pod"))) == 2


def test_a_request_that_is_put_off_is_made_again(ask: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[float] = []

    async def answer(_: Request) -> Response:
        asked.append(time.monotonic())
        if len(asked) < 3:
            return Response(status_code=429, headers={"Retry-After": "0"})
        return JSONResponse({"gitVersion": "v1.32.0"})

    assert ask(answer, lambda k: k.version()) == "v1.32.0"
    assert len(asked) == 3


@pytest.mark.parametrize("method", ["GET", "PATCH", "DELETE"])
def test_a_connection_that_broke_unseen_is_replaced_where_that_is_safe(
    connect: Callable[..., Kube], method: str
) -> None:
    methods: list[str] = []

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        methods.append((await reader.readline()).decode().split()[0])
        if len(methods) > 1:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
            await writer.drain()
        writer.close()

    async def main() -> None:
        server = await asyncio.start_server(accept, "127.0.0.1", 0)
        async with server, connect(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}") as client:
            if method == "GET":
                await client.get("ConfigMap", "c")
            elif method == "PATCH":
                await client.apply(CONFIG_MAP)
            else:
                with pytest.raises(AwayError):
                    await client.delete("ConfigMap", "c")

    asyncio.run(main())
    assert methods == [method] * (1 if method == "DELETE" else 2)


def test_warnings_of_the_api_server_are_logged_once(ask: Any, caplog: pytest.LogCaptureFixture) -> None:
    async def answer(_: Request) -> Response:
        return JSONResponse({}, headers={"Warning": '299 - "v1 \\"Pod\\" is deprecated"'})

    async def twice(client: Kube) -> None:
        await client.apply(CONFIG_MAP)
        await client.apply(CONFIG_MAP)

    ask(answer, twice)
    assert [record.message for record in caplog.records if record.name == module.__name__] == [
        'ConfigMap c: v1 "Pod" is deprecated'
    ]


def test_kinds_are_told_without_their_parts(ask: Any) -> None:
    async def answer(_: Request) -> Response:
        names = [("tfjobs", "TFJob"), ("tfjobs/scale", "Scale"), ("mpijobs", "MPIJob")]
        return JSONResponse({"resources": [{"name": name, "kind": kind} for name, kind in names]})

    assert ask(answer, lambda k: k.resources("kubeflow.org/v1")) == ["MPIJob", "TFJob"]


def test_an_answer_that_is_no_json_is_told(ask: Any) -> None:
    async def answer(_: Request) -> Response:
        return PlainTextResponse("<html>Sign in</html>")

    with pytest.raises(ClusterError, match="answers HTTP 200 for the request"):
        ask(answer, lambda k: k.version())


def streamed(*parts: bytes, broken: bool = False) -> Response:
    async def content() -> AsyncIterator[bytes]:
        for part in parts:
            yield part
        if broken:
            raise ConnectionError("the test breaks it off")

    return StreamingResponse(content())


async def read_log(client: Kube, **options: Any) -> list[str]:
    async with asyncio.timeout(20):
        return [line async for line in client.logs("p", **options)]


LOG = (
    b"2026-01-01T00:00:00.000000001Z one\r\xe2\x80\xa8two\n2026-01-01T00:00:00.0000",
    b"00001Z \n2026-01-01T00:00:00.000000000Z earlier by the clock\nunable to retrieve logs",
)


def test_a_log_has_the_lines_that_were_written(ask: Any) -> None:
    seen: dict[str, str] = {}

    async def answer(request: Request) -> Response:
        seen.update(query(request))
        return streamed(*LOG)

    found = ask(answer, lambda k: read_log(k, container="c", tail=5, previous=True))
    assert found == ["one\r\u2028two", "", "earlier by the clock", "unable to retrieve logs"]
    assert seen == {"container": "c", "tailLines": "5", "previous": "true", "timestamps": "true"}


def test_a_log_with_the_times_of_its_lines(ask: Any) -> None:
    async def answer(_: Request) -> Response:
        return streamed(*LOG)

    assert ask(answer, lambda k: read_log(k, timestamps=True)) == [
        "2026-01-01T00:00:00.000000001Z one\r\u2028two",
        "2026-01-01T00:00:00.000000001Z ",
        "2026-01-01T00:00:00.000000000Z earlier by the clock",
        "2026-01-01T00:00:00.000000000Z unable to retrieve logs",
    ]


def test_a_followed_log_goes_on_after_a_broken_connection_without_repeating(ask: Any) -> None:
    asked: list[dict[str, str]] = []
    first, second, third = (f"2026-01-01T00:00:00.00000000{n}Z line {n}\n".encode() for n in range(1, 4))

    async def answer(request: Request) -> Response:
        asked.append(query(request))
        if len(asked) == 1:
            return streamed(first, second, broken=True)
        return streamed(second, third)

    assert ask(answer, lambda k: read_log(k, follow=True, tail=2)) == ["line 1", "line 2", "line 3"]
    assert asked[1] == {
        "follow": "true",
        "timestamps": "true",
        "sinceTime": "2026-01-01T00:00:00.000000002Z",
    }


def test_a_followed_log_goes_on_though_there_was_no_line_yet(ask: Any) -> None:
    asked: list[dict[str, str]] = []

    async def answer(request: Request) -> Response:
        asked.append(query(request))
        if len(asked) == 1:
            return streamed(broken=True)
        return streamed(b"2026-01-01T00:00:00.000000001Z line\n")

    assert ask(answer, lambda k: read_log(k, follow=True, tail=2)) == ["line"]
    assert asked[0] == asked[1]


def test_a_log_that_is_not_followed_does_not_end_early_without_a_word(ask: Any) -> None:
    async def answer(_: Request) -> Response:
        return streamed(b"2026-01-01T00:00:00.000000001Z line\n", broken=True)

    with pytest.raises(AwayError):
        ask(answer, read_log)


def test_a_log_that_is_not_there_yet_says_why(ask: Any) -> None:
    async def answer(_: Request) -> Response:
        return status(400, 'container "c" in pod "p" is waiting to start: ContainerCreating')

    with pytest.raises(ClusterError, match="is waiting to start: ContainerCreating"):
        ask(answer, lambda k: read_log(k, follow=True))


def test_the_token_is_sent_and_its_refusal_explained(ask: Any) -> None:
    async def answer(request: Request) -> Response:
        assert request.headers["Authorization"] == "Bearer secret-token"
        return status(401, "Unauthorized")

    with pytest.raises(ClusterError, match="does not accept the credentials"):
        ask(answer, lambda k: k.version())


def version_of(client: Kube) -> str:
    async def main() -> str:
        async with client:
            return await client.version()

    return asyncio.run(main())


def test_a_cluster_that_is_away_is_told_at_once(connect: Callable[..., Kube]) -> None:
    with pytest.raises(
        AwayError, match=r"context test does not answer at http://127.0.0.1:9: nothing listens"
    ):
        version_of(connect("http://127.0.0.1:9"))


def test_a_name_that_does_not_exist_is_told(connect: Callable[..., Kube]) -> None:
    with pytest.raises(AwayError, match="the name of its host is not known"):
        version_of(connect("https://no-such-host.invalid:6443"))


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_server_that_is_silent_is_told_in_time(
    connect: Callable[..., Kube], monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    monkeypatch.setattr(module, "CONNECT_S", 0.2)
    monkeypatch.setattr(module, "READ_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with pytest.raises(AwayError, match="no connection in time|silent for too long"):
            version_of(connect(f"{scheme}://127.0.0.1:{port}"))


def test_a_server_behind_a_firewall_is_told_in_time(
    connect: Callable[..., Kube], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A listener whose queue is full drops what comes, as a firewall does."""
    monkeypatch.setattr(module, "CONNECT_S", 0.2)
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full, ExitStack() as queue:
        for _ in range(2):
            waiting = queue.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        with pytest.raises(AwayError, match="no connection in time"):
            version_of(connect(f"https://127.0.0.1:{full.getsockname()[1]}"))


def test_limits_are_as_short_as_promised() -> None:
    """A connection and its TLS, or an answer: each within ten seconds."""
    assert 2 * module.CONNECT_S <= 10
    assert module.READ_S <= 10


def test_tls_is_checked_against_the_kubeconfigs_ca(tmp_path: Path, connect: Callable[..., Kube]) -> None:
    right, wrong = self_signed(tmp_path / "right.pem"), self_signed(tmp_path / "wrong.pem")
    named = self_signed(tmp_path / "named.pem", dns="inner.example")

    async def answer(_: Request) -> Response:
        return JSONResponse({"gitVersion": "v1.32.0"})

    async def ask_at(url: str, **cluster: Any) -> str:
        async with connect(url, **cluster) as client:
            return await client.version()

    async def main() -> None:
        async with serve(answer, certificate=right) as url:
            assert await ask_at(url, **{"certificate-authority": str(right.path)}) == "v1.32.0"
            assert await ask_at(url, **{"insecure-skip-tls-verify": True}) == "v1.32.0"
            for cluster in ({"certificate-authority": str(wrong.path)}, {}):
                with pytest.raises(ClusterError, match="is not trusted: self-signed certificate"):
                    await ask_at(url, **cluster)
        async with serve(answer, certificate=named) as url:
            ca = {"certificate-authority": str(named.path)}
            assert await ask_at(url, **ca, **{"tls-server-name": "inner.example"}) == "v1.32.0"
            with pytest.raises(ClusterError, match=r"is not trusted: IP address mismatch.*'127.0.0.1'"):
                await ask_at(url, **ca)

    asyncio.run(main())


def test_http_spoken_to_a_tls_port_is_told(tmp_path: Path, connect: Callable[..., Kube]) -> None:
    async def answer(_: Request) -> Response:
        return JSONResponse({})

    async def main() -> None:
        async with serve(answer) as url, connect(url.replace("http", "https")) as client:
            with pytest.raises(AwayError, match="TLS fails"):
                await client.version()

    asyncio.run(main())


@pytest.mark.parametrize(
    ("user", "cluster", "what"),
    [
        ({"client-certificate": "/gone.pem", "client-key": "/gone.key"}, {}, "certificates of context test"),
        ({"token": "t"}, {"proxy-url": "socks5://x:1"}, "the proxy of context test cannot be used: socks5"),
        ({"token": "t"}, {"proxy-url": "ftp://x:1"}, "the proxy of context test cannot be used: ftp://x:1$"),
        ({"token": "t"}, {"proxy-url": "ftp://me:secret@x:1"}, "the proxy .* cannot be used: ftp://x:1$"),
    ],
)
def test_what_a_connection_cannot_be_made_with_is_told(
    connect: Callable[..., Kube], user: dict[str, Any], cluster: dict[str, Any], what: str
) -> None:
    with pytest.raises(ClusterError, match=what):
        connect("https://127.0.0.1:9", user, **cluster)


def test_a_token_file_that_is_not_there_is_told(connect: Callable[..., Kube], tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match="the credentials of context test cannot be read: .*gone"):
        version_of(connect("http://127.0.0.1:9", {"tokenFile": str(tmp_path / "gone")}))


def test_a_proxy_is_used_where_one_is_named(connect: Callable[..., Kube]) -> None:
    seen: list[str] = []

    async def answer(request: Request) -> Response:
        seen.append(request.headers["Host"])
        return JSONResponse({"gitVersion": "v1.32.0"})

    async def main() -> None:
        async with (
            serve(answer) as url,
            connect("http://api.example.invalid", **{"proxy-url": url}) as client,
        ):
            assert await client.version() == "v1.32.0"

    asyncio.run(main())
    assert seen == ["api.example.invalid"]
