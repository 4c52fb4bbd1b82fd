"""The quick path gives the exact path's answer, or none."""

import json
import math
import threading
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fairway.tfs import numbers, rest
from fairway.tfs.numbers import parse_numbers
from fairway.tfs.request import PredictRequest
from fairway.tfs.signatures import Signature, TensorSpec
from fairway.tfs.status import RequestError


def spec(dtype: str, *shape: int) -> TensorSpec:
    return TensorSpec("t:0", dtype, shape)


OUTPUTS = {"y": spec("DT_FLOAT", -1)}
SIGNATURES = {
    "serving_default": Signature({"x": spec("DT_FLOAT", -1, 2, 2)}, OUTPUTS),
    "vector": Signature({"x": spec("DT_FLOAT", -1)}, OUTPUTS),
    "free": Signature({"x": spec("DT_DOUBLE", -1, -1, -1)}, OUTPUTS),
    "half": Signature({"x": spec("DT_HALF", -1, 2)}, OUTPUTS),
    "byte": Signature({"x": spec("DT_UINT8", -1, 2)}, OUTPUTS),
    "long": Signature({"x": spec("DT_INT64", -1, -1)}, OUTPUTS),
    "unsigned": Signature({"x": spec("DT_UINT64", -1, -1)}, OUTPUTS),
    "two": Signature({"a": spec("DT_FLOAT", -1, 2), "b": spec("DT_INT32", -1, 1)}, OUTPUTS),
    "scalar": Signature({"x": spec("DT_FLOAT")}, OUTPUTS),
    "any": Signature({"x": TensorSpec("t:0", "DT_FLOAT", None)}, OUTPUTS),
    "string": Signature({"x": spec("DT_STRING", -1)}, OUTPUTS),
    "bool": Signature({"x": spec("DT_BOOL", -1)}, OUTPUTS),
    "none": Signature({}, OUTPUTS),
}


def quick(content: Any) -> PredictRequest | None:
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    found = parse_numbers(body, SIGNATURES)
    return found[0] if found else None


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({"instances": [[[1, 2.5], [3, 4]]]}, {"x": [[[1, 2.5], [3, 4]]]}),
        ({"instances": [{"x": [[1, 2.5], [3, 4]]}] * 2}, {"x": [[[1, 2.5], [3, 4]]] * 2}),
        ({"inputs": [[[1, 2], [3, 4]]]}, {"x": [[[1, 2], [3, 4]]]}),
        ({"inputs": {"x": [[[1, 2], [3, 4]]]}}, {"x": [[[1, 2], [3, 4]]]}),
        ({"signature_name": "", "instances": [[[1, 2], [3, 4]]]}, {"x": [[[1, 2], [3, 4]]]}),
        ({"signature_name": "vector", "instances": [1, -2.5e-3]}, {"x": [1, np.float32(-2.5e-3)]}),
        ({"signature_name": "byte", "instances": [[0, 255]]}, {"x": [[0, 255]]}),
        ({"signature_name": "long", "instances": [[-(2**63), 2**63 - 1]]}, {"x": [[-(2**63), 2**63 - 1]]}),
        (
            {"signature_name": "two", "instances": [{"a": [1, 2], "b": [3]}, {"b": [6], "a": [4, 5]}]},
            {"a": [[1, 2], [4, 5]], "b": [[3], [6]]},
        ),
        (
            {"signature_name": "two", "inputs": {"b": [[3], [6]], "a": [[1, 2], [4, 5]]}},
            {"a": [[1, 2], [4, 5]], "b": [[3], [6]]},
        ),
        (b' {"instances": [[[1, 2], [3, 4]]]}', None),
    ],
)
def test_what_is_regular_is_read_at_once(content: Any, expected: dict[str, Any] | None) -> None:
    found = quick(content)

    if expected is None:
        assert found is None
        return
    assert found is not None
    assert {name: array.tolist() for name, array in found.inputs.items()} == expected
    specs = SIGNATURES[found.signature_name].inputs
    assert list(found.inputs) == list(specs)
    assert all(
        specs[name].accepts(array.shape) and array.flags.writeable for name, array in found.inputs.items()
    )


