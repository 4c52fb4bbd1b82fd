"""TensorProto messages to arrays and back."""

import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from fairway.tfs import protos
from fairway.tfs.signatures import NUMPY_DTYPES, TensorSpec
from fairway.tfs.status import Code, RequestError
from fairway.tfs.tensors import dtype_name, dtype_number, from_proto, to_array, to_proto

NUMBERS = sorted(NUMPY_DTYPES.keys() - {"DT_STRING"})


def tensor(dtype: str, shape: tuple[int, ...] = (), **fields: Any) -> Any:
    message = protos.message("tensorflow.TensorProto")(dtype=dtype_number(dtype), **fields)
    message.tensor_shape.SetInParent()
    for size in shape:
        message.tensor_shape.dim.add(size=size)
    return message


@st.composite
def arrays(draw: st.DrawFn) -> Any:
    shape = draw(npst.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))
    name = draw(st.sampled_from(list(NUMPY_DTYPES)))
    if name == "DT_STRING":
        array = np.empty(shape, object)
        for index in np.ndindex(shape):
            array[index] = draw(st.binary(max_size=300))
        return array
    array = draw(npst.arrays(NUMPY_DTYPES[name], shape))
    return array.T if draw(st.booleans()) else array


@given(arrays())
def test_arrays_survive(array: Any) -> None:
    message = protos.message("tensorflow.TensorProto")()

    to_proto(array, message)
    found = from_proto(type(message).FromString(message.SerializeToString()), "x")

    assert found.dtype == array.dtype
    assert found.shape == array.shape
    np.testing.assert_array_equal(found, array)


@pytest.mark.parametrize("dtype", NUMBERS)
def test_tensor_content(dtype: str) -> None:
    array = np.array([[0, 1, 2], [3, 4, 5]]).astype(NUMPY_DTYPES[dtype])

    found = from_proto(tensor(dtype, (2, 3), tensor_content=array.tobytes()), "x")

    assert found.dtype == array.dtype
    np.testing.assert_array_equal(found, array)


def test_tensor_content_of_strings() -> None:
    long = b"z" * 300

    found = from_proto(tensor("DT_STRING", (3,), tensor_content=b"\x01\x00\xac\x02a" + long), "x")

    assert found.tolist() == [b"a", b"", long]


def test_any_byte_but_zero_is_true() -> None:
    found = from_proto(tensor("DT_BOOL", (3,), tensor_content=b"\x00\x02\x01"), "x")

    assert found.tolist() == [False, True, True]
    assert found.view(np.uint8).max() == 1


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (tensor("DT_FLOAT", (2, 2), float_val=[1, 2]), [[1, 2], [2, 2]]),
        (tensor("DT_FLOAT", (2,), float_val=[7]), [7, 7]),
        (tensor("DT_INT64", (3,)), [0, 0, 0]),
        (tensor("DT_HALF", (2,), half_val=[0x3C00]), [1, 1]),
        (tensor("DT_BOOL", (2,), bool_val=[True]), [True, True]),
        (tensor("DT_STRING", (3,), string_val=[b"a", b"b"]), [b"a", b"b", b"b"]),
        (tensor("DT_STRING", (2,)), [b"", b""]),
        (tensor("DT_FLOAT", (), float_val=[3]), 3),
        (tensor("DT_FLOAT"), 0),
        (tensor("DT_FLOAT", (0,)), []),
        (tensor("DT_FLOAT", (2, 0), float_val=[1]), [[], []]),
    ],
)
def test_the_last_value_stands_for_the_rest(message: Any, expected: Any) -> None:
    assert from_proto(message, "x").tolist() == expected


def test_one_value_fills_no_more_than_a_server_can_hold_of_many_requests() -> None:
    assert from_proto(tensor("DT_FLOAT", (2**15 + 1,), float_val=[1]), "x").size == 2**15 + 1
    assert from_proto(tensor("DT_STRING", (9,), string_val=[b"x" * 2**13]), "x").size == 9
    for message in (
        tensor("DT_FLOAT", (2**15 + 2,), float_val=[1]),
        tensor("DT_STRING", (17,), string_val=[b"x" * 2**13]),
    ):
        with pytest.raises(RequestError, match="too large to fill with the last one"):
            from_proto(message, "x")


