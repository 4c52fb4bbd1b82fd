"""Requests and replies that TensorFlow Serving's documentation and its own tests have on record.

The documentation ("docs") is https://www.tensorflow.org/tfx/serving/api_rest. The tests are
`http_rest_api_handler_test.cc` ("handler") and `tensorflow_model_server_test.py` ("server") in
https://github.com/tensorflow/serving/tree/master/tensorflow_serving/model_servers.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from tests.integration.serving.clients import environment
from tests.integration.serving.conftest import Server

CONFIG = """
model_config_list {{
  config {{
    name: "half_plus_two"
    base_path: "{models}/documented/half_plus_two"
    model_platform: "tensorflow"
    model_version_policy {{ specific {{ versions: 123 }} }}
    version_labels {{ key: "Version_Label" value: 123 }}
    version_labels {{ key: "stable" value: 123 }}
  }}
  config {{
    name: "half_plus_three"
    base_path: "{models}/documented/half_plus_three"
    model_platform: "tensorflow"
  }}
  config {{
    name: "digits"
    base_path: "{digits}"
    model_platform: "tensorflow"
  }}
}}
"""


@pytest.fixture(scope="module")
def digits(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The base path of an export of fairway's."""
    base = tmp_path_factory.mktemp("digits")
    (base / "1").symlink_to(models / "digits")
    return base


