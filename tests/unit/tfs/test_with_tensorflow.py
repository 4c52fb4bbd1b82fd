"""TensorFlow reads what is written here, and the other way round; TensorFlow runs in a process of its own."""

import json
import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from fairway.tfs import protos
from fairway.tfs.examples import parse_examples
from fairway.tfs.signatures import NUMPY_DTYPES, Signature, TensorSpec
from fairway.tfs.tensors import dtype_number, from_proto, to_proto

PROGRAM = """
import json, sys
import tensorflow as tf
from tensorflow.core.example import example_pb2
from tensorflow.core.framework import tensor_pb2
from tensorflow.core.protobuf import meta_graph_pb2

asked = json.load(sys.stdin)

def answer(data):
    proto = tensor_pb2.TensorProto.FromString(data)
    read = tf.io.parse_tensor(data, tf.dtypes.as_dtype(proto.dtype))
    array = tf.make_ndarray(proto)
    assert (array == read.numpy()).all()
    return [tf.io.serialize_tensor(read).numpy().hex(), tf.make_tensor_proto(array).SerializeToString().hex()]

features = tf.io.parse_example(
    [bytes.fromhex(data) for data in asked["examples"]],
    {
        "whole": tf.io.FixedLenFeature([2], tf.int64),
        "point": tf.io.FixedLenFeature([], tf.float32),
        "text": tf.io.FixedLenFeature([], tf.string),
        "both": tf.io.FixedLenFeature([], tf.int64),
    },
)
json.dump({
    "tensors": [answer(bytes.fromhex(data)) for data in asked["tensors"]],
    "filled": [tf.io.parse_tensor(bytes.fromhex(d), tf.float32).numpy().tolist() for d in asked["filled"]],
    "features": {k: v.numpy().tolist() for k, v in features.items() if k != "text"},
    "text": [v.decode() for v in features["text"].numpy()],
    "files": {f.DESCRIPTOR.name: f.DESCRIPTOR.serialized_pb.hex()
              for f in (example_pb2, tensor_pb2, meta_graph_pb2)},
}, sys.stdout)
"""
EXAMPLES = {
    "context": {"both": 1, "point": 0.5},
    "examples": [{"whole": [1, 2], "text": "a"}, {"whole": [3, 4], "text": {"b64": "Yg=="}, "both": 2}],
}
FILLED = {(3,): [1.0, 2.0], (2, 2): [7.0], (2,): []}


def arrays() -> list[Any]:
    rng = np.random.default_rng(0)
    numbers = [
        (rng.random((2, 3)) * 100).astype(dtype) for dtype in NUMPY_DTYPES.values() if dtype.kind != "O"
    ]
    strings = np.array([[b"a", b""], [b"\xff" * 300, b"b"]], object)
    return [*numbers, strings, np.float32(1.5).reshape(()), np.zeros((0, 3), np.float32)]


def serialized(array: Any) -> bytes:
    message = protos.message("tensorflow.TensorProto")()
    to_proto(array, message)
    return bytes(message.SerializeToString())


def filled(shape: tuple[int, ...], values: list[float]) -> bytes:
    message = protos.message("tensorflow.TensorProto")(dtype=dtype_number("DT_FLOAT"), float_val=values)
    for size in shape:
        message.tensor_shape.dim.add(size=size)
    return bytes(message.SerializeToString())


def example_bytes() -> list[bytes]:
    signature = Signature(
        {"inputs": TensorSpec("i:0", "DT_STRING", (-1,))}, {"outputs": TensorSpec("o:0", "DT_FLOAT", (-1,))}
    )
    body = json.dumps(EXAMPLES).encode()
    found: list[bytes] = (
        parse_examples("regress", body, {"serving_default": signature}).inputs["inputs"].tolist()
    )
    return found


@pytest.fixture(scope="module")
def tensorflow() -> Any:
    asked = {
        "tensors": [serialized(array).hex() for array in arrays()],
        "filled": [filled(shape, values).hex() for shape, values in FILLED.items()],
        "examples": [data.hex() for data in example_bytes()],
    }
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        timeout=200,
        env=os.environ | {"CUDA_VISIBLE_DEVICES": "", "TF_CPP_MIN_LOG_LEVEL": "3"},
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_tensors_are_read_alike(tensorflow: Any) -> None:
    for array, answers in zip(arrays(), tensorflow["tensors"], strict=True):
        for data in answers:
            found = from_proto(protos.parse("tensorflow.TensorProto", bytes.fromhex(data)), "x")
            assert (found.dtype, found.shape) == (array.dtype, array.shape)
            np.testing.assert_array_equal(found, array)


def test_missing_values_are_filled_alike(tensorflow: Any) -> None:
    ours = [
        from_proto(protos.parse("tensorflow.TensorProto", filled(shape, values)), "x").tolist()
        for shape, values in FILLED.items()
    ]

    assert ours == tensorflow["filled"]


def test_examples_and_their_context_are_what_tensorflow_parses(tensorflow: Any) -> None:
    assert tensorflow["features"] == {"whole": [[1, 2], [3, 4]], "point": [0.5, 0.5], "both": [1, 2]}
    assert tensorflow["text"] == ["a", "b"]


def test_the_messages_are_those_of_the_installed_tensorflow(tensorflow: Any) -> None:
    for name, content in tensorflow["files"].items():
        assert protos.pool().FindFileByName(name).serialized_pb.hex() == content, f"{name}: run `make protos`"
