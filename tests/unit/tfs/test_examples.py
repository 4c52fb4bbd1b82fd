"""Classify and regress: examples in, labels with scores or values out."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairway.tfs import protos
from fairway.tfs.examples import (
    Action,
    check_signature,
    classifications_json,
    parse_examples,
    regressions_json,
)
from fairway.tfs.signatures import Signature, TensorSpec
from fairway.tfs.status import Code, RequestError


def spec(dtype: str, *shape: int) -> TensorSpec:
    return TensorSpec("t:0", dtype, shape)


EXAMPLES = {"inputs": spec("DT_STRING", -1)}
SCORES, CLASSES = spec("DT_FLOAT", -1, -1), spec("DT_STRING", -1, -1)
REGRESS = Signature(EXAMPLES, {"outputs": spec("DT_FLOAT", -1)})
CLASSIFY = Signature(EXAMPLES, {"classes": CLASSES, "scores": SCORES})
SIGNATURES = {
    "serving_default": REGRESS,
    "classify": CLASSIFY,
    "pair": Signature({"inputs": spec("DT_STRING", 2)}, {"outputs": spec("DT_FLOAT", 2)}),
    "numbers": Signature({"inputs": spec("DT_FLOAT", -1)}, {"outputs": spec("DT_FLOAT", -1)}),
}


def body(**content: Any) -> bytes:
    return json.dumps(content).encode()


def features(data: bytes) -> list[dict[str, tuple[str | None, list[Any]]]]:
    request = parse_examples("regress", data, SIGNATURES)
    found = []
    for content in request.inputs["inputs"].tolist():
        example = protos.message("tensorflow.Example").FromString(content)
        found.append(
            {
                name: (feature.WhichOneof("kind"), list(getattr(feature, feature.WhichOneof("kind")).value))
                if feature.WhichOneof("kind")
                else (None, [])
                for name, feature in example.features.feature.items()
            }
        )
    return found


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (1, ("int64_list", [1])),
        (-(2**63), ("int64_list", [-(2**63)])),
        (2**63 - 1, ("int64_list", [2**63 - 1])),
        (True, ("int64_list", [1])),
        ([1, False], ("int64_list", [1, 0])),
        (0.5, ("float_list", [0.5])),
        (1.0, ("float_list", [1.0])),
        ([0.5, 1e3], ("float_list", [0.5, 1000.0])),
        (2**64, ("float_list", [float(2**64)])),
        ("a", ("bytes_list", [b"a"])),
        (["é", {"b64": "/w=="}], ("bytes_list", ["é".encode(), b"\xff"])),
        ([], (None, [])),
    ],
)
def test_a_feature_is_of_the_kind_its_values_are_of(value: Any, expected: Any) -> None:
    assert features(body(examples=[{"f": value}, {}])) == [{"f": expected}, {}]


def test_numbers_that_are_not_json() -> None:
    (found,) = features(b'{"examples": [{"f": [NaN, -Infinity, 1.5]}]}')

    assert found["f"][0] == "float_list"
    np.testing.assert_array_equal(found["f"][1], [np.nan, -np.inf, 1.5])


def test_the_context_is_in_each_example_and_may_be_overruled() -> None:
    found = features(body(context={"c": 1, "d": 2}, examples=[{"f": 3}, {"d": 4}]))

    one, two, three, four = (("int64_list", [number]) for number in (1, 2, 3, 4))
    assert found == [{"c": one, "d": two, "f": three}, {"c": one, "d": four}]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "JSON Parse error: The document is empty"),
        (b"[]", "JSON Value: [] Is not object"),
        (body(examples=[{}], signature_name=1), "'signature_name' key must be a string value."),
        (body(examples=[{}], signature_name="no"), "No signature was found with the name: no"),
        (
            body(instances=[1]),
            "JSON Value: {\"instances\": [1]} When method is classify, key 'examples' is expected",
        ),
        (body(examples={}), "Expecting 'examples' value to be an list/array"),
        (body(examples=[]), "JSON Value: {\"examples\": []} 'examples' value is an empty array"),
        (body(examples=[1]), "Example must be JSON object but got JSON Number"),
        (body(examples=[{}], context=None), "Example must be JSON object but got JSON Null"),
        (body(examples=[{"f": None}]), "Feature: f has element with unexpected JSON type: Null"),
        (body(examples=[{"f": [[1]]}]), "Feature: f has element with unexpected JSON type: Array"),
        (body(examples=[{"f": {"a": 1}}]), "Feature: f has element with unexpected JSON type: Object"),
        (body(examples=[{"f": [1, 0.5]}]), "Unexpected element type in feature: f expecting type: int64"),
        (body(examples=[{"f": [0.5, 1]}]), "Unexpected element type in feature: f expecting type: float"),
        (body(examples=[{"f": ["a", 1]}]), "Unexpected element type in feature: f expecting type: bytes"),
        (body(examples=[{"f": 2**63}]), "Feature: f has uint64 element. Only int64 is supported."),
        (
            body(examples=[{"f": 1e39}]),
            "JSON value: 1e+39 to float without loss of precision.",
        ),
        (body(examples=[{"f": {"b64": "?"}}]), "Unable to base64 decode"),
        (body(examples=[{}], signature_name="pair"), "has shape [1], but the signature expects [2]"),
        (
            body(examples=[{}], signature_name="numbers"),
            "Expects arg[0] to be float but string is provided",
        ),
        (b'{"examples": [{"\\ud800": 1}]}', ""),
        (b'{"examples": [{"f": "\\ud800"}]}', ""),
    ],
)
def test_bodies_that_are_refused(data: bytes, message: str) -> None:
    with pytest.raises(RequestError) as caught:
        parse_examples("regress", data, SIGNATURES)

    assert message in caught.value.message
    assert caught.value.code is Code.INVALID_ARGUMENT


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.lists(st.dictionaries(st.text(), json_values, max_size=3), max_size=3) | json_values, json_values)
def test_any_body_is_read_or_refused(examples: Any, context: Any) -> None:
    for data in (body(examples=examples), body(examples=[{}], context=context)):
        code = None
        try:
            parse_examples("regress", data, SIGNATURES)
        except RequestError as err:
            code = err.code
        assert code in (None, Code.INVALID_ARGUMENT)


@pytest.mark.parametrize(
    ("action", "signature", "message"),
    [
        ("classify", CLASSIFY, ""),
        ("classify", Signature(EXAMPLES, {"scores": SCORES}), ""),
        ("classify", Signature(EXAMPLES, {"classes": CLASSES}), ""),
        ("classify", Signature(EXAMPLES, {"scores": SCORES, "more": SCORES}), ""),
        ("regress", REGRESS, ""),
        ("classify", Signature({}, {"scores": SCORES}), "Expected one input Tensor."),
        ("regress", Signature(EXAMPLES | {"b": SCORES}, {"outputs": SCORES}), "Expected one input Tensor."),
        (
            "classify",
            Signature(EXAMPLES, {"a": SCORES, "b": SCORES, "scores": SCORES}),
            "Expected one or two output Tensors, found 3",
        ),
        ("classify", Signature(EXAMPLES, {}), "Expected one or two output Tensors, found 0"),
        ("regress", CLASSIFY, "Expected one output Tensor."),
        (
            "classify",
            Signature({"x": EXAMPLES["inputs"]}, {"scores": SCORES}),
            "No classification inputs found in SignatureDef: inputs {x}, outputs {scores}",
        ),
        (
            "regress",
            Signature({"x": EXAMPLES["inputs"]}, {"outputs": SCORES}),
            "No regression inputs found in SignatureDef: inputs {x}, outputs {outputs}",
        ),
        ("regress", Signature(EXAMPLES, {"y": SCORES}), "No regression outputs found in SignatureDef"),
        (
            "classify",
            REGRESS,
            'Expected classification signature outputs to contain at least one of "classes" or "scores".',
        ),
    ],
)
def test_signatures_must_fit(action: Action, signature: Signature, message: str) -> None:
    if not message:
        check_signature(action, signature)
        return
    with pytest.raises(RequestError) as caught:
        check_signature(action, signature)
    assert message in caught.value.message


def strings(*rows: list[bytes]) -> Any:
    return np.array(rows, object)


def floats(*rows: Any) -> Any:
    return np.array(rows, np.float32)


@pytest.mark.parametrize(
    ("outputs", "expected"),
    [
        (
            {"classes": strings([b"a", b"b"], [b"c", b"\xff"]), "scores": floats([0.1, 0.9], [1, 0])},
            b'{"results":[[["a",0.1],["b",0.9]],[["c",1.0],["\xef\xbf\xbd",0.0]]]}',
        ),
        ({"scores": floats([0.25], [0.5])}, b'{"results":[[["",0.25]],[["",0.5]]]}'),
        ({"classes": strings([b"a"], [b"b"])}, b'{"results":[[["a",0.0]],[["b",0.0]]]}'),
        ({"scores": floats([np.nan], [np.inf])}, b'{"results":[[["",NaN]],[["",Infinity]]]}'),
    ],
)
def test_classifications(outputs: dict[str, Any], expected: bytes) -> None:
    assert classifications_json(outputs, 2) == expected


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        ({"scores": floats(1, 2)}, "Expected Tensor shape: [batch_size num_classes] but got [2]"),
        ({"scores": floats([1])}, "Expected scores output batch size of 2. Got: 1"),
        ({"scores": np.zeros((2, 1))}, "Expected scores Tensor of DT_FLOAT. Got: float64"),
        ({"classes": np.zeros((2, 1), np.int64)}, "Expected classes Tensor of DT_STRING. Got: int64"),
        (
            {"classes": strings([b"a"], [b"b"]), "scores": floats([1, 2], [3, 4])},
            "Tensors class and score should match in dim_size(1). Got 1 vs. 2",
        ),
    ],
)
def test_outputs_that_are_no_classification(outputs: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError) as caught:
        classifications_json(outputs, 2)

    assert caught.value.message == message


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (floats(2.5, 0.1), b'{"results":[2.5,0.1]}'),
        (floats([2.5], [4]), b'{"results":[2.5,4.0]}'),
        (floats(np.nan, -np.inf), b'{"results":[NaN,-Infinity]}'),
    ],
)
def test_regressions(array: Any, expected: bytes) -> None:
    assert regressions_json({"outputs": array}, 2) == expected


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (floats([1, 2], [3, 4]), "to be either [batch_size] or [batch_size, 1] but got [2,2]"),
        (floats(1), "Input batch size did not match output batch size: 2 vs. 1"),
        (np.zeros(2), "Expected output Tensor of DT_FLOAT.  Got: float64"),
        (np.float32(1).reshape(()), "but got []"),
    ],
)
def test_outputs_that_are_no_regression(array: Any, message: str) -> None:
    with pytest.raises(RequestError) as caught:
        regressions_json({"outputs": array}, 2)

    assert message in caught.value.message


def test_a_signature_is_looked_at_before_its_examples() -> None:
    for name in ("no", "numbers"):
        with pytest.raises(RequestError, match=r"No signature was found|Expects arg\[0\] to be float"):
            parse_examples("regress", body(signature_name=name, context=1, examples=[1]), SIGNATURES)


def test_a_context_is_copied_so_often_as_memory_allows() -> None:
    context = {"c": "x" * 2**20}

    assert parse_examples("regress", body(context=context, examples=[{}] * 63), SIGNATURES).rows == 63
    with pytest.raises(RequestError, match="is too large for 64 examples"):
        parse_examples("regress", body(context=context, examples=[{}] * 64), SIGNATURES)
