"""gRPC's requests and replies as plain data."""

from typing import Any

import numpy as np
import pytest
from google.protobuf.json_format import MessageToDict
from hypothesis import given
from hypothesis import strategies as st

from fairway.tfs import messages, protos
from fairway.tfs.configs import Latest, ModelConfig
from fairway.tfs.request import ModelSpec, PredictRequest
from fairway.tfs.signatures import Signature, TensorSpec
from fairway.tfs.status import Code, RequestError
from fairway.tfs.tensors import from_proto, to_proto
from fairway.tfs.versions import State, VersionStatus


def spec(name: str, dtype: str, *shape: int) -> TensorSpec:
    return TensorSpec(name, dtype, shape)


EXAMPLES = {"inputs": spec("e:0", "DT_STRING", -1)}
SIGNATURES = {
    "serving_default": Signature(
        {"a": spec("a:0", "DT_FLOAT", -1, 2), "b": spec("b:0", "DT_INT64", -1)},
        {"y": spec("y:0", "DT_FLOAT", -1), "z": TensorSpec("z:0", "DT_STRING", None)},
    ),
    "regress": Signature(EXAMPLES, {"outputs": spec("o:0", "DT_FLOAT", -1)}, "tensorflow/serving/regress"),
    "classify": Signature(
        EXAMPLES,
        {"classes": spec("c:0", "DT_STRING", -1, -1), "scores": spec("s:0", "DT_FLOAT", -1, -1)},
        "tensorflow/serving/classify",
    ),
    "elsewhere": Signature(
        {"inputs": spec("f:0", "DT_STRING", -1)}, {"outputs": spec("o:0", "DT_FLOAT", -1)}
    ),
}
REGRESS, CLASSIFY = "tensorflow/serving/regress", "tensorflow/serving/classify"


def message(name: str, **fields: Any) -> Any:
    return protos.message(f"tensorflow.serving.{name}")(**fields)


def predict(inputs: dict[str, Any], **fields: Any) -> Any:
    request = message("PredictRequest", **fields)
    for name, array in inputs.items():
        to_proto(array, request.inputs[name])
    return request


def content(reply: Any) -> Any:
    return MessageToDict(reply, preserving_proto_field_name=True, descriptor_pool=protos.pool())


A, B = np.array([[1, 2]], np.float32), np.array([3])


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"name": "m"}, ModelSpec("m")),
        ({"name": "m", "version": {"value": 3}}, ModelSpec("m", version=3)),
        ({"name": "m", "version": {}}, ModelSpec("m", version=0)),
        ({"name": "m", "version_label": "stable"}, ModelSpec("m", label="stable")),
    ],
)
def test_which_version_is_asked(fields: dict[str, Any], expected: ModelSpec) -> None:
    assert messages.model_spec(message("PredictRequest", model_spec=fields)) == expected


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({}, "Missing ModelSpec"),
        ({"model_spec": {"version_label": "a"}}, "ModelSpec has no name specified."),
    ],
)
def test_no_model_is_asked(fields: dict[str, Any], problem: str) -> None:
    with pytest.raises(RequestError) as caught:
        messages.model_spec(message("GetModelStatusRequest", **fields))

    assert (caught.value.code, caught.value.message) == (Code.INVALID_ARGUMENT, problem)


def test_predict() -> None:
    request, wanted = messages.parse_predict(predict({"b": B, "a": A}), SIGNATURES)

    assert request.signature_name == "serving_default"
    assert list(request.inputs) == ["a", "b"]
    np.testing.assert_array_equal(request.inputs["a"], A)
    assert wanted == ()


def test_the_output_filter_keeps_its_order() -> None:
    _, wanted = messages.parse_predict(predict({"a": A, "b": B}, output_filter=["z", "y"]), SIGNATURES)

    assert wanted == ("z", "y")


