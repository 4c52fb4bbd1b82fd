"""JSON values to tensors."""

import base64
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairway.tfs.decoding import quote, to_tensor
from fairway.tfs.signatures import NUMPY_DTYPES, TensorSpec
from fairway.tfs.status import Code, RequestError

NUMBERS = st.integers(-(2**70), 2**70) | st.integers(-3, 300) | st.floats(allow_nan=False)
LEAVES: st.SearchStrategy[Any] = (
    NUMBERS | st.text(max_size=2) | st.none() | st.just({}) | st.just({"b64": "YQ=="})
)
VALUES = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=3), max_leaves=12)
RECTANGLES = st.tuples(st.integers(0, 3), st.integers(0, 3)).flatmap(
    lambda shape: st.lists(
        st.lists(NUMBERS, min_size=shape[1], max_size=shape[1]), min_size=shape[0], max_size=shape[0]
    )
)


def spec(dtype: str) -> TensorSpec:
    return TensorSpec("x:0", dtype, None)


def decode(value: Any, dtype: str = "DT_FLOAT", *, booleans: bool = True) -> np.ndarray[Any, Any]:
    return to_tensor(value, spec(dtype), booleans=booleans)


def outcome(value: Any, dtype: str, booleans: bool) -> Any:
    """Return all there is to know of a tensor, or the words it is refused with."""
    try:
        tensor = decode(value, dtype, booleans=booleans)
    except RequestError as err:
        return err.message
    return tensor.dtype, tensor.shape, tensor.tolist()


@given(VALUES | RECTANGLES, st.sampled_from(sorted(NUMPY_DTYPES)))
def test_the_quick_way_and_the_exact_way_agree(value: Any, dtype: str) -> None:
    quick, exact = (outcome(value, dtype, booleans) for booleans in (False, True))

    assert quick == exact


@pytest.mark.parametrize("booleans", [True, False])
@pytest.mark.parametrize(
    ("value", "dtype", "message"),
    [
        (["1"], "DT_FLOAT", 'JSON Value: "1" Type: String is not of expected type: float'),
        ([None], "DT_FLOAT", "JSON Value: null Type: Null is not of expected type: float"),
        (
            [{"b64": "YQ=="}],
            "DT_FLOAT",
            'JSON Value: {"b64": "YQ=="} Type: Object is not of expected type: float',
        ),
        ([1.0], "DT_INT32", "JSON Value: 1.0 Type: Number is not of expected type: int32"),
        ([2**31], "DT_INT32", "JSON Value: 2147483648 Type: Number is not of expected type: int32"),
        ([-1], "DT_UINT64", "JSON Value: -1 Type: Number is not of expected type: uint64"),
        ([256], "DT_UINT8", "JSON Value: 256 Type: Number is not of expected type: uint8"),
        ([1], "DT_BOOL", "JSON Value: 1 Type: Number is not of expected type: bool"),
        ([1], "DT_STRING", "JSON Value: 1 Type: Number is not of expected type: string"),
        ([2**24], "DT_FLOAT", "Cannot convert JSON value: 16777216 to float without loss of precision."),
        ([1e39], "DT_FLOAT", "Cannot convert JSON value: 1e+39 to float without loss of precision."),
        (
            [2**53],
            "DT_DOUBLE",
            "Cannot convert JSON value: 9007199254740992 to double without loss of precision.",
        ),
        ([[1, 2], [3]], "DT_FLOAT", "Encountered list at unexpected size: 1 at level: 1 expected size: 2"),
        ([1, [2]], "DT_FLOAT", "Encountered list at unexpected level: 1 expected < 1"),
        (
            [[1], 2],
            "DT_FLOAT",
            "JSON Value: 2 found at incorrect level: 2 in the JSON DOM. Expected at level: 2",
        ),
        ([{"x": 1}], "DT_STRING", 'JSON Value: {"x": 1} not formatted correctly for base64 data'),
        ([{"b64": "ä"}], "DT_STRING", "Unable to base64 decode"),
        ([{"b64": "A"}], "DT_STRING", "Unable to base64 decode"),
    ],
)
def test_what_is_refused_and_how(value: Any, dtype: str, message: str, booleans: bool) -> None:
    with pytest.raises(RequestError) as caught:
        decode(value, dtype, booleans=booleans)

    assert caught.value.message == message
    assert caught.value.code is Code.INVALID_ARGUMENT


def test_booleans_are_not_numbers() -> None:
    with pytest.raises(RequestError, match="JSON Value: true Type: True is not of expected type: float"):
        decode([0.5, True])
    assert decode([True, False], "DT_BOOL").tolist() == [True, False]


def test_not_a_number_and_infinity_are_floats() -> None:
    tensor = decode([float("nan"), float("inf"), -float("inf"), 1], booleans=False)

    np.testing.assert_array_equal(tensor, np.array([np.nan, np.inf, -np.inf, 1], np.float32))


def test_strings_and_bytes() -> None:
    data = bytes(range(256))
    encoded = base64.b64encode(data).decode()

    tensor = decode([["ü"], [{"b64": encoded}], [{"b64": encoded.rstrip("=")}]], "DT_STRING")

    assert tensor.tolist() == [["ü".encode()], [data], [data]]


def test_a_scalar_has_no_dimension() -> None:
    assert decode(2.5).shape == ()


def test_nesting_beyond_what_a_tensor_can_have() -> None:
    value: Any = 1
    for _ in range(100):
        value = [value]

    with pytest.raises(RequestError, match="is nested deeper than 64 levels"):
        decode(value, booleans=False)


def test_a_dtype_that_json_cannot_carry() -> None:
    with pytest.raises(RequestError) as caught:
        decode([1], "DT_COMPLEX64")

    assert caught.value.code is Code.UNIMPLEMENTED


@given(
    st.recursive(
        LEAVES,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
        max_leaves=20,
    )
)
def test_a_quoted_value_is_short(value: Any) -> None:
    assert len(quote(value)) <= 203


def test_a_huge_value_is_quoted_without_reading_all_of_it() -> None:
    assert len(quote([["a" * 10_000_000] * 1000] * 1000)) <= 203
