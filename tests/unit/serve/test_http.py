"""The REST API on a fake model, without a socket."""

import asyncio
import gzip
import json
import sys
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import pytest
from numpy.typing import NDArray

from fairway.serve import http
from fairway.serve.access import AccessLog
from fairway.serve.body import MAX_BODY_BYTES
from fairway.serve.compute.predictor import Predictor
from fairway.serve.http import App, HttpOptions
from fairway.serve.metrics import Metrics
from fairway.serve.versions.models import Models
from fairway.tfs.request import ModelSpec, PredictRequest
from fairway.tfs.rest import RestPredict, parse_predict
from fairway.tfs.signatures import Signature, TensorSpec
from fairway.tfs.status import Code, RequestError
from fairway.tfs.versions import State, VersionStatus

FLOATS = TensorSpec("t:0", "DT_FLOAT", (-1,))
TEXTS = TensorSpec("t:0", "DT_STRING", (-1,))
PREDICT = Signature({"x": FLOATS}, {"y": FLOATS})
REGRESS = Signature({"inputs": TEXTS}, {"outputs": FLOATS}, "tensorflow/serving/regress")
CLASSIFY = Signature({"inputs": TEXTS}, {"scores": FLOATS}, "tensorflow/serving/classify")


@dataclass
class FakeServable:
    """Halves and adds two; of examples, it gives their number of bytes."""

    model: str = "half"
    number: int = 3
    lite: bool = True
    signatures: Mapping[str, Signature] = field(
        default_factory=lambda: {"serving_default": PREDICT, "r": REGRESS, "c": CLASSIFY}
    )

    def run(self, request: PredictRequest) -> dict[str, NDArray[Any]]:
        if request.signature_name == "r":
            return {"outputs": np.ones(request.rows, np.float32)}
        if request.signature_name == "c":
            return {"scores": np.ones((request.rows, 2), np.float32)}
        if request.inputs["x"][0] == 666:
            raise ZeroDivisionError
        return {"y": request.inputs["x"] / 2 + 2}


@dataclass
class FakeModels:
    servable: FakeServable | None = field(default_factory=FakeServable)
    problems: dict[str, str] = field(default_factory=dict)
    status: VersionStatus = field(default_factory=lambda: VersionStatus(3, State.AVAILABLE))

    @property
    def serving(self) -> dict[str, tuple[int, ...]]:
        return {"half": (3,) if self.servable else ()}

    def find(self, spec: ModelSpec) -> FakeServable:
        if self.servable and spec.name == "half" and spec.version in (None, 3) and spec.label in (None, "a"):
            return self.servable
        raise RequestError(Code.NOT_FOUND, f"Servable not found for request: {spec}")

    def statuses(self, spec: ModelSpec) -> tuple[VersionStatus, ...]:
        if spec.name == "half":
            return (self.status,)
        raise RequestError(Code.NOT_FOUND, f"Could not find any versions of model {spec.name}")


@dataclass
class FakePredictor:
    """Computes at once, or refuses."""

    refusal: RequestError | None = None
    hangs: bool = False
    admitted: list[int] = field(default_factory=list)
    offloaded: list[str] = field(default_factory=list)
    pending: int = 0
    computes_at_once: bool = True

    @contextmanager
    def admit(self, size: int) -> Iterator[None]:
        if self.refusal and self.refusal.code is Code.RESOURCE_EXHAUSTED:
            raise self.refusal
        self.admitted.append(size)
        self.pending += 1
        try:
            yield
        finally:
            self.pending -= 1

    async def predict(
        self, servable: FakeServable, request: PredictRequest, deadline: float, gone: Callable[[], bool]
    ) -> dict[str, NDArray[Any]]:
        assert self.pending == 1
        if self.hangs:
            await asyncio.get_running_loop().create_future()
        if gone():
            raise RequestError(Code.CANCELLED, "the client is gone")
        if self.refusal:
            raise self.refusal
        return servable.run(request)

    def compute_at_once(
        self, servable: FakeServable, request: PredictRequest
    ) -> dict[str, NDArray[Any]] | None:
        return None if self.hangs else servable.run(request)

    async def offload(self, function: Callable[..., Any], *args: Any) -> Any:
        self.offloaded.append(function.__name__)
        return function(*args)