@pytest.mark.parametrize(
    ("request_", "code", "problem"),
    [
        (
            predict({}, model_spec={"signature_name": "no"}),
            Code.FAILED_PRECONDITION,
            'Serving signature key "no" not found.',
        ),
        (
            predict({"a": A, "c": A, "d": A}),
            Code.INVALID_ARGUMENT,
            "input size does not match signature: 3!=2 len({a,c,d}) != len({a,b})."
            " Sent extra: {c,d}. Missing but required: {b}.",
        ),
        (
            predict({"a": A, "c": A}),
            Code.INVALID_ARGUMENT,
            "Signature input alias: b(feed name: b:0) not found in request and no default value provided."
            " Inputs expected to be in the request {a,c}, or default input alias set: ",
        ),
        (
            predict({"a": A, "b": A}),
            Code.INVALID_ARGUMENT,
            "Expects arg[1] to be int64 but float is provided",
        ),
        (
            predict({"a": A[:, :1], "b": B}),
            Code.INVALID_ARGUMENT,
            "input 'a' has shape [1,1], but the signature expects [-1,2]",
        ),
        (
            predict({"a": A, "b": B}, output_filter=["y", "q"]),
            Code.INVALID_ARGUMENT,
            "output tensor alias not found in signature: q Outputs expected to be in the set {y,z}.",
        ),
        (
            predict({"a": A, "b": B}, output_filter=["y", "y"]),
            Code.INVALID_ARGUMENT,
            "duplicate output tensor alias: y",
        ),
    ],
)
def test_predictions_that_are_refused(request_: Any, code: Code, problem: str) -> None:
    with pytest.raises(RequestError) as caught:
        messages.parse_predict(request_, SIGNATURES)

    assert (caught.value.code, caught.value.message) == (code, problem)


def test_a_dtype_that_nobody_gave() -> None:
    request = predict({"a": A, "b": B})
    request.inputs["a"].dtype = 0

    with pytest.raises(RequestError, match="tensor parsing error: a"):
        messages.parse_predict(request, SIGNATURES)


def test_the_reply_of_predict_names_the_version() -> None:
    outputs = {"y": np.array([0.5], np.float32), "z": np.array([b"s"], object)}

    reply = messages.predict_response(ModelSpec("m", label="stable"), 7, "serving_default", outputs)

    assert content(reply)["model_spec"] == {
        "name": "m",
        "version": "7",
        "signature_name": "serving_default",
    }
    assert {name: from_proto(tensor, name).tolist() for name, tensor in reply.outputs.items()} == {
        "y": [0.5],
        "z": [b"s"],
    }


def example(value: int) -> dict[str, Any]:
    return {"features": {"feature": {"f": {"int64_list": {"value": [value]}}}}}


LIST = {"example_list": {"examples": [example(1), example(2)]}}


@pytest.mark.parametrize(
    "input_",
    [LIST, {"example_list_with_context": {"examples": [example(1), {}], "context": example(2)}}],
)
def test_examples(input_: dict[str, Any]) -> None:
    request = messages.parse_examples(
        "regress",
        message("RegressionRequest", input=input_, model_spec={"signature_name": "regress"}),
        SIGNATURES,
    )

    found = [protos.message("tensorflow.Example").FromString(data) for data in request.inputs["inputs"]]
    assert request.signature_name == "regress"
    assert [each.features.feature["f"].int64_list.value[0] for each in found] == [1, 2]


@pytest.mark.parametrize("input_", [{}, {"example_list": {}}, {"example_list_with_context": {"context": {}}}])
def test_no_examples(input_: dict[str, Any]) -> None:
    request = message("ClassificationRequest", input=input_, model_spec={"signature_name": "classify"})

    with pytest.raises(RequestError, match=r"Input is empty\."):
        messages.parse_examples("classify", request, SIGNATURES)


def test_signatures_are_looked_at_before_examples() -> None:
    """For which a context could need more memory than there is."""
    large = {
        "example_list_with_context": {
            "examples": [{}] * 64,
            "context": {"features": {"feature": {"f": {"bytes_list": {"value": [b"x" * 2**20]}}}}},
        }
    }
    request = message("RegressionRequest", input=large, model_spec={"signature_name": "no"})
    with pytest.raises(RequestError, match="No signature was found"):
        messages.parse_examples("regress", request, SIGNATURES)
    request.model_spec.signature_name = "regress"
    with pytest.raises(RequestError, match="is too large for 64 examples"):
        messages.parse_examples("regress", request, SIGNATURES)
    request = message("MultiInferenceRequest", input=large, tasks=[task("no", REGRESS)])
    with pytest.raises(RequestError, match="Requested signature not found"):
        messages.parse_multi_inference(request, SIGNATURES)


