"""TensorProto messages to numpy arrays and back.

Source of the rules: `Tensor::FromProto` and `AsProtoField` in tensorflow/core/framework/tensor.cc.
"""

from __future__ import annotations

from functools import cache
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fairway.tfs import protos
from fairway.tfs.decoding import type_name
from fairway.tfs.rest import check_shape
from fairway.tfs.signatures import NUMPY_DTYPES, TensorSpec, shape_text
from fairway.tfs.status import Code, RequestError, invalid

# The field with the values of each dtype, where they are not in `tensor_content`.
_FIELDS = {
    "DT_FLOAT": "float_val",
    "DT_DOUBLE": "double_val",
    "DT_HALF": "half_val",
    "DT_INT8": "int_val",
    "DT_INT16": "int_val",
    "DT_INT32": "int_val",
    "DT_INT64": "int64_val",
    "DT_UINT8": "int_val",
    "DT_UINT16": "int_val",
    "DT_UINT32": "uint32_val",
    "DT_UINT64": "uint64_val",
    "DT_BOOL": "bool_val",
    "DT_STRING": "string_val",
}
_PACKED = ("float_val", "double_val", "bool_val")  # on the wire as numpy has them in memory

# A few bytes can ask for a tensor of any size by giving one value for all elements. So much is allowed: a
# request is taken on by the size of its message, and a thousand may wait.
_MAX_REPEATED_BYTES = 2**17


def to_array(tensor: Any, spec: TensorSpec, name: str, argument: int = 0) -> NDArray[Any]:
    """Return a TensorProto that was sent for an input.

    Args:
        tensor: The message.
        spec: Gives the dtype and the shape.
        name: Of the input, for messages.
        argument: The input's position in the signature, for messages.

    Returns:
        An array of the dtype of `spec` and of a shape that it accepts, perhaps read-only.

    Raises:
        RequestError: the message is no tensor, or one of another dtype or shape.
    """
    dtype = dtype_name(tensor.dtype)
    if dtype not in ("DT_INVALID", spec.dtype):
        raise invalid(
            f"Expects arg[{argument}] to be {type_name(spec.dtype)} but {type_name(dtype)} is provided"
        )
    shape = _shape(tensor.tensor_shape, name)
    check_shape(name, spec, shape)  # before one value fills it
    return _array(tensor, dtype, shape, name)


def from_proto(tensor: Any, name: str) -> NDArray[Any]:
    """Return the array that a TensorProto holds, perhaps read-only.

    Args:
        tensor: The message. With fewer values than elements, the last value stands for the rest; with none,
            all are zero.
        name: Of the tensor, for messages.

    Raises:
        RequestError: it is no tensor, or of a dtype that has no numpy form.
    """
    return _array(tensor, dtype_name(tensor.dtype), _shape(tensor.tensor_shape, name), name)


def _array(tensor: Any, type_: str, shape: tuple[int, ...], name: str) -> NDArray[Any]:
    if type_ == "DT_INVALID":
        raise _damaged(name, "it has no dtype")
    if type_ not in NUMPY_DTYPES:
        raise RequestError(
            Code.UNIMPLEMENTED, f"tensor '{name}' is of type {type_name(type_)}, which is not supported"
        )
    size = prod(shape)
    if size == 0:
        flat = np.empty(0, NUMPY_DTYPES[type_])
    elif tensor.tensor_content:
        flat = _from_content(tensor.tensor_content, type_, size, name)
    else:
        flat = _from_values(getattr(tensor, _FIELDS[type_]), type_, shape, name)
    try:
        return flat.reshape(shape)
    except ValueError as err:  # more dimensions than numpy has, or an empty tensor with an enormous one
        raise _damaged(name, str(err)) from None


def to_proto(array: NDArray[Any], message: Any) -> None:
    """Fill a TensorProto.

    The values go to the fields of their types (`float_val` and so on) and not to `tensor_content`, as with
    TensorFlow Serving: many clients read `response.outputs["y"].float_val` and know no other place.

    Args:
        array: Strings are `bytes` in an object array.
        message: An empty TensorProto.

    Raises:
        RequestError: TensorProto has no form for the dtype.
    """
    type_ = _type_of(array.dtype)
    message.dtype = dtype_number(type_)
    message.tensor_shape.SetInParent()
    for size in array.shape:
        message.tensor_shape.dim.add(size=size)
    field = _FIELDS[type_]
    if field in _PACKED:
        # Ten times as quick as one by one from some hundred values on.
        packed = protos.message("fairway.PackedTensor")(**{field: array.tobytes()})
        message.MergeFromString(packed.SerializeToString())
    else:
        values = array.view(np.uint16) if type_ == "DT_HALF" else array
        getattr(message, field).extend(values.ravel().tolist())