@dataclass
class FakeMetrics:
    requests: list[tuple[str, str, str, Code]] = field(default_factory=list)

    def request(self, api: str, method: str, model: str, code: Code, seconds: float) -> None:
        assert seconds >= 0
        self.requests.append((api, method, model, code))


@dataclass
class FakeAccess:
    lines: list[dict[str, Any]] = field(default_factory=list)

    def write(self, **content: Any) -> None:
        self.lines.append(content)


@dataclass
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    def __eq__(self, other: object) -> bool:
        return (self.status, self.json) == other


@dataclass
class Client:
    """Speaks ASGI to the application."""

    options: HttpOptions = field(default_factory=lambda: HttpOptions(30.0, False, "/metrics"))
    models: FakeModels = field(default_factory=FakeModels)
    predictor: FakePredictor = field(default_factory=FakePredictor)
    metrics: FakeMetrics = field(default_factory=FakeMetrics)
    access: FakeAccess = field(default_factory=FakeAccess)
    # Of the next request's scope.
    state: dict[str, Any] = field(default_factory=dict)

    def app(self, metrics_text: Any = None) -> App:
        return App(
            cast(Models, self.models),
            cast(Predictor, self.predictor),
            cast(Metrics, self.metrics),
            self.options,
            metrics_text,
            cast(AccessLog, self.access),
        )

    def at_once(self, body: bytes, path: str = "/v1/models/half:predict", **headers: str) -> bytes | None:
        """Return the body of what is answered at once, if it is."""
        named = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
        answer = self.app().answer_at_once(path.encode(), named, body, "10.0.0.1", self.state)
        return answer and answer[1]

    def request(
        self,
        method: str,
        path: str,
        *chunks: bytes,
        headers: Mapping[str, str] | None = None,
        hang_up: bool = False,
        gone: bool = False,
        cancel: bool = False,
    ) -> Reply | None:
        """Return the reply; `None` if there was none."""
        messages: list[dict[str, Any]] = [
            {"type": "http.request", "body": chunk, "more_body": True} for chunk in chunks or [b""]
        ]
        messages[-1]["more_body"] = hang_up
        pending = iter([*messages, {"type": "http.disconnect"}])
        sent: list[MutableMapping[str, Any]] = []

        async def receive() -> MutableMapping[str, Any]:
            await asyncio.sleep(0)
            return next(pending)

        async def send(message: MutableMapping[str, Any]) -> None:
            sent.append(message)

        async def metrics_text() -> bytes:
            return b"# HELP\n"

        app = self.app(metrics_text)
        scope = {
            "type": "http",
            "method": method,
            "path": path,
            "raw_path": path.encode(),
            "client": ("10.0.0.1", 5),
            "headers": [(name.encode(), value.encode()) for name, value in (headers or {}).items()],
            "state": {**self.state, "fairway.gone": lambda: gone},
        }

        async def run() -> None:
            task = asyncio.create_task(app(scope, receive, send))
            if cancel:
                await asyncio.sleep(0.01)
                task.cancel()
            await task

        asyncio.run(run())
        assert self.predictor.pending == 0
        if not sent:
            return None
        start, end = sent
        names = {name.decode(): value.decode() for name, value in start["headers"]}
        assert names["content-length"] == str(len(end["body"]))
        return Reply(start["status"], names, end["body"])

    def predict(self, *chunks: bytes, path: str = "/v1/models/half", **kwargs: Any) -> Reply | None:
        return self.request("POST", f"{path}:predict", *chunks, **kwargs)


@pytest.fixture
def client() -> Client:
    return Client()


@pytest.mark.parametrize(
    "path", ["/v1/models/half", "/v1/models/half/versions/3", "/v1/models/half/labels/a"]
)
def test_predict(client: Client, path: str) -> None:
    reply = client.predict(b'{"instances": [1, 2, 5]}', path=path)

    assert reply == (200, {"predictions": [2.5, 3.0, 4.5]})
    assert reply.headers["content-type"] == "application/json"
    assert client.metrics.requests == [("REST", "predict", "half", Code.OK)]
    assert client.predictor.offloaded == []