@pytest.mark.parametrize(
    "content",
    [
        {"instances": [[[1, 2], [3]], [[4, 5], [6, 7, 8]]]},  # as many numbers as there should be
        {"instances": [[[1, 2, 3], [4]]]},
        {"instances": [[[1, [2]], [3, 4]]]},
        {"instances": [[[[1], 2], [3, 4]]]},
        {"instances": [[[1, 2], [3, 4], []]]},
        {"instances": [[[1, 2, []], [3, 4]]]},
        {"instances": [[1, 2, 3, 4]]},
        {"instances": [[[1, 2], "34"]]},
        {"instances": [[[1, True], [3, 4]]]},
        {"instances": [[[1, None], [3, 4]]]},
        {"instances": [{"x": [[1, 2], [3, 4]], "z": 1}]},
        {"instances": [{"x": [[1, 2], [3, 4]]}, [[1, 2], [3, 4]]]},
        {"instances": [[[1, 2], [3, 4]], {"x": [[1, 2], [3, 4]]}]},
        {"instances": [[[1, 2], [3, 4]]], "signature_name": 0},
        {"instances": [[[1, 2], [3, 4]]], "signature_name": None},
        {"instances": [[[1, 2], [3, 4]]], "signature_name": "zzz"},
        {"instances": [[[1, 2], [3, 4]]], "inputs": []},
        {"instances": [[[1, 2], [3, 4]]], "context": "[["},
        {"instances": {"x": [[[1, 2], [3, 4]]]}},
        {"instances": []},
        {"inputs": {"z": [[[1, 2], [3, 4]]]}},
        {"instances": [[1.0, 2]], "signature_name": "long"},
        {"instances": [[1, 256]], "signature_name": "byte"},
        {"instances": [[-1, 2]], "signature_name": "unsigned"},
        {"instances": [[1, 2**63]], "signature_name": "unsigned"},
        {"instances": [[1, 70000.0]], "signature_name": "half"},
        {"instances": [2**24, 1], "signature_name": "vector"},
        {"instances": [1e39], "signature_name": "vector"},
        {"instances": [True], "signature_name": "bool"},
        {"inputs": 1, "signature_name": "scalar"},
        {"inputs": [1], "signature_name": "any"},
        {"inputs": [1], "signature_name": "none"},
        {"inputs": [[1, 2]], "signature_name": "two"},
        b'{"instances": [[[1, NaN], [3, 4]]]}',
        b'{"instances": [[[1, 2], [3, 4]]], "instances": [[[1, 2], [3, 5]]]}',
        b'{"instances": [{"x": [[1, 2], [3, 4]], "x": [[1, 2], [3, 5]]}]}',
        b'\xef\xbb\xbf{"instances": [[[1, 2], [3, 4]]]}',
        b'{"instances": [[[1, 2], [3, 4]]]} trailing',
        b"",
        b"{",
        b"[[[1, 2], [3, 4]]]",
    ],
)
def test_what_is_not_is_left_to_the_exact_path(content: Any) -> None:
    assert quick(content) is None
    assert quick({"instances": [[[1, 2], [3, 4]]]}) is not None, "the parser can be used again"


def test_a_large_body_does_not_leave_its_memory_to_the_parser() -> None:
    rows = np.zeros((80_000, 2, 2), np.float32)

    found = quick({"instances": rows.tolist()})

    assert found is not None
    assert found.inputs["x"].shape == rows.shape


def test_each_thread_has_a_parser_of_its_own() -> None:
    parsers = []
    quick({"instances": [[[1, 2], [3, 4]]]})

    def use() -> None:
        quick({"instances": [[[1, 2], [3, 4]]]})
        parsers.append(numbers._threads.parser)

    thread = threading.Thread(target=use)
    thread.start()
    thread.join()

    assert parsers != [numbers._threads.parser]


