"""Classify and regress, whichever protocol they came by: tf.Examples in, labels with scores or values out.

Their signatures take serialized tf.Examples as a vector of strings. Source of the rules and messages:
tensorflow_serving/servables/tensorflow/{classifier,regressor}.cc and tensorflow_serving/util/json_tensor.cc.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import orjson
from numpy.typing import NDArray

from fairway.tfs import protos
from fairway.tfs.decoding import is_base64, json_type, quote, to_bytes, type_name
from fairway.tfs.request import PredictRequest
from fairway.tfs.rest import check_shape, load_object, signature_name
from fairway.tfs.signatures import Signature, shape_text
from fairway.tfs.status import invalid

Action = Literal["classify", "regress"]

# Source: tensorflow/cc/saved_model/signature_constants.h.
INPUTS = "inputs"
CLASSES, SCORES = "classes", "scores"
VALUES = "outputs"

_NAMES: dict[Action, str] = {"classify": "classification", "regress": "regression"}
_MAX_FLOAT = float(np.finfo(np.float32).max)
# A context is copied into each example: a few bytes could become any number. As much as a body may
# have is allowed for all copies together.
_MAX_CONTEXT_BYTES = 2**26
_KINDS = {"bytes_list": "bytes", "float_list": "float", "int64_list": "int64"}


def parse_examples(action: Action, body: bytes, signatures: Mapping[str, Signature]) -> PredictRequest:
    """Read the body of a classify or regress request: `{"examples": [{"feature": value or list, ...}, ...]}`.

    A whole number makes an int64 feature, one with a point or an exponent a float feature, text and
    `{"b64": ...}` a bytes feature; a list cannot mix them. `context` holds features of all examples.

    Raises:
        RequestError: the body does not fit; the message says where.
    """
    content = load_object(body)
    name = signature_name(content)
    find_signature(action, name, signatures)  # before its examples take more memory than the body
    examples = content.get("examples")
    if "examples" not in content:
        raise invalid(
            f"JSON Value: {quote(content)} When method is classify,"
            " key 'examples' is expected and was not found"
        )
    if not isinstance(examples, list):
        raise invalid(f"JSON Value: {quote(content)} Expecting 'examples' value to be an list/array")
    if not examples:
        raise invalid(f"JSON Value: {quote(content)} 'examples' value is an empty array")
    context = _serialize(content["context"]) if "context" in content else b""
    examples = with_context(context, [_serialize(example) for example in examples])
    return examples_request(action, name, examples, signatures)


def with_context(context: bytes, examples: Sequence[bytes]) -> Sequence[bytes]:
    """Return serialized tf.Examples, each with the features that all have.

    Raises:
        RequestError: that would take too much memory.
    """
    if not context:
        return examples
    if len(context) * len(examples) > _MAX_CONTEXT_BYTES:
        raise invalid(
            f"a context of {len(context)} bytes is too large for {len(examples)} examples:"
            f" in all it may take {_MAX_CONTEXT_BYTES} bytes"
        )
    # Messages one after the other are read as one, in which the later one's fields win.
    return [context + example for example in examples]


def examples_request(
    action: Action, name: str, examples: Sequence[bytes], signatures: Mapping[str, Signature]
) -> PredictRequest:
    """Return the request that runs a signature on serialized tf.Examples.

    Raises:
        RequestError: there is no such signature, or it is not one for this.
    """
    signature = find_signature(action, name, signatures)
    if not examples:
        raise invalid("Input is empty.")
    check_shape(INPUTS, signature.inputs[INPUTS], (len(examples),))
    array = np.empty(len(examples), object)
    array[:] = examples
    return PredictRequest(name, {INPUTS: array})


def find_signature(action: Action, name: str, signatures: Mapping[str, Signature]) -> Signature:
    """Return the signature of a name, if it takes examples.

    Raises:
        RequestError: there is no such signature, or it is not one for this.
    """
    if name not in signatures:
        raise invalid(f"No signature was found with the name: {name[:200]}")
    signature = signatures[name]
    check_signature(action, signature)
    dtype = signature.inputs[INPUTS].dtype
    if dtype != "DT_STRING":
        raise invalid(f"Expects arg[0] to be {type_name(dtype)} but string is provided")
    return signature


def check_signature(action: Action, signature: Signature) -> None:
    """Check that a signature can classify or regress.

    Its `method_name` is not looked at, as by TensorFlow Serving unless it is told to: TensorFlow 2 names
    the method of every signature "predict".

    Raises:
        RequestError: it cannot.
    """
    outputs = signature.outputs.keys()
    if len(signature.inputs) != 1:
        raise invalid("Expected one input Tensor.")
    if action == "classify" and len(outputs) not in (1, 2):
        raise invalid(f"Expected one or two output Tensors, found {len(outputs)}")
    if action == "regress" and len(outputs) != 1:
        raise invalid("Expected one output Tensor.")
    if INPUTS not in signature.inputs:
        raise invalid(f"No {_NAMES[action]} inputs found in SignatureDef: {_named(signature)}")
    if action == "regress" and VALUES not in outputs:
        raise invalid(f"No regression outputs found in SignatureDef: {_named(signature)}")
    if action == "classify" and not outputs & {CLASSES, SCORES}:
        raise invalid(
            "Expected classification signature outputs to contain at least one of"
            f' "{CLASSES}" or "{SCORES}". Signature was: {_named(signature)}'
        )


def classifications(
    outputs: Mapping[str, NDArray[Any]], rows: int
) -> tuple[list[list[bytes]], NDArray[np.float32]]:
    """Return the labels and the scores of each example, [rows, classes] both.

    Args:
        outputs: What the signature has computed: `classes`, `scores` or both.
        rows: Number of examples.

    Returns:
        Empty labels or zero scores where the signature does not give them.

    Raises:
        RequestError: an output is not what a classification gives.
    """
    labels, scores = outputs.get(CLASSES), outputs.get(SCORES)
    for key, array, type_, kind in ((CLASSES, labels, "DT_STRING", "O"), (SCORES, scores, "DT_FLOAT", "f4")):
        if array is not None:
            _check_classes(key, array, type_, np.dtype(kind), rows)
    if labels is not None and scores is not None and labels.shape != scores.shape:
        raise invalid(
            "Tensors class and score should match in dim_size(1)."
            f" Got {labels.shape[1]} vs. {scores.shape[1]}"
        )
    if scores is None:
        scores = np.zeros((rows, 0 if labels is None else labels.shape[1]), np.float32)
    return [[b""] * scores.shape[1]] * rows if labels is None else labels.tolist(), scores


def regressions(outputs: Mapping[str, NDArray[Any]], rows: int) -> NDArray[np.float32]:
    """Return the value of each example, [rows].

    Args:
        outputs: What the signature has computed: `outputs`, [rows] or [rows, 1].
        rows: Number of examples.

    Raises:
        RequestError: the output is not what a regression gives.
    """
    array = outputs[VALUES]
    if array.ndim != 1 and (array.ndim != 2 or array.shape[1] != 1):
        raise invalid(
            "Expected output Tensor shape to be either [batch_size] or [batch_size, 1] but got"
            f" {shape_text(array.shape)}"
        )
    if len(array) != rows:
        raise invalid(f"Input batch size did not match output batch size: {rows} vs. {len(array)}")
    if array.dtype != np.float32:
        raise invalid(f"Expected output Tensor of DT_FLOAT.  Got: {array.dtype}")
    return array.reshape(rows)


def classifications_json(outputs: Mapping[str, NDArray[Any]], rows: int) -> bytes:
    """Return `{"results": [[[label, score], ...], ...]}`: for each example its classes.

    Args:
        outputs: What the signature has computed.
        rows: Number of examples.

    Raises:
        RequestError: an output is not what a classification gives.
    """
    labels, scores = classifications(outputs, rows)
    texts = [[label.decode(errors="replace") for label in row] for row in labels]
    values = _floats(scores)
    return _dump([list(map(list, zip(*pair, strict=True))) for pair in zip(texts, values, strict=True)])


def regressions_json(outputs: Mapping[str, NDArray[Any]], rows: int) -> bytes:
    """Return `{"results": [value, ...]}`: for each example its value.

    Args:
        outputs: What the signature has computed.
        rows: Number of examples.

    Raises:
        RequestError: the output is not what a regression gives.
    """
    return _dump(_floats(regressions(outputs, rows)))


def _serialize(example: Any) -> bytes:
    """Return a JSON object of features as a serialized tf.Example."""
    if not isinstance(example, dict):
        raise invalid(f"Example must be JSON object but got JSON {json_type(example)}")
    message = protos.message("tensorflow.Example")()
    for name, values in example.items():
        try:
            feature = message.features.feature[name]
        except (UnicodeEncodeError, ValueError):
            raise invalid(f"JSON Value: {quote(name)} is not valid UTF-8") from None
        _fill_feature(feature, name, values if isinstance(values, list) else [values])
    data: bytes = message.SerializeToString(deterministic=True)
    return data


def _fill_feature(feature: Any, name: str, values: list[Any]) -> None:
    kind = None
    for value in values:
        found, element = _element(name, value)
        if kind not in (None, found):
            raise invalid(f"Unexpected element type in feature: {name[:200]} expecting type: {_KINDS[kind]}")
        kind = found
        getattr(feature, kind).value.append(element)


def _element(name: str, value: Any) -> tuple[str, Any]:
    """Return in which list of a feature a JSON value goes, and as what."""
    if isinstance(value, bool):
        return "int64_list", int(value)
    if isinstance(value, int) and -(2**63) <= value < 2**64:
        if value >= 2**63:
            raise invalid(f"Feature: {name[:200]} has uint64 element. Only int64 is supported.")
        return "int64_list", value
    if isinstance(value, int | float):
        if _MAX_FLOAT < abs(value) != np.inf:
            raise invalid(f"Cannot convert JSON value: {quote(value)} to float without loss of precision.")
        return "float_list", float(value)
    if isinstance(value, str) or is_base64(value):
        return "bytes_list", to_bytes(value)
    raise invalid(f"Feature: {name[:200]} has element with unexpected JSON type: {json_type(value)}")


def _check_classes(key: str, array: NDArray[Any], type_: str, dtype: np.dtype[Any], rows: int) -> None:
    if array.ndim != 2:
        raise invalid(f"Expected Tensor shape: [batch_size num_classes] but got {shape_text(array.shape)}")
    if array.dtype != dtype:
        raise invalid(f"Expected {key} Tensor of {type_}. Got: {array.dtype}")
    if len(array) != rows:
        raise invalid(f"Expected {key} output batch size of {rows}. Got: {len(array)}")


def _named(signature: Signature) -> str:
    return f"inputs {{{','.join(signature.inputs)}}}, outputs {{{','.join(signature.outputs)}}}"


def _floats(array: NDArray[np.float32]) -> list[Any]:
    # By way of its text, so that 0.1 in 32 bits is not written as 0.10000000149011612.
    floats: list[Any] = array.astype(str).astype(np.float64).tolist()
    return floats


def _dump(results: list[Any]) -> bytes:
    # TensorFlow Serving writes NaN, Infinity and -Infinity, which are not JSON; orjson would write null.
    text = orjson.dumps({"results": results})
    return json.dumps({"results": results}, separators=(",", ":")).encode() if b"null" in text else text