def test_predict_in_columns_and_pieces(client: Client) -> None:
    assert client.predict(b'{"inputs"', b": [1, 2", b", 5]}") == (200, {"outputs": [2.5, 3.0, 4.5]})


def test_large_requests_are_parsed_and_written_in_a_thread(client: Client) -> None:
    values = np.arange(100_000, dtype=np.float32)

    reply = client.predict(json.dumps({"instances": values.tolist()}).encode())

    assert reply == (200, {"predictions": (values / 2 + 2).tolist()})
    assert client.predictor.offloaded == ["parse_predict", "format_predict"]


def test_regress_and_classify(client: Client) -> None:
    regress = client.request(
        "POST", "/v1/models/half:regress", b'{"signature_name": "r", "examples": [{}, {}]}'
    )
    classify = client.request(
        "POST", "/v1/models/half:classify", b'{"signature_name": "c", "examples": [{}]}'
    )

    assert regress == (200, {"results": [1.0, 1.0]})
    assert classify == (200, {"results": [[["", 1.0], ["", 1.0]]]})
    assert client.metrics.requests == [
        ("REST", "regress", "half", Code.OK),
        ("REST", "classify", "half", Code.OK),
    ]


@pytest.mark.parametrize(
    ("method", "path", "status", "error"),
    [
        ("POST", "/v1/models/other:predict", 404, "Servable not found for request: Latest(other)"),
        (
            "POST",
            "/v1/models/half/versions/2:predict",
            404,
            "Servable not found for request: Specific(half, 2)",
        ),
        ("GET", "/v1/models/other", 404, "Could not find any versions of model other"),
        ("GET", "/v1/models", 400, "Missing model name in request."),
        ("GET", "/v1/models/other/metadata", 404, "Servable not found for request: Latest(other)"),
        ("GET", "/v1/models/half:predict", 400, "Malformed request: GET /v1/models/half:predict"),
        ("PUT", "/v1/models/half", 400, "Malformed request: PUT /v1/models/half"),
        ("OPTIONS", "/v1/models/half", 400, "Malformed request: OPTIONS /v1/models/half"),
        ("GET", "/", 404, "Not found: /"),
        ("POST", "/healthz", 405, "POST is not allowed for /healthz; use GET"),
    ],
)
def test_what_is_not_there(client: Client, method: str, path: str, status: int, error: str) -> None:
    assert client.request(method, path, b"{}") == (status, {"error": error})


@pytest.mark.parametrize("error", ["", "wrong checksum"])
def test_status(client: Client, error: str) -> None:
    client.models.status = VersionStatus(5, State.LOADING, error)

    reply = client.request("GET", "/v1/models/half")

    status = {"error_code": "UNKNOWN" if error else "OK", "error_message": error}
    assert reply == (200, {"model_version_status": [{"version": "5", "state": "LOADING", "status": status}]})


def test_metadata(client: Client) -> None:
    reply = client.request("GET", "/v1/models/half/metadata")

    assert reply is not None
    assert reply.json["model_spec"] == {"name": "half", "signature_name": "", "version": "3"}
    assert "serving_default" in reply.json["metadata"]["signature_def"]["signature_def"]


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_ready_means_that_every_model_answers(client: Client, method: str) -> None:
    assert client.request(method, "/readyz") == (200, {"status": "ready", "models": {"half": [3]}})

    client.models.servable, client.models.problems = None, {"half": "version 7 is loading"}
    reply = client.request(method, "/readyz")
    assert reply == (
        503,
        {"status": "not ready", "models": {"half": []}, "problems": {"half": "version 7 is loading"}},
    )
    assert client.request(method, "/healthz") == (200, {"status": "alive"})
    assert client.metrics.requests == []


def test_without_any_model_nothing_is_ready(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeModels, "serving", {})
    assert client.request("GET", "/readyz") == (503, {"status": "not ready", "models": {}, "problems": {}})


def test_the_page_for_prometheus(client: Client) -> None:
    reply = client.request("GET", "/metrics")

    assert reply is not None
    assert (reply.status, reply.body) == (200, b"# HELP\n")
    assert reply.headers["content-type"].startswith("text/plain; version=0.0.4")


