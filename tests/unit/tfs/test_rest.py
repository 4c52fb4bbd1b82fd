"""Predict requests and replies."""

import json
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairway.tfs.request import PredictRequest
from fairway.tfs.rest import error_json, format_predict, parse_predict
from fairway.tfs.signatures import Signature, TensorSpec
from fairway.tfs.status import Code, RequestError


def spec(dtype: str, *shape: int) -> TensorSpec:
    return TensorSpec("t:0", dtype, shape)


SIGNATURES = {
    "serving_default": Signature({"x": spec("DT_FLOAT", -1)}, {"y": spec("DT_FLOAT", -1)}),
    "image": Signature({"x": spec("DT_FLOAT", -1, 2, 2)}, {"y": spec("DT_FLOAT", -1)}),
    "png": Signature({"image_bytes": spec("DT_STRING", -1)}, {"y": spec("DT_FLOAT", -1)}),
    "two": Signature(
        {"a": spec("DT_FLOAT", -1), "b": spec("DT_INT64", -1, 2)},
        {"y": spec("DT_FLOAT", -1)},
    ),
    "none": Signature({}, {"y": spec("DT_FLOAT", -1)}),
}


def body(**content: Any) -> bytes:
    return json.dumps(content).encode()


def inputs(data: bytes) -> dict[str, Any]:
    return {name: array.tolist() for name, array in parse_predict(data, SIGNATURES).request.inputs.items()}


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (body(instances=[1, 2.5]), {"x": [1, 2.5]}),
        (body(instances=[{"x": 1}, {"x": 2.5}]), {"x": [1, 2.5]}),
        (body(inputs=[1, 2.5]), {"x": [1, 2.5]}),
        (body(inputs={"x": [1, 2.5]}), {"x": [1, 2.5]}),
        (body(inputs=[1], signature_name=""), {"x": [1]}),
        (b'{"instances": [NaN, Infinity, -Infinity, Inf, -Inf, -NaN]}', None),
        (body(signature_name="image", instances=[[[1, 2], [3, 4]]]), {"x": [[[1, 2], [3, 4]]]}),
        (body(signature_name="png", instances=[{"b64": "YQ=="}]), {"image_bytes": [b"a"]}),
        (
            body(signature_name="png", instances=[{"image_bytes": {"b64": "YQ=="}}]),
            {"image_bytes": [b"a"]},
        ),
        (body(signature_name="png", inputs=[{"b64": "YQ=="}, "b"]), {"image_bytes": [b"a", b"b"]}),
        (
            body(signature_name="two", instances=[{"a": 1, "b": [2, 3]}, {"b": [5, 6], "a": 4}]),
            {"a": [1, 4], "b": [[2, 3], [5, 6]]},
        ),
        (body(signature_name="two", inputs={"a": [1], "b": [[2, 3]]}), {"a": [1], "b": [[2, 3]]}),
        (b'{"x": "NaN Inf \\" NaN", "instances": [1, NaN]}', None),
    ],
)
def test_the_forms_of_a_request(data: bytes, expected: dict[str, Any] | None) -> None:
    found = inputs(data)

    if expected is not None:
        assert found == expected


