"""Ask a model server with the stubs of `tensorflow-serving-api`.

`python ask_with_tensorflow_serving_api.py GRPC MODEL=DIRECTORY …` prints the replies as JSON. GRPC is
HOST:PORT; the models are what the server is told to serve in the end, among them `added`.
"""

# It runs where only the stubs are, which have no types.
# mypy: ignore-errors
# ruff: noqa: ANN001, ANN002, ANN003, ANN201

import importlib.util
import json
import sys
import types

# The stubs take TensorFlow's messages, which need none of its code; importing all of it would take seconds.
tensorflow = types.ModuleType("tensorflow")
tensorflow.__path__ = importlib.util.find_spec("tensorflow").submodule_search_locations
sys.modules["tensorflow"] = tensorflow

import grpc  # noqa: E402
from google.protobuf.json_format import MessageToDict  # noqa: E402
from tensorflow.core.framework import types_pb2  # noqa: E402
from tensorflow_serving.apis import (  # noqa: E402
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    model_management_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
    regression_pb2,
)

TIMEOUT_S = 20
MODEL = "half_plus_two"


def predict_request(model=MODEL, values=(1.0, 2.0, 5.0), **spec):
    """Return a request for half_plus_two, its values one by one."""
    request = predict_pb2.PredictRequest()
    request.model_spec.name = model
    for name, value in spec.items():
        if name == "version":
            request.model_spec.version.value = value
        else:
            setattr(request.model_spec, name, value)
    tensor = request.inputs["x"]
    tensor.dtype = types_pb2.DT_FLOAT
    tensor.tensor_shape.dim.add().size = len(values)
    tensor.float_val.extend(values)
    return request


def with_examples(request, signature, *values, context=None):
    """Fill in the model, the signature, and one tf.Example per value of x."""
    request.model_spec.name = MODEL
    request.model_spec.signature_name = signature
    add_examples(request.input, values, context)
    return request


def add_examples(target, values, context=None):
    """Fill an Input with one tf.Example per value; with a context of another value for x2."""
    if context is None:
        examples = target.example_list.examples
    else:
        examples = target.example_list_with_context.examples
        shared = target.example_list_with_context.context.features.feature
        shared["x2"].float_list.value.append(context)
    for value in values:
        examples.add().features.feature["x"].float_list.value.append(value)


def multi_inference(*tasks):
    """Return a request for several signatures at once: (method, signature) each."""
    request = inference_pb2.MultiInferenceRequest()
    for method, signature in tasks:
        request.tasks.add(method_name=f"tensorflow/serving/{method}")
        request.tasks[-1].model_spec.name = MODEL
        request.tasks[-1].model_spec.signature_name = signature
    add_examples(request.input, [2.0])
    return request


def ask_for_predictions(service) -> dict:
    """Ask all that PredictionService offers."""
    filtered = predict_request()
    filtered.output_filter.append("y")
    wrong_filter = predict_request()
    wrong_filter.output_filter.append("z")
    metadata = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    metadata.model_spec.name = MODEL
    regression, classification = regression_pb2.RegressionRequest, classification_pb2.ClassificationRequest
    return {
        "predict": told(service.Predict, predict_request()),
        "by version": told(service.Predict, predict_request(version=123)),
        "by label": told(service.Predict, predict_request(version_label="stable")),
        "output filter": told(service.Predict, filtered),
        "unknown output": told(service.Predict, wrong_filter),
        "unknown model": told(service.Predict, predict_request("no")),
        "unknown version": told(service.Predict, predict_request(version=7)),
        "unknown label": told(service.Predict, predict_request(version_label="nightly")),
        "no model": told(service.Predict, predict_request("")),
        "unknown signature": told(service.Predict, predict_request(signature_name="no")),
        "classify": told(service.Classify, with_examples(classification(), "classify_x_to_y", 2.0, 20.0)),
        "regress": told(service.Regress, with_examples(regression(), "regress_x_to_y", 2.0, 80.0)),
        "regress with context": told(
            service.Regress, with_examples(regression(), "regress_x_to_y2", 2.0, context=4.0)
        ),
        "no examples": told(service.Regress, with_examples(regression(), "regress_x_to_y")),
        "not for regress": told(service.Regress, with_examples(regression(), "classify_x_to_y", 2.0)),
        "several": told(
            service.MultiInference,
            multi_inference(("regress", "regress_x_to_y"), ("classify", "classify_x_to_y")),
        ),
        "several twice": told(
            service.MultiInference,
            multi_inference(("regress", "regress_x_to_y"), ("regress", "regress_x_to_y")),
        ),
        "several inputs": told(
            service.MultiInference,
            multi_inference(("regress", "regress_x_to_y"), ("regress", "regress_x2_to_y3")),
        ),
        "metadata": metadata_told(service, metadata),
    }


def metadata_told(service, request) -> dict:
    """Return the signatures in a metadata reply, which come packed as `Any`."""
    reply = service.GetModelMetadata(request, timeout=TIMEOUT_S)
    signatures = get_model_metadata_pb2.SignatureDefMap()
    if not reply.metadata["signature_def"].Unpack(signatures):
        raise TypeError(reply.metadata["signature_def"].type_url)
    return {"spec": MessageToDict(reply.model_spec), "signatures": MessageToDict(signatures)["signatureDef"]}


def ask_about_models(service, models: list[str]) -> dict:
    """Ask all that ModelService offers."""
    status = get_model_status_pb2.GetModelStatusRequest()
    status.model_spec.name = MODEL
    unknown = get_model_status_pb2.GetModelStatusRequest()
    unknown.model_spec.name = "no"
    reload = model_management_pb2.ReloadConfigRequest()
    for name, _, path in (model.partition("=") for model in models):
        added = reload.config.model_config_list.config.add(
            name=name, base_path=path, model_platform="tensorflow"
        )
        if name == MODEL:
            added.version_labels.update({"stable": 123, "Version_Label": 123})
    wrong = model_management_pb2.ReloadConfigRequest()
    wrong.config.model_config_list.config.add(name="added", base_path="relative/path")
    return {
        "status": told(service.GetModelStatus, status),
        "status of an unknown model": told(service.GetModelStatus, unknown),
        "wrong reload": told(service.HandleReloadConfigRequest, wrong),
        "reload": told(service.HandleReloadConfigRequest, reload),
    }


def told(method, request) -> dict:
    """Return the reply, or the code and the message of the refusal."""
    try:
        return MessageToDict(method(request, timeout=TIMEOUT_S))
    except grpc.RpcError as err:
        return {"code": err.code().name, "message": err.details()}


def main(address: str, *models: str) -> None:
    """Ask everything and print the replies."""
    with grpc.insecure_channel(address) as channel:
        predictions = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        management = model_service_pb2_grpc.ModelServiceStub(channel)
        replies = ask_for_predictions(predictions) | ask_about_models(management, models)
        replies["added"] = told(predictions.Predict, predict_request("added"))
    print(json.dumps(replies))  # noqa: T201


if __name__ == "__main__":
    main(*sys.argv[1:])
