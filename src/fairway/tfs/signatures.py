"""Signatures: the named inputs and outputs of a model, and the three forms they are written in.

A SavedModel holds them as `SignatureDef` messages, an export's manifest as short JSON (`to_json`), and
TensorFlow Serving's metadata reply as the protobuf JSON of the message (`metadata_json`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

DEFAULT_SIGNATURE = "serving_default"
PREDICT_METHOD = "tensorflow/serving/predict"

# The dtypes that TensorFlow Serving reads from and writes to JSON, and their numpy form.
NUMPY_DTYPES: dict[str, np.dtype[Any]] = {
    "DT_FLOAT": np.dtype(np.float32),
    "DT_DOUBLE": np.dtype(np.float64),
    "DT_HALF": np.dtype(np.float16),
    "DT_INT8": np.dtype(np.int8),
    "DT_INT16": np.dtype(np.int16),
    "DT_INT32": np.dtype(np.int32),
    "DT_INT64": np.dtype(np.int64),
    "DT_UINT8": np.dtype(np.uint8),
    "DT_UINT16": np.dtype(np.uint16),
    "DT_UINT32": np.dtype(np.uint32),
    "DT_UINT64": np.dtype(np.uint64),
    "DT_BOOL": np.dtype(np.bool_),
    "DT_STRING": np.dtype(object),  # elements are `bytes`
}

# DataType in tensorflow/core/framework/types.proto: the number of each name.
_DTYPE_NUMBERS = {
    1: "DT_FLOAT",
    2: "DT_DOUBLE",
    3: "DT_INT32",
    4: "DT_UINT8",
    5: "DT_INT16",
    6: "DT_INT8",
    7: "DT_STRING",
    9: "DT_INT64",
    10: "DT_BOOL",
    14: "DT_BFLOAT16",
    17: "DT_UINT16",
    19: "DT_HALF",
    22: "DT_UINT32",
    23: "DT_UINT64",
}


@dataclass(frozen=True)
class TensorSpec:
    """One named input or output.

    Attributes:
        name: The tensor in the graph: "serving_default_x:0". Metadata shows it; nothing looks it up.
        dtype: "DT_FLOAT" and the like.
        shape: -1 is a dimension of any size; `None` means that not even the rank is known.
        strict: Whether tensors of another shape are refused. TensorFlow Serving leaves that to the model, and
            some take more than they say: its own half_plus_two says [-1,1] and is asked with [3].
    """

    name: str
    dtype: str
    shape: tuple[int, ...] | None
    strict: bool = True

    def accepts(self, shape: tuple[int, ...]) -> bool:
        """Tell whether a tensor of this shape fits, as far as the signature decides it."""
        if self.shape is None or not self.strict:
            return True
        if len(shape) != len(self.shape):
            return False
        for want, have in zip(self.shape, shape):  # noqa: B905, SIM110 - half the time of `all`
            if want not in (-1, have):
                return False
        return True


@dataclass(frozen=True)
class Signature:
    """The inputs and outputs of one entry point of a model."""

    inputs: Mapping[str, TensorSpec]
    outputs: Mapping[str, TensorSpec]
    method_name: str = PREDICT_METHOD

    @classmethod
    def from_proto(cls, message: Any, *, strict: bool = True) -> Self:
        """Read a `SignatureDef` message; any object with its fields will do, so TensorFlow is not needed.

        Args:
            message: The message.
            strict: As in `TensorSpec`.
        """
        return cls(
            {name: _spec_from_proto(info, strict) for name, info in sorted(message.inputs.items())},
            {name: _spec_from_proto(info, strict) for name, info in sorted(message.outputs.items())},
            message.method_name,
        )


def signatures_to_json(signatures: Mapping[str, Signature]) -> dict[str, Any]:
    """Return signatures as an export's manifest stores them."""
    return {
        name: {
            "inputs": _specs_to_json(signature.inputs),
            "outputs": _specs_to_json(signature.outputs),
            "method_name": signature.method_name,
        }
        for name, signature in signatures.items()
    }


def signatures_from_json(content: Mapping[str, Any]) -> dict[str, Signature]:
    """Read signatures from a manifest.

    Raises:
        ValueError: they are not what `signatures_to_json` writes.
    """
    try:
        return {
            name: Signature(
                _specs_from_json(entry["inputs"]),
                _specs_from_json(entry["outputs"]),
                entry.get("method_name", PREDICT_METHOD),
            )
            for name, entry in content.items()
        }
    except (AttributeError, KeyError, TypeError) as err:
        raise ValueError(f"not a signature: {err!r}") from err


def metadata_json(model: str, version: int, signatures: Mapping[str, Signature]) -> dict[str, Any]:
    """Return TensorFlow Serving's reply to a metadata request.

    Numbers of 64 bits are strings, as protobuf's JSON has them.
    """
    return {
        "model_spec": {"name": model, "signature_name": "", "version": str(version)},
        "metadata": {
            "signature_def": {
                "signature_def": {
                    name: {
                        "inputs": {key: _tensor_info(spec) for key, spec in signature.inputs.items()},
                        "outputs": {key: _tensor_info(spec) for key, spec in signature.outputs.items()},
                        "method_name": signature.method_name,
                        "defaults": {},
                    }
                    for name, signature in signatures.items()
                }
            }
        },
    }


def shape_text(shape: tuple[int, ...] | None) -> str:
    """Return a shape as TensorFlow Serving writes it: `[-1,28,28]`, `[?]` for an unknown rank."""
    return "[?]" if shape is None else f"[{','.join(map(str, shape))}]"


def _tensor_info(spec: TensorSpec) -> dict[str, Any]:
    return {
        "dtype": spec.dtype,
        "tensor_shape": {
            "dim": [{"size": str(size), "name": ""} for size in spec.shape or ()],
            "unknown_rank": spec.shape is None,
        },
        "name": spec.name,
    }


def _spec_from_proto(info: Any, strict: bool) -> TensorSpec:
    shape = info.tensor_shape
    return TensorSpec(
        info.name,
        _DTYPE_NUMBERS.get(info.dtype, f"DT_{info.dtype}"),
        None if shape.unknown_rank else tuple(int(dim.size) for dim in shape.dim),
        strict,
    )


def _specs_to_json(specs: Mapping[str, TensorSpec]) -> dict[str, Any]:
    return {
        key: {
            "name": spec.name,
            "dtype": spec.dtype,
            "shape": None if spec.shape is None else list(spec.shape),
        }
        for key, spec in specs.items()
    }


def _specs_from_json(content: Mapping[str, Any]) -> dict[str, TensorSpec]:
    return {
        key: TensorSpec(
            str(entry["name"]),
            str(entry["dtype"]),
            None if entry["shape"] is None else tuple(int(size) for size in entry["shape"]),
        )
        for key, entry in content.items()
    }