def test_without_a_page_for_prometheus() -> None:
    client = Client(HttpOptions(30.0, False, None))

    assert client.request("GET", "/metrics") == (404, {"error": "Not found: /metrics"})


@pytest.mark.parametrize(
    ("code", "status", "retry"),
    [
        (Code.RESOURCE_EXHAUSTED, 503, "1"),
        (Code.UNAVAILABLE, 503, "1"),
        (Code.DEADLINE_EXCEEDED, 504, None),
        (Code.FAILED_PRECONDITION, 412, None),
    ],
)
def test_what_the_predictor_refuses(client: Client, code: Code, status: int, retry: str | None) -> None:
    client.predictor.refusal = RequestError(code, "no")

    reply = client.predict(b'{"instances": [1]}')

    assert reply == (status, {"error": "no"})
    assert reply.headers.get("retry-after") == retry
    assert client.metrics.requests == [("REST", "predict", "half", code)]


def test_a_client_that_is_gone_gets_no_answer(client: Client) -> None:
    assert client.predict(b'{"instances": [1]}', gone=True) is None
    assert client.predict(b'{"instances"', hang_up=True) is None
    assert client.metrics.requests == [("REST", "predict", "half", Code.CANCELLED)] * 2


def test_a_server_that_ends_says_so(client: Client) -> None:
    client.predictor.hangs = True

    reply = client.predict(b'{"instances": [1]}', cancel=True)

    assert reply == (503, {"error": "the server is ending"})


TOO_LARGE = (413, {"error": "the body is larger than the limit of 67108864 bytes (64 MiB)"})


def test_a_body_that_says_it_is_too_large_is_not_read(client: Client) -> None:
    assert client.predict(headers={"content-length": str(MAX_BODY_BYTES + 1)}) == TOO_LARGE
    assert client.predictor.admitted == []


def test_the_size_of_a_body_is_admitted_before_it_is_read(client: Client) -> None:
    body = b'{"instances": [1]}'

    client.predict(body[:5], body[5:], headers={"content-length": str(len(body))})
    client.predict(body)
    client.predict(body[:5], body[5:])

    assert client.predictor.admitted == [len(body), len(body), MAX_BODY_BYTES]


