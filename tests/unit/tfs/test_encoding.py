"""Tensors to JSON."""

import base64
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairway.tfs.encoding import outputs_json, predictions_json
from fairway.tfs.status import RequestError

CLASSES = np.array([3, 7], np.int64)
SCORES = np.array([[0.1, 0.9], [1.0, 0.0]], np.float32)


def test_rows_of_one_output_are_plain() -> None:
    assert predictions_json({"y": SCORES}) == b'{"predictions":[[0.1,0.9],[1.0,0.0]]}'


def test_rows_of_several_outputs_are_objects() -> None:
    assert predictions_json({"classes": CLASSES, "scores": SCORES}) == (
        b'{"predictions":[{"classes":3,"scores":[0.1,0.9]},{"classes":7,"scores":[1.0,0.0]}]}'
    )


def test_columns() -> None:
    assert outputs_json({"y": SCORES}) == b'{"outputs":[[0.1,0.9],[1.0,0.0]]}'
    assert outputs_json({"c": CLASSES, "y": SCORES}) == (b'{"outputs":{"c":[3,7],"y":[[0.1,0.9],[1.0,0.0]]}}')


def test_what_json_has_no_word_for_is_written_as_tensorflow_serving_writes_it() -> None:
    strange = np.array([[np.nan, 0.1], [np.inf, -np.inf]], np.float32)

    assert predictions_json({"c": CLASSES, "y": strange}) == (
        b'{"predictions":[{"c":3,"y":[NaN,0.1]},{"c":7,"y":[Infinity,-Infinity]}]}'
    )
    assert outputs_json({"y": strange}) == b'{"outputs":[[NaN,0.1],[Infinity,-Infinity]]}'


def test_strings_and_bytes() -> None:
    strings = np.array([b"a", b"\xff"], object)

    assert json.loads(predictions_json({"y": strings})) == {"predictions": ["a", "\ufffd"]}
    assert json.loads(predictions_json({"y_bytes": strings})) == {
        "predictions": [{"b64": base64.b64encode(value).decode()} for value in strings]
    }


def test_scalars_are_columns_only() -> None:
    assert outputs_json({"loss": np.array(0.5, np.float32)}) == b'{"outputs":0.5}'
    with pytest.raises(RequestError, match="Tensor name: loss has no shape information"):
        predictions_json({"loss": np.array(0.5, np.float32)})


def test_rows_must_be_as_many_in_each_output() -> None:
    with pytest.raises(RequestError, match="Tensor name: b has inconsistent batch size: 3 expecting: 2"):
        predictions_json({"a": np.zeros(2), "b": np.zeros(3)})


def test_arrays_in_another_order_of_memory() -> None:
    assert outputs_json({"y": SCORES.T}) == b'{"outputs":[[0.1,1.0],[0.9,0.0]]}'


@given(st.lists(st.floats(width=32), min_size=1))
def test_every_float_comes_back(values: list[float]) -> None:
    array = np.array(values, np.float32)

    content: dict[str, Any] = json.loads(predictions_json({"y": array}))

    np.testing.assert_array_equal(np.array(content["predictions"], np.float32), array)
