"""Answers over the wire, compared with TensorFlow's."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from fairway.storage.files import sha256
from fairway.storage.manifest import MANIFEST, TFLITE

# The command, saying at its end which of TensorFlow's modules it has imported.
NOTING_IMPORTS = """
import atexit, sys
from fairway.cli import main
modules = {"tensorflow", "keras"}
atexit.register(lambda: print("imported:", *sorted(modules & sys.modules.keys()), file=sys.stderr))
main()
"""
# The command in an environment without TensorFlow.
WITHOUT_TENSORFLOW = """
import sys
sys.modules["tensorflow"] = None
from fairway.cli import main
main()
"""


def pixels(expected: dict[str, Any]) -> Any:
    return (expected["images"].astype(np.float32) / 255).tolist()


def check(rows: list[dict[str, Any]], expected: dict[str, Any]) -> None:
    assert [row["classes"] for row in rows] == expected["classes"][: len(rows)].tolist()
    answers = np.array([row["predictions"] for row in rows])
    assert np.abs(answers - expected["predictions"][: len(rows)]).max() <= 1e-5


def test_litert_answers_as_tensorflow_does_without_importing_it(
    publish: Callable[[str, int], Path], serve: Callable[..., Any], expected: dict[str, Any]
) -> None:
    publish("digits", 1)
    server = serve(launcher=NOTING_IMPORTS)
    server.wait_for_version(1)
    images = pixels(expected)

    check(server.predict(instances=images).json()["predictions"], expected)
    for image, classes in zip(images[:5], expected["classes"], strict=False):
        assert server.predict(instances=[{"x": image}]).json()["predictions"][0]["classes"] == classes
    columns = server.predict(inputs={"x": images}).json()["outputs"]
    assert columns["classes"] == expected["classes"].tolist()

    server.stop()
    assert "imported:\n" in server.lines, server.output


def test_a_signature_that_only_the_savedmodel_has(
    publish: Callable[[str, int], Path], serve: Callable[..., Any], expected: dict[str, Any]
) -> None:
    publish("digits", 1)
    server = serve()
    server.wait_for_version(1)
    png = {"b64": base64.b64encode(expected["png"].tobytes()).decode()}

    answer = server.predict(signature_name="classify_png", instances=[png])
    check(answer.json()["predictions"], expected)

    answer = server.predict(signature_name="classify_png", instances=["not an image"])
    assert answer.status_code == 400
    assert "Unknown image file format" in answer.json()["error"]
    assert server.predict(instances=pixels(expected)[:1]).status_code == 200


def test_such_a_signature_where_tensorflow_is_not_installed(
    publish: Callable[[str, int], Path], serve: Callable[..., Any], expected: dict[str, Any]
) -> None:
    publish("digits", 1)
    server = serve(launcher=WITHOUT_TENSORFLOW)
    server.wait_for_version(1)

    answer = server.predict(signature_name="classify_png", instances=[{"b64": ""}])

    assert answer.status_code == 412
    assert "needs TensorFlow, which is not installed" in answer.json()["error"]
    assert "fairway[train]" in answer.json()["error"]
    check(server.predict(instances=pixels(expected)).json()["predictions"], expected)


def test_a_savedmodel_of_another_program_is_run_by_tensorflow(
    publish: Callable[[str, int], Path], serve: Callable[..., Any]
) -> None:
    publish("foreign", 1)
    server = serve()
    server.wait_for_version(1)

    assert server.predict(instances=[1.0, 2.0, 5.0]).json() == {"predictions": [2.5, 3.0, 4.5]}
    signature = server.client.get(f"{server.model}/metadata").json()["metadata"]["signature_def"]
    assert signature["signature_def"]["serving_default"]["inputs"]["x"]["dtype"] == "DT_FLOAT"
    assert any("on TensorFlow" in line for line in server.lines), server.output


def test_a_tflite_of_another_savedmodel_is_not_trusted(
    publish: Callable[[str, int], Path], serve: Callable[..., Any]
) -> None:
    path = publish("half_plus_two", 1)
    manifest = json.loads((path / "fairway.json").read_text())
    manifest["tflite"]["saved_model_sha256"] = "0" * 64
    (path / "fairway.json").write_text(json.dumps(manifest))
    server = serve()
    server.wait_for_version(1)

    assert server.predict(instances=[1.0]).json() == {"predictions": [2.5]}
    assert any("model.tflite was made from another saved_model.pb" in line for line in server.lines)


def test_a_tflite_that_answers_otherwise_is_found_out(
    publish: Callable[[str, int], Path], models: Path, serve: Callable[..., Any]
) -> None:
    path = publish("half_plus_two", 1)
    other = (models / "half_plus_three" / TFLITE).read_bytes()
    (path / TFLITE).write_bytes(other)
    manifest = json.loads((path / MANIFEST).read_text())
    manifest["files"][TFLITE] = {"size": len(other), "sha256": sha256(path / TFLITE)}
    (path / MANIFEST).write_text(json.dumps(manifest))
    server = serve()
    server.wait_for_version(1)

    assert server.predict(instances=[1.0]).json() == {"predictions": [2.5]}
    assert "differs in 'y' by up to 1.0e+00, more than 1e-05" in server.output


BAD = [
    (b"", 400),
    (b"{", 400),
    (b"\xff\xfe", 400),
    (b"[" * 1_000_000, 400),
    (b'{"instances": []}', 400),
    (b'{"instances": [[1, 2], [3]]}', 400),
    (b'{"instances": [[[true]]]}', 400),
    (b'{"instances": [NaN]}', 400),
    (b'{"instances": [{"y": 1}]}', 400),
    (b'{"inputs": {}}', 400),
    (b'{"inputs": [[[1.0]]]}', 400),
    (b'{"signature_name": "nope", "instances": [1]}', 400),
    (b" " * 100_000_000, 413),
]


def test_no_bad_request_gets_more_than_a_sentence(
    publish: Callable[[str, int], Path], serve: Callable[..., Any], expected: dict[str, Any]
) -> None:
    publish("digits", 1)
    server = serve()
    server.wait_for_version(1)

    for body, status in BAD:
        answer = server.client.post(f"{server.model}:predict", content=body)
        assert answer.status_code == status, answer.text
        assert answer.headers["content-type"] == "application/json"
        assert 5 < len(answer.json()["error"]) < 1000

    def without_length() -> Iterator[bytes]:
        for _ in range(1000):
            yield b" " * 1_000_000

    answer = server.client.post(f"{server.model}:predict", content=without_length())
    assert answer.status_code == 413
    check(server.predict(instances=pixels(expected)).json()["predictions"], expected)
    assert not any("Traceback" in line for line in server.lines), server.output


def test_nan_goes_in_and_comes_out(publish: Callable[[str, int], Path], serve: Callable[..., Any]) -> None:
    publish("half_plus_two", 1)
    server = serve()
    server.wait_for_version(1)

    answer = server.client.post(f"{server.model}:predict", content=b'{"instances": [NaN, 1, -Infinity]}')

    assert answer.text == '{"predictions":[NaN,2.5,-Infinity]}'


def test_batches_of_any_size(publish: Callable[[str, int], Path], serve: Callable[..., Any]) -> None:
    publish("half_plus_two", 1)
    server = serve()
    server.wait_for_version(1)

    for rows in (0, 1, 7, 3000, 1):
        values = [float(value) for value in range(rows)]
        assert server.predict(inputs=values).json() == {"outputs": [value / 2 + 2 for value in values]}