def test_a_shape_is_looked_at_before_one_value_fills_it() -> None:
    request = predict({"a": A, "b": B})
    request.inputs["a"].tensor_shape.dim[1].size = 2**40

    with pytest.raises(
        RequestError, match=r"has shape \[1,1099511627776\], but the signature expects \[-1,2\]"
    ):
        messages.parse_predict(request, SIGNATURES)


def rows(signature: str) -> PredictRequest:
    return PredictRequest(signature, {"inputs": np.array([b"", b""], object)})


SCORES = {
    "classes": np.array([[b"a", b"b"], [b"c", b"d"]], object),
    "scores": np.array([[0.5, 0.25], [1, 0]], np.float32),
}
VALUES = {"outputs": np.array([[1.5], [2]], np.float32)}
CLASSIFIED = {
    "classifications": [
        {"classes": [{"label": "a", "score": 0.5}, {"label": "b", "score": 0.25}]},
        {"classes": [{"label": "c", "score": 1.0}, {"label": "d"}]},
    ]
}
REGRESSED = {"regressions": [{"value": 1.5}, {"value": 2.0}]}


def answered(signature: str) -> dict[str, str]:
    return {"name": "m", "version": "7", "signature_name": signature}


def test_the_reply_of_classify() -> None:
    reply = messages.classification_response(ModelSpec("m"), 7, rows("classify"), SCORES)

    assert content(reply) == {"model_spec": answered("classify"), "result": CLASSIFIED}


def test_the_reply_of_regress() -> None:
    reply = messages.regression_response(ModelSpec("m"), 7, rows("regress"), VALUES)

    assert content(reply) == {"model_spec": answered("regress"), "result": REGRESSED}


def task(signature: str, method: str, name: str = "m") -> dict[str, Any]:
    return {"model_spec": {"name": name, "signature_name": signature}, "method_name": method}


def test_multi_inference() -> None:
    request = message(
        "MultiInferenceRequest", input=LIST, tasks=[task("regress", REGRESS), task("classify", CLASSIFY)]
    )

    asked = messages.multi_inference_spec(request)
    tasks = messages.parse_multi_inference(request, SIGNATURES)
    reply = messages.multi_inference_response(asked, 7, zip(tasks, (VALUES, SCORES), strict=True))

    assert asked == ModelSpec("m")
    assert [(task.action, task.request.rows) for task in tasks] == [("regress", 2), ("classify", 2)]
    assert content(reply) == {
        "results": [
            {"model_spec": answered("regress"), "regression_result": REGRESSED},
            {"model_spec": answered("classify"), "classification_result": CLASSIFIED},
        ]
    }


@pytest.mark.parametrize(
    ("tasks", "code", "problem"),
    [
        ([], Code.INVALID_ARGUMENT, "Missing ModelSpec"),
        ([task("regress", REGRESS, "")], Code.INVALID_ARGUMENT, "ModelSpec has no name specified."),
        (
            [task("regress", REGRESS), task("classify", CLASSIFY, "")],
            Code.INVALID_ARGUMENT,
            "Found ModelSpec with an empty model name.",
        ),
        (
            [task("regress", REGRESS), task("classify", CLASSIFY, "n")],
            Code.INVALID_ARGUMENT,
            "All ModelSpecs in a MultiInferenceRequest must access the same model name.",
        ),
        (
            [task("regress", REGRESS)] * 2,
            Code.INVALID_ARGUMENT,
            "Duplicate evaluation of signature: regress",
        ),
        (
            [task("no", REGRESS)],
            Code.INVALID_ARGUMENT,
            "Requested signature not found in model graph: no",
        ),
        (
            [task("regress", "tensorflow/serving/predict")],
            Code.UNIMPLEMENTED,
            "Unsupported signature method_name: tensorflow/serving/predict",
        ),
        (
            [task("regress", REGRESS), task("elsewhere", REGRESS)],
            Code.INVALID_ARGUMENT,
            "Input tensor must be the same for all Signatures.",
        ),
    ],
)
def test_tasks_that_are_refused(tasks: list[dict[str, Any]], code: Code, problem: str) -> None:
    request = message("MultiInferenceRequest", input=LIST, tasks=tasks)

    with pytest.raises(RequestError) as caught:
        messages.multi_inference_spec(request)
        messages.parse_multi_inference(request, SIGNATURES)

    assert (caught.value.code, caught.value.message) == (code, problem)