def test_a_body_that_turns_out_too_large(client: Client) -> None:
    reply = client.predict(*[b" " * (MAX_BODY_BYTES // 4)] * 5)

    assert reply == TOO_LARGE
    assert reply.headers["connection"] == "close"


def test_a_compressed_body(client: Client) -> None:
    body = b'{"instances": [1, 2, 5]' + b" " * 1000 + b"}"
    packed = gzip.compress(body, mtime=0)

    reply = client.predict(packed, headers={"content-encoding": "gzip", "content-length": str(len(packed))})

    assert reply == (200, {"predictions": [2.5, 3.0, 4.5]})
    assert client.predictor.admitted == [len(packed), len(body)]


@pytest.mark.parametrize(
    ("encoding", "body", "status", "error"),
    [
        ("gzip", b"{}", 400, "the body cannot be decompressed: Error -3 while decompressing data"),
        (
            "gzip",
            gzip.compress(b"{}", mtime=0)[:-3],
            400,
            "the body cannot be decompressed: it is not one whole",
        ),
        ("br", b"{}", 415, "Content-Encoding 'br' is not supported; have: gzip, identity"),
        ("gzip, gzip", b"{}", 415, "Content-Encoding 'gzip, gzip' is not supported"),
    ],
)
def test_encodings_that_are_refused(
    client: Client, encoding: str, body: bytes, status: int, error: str
) -> None:
    reply = client.predict(body, headers={"content-encoding": encoding})

    assert reply is not None
    assert reply.status == status
    assert reply.json["error"].startswith(error)


def test_other_origins_may_ask_where_that_is_switched_on() -> None:
    client = Client(HttpOptions(30.0, True, None))

    before = client.request("OPTIONS", "/v1/models/half:predict")
    refused = client.predict(b"{")

    assert before is not None
    assert (before.status, before.body) == (200, b"")
    assert refused is not None
    for reply in (before, refused):
        assert reply.headers["access-control-allow-origin"] == "*"
        assert reply.headers["access-control-allow-methods"] == "POST, GET"
        assert reply.headers["access-control-allow-headers"] == "Content-Type"


def test_other_origins_may_not_ask_otherwise(client: Client) -> None:
    reply = client.predict(b'{"instances": [1]}')

    assert reply is not None
    assert "access-control-allow-origin" not in reply.headers


def test_the_access_log_is_told_of_every_request(client: Client) -> None:
    client.predict(b'{"instances": [1]}')
    client.request("GET", "/nothing")

    predict, nothing = client.access.lines
    assert predict.pop("seconds") > 0
    assert predict == {
        "api": "REST",
        "method": "POST",
        "path": "/v1/models/half:predict",
        "model": "half",
        "code": 200,
        "size_in": 18,
        "size_out": len(b'{"predictions":[2.5]}'),
        "peer": "10.0.0.1",
    }
    assert (nothing["path"], nothing["model"], nothing["code"]) == ("/nothing", "", 404)


@pytest.mark.parametrize(
    "body", [b'{"instances": [1, 2]}', b'{"inputs": {"x": [NaN]}}', b'{"inputs": [3, 4]}']
)
def test_what_is_answered_at_once_is_what_is_answered_otherwise(client: Client, body: bytes) -> None:
    reply = client.predict(body)
    assert reply is not None
    assert client.at_once(body) == reply.body
    assert client.metrics.requests[0] == client.metrics.requests[1]
    for line in client.access.lines:
        del line["seconds"]
    assert client.access.lines[0] == client.access.lines[1]


@pytest.mark.parametrize(
    ("path", "body", "headers"),
    [
        ("half:predict", b"{}", {}),
        ("half:predict", b'{"instances": [666]}', {}),
        ("half:predict", b"{" + b" " * 256 * 1024 + b'"instances": [1]}', {}),
        ("half:predict", gzip.compress(b'{"instances": [1]}', mtime=0), {"content_encoding": "gzip"}),
        ("half:regress", b'{"signature_name": "r", "examples": [{"x": 1}]}', {}),
        ("other:predict", b'{"instances": [1]}', {}),
        ("half", b"", {}),
    ],
    ids=["wrong", "bug", "large", "gzip", "regress", "no model", "no action"],
)
def test_what_is_not_answered_at_once(
    client: Client, path: str, body: bytes, headers: dict[str, str]
) -> None:
    assert client.at_once(body, f"/v1/models/{path}", **headers) is None
    assert client.metrics.requests == []
    assert client.access.lines == []


def test_what_the_model_cannot_compute_at_once_is_not_answered_so(client: Client) -> None:
    client.predictor.hangs = True
    assert client.at_once(b'{"instances": [1]}') is None
    client.predictor.hangs = False
    cast(FakeServable, client.models.servable).lite = False
    assert client.at_once(b'{"instances": [1]}') is None


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Return a list of the bodies that are parsed."""
    bodies: list[bytes] = []

    def parse(body: bytes, signatures: Mapping[str, Signature]) -> RestPredict:
        bodies.append(body)
        return parse_predict(body, signatures)

    monkeypatch.setattr(http, "parse_predict", parse)
    return bodies


def test_what_is_not_answered_at_once_is_not_parsed_again(client: Client, parsed: list[bytes]) -> None:
    body = b'{"instances": [1]}'
    client.predictor.hangs = True
    client.at_once(body)
    client.predictor.hangs = False

    assert client.predict(body) == (200, {"predictions": [2.5]})
    assert parsed == [body]

    client.models.servable = FakeServable()  # whose signatures may be others
    client.predict(body)
    assert parsed == [body, body]


def test_nothing_is_parsed_at_once_where_requests_are_to_wait_for_each_other(
    client: Client, parsed: list[bytes]
) -> None:
    client.predictor.computes_at_once = False

    assert client.at_once(b'{"instances": [1]}') is None
    assert parsed == []


def test_a_bug_is_logged_and_not_shown(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    reply = client.predict(b'{"instances": [666]}')

    assert reply == (500, {"error": "internal error; the server's log has the details"})
    assert "ZeroDivisionError" in caplog.text


def test_predict_needs_no_protobuf(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fairway.tfs.examples", None)

    assert client.predict(b'{"instances": [1]}') == (200, {"predictions": [2.5]})
