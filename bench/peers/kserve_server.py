"""KServe's own Python server on an exported version: `python kserve_server.py RUNTIME VERSION PORT`.

A peer of the benchmarks, run in an environment of its own. It is set up for speed as far as KServe's options
go: no gRPC beside, no lines of log for requests, and nothing between KServe and the runtime.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from kserve import Model, ModelServer  # type: ignore[import-not-found,unused-ignore]
from numpy.typing import NDArray

Compute = Callable[[NDArray[np.float32]], Mapping[str, NDArray[Any]]]
"""Takes float32 [n, 28, 28]; returns the model's outputs by name, n rows each."""


class Digits(Model):  # type: ignore[misc]
    """The model under the name that fairway gives it, answering as TensorFlow Serving does."""

    def __init__(self, compute: Compute) -> None:
        super().__init__("mnist")
        self._compute = compute
        self.ready = True

    def predict(
        self, payload: dict[str, Any], headers: object = None, response_headers: object = None
    ) -> dict[str, Any]:
        """Answer a request of the V1 protocol."""
        outputs = self._compute(np.asarray(payload["instances"], np.float32))
        columns = [values.tolist() for values in outputs.values()]
        return {"predictions": [dict(zip(outputs, row, strict=True)) for row in zip(*columns, strict=True)]}


def litert(version: Path) -> Compute:
    """Return what LiteRT computes, one thread as in fairway."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(version / "model.tflite"), num_threads=1)
    runner = interpreter.get_signature_runner("serving_default")
    source = runner.get_input_details()["x"]["index"]
    targets = {name: details["index"] for name, details in runner.get_output_details().items()}
    rows = 0

    def compute(images: NDArray[np.float32]) -> Mapping[str, NDArray[Any]]:
        nonlocal rows
        if len(images) != rows:
            interpreter.resize_tensor_input(source, images.shape)
            interpreter.allocate_tensors()
            rows = len(images)
        interpreter.set_tensor(source, images)
        interpreter.invoke()
        return {name: interpreter.get_tensor(index) for name, index in targets.items()}

    return compute


def tensorflow(version: Path) -> Compute:
    """Return what TensorFlow computes."""
    import tensorflow as tf

    model = tf.saved_model.load(str(version))

    def compute(images: NDArray[np.float32]) -> Mapping[str, NDArray[Any]]:
        # Not the signature alone: it does not keep the model's variables alive.
        outputs = model.signatures["serving_default"](x=tf.constant(images))
        return {name: values.numpy() for name, values in outputs.items()}

    return compute


def main() -> None:
    """Serve until told to end."""
    runtime, version, port = sys.argv[1:]
    compute = {"litert": litert, "tensorflow": tensorflow}[runtime](Path(version))
    server = ModelServer(http_port=int(port), workers=1, enable_grpc=False, enable_latency_logging=False)
    for name in ("uvicorn.access", "kserve.trace"):
        logging.getLogger(name).setLevel(logging.WARNING)
    server.start([Digits(compute)])


main()
