"""The forms in which signatures are written and read."""

import json
from types import SimpleNamespace

import pytest

from fairway.tfs.signatures import (
    Signature,
    TensorSpec,
    metadata_json,
    signatures_from_json,
    signatures_to_json,
)

HALF = Signature(
    {"x": TensorSpec("x:0", "DT_FLOAT", (-1, 1))},
    {"y": TensorSpec("y:0", "DT_FLOAT", None)},
)


def test_the_manifest_form_survives_json() -> None:
    content = json.loads(json.dumps(signatures_to_json({"serving_default": HALF})))

    assert signatures_from_json(content) == {"serving_default": HALF}


@pytest.mark.parametrize("content", [{"s": 1}, {"s": {}}, {"s": {"inputs": {"x": {}}, "outputs": {}}}, []])
def test_anything_else_in_a_manifest_is_refused(content: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="not a signature"):
        signatures_from_json(content)


def test_a_signature_def_message_is_read() -> None:
    def tensor(name: str, shape: SimpleNamespace) -> SimpleNamespace:
        return SimpleNamespace(name=name, dtype=1, tensor_shape=shape)

    known = SimpleNamespace(unknown_rank=False, dim=[SimpleNamespace(size=-1), SimpleNamespace(size=1)])
    unknown = SimpleNamespace(unknown_rank=True, dim=[])
    message = SimpleNamespace(
        inputs={"x": tensor("x:0", known)},
        outputs={"y": tensor("y:0", unknown)},
        method_name="tensorflow/serving/predict",
    )

    assert Signature.from_proto(message) == HALF


def test_metadata_is_written_as_protobuf_writes_json() -> None:
    content = metadata_json("half", 123, {"serving_default": HALF})

    assert content["model_spec"] == {"name": "half", "signature_name": "", "version": "123"}
    assert content["metadata"]["signature_def"]["signature_def"]["serving_default"] == {
        "inputs": {
            "x": {
                "dtype": "DT_FLOAT",
                "tensor_shape": {
                    "dim": [{"size": "-1", "name": ""}, {"size": "1", "name": ""}],
                    "unknown_rank": False,
                },
                "name": "x:0",
            }
        },
        "outputs": {
            "y": {
                "dtype": "DT_FLOAT",
                "tensor_shape": {"dim": [], "unknown_rank": True},
                "name": "y:0",
            }
        },
        "method_name": "tensorflow/serving/predict",
        "defaults": {},
    }


@pytest.mark.parametrize(
    ("spec", "shape", "fits"),
    [
        ((-1, 28), (3, 28), True),
        ((-1, 28), (0, 28), True),
        ((-1, 28), (3, 27), False),
        ((-1, 28), (28,), False),
        ((), (), True),
        (None, (1, 2, 3), True),
    ],
)
def test_which_shapes_fit(spec: tuple[int, ...] | None, shape: tuple[int, ...], fits: bool) -> None:
    assert TensorSpec("x:0", "DT_FLOAT", spec).accepts(shape) is fits


def test_a_signature_may_leave_the_shape_to_the_model() -> None:
    spec = TensorSpec("x:0", "DT_FLOAT", (-1, 1), strict=False)
    assert spec.accepts((3,))
    assert spec.accepts(())
