"""The REST API on a fake model, without a socket."""

import asyncio
import json
from collections.abc import Iterator, Mapping, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import pytest
from numpy.typing import NDArray

from fairway.serve import body as body_module
from fairway.serve.body import MAX_BODY_BYTES
from fairway.serve.http import App
from fairway.serve.runtime import LiteRuntime
from fairway.serve.savedmodel import SavedModel
from fairway.serve.servable import Servable
from fairway.serve.versions import State, Versions, VersionStatus
from fairway.tfs.signatures import Signature, TensorSpec

FLOATS = TensorSpec("t:0", "DT_FLOAT", (-1,))
HALF = {"serving_default": Signature({"x": FLOATS}, {"y": FLOATS})}


class HalfPlusTwo:
    """A model in place of `LiteRuntime`."""

    busy = False

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        if inputs["x"][0] == 666:
            raise ZeroDivisionError
        return {"y": inputs["x"] / 2 + 2}


@dataclass
class FakeVersions:
    current: Servable | None = None
    statuses: list[VersionStatus] = field(default_factory=list)
    problem: str = "version 7 is loading"


@dataclass
class Client:
    """Speaks ASGI to the application."""

    versions: FakeVersions
    app: App

    def request(
        self,
        method: str,
        path: str,
        *chunks: bytes,
        headers: Mapping[str, str] | None = None,
        hang_up: bool = False,
    ) -> tuple[int, Any] | None:
        """Return status and JSON of the reply; `None` if there was none."""
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

        scope = {
            "type": "http",
            "method": method,
            "path": path,
            "raw_path": path.encode(),
            "headers": [(name.encode(), value.encode()) for name, value in (headers or {}).items()],
        }
        asyncio.run(self.app(scope, receive, send))
        if not sent:
            return None
        start, end = sent
        assert dict(start["headers"])[b"content-type"] == b"application/json"
        assert dict(start["headers"])[b"content-length"] == str(len(end["body"])).encode()
        return start["status"], json.loads(end["body"])

    def predict(self, *chunks: bytes, path: str = "/v1/models/half", **kwargs: Any) -> tuple[int, Any] | None:
        return self.request("POST", f"{path}:predict", *chunks, **kwargs)


@pytest.fixture
def client() -> Iterator[Client]:
    lite = cast(LiteRuntime, HalfPlusTwo())
    servable = Servable(3, HALF, cast(SavedModel, None), lite, "serving_default", 1e-5)
    versions = FakeVersions(servable, [VersionStatus(4, State.LOADING), VersionStatus(3, State.AVAILABLE)])
    with ThreadPoolExecutor(1) as executor:
        yield Client(versions, App("half", cast(Versions, versions), executor))


@pytest.mark.parametrize("path", ["/v1/models/half", "/v1/models/half/versions/3"])
def test_predict(client: Client, path: str) -> None:
    assert client.predict(b'{"instances": [1, 2, 5]}', path=path) == (200, {"predictions": [2.5, 3.0, 4.5]})


def test_predict_in_columns_and_pieces(client: Client) -> None:
    assert client.predict(b'{"inputs"', b": [1, 2", b", 5]}") == (200, {"outputs": [2.5, 3.0, 4.5]})


@pytest.mark.parametrize("rows", [1000, 100_000])
def test_large_requests_are_answered_in_a_thread(client: Client, rows: int) -> None:
    values = np.arange(rows, dtype=np.float32)
    values[values == 666] = 0

    reply = client.predict(json.dumps({"instances": values.tolist()}).encode())

    assert reply == (200, {"predictions": (values / 2 + 2).tolist()})


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
        ("GET", "/v1/models/half/versions/2", 404, "Could not find version 2 of model half"),
        ("GET", "/v1/models/other/metadata", 404, "Servable not found for request: Latest(other)"),
        ("GET", "/v1/models/half:predict", 400, "Malformed request: GET /v1/models/half:predict"),
        ("PUT", "/v1/models/half", 400, "Malformed request: PUT /v1/models/half"),
        ("GET", "/", 404, "Not found: /"),
        ("POST", "/healthz", 405, "POST is not allowed for /healthz; use GET"),
    ],
)
def test_what_is_not_there(client: Client, method: str, path: str, status: int, error: str) -> None:
    assert client.request(method, path, b"{}") == (status, {"error": error})


def test_status(client: Client) -> None:
    fine = {"error_code": "OK", "error_message": ""}
    loading = {"version": "4", "state": "LOADING", "status": fine}
    available = {"version": "3", "state": "AVAILABLE", "status": fine}

    assert client.request("GET", "/v1/models/half") == (200, {"model_version_status": [loading, available]})
    assert client.request("GET", "/v1/models/half/versions/4") == (200, {"model_version_status": [loading]})


def test_the_status_of_a_broken_version_says_why(client: Client) -> None:
    client.versions.statuses = [VersionStatus(5, State.END, "wrong checksum")]

    reply = client.request("GET", "/v1/models/half/versions/5")

    broken = {"error_code": "UNKNOWN", "error_message": "wrong checksum"}
    assert reply == (200, {"model_version_status": [{"version": "5", "state": "END", "status": broken}]})


def test_metadata(client: Client) -> None:
    reply = client.request("GET", "/v1/models/half/metadata")

    assert reply is not None
    assert reply[1]["model_spec"] == {"name": "half", "signature_name": "", "version": "3"}
    assert "serving_default" in reply[1]["metadata"]["signature_def"]["signature_def"]


def test_ready_means_that_a_model_answers(client: Client) -> None:
    assert client.request("GET", "/readyz") == (200, {"status": "ready", "model": "half", "version": 3})

    client.versions.current = None
    assert client.request("GET", "/readyz") == (
        503,
        {"status": "not ready", "model": "half", "error": "version 7 is loading"},
    )
    assert client.request("GET", "/healthz") == (200, {"status": "alive"})
    assert client.predict(b'{"instances": [1]}') == (
        404,
        {"error": "Servable not found for request: Latest(half)"},
    )


TOO_LARGE = (413, {"error": "the body is larger than the limit of 67108864 bytes (64 MiB)"})


def test_a_body_that_says_it_is_too_large_is_not_read(client: Client) -> None:
    assert client.predict(headers={"content-length": str(MAX_BODY_BYTES + 1)}) == TOO_LARGE


def test_a_body_that_turns_out_too_large(client: Client) -> None:
    assert client.predict(*[b" " * (MAX_BODY_BYTES // 4)] * 5) == TOO_LARGE


def test_a_body_of_one_piece_that_is_too_large(client: Client) -> None:
    assert client.predict(b" " * (MAX_BODY_BYTES + 1)) == TOO_LARGE


def test_a_body_that_does_not_come(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body_module, "BODY_TIMEOUT_S", 0)

    assert client.predict(b"{", b"}") == (408, {"error": "the body did not arrive within 0 seconds"})


def test_a_client_that_hangs_up_gets_no_answer(client: Client) -> None:
    assert client.predict(b'{"instances"', hang_up=True) is None


def test_a_bug_is_logged_and_not_shown(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    reply = client.predict(b'{"instances": [666]}')

    assert reply == (500, {"error": "internal error; the server's log has the details"})
    assert "ZeroDivisionError" in caplog.text
