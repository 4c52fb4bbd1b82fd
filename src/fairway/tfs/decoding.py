"""JSON values to tensors: all numbers at once where that is safe, else each as TensorFlow Serving does.

Source of the rules and messages: tensorflow_serving/util/json_tensor.cc.
"""

from __future__ import annotations

import base64
import binascii
import json
import struct
from itertools import chain
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from fairway.tfs.signatures import NUMPY_DTYPES, TensorSpec
from fairway.tfs.status import Code, RequestError, invalid

# The integers a float of each size holds exactly: TensorFlow Serving refuses greater ones.
_MAX_EXACT_INTEGER = {"DT_HALF": 2**11 - 1, "DT_FLOAT": 2**24 - 1, "DT_DOUBLE": 2**53 - 1}
_INTEGERS = {
    name: (int(np.iinfo(dtype).min), int(np.iinfo(dtype).max))
    for name, dtype in NUMPY_DTYPES.items()
    if dtype.kind in "iu"
}
_PACKED = {"f": "d", "i": "q", "u": "Q"}  # by numpy's kind: the widest of each, for `struct`
_MAX_QUOTED = 200
_MAX_RANK = 64  # numpy's


def to_tensor(value: Any, spec: TensorSpec, *, booleans: bool) -> NDArray[Any]:
    """Return a JSON value as a tensor.

    Args:
        value: A number, string, boolean, `{"b64": ...}` object, or nested lists of these.
        spec: Gives the dtype; its shape is not looked at.
        booleans: Whether `true` or `false` may hide among the numbers: converted at once, they pass for 1
            and 0.

    Returns:
        An array of the numpy dtype of `spec`, of the shape that the nesting has.

    Raises:
        RequestError: a value is not of the dtype or does not fit into it, or lists of one level differ in
            length.
    """
    dtype = NUMPY_DTYPES.get(spec.dtype)
    if dtype is None:
        raise RequestError(
            Code.UNIMPLEMENTED, f"Conversion of JSON Value: {quote(value)} to type: {type_name(spec.dtype)}"
        )
    if dtype.kind in "fiu" and not booleans and isinstance(value, list):
        tensor = _quick_tensor(value, spec.dtype, dtype)
        if tensor is not None:
            return tensor
    return _exact_tensor(value, spec.dtype, dtype)


def quote(value: Any) -> str:
    """Return a JSON value for an error message, cut to a readable length."""
    # Only the first elements can be seen, and a body may hold 64 MiB of them.
    text = json.dumps(_head(value, 5))
    return text if len(text) <= _MAX_QUOTED else f"{text[:_MAX_QUOTED]}..."


def is_base64(value: Any) -> bool:
    """Tell whether a JSON value is `{"b64": "..."}`, which stands for bytes."""
    return isinstance(value, dict) and len(value) == 1 and isinstance(value.get("b64"), str)


def type_name(dtype: str) -> str:
    """Return a dtype as TensorFlow's messages spell it: `float` for "DT_FLOAT"."""
    return dtype.removeprefix("DT_").lower()


def fits(flat: NDArray[Any], type_: str, dtype: np.dtype[Any]) -> bool:
    """Tell whether numbers of 64 bits can all be converted; `False` where some need a closer look.

    Args:
        flat: Integers, or floats that may have been integers; not empty.
        type_: The dtype to convert to: "DT_FLOAT" and the like.
        dtype: The same, as numpy has it.
    """
    if dtype.kind == "f":
        # Below this bound no integer loses precision and no float overflows. NaN is not below it.
        least, most = -_MAX_EXACT_INTEGER[type_], _MAX_EXACT_INTEGER[type_]
    else:
        least, most = _INTEGERS[type_]
    return bool(np.minimum.reduce(flat) >= least and np.maximum.reduce(flat) <= most)


def _quick_tensor(value: list[Any], type_: str, dtype: np.dtype[Any]) -> NDArray[Any] | None:
    """Convert all numbers at once; `None` for whatever needs a closer look or an error message."""
    shape = [len(value)]
    try:
        while value and isinstance(value[0], list):
            size = len(value[0])
            if size == 0 or len(shape) == _MAX_RANK or set(map(len, value)) != {size}:
                return None
            shape.append(size)
            value = list(chain.from_iterable(value))
        # Twice as quick as numpy.array, which also reads the string "1" as 1 and null as NaN.
        flat = np.frombuffer(struct.pack(f"{len(value)}{_PACKED[dtype.kind]}", *value), f"{dtype.kind}8")
    except (TypeError, OverflowError, struct.error):
        return None
    if flat.size and not fits(flat, type_, dtype):
        return None
    return flat.astype(dtype).reshape(shape)