def test_metadata() -> None:
    reply = messages.metadata_response(ModelSpec("m"), 7, SIGNATURES, ["signature_def"])

    packed = reply.metadata["signature_def"]
    found = message("SignatureDefMap")
    assert packed.type_url == "type.googleapis.com/tensorflow.serving.SignatureDefMap"
    assert packed.Unpack(found)
    assert content(reply.model_spec) == {"name": "m", "version": "7"}
    assert {name: Signature.from_proto(each) for name, each in found.signature_def.items()} == SIGNATURES


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ([], "GetModelMetadataRequest must specify at least one metadata_field"),
        (["signature_def", "graph"], "Metadata field graph is not supported"),
    ],
)
def test_metadata_that_there_is_not(fields: list[str], problem: str) -> None:
    with pytest.raises(RequestError) as caught:
        messages.metadata_response(ModelSpec("m"), 7, SIGNATURES, fields)

    assert (caught.value.code, caught.value.message) == (Code.INVALID_ARGUMENT, problem)


def test_status() -> None:
    reply = messages.status_response(
        [VersionStatus(2, State.AVAILABLE), VersionStatus(1, State.END, "it is damaged")]
    )

    assert content(reply) == {
        "model_version_status": [
            {"version": "2", "state": "AVAILABLE", "status": {}},
            {
                "version": "1",
                "state": "END",
                "status": {"error_code": "UNKNOWN", "error_message": "it is damaged"},
            },
        ]
    }


def test_reload() -> None:
    config = {"model_config_list": {"config": [{"name": "m", "base_path": "/m"}]}}

    assert messages.parse_reload(message("ReloadConfigRequest", config=config)) == (
        ModelConfig("m", "/m", Latest()),
    )
    assert content(messages.reload_response()) == {"status": {}}


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        ({}, "ServerModelConfig type not supported by HandleReloadConfigRequest."),
        ({"custom_model_config": {}}, "Only ModelConfigList is currently supported"),
        ({"model_config_list": {"config": [{"name": "m"}]}}, "model 'm' has no base_path. Add base_path"),
    ],
)
def test_reloads_that_are_refused(config: dict[str, Any], problem: str) -> None:
    with pytest.raises(RequestError) as caught:
        messages.parse_reload(message("ReloadConfigRequest", config=config))

    assert problem in caught.value.message
    assert caught.value.code is Code.INVALID_ARGUMENT


SHORT = predict({"a": A, "b": B}, model_spec={"name": "m"}).SerializeToString()


@given(st.lists(st.tuples(st.integers(0, len(SHORT) - 1), st.integers(0, 255)), max_size=3))
def test_a_damaged_request_is_read_or_refused(changes: list[tuple[int, int]]) -> None:
    data = bytearray(SHORT)
    for position, byte in changes:
        data[position] = byte
    try:
        request = protos.parse("tensorflow.serving.PredictRequest", bytes(data))
    except ValueError:
        return
    code = None
    try:
        messages.model_spec(request)
        parsed, _ = messages.parse_predict(request, SIGNATURES)
        assert parsed.inputs["a"].shape[1:] == (2,)
    except RequestError as err:
        code = err.code
    assert code in (None, Code.INVALID_ARGUMENT, Code.FAILED_PRECONDITION)
