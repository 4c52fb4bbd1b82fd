"""Tensors to JSON, in TensorFlow Serving's row form and columnar form."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from fairway.tfs.status import invalid

_BYTES_SUFFIX = "_bytes"  # a string output of such a name is binary: kBytesTensorNameSuffix in json_tensor.cc


def predictions_json(outputs: Mapping[str, NDArray[Any]]) -> bytes:
    """Return `{"predictions": [...]}`: one element per row, an object where there are several outputs.

    Args:
        outputs: Arrays of [N, ...]; strings as `bytes` in an object array.

    Raises:
        RequestError: an output has no rows, or not as many as another; only the columnar form can show these.
    """
    _check_rows(outputs)
    finite = _all_finite(outputs)
    columns = [_column(name, array, finite=finite) for name, array in outputs.items()]
    if len(columns) == 1:
        rows: list[Any] = list(columns[0])
    else:
        rows = [dict(zip(outputs, row, strict=True)) for row in zip(*columns, strict=True)]
    return _dump({"predictions": rows}, finite=finite)


def outputs_json(outputs: Mapping[str, NDArray[Any]]) -> bytes:
    """Return `{"outputs": ...}`: one array, or an object of arrays where there are several outputs."""
    finite = _all_finite(outputs)
    columns = {name: _column(name, array, finite=finite) for name, array in outputs.items()}
    return _dump({"outputs": columns if len(columns) > 1 else next(iter(columns.values()))}, finite=finite)


def _check_rows(outputs: Mapping[str, NDArray[Any]]) -> None:
    rows = -1
    for name, array in outputs.items():
        if array.ndim == 0:
            raise invalid(f"Tensor name: {name} has no shape information ")
        if rows >= 0 and len(array) != rows:
            raise invalid(f"Tensor name: {name} has inconsistent batch size: {len(array)} expecting: {rows}")
        rows = len(array)


def _column(name: str, array: NDArray[Any], *, finite: bool) -> Any:
    """Return a tensor as something that can be written, and indexed by row."""
    if array.dtype.kind == "O":
        return _strings(array, binary=name.endswith(_BYTES_SUFFIX))
    if finite and array.ndim:
        return np.ascontiguousarray(
            array
        )  # orjson writes it as it is, float32 with as few digits as it needs
    if array.dtype.kind == "f":
        # By way of its text, so that 0.1 in 32 bits is not written as 0.10000000149011612.
        return array.astype(str).astype(np.float64).tolist()
    return array.tolist()


def _strings(array: NDArray[Any], *, binary: bool) -> Any:
    def element(value: Any) -> Any:
        data = value if isinstance(value, bytes) else str(value).encode()
        return {"b64": base64.b64encode(data).decode()} if binary else data.decode(errors="replace")

    def nested(value: Any) -> Any:
        return [nested(item) for item in value] if isinstance(value, list) else element(value)

    return nested(array.tolist())


def _all_finite(outputs: Mapping[str, NDArray[Any]]) -> bool:
    return all(array.dtype.kind != "f" or bool(np.isfinite(array).all()) for array in outputs.values())


def _dump(content: Any, *, finite: bool) -> bytes:
    if finite:
        return orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY)
    # TensorFlow Serving writes NaN, Infinity and -Infinity, which are not JSON; orjson would write null.
    return json.dumps(content, separators=(",", ":")).encode()