@pytest.fixture(scope="module")
def server(models: Path, digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A server with all that is documented, and one export of fairway's."""
    config = tmp_path_factory.mktemp("documented") / "models.config"
    config.write_text(CONFIG.format(models=models, digits=digits))
    server = Server(
        "",
        "half_plus_two",
        flags=(
            f"--model_config_file={config}",
            "--allow_version_labels_for_unavailable_models",
        ),
    )
    server.wait_for(lambda: server.client.get(f"{server.root}/readyz").status_code == 200)
    yield server
    assert server.stop() == 0, server.output
    assert not any("Traceback" in line for line in server.lines), server.output


TWO, THREE = "/v1/models/half_plus_two", "/v1/models/half_plus_three"
AVAILABLE = {
    "model_version_status": [
        {"version": "123", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
    ]
}


class Exchange(NamedTuple):
    """A request and the reply on record."""

    source: str
    path: str
    body: str | None  # None: GET
    status: int
    reply: Any  # an error: what its text has to contain


EXCHANGES = [
    Exchange("docs", THREE, None, 200, AVAILABLE),
    Exchange(
        "docs", f"{THREE}:predict", '{"instances": [1.0,2.0,5.0]}', 200, {"predictions": [3.5, 4.0, 5.5]}
    ),
    Exchange(
        "docs",
        f"{THREE}:regress",
        '{"signature_name": "tensorflow/serving/regress", "examples": [{"x": 1.0}, {"x": 2.0}]}',
        200,
        {"results": [3.5, 4.0]},
    ),
    Exchange(
        "docs",
        "/v1/models/half:predict",
        '{"instances": [1.0,5.0]}',
        404,
        "Servable not found for request: Latest(half)",
    ),
    Exchange(
        "server", f"{TWO}:predict", '{"instances": [2.0, 3.0, 4.0]}', 200, {"predictions": [3.0, 3.5, 4.0]}
    ),
    Exchange("server", f"{TWO}:predict", '{"inputs": [2.0, 3.0, 4.0]}', 200, {"outputs": [3.0, 3.5, 4.0]}),
    Exchange(
        "server",
        f"{TWO}:classify",
        '{"signature_name": "classify_x_to_y", "examples": [{"x": 2.0}]}',
        200,
        {"results": [[["", 3.0]]]},
    ),
    Exchange(
        "server",
        f"{TWO}:regress",
        '{"signature_name": "regress_x_to_y", "examples": [{"x": 2.0}]}',
        200,
        {"results": [3.0]},
    ),
    Exchange(
        "handler",
        f"{TWO}:predict",
        '{"instances": [[1.0, 2.0], [3.0, 4.0]]}',
        200,
        {"predictions": [[2.5, 3.0], [3.5, 4.0]]},
    ),
    *(
        Exchange("handler", f"{TWO}{which}:predict", body, 200, reply)
        for which in ("/versions/123", "/labels/Version_Label")
        for body, reply in (
            ('{"instances": [1.0, 2.0]}', {"predictions": [2.5, 3.0]}),
            ('{"signature_name": "serving_default", "instances": [3.0, 4.0]}', {"predictions": [3.5, 4.0]}),
            ('{"signature_name": "serving_default", "inputs": [3.0, 4.0]}', {"outputs": [3.5, 4.0]}),
        )
    ),
    *(
        Exchange("handler", f"{TWO}{which}:{action}", json.dumps(body), 200, reply)
        for which in ("", "/versions/123", "/labels/Version_Label")
        for action, body, reply in (
            ("regress", {"signature_name": "regress_x_to_y", "examples": [{"x": 80.0}]}, {"results": [42]}),
            (
                "classify",
                {"signature_name": "classify_x_to_y", "examples": [{"x": 20.0}]},
                {"results": [[["", 12]]]},
            ),
        )
    ),
    *(
        Exchange("handler", f"{TWO}{which}", None, 200, AVAILABLE)
        for which in ("", "/versions/123", "/labels/Version_Label")
    ),
    *(
        Exchange("handler", path, body, 400, "Malformed request")
        for path, body in (
            ("/v1/foo", None),
            ("/v1/foo", ""),
            ("/v1/models/debug/model_name", None),
            ("/v1/models", ""),
            ("/v1/models/foo:predict", None),
            ("/v1/models/foo/version/50:predict", None),
            ("/v1/models/foo/version/50:regress", ""),
            ("/v1/models/foo/versions/HELLO:regress", ""),
            ("/v1/models/foo/metadata", ""),
            ("/v1/models/foo/label/some_label:regress", ""),
            ("/v1/models/foo/versions/50/labels/some_label:regress", ""),
            ("/v1/models/foo/versions/some_label:regress", ""),
        )
    ),
    Exchange("handler", "/v1/models", None, 400, "Missing model name"),
    Exchange("handler", f"/v1/models/foo/versions/{2**64 - 1}:regress", "", 400, "Failed to convert version"),
    Exchange("handler", "/v1/models/foo:predict", '{ "instances": [1] }', 404, "Latest(foo)"),
    Exchange(
        "handler", "/v1/models/foo/versions/50:predict", '{ "instances": [1] }', 404, "Specific(foo, 50)"
    ),
    Exchange("handler", f"{TWO}99:predict", '{ "instances": [1] }', 404, "Latest(half_plus_two99)"),
    Exchange("handler", f"{TWO}:predict", "", 400, "JSON Parse error: The document is empty"),
    Exchange("handler", f"{TWO}:predict", "instances = [1, 2]", 400, "JSON Parse error: "),
    Exchange("handler", f"{TWO}:predict", '{ "instances": ["x", "y"] }', 400, "not of expected type: float"),
    Exchange(
        "handler",
        f"{TWO}/labels/Version_Nonexistent:predict",
        '{ "instances": ["x", "y"] }',
        400,
        "Unrecognized servable version label",
    ),
    Exchange(
        "handler",
        f"{TWO}:predict",
        '{ "signature_name": 100 }',
        400,
        "'signature_name' key must be a string value.",
    ),
]


@pytest.mark.parametrize(
    "exchange", EXCHANGES, ids=lambda exchange: f"{exchange.path} {exchange.body}"[11:60]
)
def test_rest(server: Any, exchange: Exchange) -> None:
    url = f"{server.root}{exchange.path}"
    if exchange.body is None:
        answer = server.client.get(url)
    else:
        answer = server.client.post(url, content=exchange.body)

    assert answer.status_code == exchange.status, answer.text
    assert answer.headers["content-type"] == "application/json"
    if exchange.status == 200:
        assert answer.json() == exchange.reply
    else:
        assert exchange.reply in answer.json()["error"]


def tensor(dtype: str, name: str, *sizes: int) -> dict[str, Any]:
    """Return a TensorInfo as it is in JSON; without sizes even the rank is unknown."""
    dims = [{"size": str(size), "name": ""} for size in sizes]
    return {"dtype": dtype, "tensor_shape": {"dim": dims, "unknown_rank": not sizes}, "name": name}


def signature(method: str, inputs: dict[str, Any], outputs: dict[str, Any]) -> dict[str, Any]:
    return {
        "inputs": inputs,
        "outputs": outputs,
        "method_name": f"tensorflow/serving/{method}",
        "defaults": {},
    }


# Source: tensorflow_serving/servables/tensorflow/testdata/saved_model_half_plus_two_2_versions_metadata.json
EXAMPLES = {"inputs": tensor("DT_STRING", "tf_example:0")}
COLUMN = (-1, 1)
METADATA = {
    "serving_default": signature(
        "predict", {"x": tensor("DT_FLOAT", "x:0", *COLUMN)}, {"y": tensor("DT_FLOAT", "y:0", *COLUMN)}
    ),
    "regress_x_to_y": signature("regress", EXAMPLES, {"outputs": tensor("DT_FLOAT", "y:0", *COLUMN)}),
    "regress_x_to_y2": signature("regress", EXAMPLES, {"outputs": tensor("DT_FLOAT", "y2:0", *COLUMN)}),
    "regress_x2_to_y3": signature(
        "regress",
        {"inputs": tensor("DT_FLOAT", "x2:0", *COLUMN)},
        {"outputs": tensor("DT_FLOAT", "y3:0", *COLUMN)},
    ),
    "classify_x_to_y": signature("classify", EXAMPLES, {"scores": tensor("DT_FLOAT", "y:0", *COLUMN)}),
    "classify_x2_to_y3": signature(
        "classify",
        {"inputs": tensor("DT_FLOAT", "x2:0", *COLUMN)},
        {"scores": tensor("DT_FLOAT", "y3:0", *COLUMN)},
    ),
}


@pytest.mark.parametrize("which", ["", "/versions/123", "/labels/stable"])
def test_metadata(server: Any, which: str) -> None:
    answer = server.client.get(f"{server.root}{TWO}{which}/metadata")

    assert answer.json() == {
        "model_spec": {"name": "half_plus_two", "signature_name": "", "version": "123"},
        "metadata": {"signature_def": {"signature_def": METADATA}},
    }


def test_the_official_stubs(server: Any, models: Path, digits: Path) -> None:
    """The code of each refusal, and what its text has to contain, are TensorFlow Serving's.

    Sources: `predict_util.cc`, `classifier.cc`, `regressor.cc`, `multi_inference.cc` in
    https://github.com/tensorflow/serving/tree/master/tensorflow_serving/servables/tensorflow, and
    `server_core.cc`, `get_model_status_impl.cc` beside the files above.
    """
    bases = {
        "half_plus_two": models / "documented" / "half_plus_two",
        "half_plus_three": models / "documented" / "half_plus_three",
        "digits": digits,
        "added": models / "documented" / "half_plus_three",
    }
    words = [f"{name}={path}" for name, path in bases.items()]
    replies = json.loads(environment.run("tensorflow-serving-api", server.grpc, *words))

    def spec(signature_name: str) -> dict[str, str]:
        return {"name": "half_plus_two", "signatureName": signature_name, "version": "123"}

    def predicted(*values: float) -> dict[str, Any]:
        found = {
            "dtype": "DT_FLOAT",
            "tensorShape": {"dim": [{"size": str(len(values))}]},
            "floatVal": list(values),
        }
        return {"outputs": {"y": found}}

    answer = predicted(2.5, 3.0, 4.5) | {"modelSpec": spec("serving_default")}
    for name in ("predict", "by version", "by label", "output filter"):
        assert replies[name] == answer, name
    assert replies["classify"] == {
        "result": {"classifications": [{"classes": [{"score": 3.0}]}, {"classes": [{"score": 12.0}]}]},
        "modelSpec": spec("classify_x_to_y"),
    }
    assert replies["regress"] == {
        "result": {"regressions": [{"value": 3.0}, {"value": 42.0}]},
        "modelSpec": spec("regress_x_to_y"),
    }
    assert replies["regress with context"]["result"] == {"regressions": [{"value": 4.0}]}
    assert replies["several"] == {
        "results": [
            {"modelSpec": spec("regress_x_to_y"), "regressionResult": {"regressions": [{"value": 3.0}]}},
            {
                "modelSpec": spec("classify_x_to_y"),
                "classificationResult": {"classifications": [{"classes": [{"score": 3.0}]}]},
            },
        ]
    }
    assert replies["metadata"]["spec"] == {"name": "half_plus_two", "version": "123"}
    assert set(replies["metadata"]["signatures"]) == set(METADATA)
    assert replies["metadata"]["signatures"]["serving_default"]["inputs"]["x"]["name"] == "x:0"
    assert replies["status"] == {
        "model_version_status": [{"version": "123", "state": "AVAILABLE", "status": {}}]
    }
    refusals = {
        "unknown output": ("INVALID_ARGUMENT", "output tensor alias not found in signature: z"),
        "unknown model": ("NOT_FOUND", "Servable not found for request: Latest(no)"),
        "unknown version": ("NOT_FOUND", "Servable not found for request: Specific(half_plus_two, 7)"),
        "unknown label": ("INVALID_ARGUMENT", "Unrecognized servable version label: nightly"),
        "no model": ("INVALID_ARGUMENT", "name"),
        "unknown signature": ("FAILED_PRECONDITION", 'Serving signature key "no" not found.'),
        "no examples": ("INVALID_ARGUMENT", "Input is empty"),
        "not for regress": ("INVALID_ARGUMENT", ""),
        "several twice": ("INVALID_ARGUMENT", "Duplicate evaluation of signature: regress_x_to_y"),
        "several inputs": ("INVALID_ARGUMENT", "Input tensor must be the same for all Signatures"),
        "wrong reload": ("INVALID_ARGUMENT", "to have an absolute path or URI"),
        "status of an unknown model": ("NOT_FOUND", "Could not find any versions of model no"),
    }
    for name, (code, text) in refusals.items():
        assert replies[name]["code"] == code, (name, replies[name])
        assert text in replies[name]["message"], (name, replies[name])
    assert replies["reload"] == {"status": {}}
    assert replies["added"]["outputs"] == predicted(3.5, 4.0, 5.5)["outputs"]


def test_ovmsclient(server: Any) -> None:
    replies = json.loads(environment.run("ovmsclient", server.root.removeprefix("http://"), server.grpc))
    digits = httpx.post(
        f"{server.root}/v1/models/digits:predict", json={"inputs": [[[0.5] * 28] * 28] * 2}
    ).json()

    for told in replies.values():
        assert told["status"] == {"123": {"state": "AVAILABLE", "error_code": 0, "error_message": ""}}
        assert told["several outputs"]["classes"] == digits["outputs"]["classes"]
        for row, wanted in zip(
            told["several outputs"]["predictions"], digits["outputs"]["predictions"], strict=True
        ):
            assert row == pytest.approx(wanted, abs=1e-6)
        assert told["errors"]["unknown model"][0] == "ModelNotFoundError"
        assert "Servable not found for request: Specific(no, 1)" in told["errors"]["unknown model"][1]
        assert told["errors"]["unknown version"][0] == "ModelNotFoundError"
        assert told["errors"]["wrong input"][0] == "InvalidInputError"
    assert replies["rest"]["predict"] == [[2.5], [3.0], [4.5]]
    assert replies["grpc"]["predict"] == [[2.5], [3.0], [4.5]]
    assert replies["grpc"]["metadata"] == {
        "model_version": 123,
        "inputs": {"x": {"shape": [-1, 1], "dtype": "DT_FLOAT"}},
        "outputs": {"y": {"shape": [-1, 1], "dtype": "DT_FLOAT"}},
    }
    assert set(replies["rest"]["metadata"]["metadata"]["signature_def"]["signature_def"]) == set(METADATA)