NUMBERS = (
    st.integers(-(2**65), 2**65)
    | st.integers(-3, 300)
    | st.floats()
    | st.floats(-3e38, 3e38)
    | st.sampled_from([0.1, -0.0, 2**24, 2**24 - 1, 2**53, 2**53 - 1, 3.5e38, 1e308, 2047, 2048, 65504.0])
)
LEAVES: st.SearchStrategy[Any] = (
    NUMBERS | st.booleans() | st.none() | st.text(max_size=2) | st.just([]) | st.just([1])
)


@st.composite
def tensors(draw: st.DrawFn) -> Any:
    """A nested list, regular or nearly so."""
    shape = draw(st.lists(st.integers(0, 3), max_size=4) | st.just([1, 2, 2]) | st.just([2, 2]))
    size = math.prod(shape)
    flat = draw(
        st.lists(NUMBERS, min_size=size, max_size=size) | st.lists(LEAVES, min_size=size, max_size=size)
    )

    def nest(axis: int, leaves: Any) -> Any:
        if axis == len(shape):
            return next(leaves)
        items = [nest(axis + 1, leaves) for _ in range(shape[axis])]
        if draw(st.integers(0, 30)) == 0:
            items.append(draw(LEAVES))
        return items

    return nest(0, iter(flat))


ROWS = st.lists(st.dictionaries(st.sampled_from(["x", "a", "b", "z"]), tensors(), max_size=3), max_size=3)
CONTENTS = st.fixed_dictionaries(
    {},
    optional={
        "instances": tensors() | ROWS,
        "inputs": tensors() | st.dictionaries(st.sampled_from(["x", "a", "b", "z"]), tensors(), max_size=3),
        "signature_name": st.sampled_from([*SIGNATURES, "", "zzz"]) | LEAVES,
    },
)


def outcome(body: bytes, *, exactly: bool) -> Any:
    """Return what comes of a body, in a form that can be compared."""
    try:
        parsed = rest._parse_exactly(body, SIGNATURES) if exactly else rest.parse_predict(body, SIGNATURES)
    except RequestError as err:
        return err.code, err.message
    inputs = [
        (name, array.dtype, array.shape, [repr(value) for value in array.ravel().tolist()])
        for name, array in parsed.request.inputs.items()
    ]
    return parsed.request.signature_name, parsed.row_form, inputs


def both_agree(body: bytes) -> None:
    assert outcome(body, exactly=False) == outcome(body, exactly=True)


@given(CONTENTS, st.sampled_from([None, (",", ":")]))
def test_both_paths_agree_on_json(content: Any, separators: tuple[str, str] | None) -> None:
    both_agree(json.dumps(content, separators=separators).encode())


@given(st.sampled_from(list(SIGNATURES)), st.sampled_from(["instances", "inputs"]), tensors())
@example("vector", "instances", [-0.0, 5e-324, 1e-400])
def test_both_paths_agree_on_tensors(signature: str, form: str, value: Any) -> None:
    both_agree(json.dumps({"signature_name": signature, form: value}).encode())


PIECES = ["[", "]", ",", "1", "2.5", "-0", "1e5", "{", "}", '"x":', " ", "true", "NaN", '"b64"', "\ufeff"]


@given(st.lists(st.sampled_from(PIECES), max_size=25).map("".join))
@example("[[[1,2],[3,4]]]}, {")
@example("[[[1,2],[3,4]]], " + '"instances": [[[1,2],[3,5]]]')
def test_both_paths_agree_on_what_is_hardly_json(text: str) -> None:
    both_agree(('{"instances": ' + text + "}").encode())


@given(st.lists(st.lists(st.integers(0, 255) | st.floats(0, 1), min_size=2, max_size=2), min_size=1))
def test_the_quick_path_is_taken(rows: list[list[float]]) -> None:
    assert quick({"signature_name": "two", "inputs": {"a": rows, "b": [[1]] * len(rows)}}) is not None