def dtype_name(number: int) -> str:
    """Return the name of a `DataType`: "DT_FLOAT" for 1; "DT_INVALID" for a number that there is not."""
    return _dtype_names().get(number, "DT_INVALID")


def dtype_number(name: str) -> int:
    """Return the number of a `DataType`: 1 for "DT_FLOAT", 20 for "DT_20", else 0, which is DT_INVALID."""
    suffix = name.removeprefix("DT_")
    return int(suffix) if suffix.isdecimal() else _dtype_numbers().get(name, 0)


@cache
def _dtype_names() -> dict[int, str]:
    values = protos.pool().FindEnumTypeByName("tensorflow.DataType").values
    return {value.number: value.name for value in values}


@cache
def _dtype_numbers() -> dict[str, int]:
    return {name: number for number, name in _dtype_names().items()}


def _type_of(dtype: np.dtype[Any]) -> str:
    for name, known in NUMPY_DTYPES.items():
        if known == dtype:
            return name
    raise RequestError(Code.UNIMPLEMENTED, f"tensors of type {dtype} are not supported")


def _shape(message: Any, name: str) -> tuple[int, ...]:
    shape = tuple([dim.size for dim in message.dim])
    if message.unknown_rank or any(size < 0 for size in shape):
        raise _damaged(name, f"shape {'[?]' if message.unknown_rank else shape_text(shape)} is not known")
    return shape


def _from_content(content: bytes, type_: str, size: int, name: str) -> NDArray[Any]:
    if type_ == "DT_STRING":
        return _objects(_split(content, size, name))
    dtype = NUMPY_DTYPES[type_]
    if len(content) != size * dtype.itemsize:
        raise _damaged(name, f"{len(content)} bytes for {size} elements of {dtype.itemsize} bytes")
    flat = np.frombuffer(content, dtype)
    return flat.view(np.uint8) != 0 if type_ == "DT_BOOL" else flat


def _split(content: bytes, size: int, name: str) -> list[bytes]:
    """Read `size` lengths as varints and then the strings; `EncodeStringList` in tensorflow/core/lib."""
    if size > len(content):
        raise _damaged(name, f"{len(content)} bytes for {size} strings")
    lengths, position = [], 0
    for _ in range(size):
        length, position = _varint(content, position, name)
        lengths.append(length)
    if position + sum(lengths) != len(content):
        raise _damaged(name, f"{len(content)} bytes for strings of {sum(lengths)}")
    strings = []
    for length in lengths:
        strings.append(content[position : position + length])
        position += length
    return strings


def _varint(content: bytes, position: int, name: str) -> tuple[int, int]:
    value = 0
    for shift in range(0, 35, 7):  # lengths have 32 bits
        if position == len(content):
            break
        byte = content[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise _damaged(name, "the length of a string is cut off")


def _from_values(values: Any, type_: str, shape: tuple[int, ...], name: str) -> NDArray[Any]:
    size, given = prod(shape), len(values)
    if given > size:
        # TensorFlow drops what is too much, and the client would never know.
        raise _damaged(name, f"{given} values for shape {shape_text(shape)}")
    flat = _objects(values) if type_ == "DT_STRING" else _numbers(values, type_, name)
    if given == size:
        return flat
    last: Any = flat[-1] if given else (b"" if type_ == "DT_STRING" else 0)
    # What computes strings copies each.
    itemsize = flat.itemsize + (len(last) if type_ == "DT_STRING" else 0)
    if (size - given) * itemsize > _MAX_REPEATED_BYTES:
        raise _damaged(
            name,
            f"{given} values for shape {shape_text(shape)}, which is too large to fill with the last one:"
            f" that may add {_MAX_REPEATED_BYTES} bytes",
        )
    filled = np.empty(size, flat.dtype)
    filled[:given] = flat
    filled[given:] = last
    return filled


def _numbers(values: Any, type_: str, name: str) -> NDArray[Any]:
    dtype = NUMPY_DTYPES[type_]
    # On protobuf 7 this copies the memory at once. An empty field becomes float64: hence the second dtype.
    flat = np.array(values)
    if not flat.size:
        return np.empty(0, dtype)
    if type_ == "DT_HALF":
        return _narrowed(flat, np.dtype(np.uint16), name).view(np.float16)
    return flat if flat.dtype == dtype else _narrowed(flat, dtype, name)


def _narrowed(flat: NDArray[Any], dtype: np.dtype[Any], name: str) -> NDArray[Any]:
    narrow = flat.astype(dtype)
    if not np.array_equal(narrow, flat, equal_nan=dtype.kind == "f"):
        raise _damaged(name, f"a value does not fit into {dtype}")
    return narrow


def _objects(values: Any) -> NDArray[Any]:
    array = np.empty(len(values), object)
    array[:] = list(values)
    return array


def _damaged(name: str, why: str) -> RequestError:
    return invalid(f"tensor parsing error: {name}: {why}")