def _exact_tensor(value: Any, type_: str, dtype: np.dtype[Any]) -> NDArray[Any]:
    shape = _first_shape(value)
    leaves: list[Any] = []
    _collect(value, shape, 0, type_, leaves)
    tensor = np.empty(len(leaves), dtype)
    tensor[:] = leaves
    return tensor.reshape(shape)


def _first_shape(value: Any) -> tuple[int, ...]:
    """Return the shape that the first element at each level has; `_collect` holds the others to it."""
    shape: list[int] = []
    while isinstance(value, list):
        shape.append(len(value))
        if len(shape) > _MAX_RANK:
            raise invalid(f"JSON Value: {quote(value)} is nested deeper than {_MAX_RANK} levels")
        value = value[0] if value else None
    return tuple(shape)


def _collect(value: Any, shape: tuple[int, ...], level: int, type_: str, leaves: list[Any]) -> None:
    if not isinstance(value, list):
        if level != len(shape):
            raise invalid(
                f"JSON Value: {quote(value)} found at incorrect level: {level + 1} in the JSON DOM."
                f" Expected at level: {len(shape)}"
            )
        leaves.append(_element(value, type_))
        return
    if level >= len(shape):
        raise invalid(f"Encountered list at unexpected level: {level} expected < {len(shape)}")
    if len(value) != shape[level]:
        raise invalid(
            f"Encountered list at unexpected size: {len(value)} at level: {level}"
            f" expected size: {shape[level]}"
        )
    for item in value:
        _collect(item, shape, level + 1, type_, leaves)


def _element(value: Any, type_: str) -> Any:
    if type_ == "DT_STRING":
        return to_bytes(value)
    if type_ == "DT_BOOL":
        if not isinstance(value, bool):
            _wrong_type(value, type_)
        return value
    if type_ in _MAX_EXACT_INTEGER:
        return _float(value, type_)
    if isinstance(value, bool) or not isinstance(value, int):
        _wrong_type(value, type_)
    bounds = np.iinfo(NUMPY_DTYPES[type_])
    if not bounds.min <= value <= bounds.max:
        _wrong_type(value, type_)
    return value


def _float(value: Any, type_: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        _wrong_type(value, type_)
    if isinstance(value, int):
        fits = abs(value) <= _MAX_EXACT_INTEGER[type_]
    else:  # NaN and infinity come in every size
        fits = (
            value != value or abs(value) == np.inf or abs(value) <= float(np.finfo(NUMPY_DTYPES[type_]).max)
        )
    if not fits:
        raise invalid(
            f"Cannot convert JSON value: {quote(value)} to {type_name(type_)} without loss of precision."
        )
    return float(value)


def to_bytes(value: Any) -> bytes:
    """Return the bytes that a JSON string or a `{"b64": ...}` object stands for.

    Raises:
        RequestError: it is neither.
    """
    if isinstance(value, str):
        try:
            return value.encode()
        except UnicodeEncodeError:
            raise invalid(f"JSON Value: {quote(value)} is not valid UTF-8") from None
    if not isinstance(value, dict):
        _wrong_type(value, "DT_STRING")
    if not is_base64(value):
        raise invalid(f"JSON Value: {quote(value)} not formatted correctly for base64 data")
    text = "".join(value["b64"].split()).rstrip("=")
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise invalid("Unable to base64 decode") from None


def _wrong_type(value: Any, type_: str) -> NoReturn:
    raise invalid(
        f"JSON Value: {quote(value)} Type: {json_type(value)} is not of expected type: {type_name(type_)}"
    )


def json_type(value: Any) -> str:
    """Return how TensorFlow Serving's messages call the type of a JSON value."""
    if value is None:
        return "Null"
    if isinstance(value, bool):
        return str(value)
    if isinstance(value, dict):
        return "Object"
    if isinstance(value, list):
        return "Array"
    return "String" if isinstance(value, str) else "Number"


def _head(value: Any, depth: int) -> Any:
    if isinstance(value, str):
        return value[: _MAX_QUOTED + 1]
    if isinstance(value, list):
        return [_head(item, depth - 1) for item in value[:20]] if depth else "..."
    if isinstance(value, dict):
        return {key[:50]: _head(value[key], depth - 1) for key in list(value)[:20]} if depth else "..."
    return value
