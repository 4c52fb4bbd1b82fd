"""Tensors to JSON, in TensorFlow Serving's row form and columnar form."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from fairway.tfs.status import invalid

_Column = Callable[[str, NDArray[Any]], Any]

_BYTES_SUFFIX = "_bytes"  # a string output of such a name is binary: kBytesTensorNameSuffix in json_tensor.cc


def predictions_json(outputs: Mapping[str, NDArray[Any]]) -> bytes:
    """Return `{"predictions": [...]}`: one element per row, an object where there are several outputs.

    Args:
        outputs: Arrays of [N, ...]; strings as `bytes` in an object array.

    Raises:
        RequestError: an output has no rows, or not as many as another; only the columnar form can show these.
    """
    _check_rows(outputs)
    text = _dump({"predictions": _rows(outputs, _column)})
    if _may_lack_numbers(text, outputs):
        return _dump_special({"predictions": _rows(outputs, _special_column)})
    return text


def outputs_json(outputs: Mapping[str, NDArray[Any]]) -> bytes:
    """Return `{"outputs": ...}`: one array, or an object of arrays where there are several outputs."""
    text = _dump({"outputs": _columns(outputs, _column)})
    if _may_lack_numbers(text, outputs):
        return _dump_special({"outputs": _columns(outputs, _special_column)})
    return text


def _check_rows(outputs: Mapping[str, NDArray[Any]]) -> None:
    rows = -1
    for name, array in outputs.items():
        if not array.ndim:
            raise invalid(f"Tensor name: {name} has no shape information ")
        if len(array) != rows >= 0:
            raise invalid(f"Tensor name: {name} has inconsistent batch size: {len(array)} expecting: {rows}")
        rows = len(array)


def _rows(outputs: Mapping[str, NDArray[Any]], column: _Column) -> Any:
    columns = [column(name, array) for name, array in outputs.items()]
    if len(columns) == 1:
        return columns[0]
    return [dict(zip(outputs, row)) for row in zip(*columns)]  # noqa: B905 - their lengths have been checked


def _columns(outputs: Mapping[str, NDArray[Any]], column: _Column) -> Any:
    columns = {name: column(name, array) for name, array in outputs.items()}
    return columns if len(columns) > 1 else next(iter(columns.values()))


def _column(name: str, array: NDArray[Any]) -> Any:
    """Return a tensor as something that orjson writes, and that can be taken apart into rows."""
    if array.dtype.kind not in "fiu" or not array.ndim:
        return _special_column(name, array)
    if array.ndim == 1 and array.dtype.kind != "f":
        return array.tolist()
    # orjson writes float32 with as few digits as it needs, but only what lies in memory row by row.
    return array if array.flags.c_contiguous else np.ascontiguousarray(array)


def _special_column(name: str, array: NDArray[Any]) -> Any:
    """Return a tensor as Python's own values, NaN and infinity among them."""
    if array.dtype.kind == "O":
        return _strings(array, binary=name.endswith(_BYTES_SUFFIX))
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


def _may_lack_numbers(text: bytes, outputs: Mapping[str, NDArray[Any]]) -> bool:
    # orjson writes null for what is not finite. To look for that is quicker than to look at the numbers.
    return b"null" in text and not _all_finite(outputs)


def _all_finite(outputs: Mapping[str, NDArray[Any]]) -> bool:
    return all(array.dtype.kind != "f" or bool(np.isfinite(array).all()) for array in outputs.values())


def _dump(content: Any) -> bytes:
    return orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY)


def _dump_special(content: Any) -> bytes:
    # TensorFlow Serving writes NaN, Infinity and -Infinity, which are not JSON.
    return json.dumps(content, separators=(",", ":")).encode()