def unknown_rank() -> Any:
    message = tensor("DT_FLOAT", float_val=[1])
    message.tensor_shape.unknown_rank = True
    return message


@pytest.mark.parametrize(
    ("message", "problem"),
    [
        (tensor("DT_FLOAT", (2,), float_val=[1, 2, 3]), "x: 3 values for shape [2]"),
        (tensor("DT_FLOAT", (2,), tensor_content=b"1234"), "x: 4 bytes for 2 elements of 4 bytes"),
        (tensor("DT_FLOAT", (-1,), float_val=[1]), "x: shape [-1] is not known"),
        (tensor("DT_FLOAT", (2**62,), float_val=[1]), "too large to fill"),
        (tensor("DT_STRING", (2**24,)), "too large to fill"),
        (tensor("DT_FLOAT", (2**62, 2**62, 2**62), tensor_content=b"1234"), "4 bytes for"),
        (tensor("DT_STRING", (2**62,), tensor_content=b"1234"), "x: 4 bytes for 4611686018427387904 strings"),
        (tensor("DT_STRING", (1,), tensor_content=b"\x80"), "the length of a string is cut off"),
        (tensor("DT_STRING", (1,), tensor_content=b"\xff" * 9), "the length of a string is cut off"),
        (tensor("DT_STRING", (1,), tensor_content=b"\x05ab"), "x: 3 bytes for strings of 5"),
        (tensor("DT_FLOAT", (0, 2**62, 2**62)), "tensor parsing error: x"),
        (tensor("DT_FLOAT", (1,) * 65, float_val=[1]), "tensor parsing error: x"),
        (tensor("DT_UINT8", (1,), int_val=[256]), "x: a value does not fit into uint8"),
        (tensor("DT_INT8", (1,), int_val=[-129]), "x: a value does not fit into int8"),
        (tensor("DT_HALF", (1,), half_val=[65536]), "x: a value does not fit into uint16"),
        (tensor("DT_INVALID", (1,)), "tensor parsing error: x: it has no dtype"),
        (protos.message("tensorflow.TensorProto")(dtype=77), "tensor parsing error: x: it has no dtype"),
        (unknown_rank(), "x: shape [?] is not known"),
    ],
)
def test_what_is_no_tensor_is_refused_before_memory_is_taken(message: Any, problem: str) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(RequestError) as caught:
            from_proto(message, "x")
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()

    assert problem in caught.value.message
    assert caught.value.code is Code.INVALID_ARGUMENT


def test_a_dtype_without_numpy_form() -> None:
    message = tensor("DT_BFLOAT16", (1,), half_val=[1])

    with pytest.raises(
        RequestError, match="tensor 'x' is of type bfloat16, which is not supported"
    ) as caught:
        to_array(message, TensorSpec("x:0", "DT_BFLOAT16", (1,)), "x")

    assert caught.value.code is Code.UNIMPLEMENTED


def test_another_dtype_than_the_signature_has() -> None:
    message = tensor("DT_DOUBLE", (1,), double_val=[1])

    with pytest.raises(RequestError, match=r"Expects arg\[1\] to be float but double is provided") as caught:
        to_array(message, TensorSpec("x:0", "DT_FLOAT", (1,)), "x", 1)

    assert caught.value.code is Code.INVALID_ARGUMENT


def test_values_go_to_the_field_of_their_type() -> None:
    message = protos.message("tensorflow.TensorProto")()

    to_proto(np.array([0.5, np.nan], np.float32), message)

    assert not message.tensor_content
    assert message.float_val[0] == 0.5
    assert message.HasField("tensor_shape")


def test_an_array_that_no_tensor_proto_can_hold() -> None:
    with pytest.raises(RequestError, match="tensors of type datetime64.* are not supported"):
        to_proto(np.array(["2026-01-01"], "datetime64[D]"), protos.message("tensorflow.TensorProto")())


def test_dtypes_have_names_and_numbers() -> None:
    assert (dtype_name(1), dtype_number("DT_FLOAT")) == ("DT_FLOAT", 1)
    assert (dtype_name(999), dtype_number("DT_NO"), dtype_number("DT_20")) == ("DT_INVALID", 0, 20)
