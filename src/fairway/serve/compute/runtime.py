"""One signature of a model on LiteRT, the quick way to run it on a CPU."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray

from fairway.errors import FairwayError
from fairway.tfs.signatures import NUMPY_DTYPES, Signature, TensorSpec, shape_text
from fairway.tfs.status import invalid

# Measured on 2 cores with a small convolutional network: two threads cost twice the CPU at batch 1 (25 µs
# instead of 12) and win nothing at batch 512 while other requests keep the second core busy.
NUM_THREADS = 1


class LiteRuntime:
    """A `model.tflite` with one signature.

    Args:
        path: The file.
        name: The signature, which the file must hold under this name.
        signature: What its inputs and outputs must be.

    Raises:
        FairwayError: the file is damaged, or holds something else.
    """

    def __init__(self, path: Path, name: str, signature: Signature) -> None:
        self._content = path.read_bytes()  # not the path: the file may be deleted while it is served
        self._lock = threading.Lock()  # an interpreter serves one thread at a time
        try:
            self._open()
            inputs, outputs = self._tensors(name)
        except (ValueError, RuntimeError) as err:
            raise FairwayError(f"{path.name} cannot be loaded: {err}") from err
        self._signature = signature
        self._inputs = _match(path.name, "input", inputs, signature.inputs)
        self._outputs = _match(path.name, "output", outputs, signature.outputs)

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Return the outputs, in the order of the signature; wait while another thread computes.

        Args:
            inputs: Arrays of the signature's dtypes, of shapes it accepts.

        Raises:
            RequestError: the model cannot compute these inputs.
        """
        with self._lock:
            return self._compute(inputs)

    def run_if_free(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]] | None:
        """Return what `run` returns, or `None` at once if another thread is computing."""
        if not self._lock.acquire(blocking=False):
            return None
        try:
            return self._compute(inputs)
        finally:
            self._lock.release()

    def _compute(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        interpreter = self._interpreter
        shapes = {name: array.shape for name, array in inputs.items()}
        try:
            if shapes != self._shapes:
                if (nothing := self._without_rows(shapes)) is not None:
                    return nothing
                self._resize(shapes)
            for name, index in self._inputs.items():
                interpreter.set_tensor(index, inputs[name])
            interpreter.invoke()
            return {name: interpreter.get_tensor(index) for name, index in self._outputs.items()}
        except (ValueError, RuntimeError) as err:
            self._open()  # a failed interpreter keeps its half-changed shapes, and every message so far
            raise invalid(f"the model cannot compute this input: {err}") from err

    def _open(self) -> None:
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._interpreter = Interpreter(model_content=self._content, num_threads=NUM_THREADS)

    def _resize(self, shapes: dict[str, tuple[int, ...]]) -> None:
        # A change of shape costs some 6 µs with a small network, too little to keep an interpreter for each.
        for name, index in self._inputs.items():
            self._interpreter.resize_tensor_input(index, shapes[name])
        self._interpreter.allocate_tensors()
        self._shapes = shapes

    def _without_rows(self, shapes: dict[str, tuple[int, ...]]) -> dict[str, NDArray[Any]] | None:
        """Return the answer to inputs that have no rows, which XNNPack refuses; `None` to all others.

        Nor is there one where an output's shape is not known but for its rows.
        """
        specs = self._signature.outputs
        if any(shape[:1] != (0,) for shape in shapes.values()):
            return None
        if any(not spec.shape or spec.shape[0] != -1 or -1 in spec.shape[1:] for spec in specs.values()):
            return None
        return {
            name: np.empty((0, *(spec.shape or ())[1:]), NUMPY_DTYPES[spec.dtype])
            for name, spec in specs.items()
        }

    def _tensors(self, name: str) -> tuple[dict[str, Any], dict[str, Any]]:
        held = list(self._interpreter.get_signature_list())
        if held != [name]:
            # With several, a tensor's index is no longer unique: they are counted anew in each subgraph.
            raise ValueError(f"it holds the signatures {held} instead of ['{name}']")
        runner = self._interpreter.get_signature_runner(name)
        return runner.get_input_details(), runner.get_output_details()


def _match(file: str, kind: str, tensors: dict[str, Any], specs: Mapping[str, TensorSpec]) -> dict[str, int]:
    """Return the index of each tensor by its name in the signature, after checking that it is the same."""
    if tensors.keys() != specs.keys():
        raise FairwayError(f"{file} has the {kind}s {sorted(tensors)} instead of {sorted(specs)}")
    for name, spec in specs.items():
        dtype, shape = np.dtype(tensors[name]["dtype"]), tuple(map(int, tensors[name]["shape_signature"]))
        if dtype != NUMPY_DTYPES.get(spec.dtype) or (spec.shape is not None and shape != spec.shape):
            raise FairwayError(
                f"{kind} '{name}' of {file} is {dtype} {shape_text(shape)}"
                f" instead of {spec.dtype} {shape_text(spec.shape)}"
            )
    return {name: int(tensors[name]["index"]) for name in specs}
