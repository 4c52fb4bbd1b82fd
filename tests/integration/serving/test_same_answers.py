"""A trained model, asked over REST and gRPC for the whole test set, answers as a TensorFlow call does."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
import orjson
import pytest
from numpy.typing import NDArray

from fairway.tfs.protos import message

BATCH = 500
TOLERANCE = 1e-5

# Argument 1 is the version's directory, 2 the images as .npy, 3 where to write.
ASK_TENSORFLOW = """
import sys, numpy, tensorflow
images = numpy.load(sys.argv[2])
function = tensorflow.saved_model.load(sys.argv[1]).signatures["serving_default"]
parts = [function(x=tensorflow.constant(part)) for part in numpy.split(images, 10)]
numpy.savez(sys.argv[3], **{name: numpy.concatenate([part[name] for part in parts]) for name in parts[0]})
"""


@pytest.fixture(scope="module")
def images(mnist_dir: Path) -> NDArray[np.float32]:
    """The 10,000 images of the test set, as the model takes them."""
    data = gzip.decompress((mnist_dir / "t10k-images-idx3-ubyte.gz").read_bytes())
    return np.frombuffer(data, np.uint8, offset=16).reshape(-1, 28, 28).astype(np.float32) / np.float32(255)


@pytest.fixture(scope="module")
def wanted(
    trained_export: Path, images: NDArray[np.float32], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, NDArray[Any]]:
    """What TensorFlow says of each."""
    directory = tmp_path_factory.mktemp("tensorflow")
    np.save(directory / "images.npy", images)
    [version] = [path for path in trained_export.iterdir() if path.name.isdigit()]
    words = [str(version), str(directory / "images.npy"), str(directory / "answers.npz")]
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "2"}
    subprocess.run([sys.executable, "-c", ASK_TENSORFLOW, *words], check=True, timeout=120, env=environment)
    with np.load(directory / "answers.npz") as answers:
        return dict(answers)


@pytest.fixture
def server(trained_export: Path, serve: Callable[..., Any]) -> Iterator[Any]:
    server = serve(base_path=trained_export)
    server.wait_for(lambda: server.served() is not None)
    yield server
    # Not even the library of TensorFlow is in the process, and nothing was left to it.
    maps = Path(f"/proc/{server.process.pid}/maps").read_text()
    assert "litert" in maps
    assert "libtensorflow" not in maps
    assert any("on LiteRT" in line for line in server.lines), server.output


def check(answers: dict[str, NDArray[Any]], wanted: dict[str, NDArray[Any]]) -> None:
    assert set(answers) == set(wanted)
    assert len(answers["classes"]) == 10_000
    np.testing.assert_allclose(answers["predictions"], wanted["predictions"], rtol=0, atol=TOLERANCE)
    # Of two classes that are as likely as each other, either may be named.
    best, second = np.sort(wanted["predictions"], axis=1)[:, :-3:-1].T
    differs = answers["classes"] != wanted["classes"]
    assert (best - second)[differs].max(initial=0) <= 2 * TOLERANCE


def join(parts: list[dict[str, NDArray[Any]]]) -> dict[str, NDArray[Any]]:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def test_rest_in_columns(server: Any, images: NDArray[np.float32], wanted: dict[str, NDArray[Any]]) -> None:
    parts = []
    with httpx.Client(timeout=60) as client:
        for batch in np.split(images, len(images) // BATCH):
            answer = client.post(f"{server.model}:predict", content=encode({"inputs": batch}))
            parts.append({name: np.array(value) for name, value in answer.json()["outputs"].items()})
    check(join(parts), wanted)


def test_rest_in_rows(server: Any, images: NDArray[np.float32], wanted: dict[str, NDArray[Any]]) -> None:
    """The first thousand come one by one, as most clients ask; the others in ever larger requests."""
    rows = []
    sizes = [1] * 1000 + [10] * 100 + [64] * 125
    with httpx.Client(timeout=60) as client:
        for batch in np.split(images, np.cumsum(sizes)[:-1]):
            content = encode({"instances": [{"x": image} for image in batch]})
            rows += client.post(f"{server.model}:predict", content=content).json()["predictions"]
    check({name: np.array([row[name] for row in rows]) for name in rows[0]}, wanted)


def test_grpc(server: Any, images: NDArray[np.float32], wanted: dict[str, NDArray[Any]]) -> None:
    parts = []
    with grpc.insecure_channel(server.grpc) as channel:
        predict = channel.unary_unary(
            "/tensorflow.serving.PredictionService/Predict",
            response_deserializer=message("tensorflow.serving.PredictResponse").FromString,
        )
        for batch in np.split(images, len(images) // BATCH):
            reply = predict(predict_request(server.name, batch), timeout=60)
            parts.append({name: to_array(tensor) for name, tensor in reply.outputs.items()})
    check(join(parts), wanted)


def encode(content: dict[str, Any]) -> bytes:
    return orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY)


def predict_request(model: str, batch: NDArray[np.float32]) -> bytes:
    asked = message("tensorflow.serving.PredictRequest")()
    asked.model_spec.name = model
    tensor = asked.inputs["x"]
    tensor.dtype = 1
    for size in batch.shape:
        tensor.tensor_shape.dim.add().size = size
    tensor.tensor_content = batch.tobytes()
    data: bytes = asked.SerializeToString()
    return data


def to_array(tensor: Any) -> NDArray[Any]:
    """Return a TensorProto of floats or 64-bit integers as numpy has it; independent of the server's code."""
    shape = [dim.size for dim in tensor.tensor_shape.dim]
    dtype = {1: np.float32, 9: np.int64}[tensor.dtype]
    values = tensor.float_val if tensor.dtype == 1 else tensor.int64_val
    if tensor.tensor_content:
        return np.frombuffer(tensor.tensor_content, dtype).reshape(shape)
    return np.array(values, dtype).reshape(shape)
