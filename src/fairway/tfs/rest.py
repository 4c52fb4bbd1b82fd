"""Predict requests and replies as bytes: `{"instances": ...}` in, `{"predictions": ...}` out.

Source of the rules and messages: tensorflow_serving/util/json_tensor.cc and
https://www.tensorflow.org/tfx/serving/api_rest
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from math import prod
from typing import Any, NamedTuple

import orjson
from numpy.typing import NDArray

from fairway.tfs.decoding import is_base64, quote, to_tensor
from fairway.tfs.encoding import outputs_json, predictions_json
from fairway.tfs.numbers import parse_numbers
from fairway.tfs.request import PredictRequest
from fairway.tfs.signatures import DEFAULT_SIGNATURE, Signature, TensorSpec, shape_text
from fairway.tfs.status import RequestError, invalid

# What RapidJSON accepts beyond JSON (kParseNanAndInfFlag), outside of strings, and the spelling that
# Python's json knows. The first alternative steps over the strings; over one without an end, too: to look for
# it again from each quotation mark inside would take a time that grows with the square of the body.
_SPECIAL = re.compile(rb'"(?:[^"\\]|\\.)*+"?|(-?)(?:Inf(?:inity)?|(NaN))\b', re.DOTALL)


class RestPredict(NamedTuple):
    """A predict request by REST.

    Attributes:
        request: Its inputs fit the signature.
        row_form: Whether the reply lists rows (`predictions`) or tensors (`outputs`).
    """

    request: PredictRequest
    row_form: bool


def parse_predict(body: bytes, signatures: Mapping[str, Signature]) -> RestPredict:
    """Read the body of a predict request.

    Args:
        body: JSON; NaN, Infinity and -Infinity are allowed as numbers.
        signatures: The signatures of the model, by name.

    Raises:
        RequestError: the body does not fit; the message says where.
    """
    if numbers := parse_numbers(body, signatures):
        return RestPredict(*numbers)
    return _parse_exactly(body, signatures)


def format_predict(outputs: Mapping[str, NDArray[Any]], row_form: bool) -> bytes:
    """Return the body of the reply, in the form the request was in.

    Args:
        outputs: By name, in the order of the signature.
        row_form: As `parse_predict` has found it.

    Raises:
        RequestError: the outputs cannot be shown as rows.
    """
    return predictions_json(outputs) if row_form else outputs_json(outputs)


def error_json(message: str) -> bytes:
    """Return the body of a reply that refuses a request."""
    try:
        return orjson.dumps({"error": message})
    except orjson.JSONEncodeError:  # a lone surrogate from the request
        return json.dumps({"error": message}).encode()


def _parse_exactly(body: bytes, signatures: Mapping[str, Signature]) -> RestPredict:
    content = load_object(body)
    name, signature = _choose(content, signatures)
    booleans = _may_hold_booleans(body)
    if "instances" in content and "inputs" in content:
        raise invalid(
            f"JSON Value: {quote(content)} Not formatted correctly expecting only one of 'inputs' or"
            " 'instances' keys to exist "
        )
    if "instances" in content:
        inputs = _from_instances(content, signature.inputs, booleans)
    elif "inputs" in content:
        inputs = _from_inputs(content["inputs"], signature.inputs, booleans)
    else:
        raise invalid("Missing 'inputs' or 'instances' key")
    for key, array in inputs.items():
        check_shape(key, signature.inputs[key], array.shape)
    return RestPredict(PredictRequest(name, inputs), "instances" in content)


def load_object(body: bytes) -> dict[str, Any]:
    """Read the body of a request: a JSON object, in which NaN, Infinity and -Infinity may stand for numbers.

    Raises:
        RequestError: it is something else.
    """
    content = _load(body)
    if not isinstance(content, dict):
        raise invalid(f"JSON Value: {quote(content)} Is not object")
    return content


def signature_name(content: dict[str, Any]) -> str:
    """Return the name of the signature that a request asks for.

    Raises:
        RequestError: it is not a string.
    """
    name = content.get("signature_name", "")
    if not isinstance(name, str):
        raise invalid(
            f"JSON Value: {quote(content)} not formatted correctly."
            " 'signature_name' key must be a string value."
        )
    return name or DEFAULT_SIGNATURE


def _load(body: bytes) -> Any:
    if not body:
        raise invalid("JSON Parse error: The document is empty")
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as err:
        error: json.JSONDecodeError = err
    if b"NaN" in body or b"Inf" in body:
        try:
            return json.loads(_SPECIAL.sub(_python_spelling, body).decode())
        except json.JSONDecodeError as err:
            error = err
        except (ValueError, RecursionError) as err:  # not UTF-8, an endless integer, nested too deeply
            raise invalid(f"JSON Parse error: {err}") from None
    raise invalid(f"JSON Parse error: {error.msg} at offset: {error.pos}")


def _may_hold_booleans(body: bytes) -> bool:
    # A single byte is found 20 times faster than a word, and is rarely there.
    return (b"u" in body and b"true" in body) or (b"f" in body and b"false" in body)


def _python_spelling(match: re.Match[bytes]) -> bytes:
    if match[1] is None:
        return match[0]
    return b"NaN" if match[2] else match[1] + b"Infinity"


def _choose(content: dict[str, Any], signatures: Mapping[str, Signature]) -> tuple[str, Signature]:
    name = signature_name(content)
    if name not in signatures:
        raise invalid(f'Serving signature name: "{name[:200]}" not found in signature def')
    if not signatures[name].inputs:
        raise invalid(f"Failed to get input map for signature: {name}")
    return name, signatures[name]


def _from_inputs(value: Any, specs: Mapping[str, TensorSpec], booleans: bool) -> dict[str, NDArray[Any]]:
    if not isinstance(value, dict) or is_base64(value):
        if len(specs) > 1:
            raise invalid(
                "inputs is a plain value/list, but expecting an object as multiple input tensors"
                " required as per tensorinfo_map"
            )
        value = dict.fromkeys(specs, value)
    for key in specs:
        if key not in value:
            raise invalid(f"Missing named input: {key} in 'inputs' object.")
    for key in value:
        if key not in specs:
            # TensorFlow Serving overlooks these; a misspelt optional input would go unnoticed.
            raise invalid(f"Unknown named input: {key[:200]} in 'inputs' object; have: {', '.join(specs)}")
    return {key: to_tensor(value[key], spec, booleans=booleans) for key, spec in specs.items()}


def _from_instances(
    content: dict[str, Any], specs: Mapping[str, TensorSpec], booleans: bool
) -> dict[str, NDArray[Any]]:
    instances = content["instances"]
    if not isinstance(instances, list):
        raise invalid(f"JSON Value: {quote(content)} Excepting 'instances' to be an list/array")
    if not instances:
        raise invalid(f"JSON Value: {quote(content)} No values in 'instances' array")
    if not _is_named(instances[0]):
        if len(specs) > 1:
            raise invalid(
                "instances is a plain list, but expecting list of objects as multiple input tensors"
                " required as per tensorinfo_map"
            )
        _all_plain(instances)
        columns = dict.fromkeys(specs, instances)
    else:
        columns = _columns(instances, specs)
    return {key: _stack(key, columns[key], spec, booleans) for key, spec in specs.items()}


def _all_plain(instances: list[Any]) -> None:
    for position, item in enumerate(instances):
        if _is_named(item):
            raise invalid(f"Expecting value/list but got object at item {position} of input list")


def _columns(instances: list[Any], specs: Mapping[str, TensorSpec]) -> dict[str, list[Any]]:
    names = specs.keys()
    for position, item in enumerate(instances):
        if not _is_named(item):
            raise invalid(f"Expecting object but got list at item {position} of input list")
        for key in item.keys() - names:
            raise invalid(
                f"Failed to process element: {position} key: {key[:200]} of 'instances' list. Error:"
                f" INVALID_ARGUMENT: JSON object: does not have named input: {key[:200]}"
            )
        if item.keys() != names:
            raise invalid(
                f"Failed to process element: {position} of 'instances' list. JSON object: {quote(item)}"
                f" keys must be equal to: {','.join(sorted(names))}"
            )
    return {key: [item[key] for item in instances] for key in specs}


def _stack(key: str, column: list[Any], spec: TensorSpec, booleans: bool) -> NDArray[Any]:
    try:
        return to_tensor(column, spec, booleans=booleans)
    except RequestError as err:
        _explain(key, column, spec)
        raise err from None


def _explain(key: str, column: list[Any], spec: TensorSpec) -> None:
    """Find the first element that does not fit and say so as TensorFlow Serving does."""
    expected: tuple[int, ...] | None = None
    for position, item in enumerate(column):
        where = f"Failed to process element: {position} key: {key} of 'instances' list. Error: "
        try:
            tensor = to_tensor(item, spec, booleans=True)
        except RequestError as err:
            raise RequestError(err.code, f"{where}{err.code.name}: {err.message}") from None
        expected = tensor.shape if expected is None else expected
        if tensor.size != prod(expected):
            raise invalid(
                f"{where}INVALID_ARGUMENT: Expecting tensor size: {prod(expected)} but got: {tensor.size}"
            )
        if tensor.shape != expected:
            raise invalid(
                f"{where}INVALID_ARGUMENT: Expecting shape {shape_text(expected)}"
                f" but got: {shape_text(tensor.shape)}"
            )


def check_shape(key: str, spec: TensorSpec, shape: tuple[int, ...]) -> None:
    """Check that an input is of a shape that the signature accepts.

    Raises:
        RequestError: it is not.
    """
    if not spec.accepts(shape):
        raise invalid(
            f"input '{key}' has shape {shape_text(shape)}, but the signature expects {shape_text(spec.shape)}"
        )


def _is_named(value: Any) -> bool:
    return isinstance(value, dict) and not is_base64(value)