def test_numbers_that_are_not_json() -> None:
    found = inputs(b'{"instances": [NaN, Infinity, -Infinity, Inf, -Inf, -NaN, 1]}')

    np.testing.assert_array_equal(found["x"], [np.nan, np.inf, -np.inf, np.inf, -np.inf, np.nan, 1])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "JSON Parse error: The document is empty"),
        (b"{", "JSON Parse error: "),
        (b'{"instances": [1]} trailing', "JSON Parse error: "),
        (b"\xff\xfe{}", "JSON Parse error: "),
        (b'{"instances": [NaN, "\xff"]}', "JSON Parse error: "),
        (b'{"instances": [NaN, ' + b"9" * 5000 + b"]}", "JSON Parse error: "),
        (b"[" * 100_000, "JSON Parse error: "),
        (b'{"instances": [NaN, ' + b"[" * 100_000, "JSON Parse error: "),
        (b'{"instances":' + b"[" * 500 + b"]" * 500 + b"}", "is nested deeper than 64 levels"),
        (b"[1]", "JSON Value: [1] Is not object"),
        (b"{}", "Missing 'inputs' or 'instances' key"),
        (body(instances=[]), "No values in 'instances' array"),
        (body(instances=1), "Excepting 'instances' to be an list/array"),
        (body(instances=[1], inputs=[1]), "expecting only one of 'inputs' or 'instances' keys"),
        (body(instances=[1], signature_name=1), "'signature_name' key must be a string value"),
        (
            body(instances=[1], signature_name="zzz"),
            'Serving signature name: "zzz" not found in signature def',
        ),
        (body(instances=[1], signature_name="none"), "Failed to get input map for signature: none"),
        (body(inputs={"z": 1}), "Missing named input: x in 'inputs' object."),
        (body(inputs={"x": [1], "z": 1}), "Unknown named input: z in 'inputs' object; have: x"),
        (
            body(instances=[{"z": 1}]),
            "Failed to process element: 0 key: z of 'instances' list."
            " Error: INVALID_ARGUMENT: JSON object: does not have named input: z",
        ),
        (body(instances=[{"x": 1}, {}]), "JSON object: {} keys must be equal to: x"),
        (body(instances=[{"x": 1}, 2]), "Expecting object but got list at item 1 of input list"),
        (body(instances=[1, {"x": 1}]), "Expecting value/list but got object at item 1 of input list"),
        (
            body(signature_name="two", instances=[1]),
            "instances is a plain list, but expecting list of objects",
        ),
        (body(signature_name="two", inputs=[1]), "inputs is a plain value/list, but expecting an object"),
        (
            body(instances=[1, "a"]),
            "Failed to process element: 1 key: x of 'instances' list. Error: INVALID_ARGUMENT:"
            ' JSON Value: "a" Type: String is not of expected type: float',
        ),
        (
            body(signature_name="image", instances=[[[1, 2]], [[1, 2], [3, 4]]]),
            "Failed to process element: 1 key: x of 'instances' list. Error: INVALID_ARGUMENT:"
            " Expecting tensor size: 2 but got: 4",
        ),
        (
            body(signature_name="image", instances=[[[1], [2]], [[1, 2]]]),
            "Expecting shape [2,1] but got: [1,2]",
        ),
        (
            body(signature_name="image", instances=[[1, 2, 3, 4]]),
            "input 'x' has shape [1,4], but the signature expects [-1,2,2]",
        ),
        (body(inputs=1), "input 'x' has shape [], but the signature expects [-1]"),
    ],
)
def test_what_is_refused_and_how(data: bytes, message: str) -> None:
    with pytest.raises(RequestError) as caught:
        parse_predict(data, SIGNATURES)

    assert message in caught.value.message
    assert len(caught.value.message) < 1000
    assert caught.value.code is Code.INVALID_ARGUMENT


def test_the_reply_has_the_form_of_the_request() -> None:
    outputs = {"y": np.array([2.5, 3.0], np.float32)}
    rows = parse_predict(body(instances=[1, 2]), SIGNATURES)
    columns = parse_predict(body(inputs=[1, 2]), SIGNATURES)

    assert format_predict(outputs, rows.row_form) == b'{"predictions":[2.5,3.0]}'
    assert format_predict(outputs, columns.row_form) == b'{"outputs":[2.5,3.0]}'
    assert rows.request.rows == 2


def test_an_error_is_json_whatever_is_in_it() -> None:
    for message in ('"quoted"\n', "ü", "\ud800"):
        assert json.loads(error_json(message)) == {"error": message}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["x", "a", "b", "b64"]), inner)
    ),
    max_leaves=10,
)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "instances": JSON,
            "inputs": JSON,
            "signature_name": st.sampled_from([*SIGNATURES, "zzz"]) | JSON,
        },
    )
)
def test_no_json_is_too_strange(content: Any) -> None:
    outcome = parsed(json.dumps(content).encode())

    if isinstance(outcome, RequestError):
        assert json.loads(error_json(outcome.message))
    else:
        assert outcome.inputs.keys() == SIGNATURES[outcome.signature_name].inputs.keys()


@given(st.binary() | st.text(alphabet='[]{}":,0.e-truflsNaIity ').map(str.encode))
def test_no_bytes_are_too_strange(data: bytes) -> None:
    parsed(data)


def parsed(data: bytes) -> PredictRequest | RequestError:
    try:
        return parse_predict(data, SIGNATURES).request
    except RequestError as err:
        return err


def test_a_string_without_an_end_takes_no_longer_than_its_length() -> None:
    start = time.process_time()
    for body in (b'{"instances": NaN "' + b'\\"' * 50_000, b'{"instances": NaN ' + b'"\\' * 50_001):
        with pytest.raises(RequestError, match="JSON Parse error"):
            parse_predict(body, SIGNATURES)
    assert time.process_time() - start < 1  # it was a minute


def test_of_keys_written_twice_the_last_counts() -> None:
    for number in (b"2", b"NaN"):  # by the quick and by the exact way
        found = inputs(b'{"instances": [1], "instances": [%b]}' % number)
        np.testing.assert_array_equal(found["x"], [float(number)])
