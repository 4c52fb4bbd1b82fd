"""gRPC's requests and replies: protobuf messages to plain data and back.

Source of the rules and messages: tensorflow_serving/servables/tensorflow/{predict_util,multi_inference,
get_model_metadata_impl}.cc and tensorflow_serving/model_servers/{server_core,model_service_impl}.cc, and
GetInputValues in tensorflow/cc/saved_model/util.cc.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from numpy.typing import NDArray

from fairway.errors import UsageError
from fairway.tfs import protos
from fairway.tfs.configs import ModelConfig, model_configs
from fairway.tfs.examples import (
    INPUTS,
    Action,
    classifications,
    examples_request,
    find_signature,
    regressions,
    with_context,
)
from fairway.tfs.request import ModelSpec, PredictRequest
from fairway.tfs.signatures import DEFAULT_SIGNATURE, Signature, TensorSpec
from fairway.tfs.status import Code, RequestError, invalid
from fairway.tfs.tensors import dtype_number, to_array, to_proto
from fairway.tfs.versions import VersionStatus

# Source: tensorflow/cc/saved_model/signature_constants.h.
_ACTIONS: dict[str, Action] = {
    "tensorflow/serving/classify": "classify",
    "tensorflow/serving/regress": "regress",
}
_METADATA_FIELD = "signature_def"


class InferenceTask(NamedTuple):
    """One of the signatures that a MultiInferenceRequest runs on the same examples."""

    action: Action
    request: PredictRequest


def model_spec(message: Any) -> ModelSpec:
    """Return which version of which model is asked.

    Args:
        message: Any request that has a `model_spec`, or an InferenceTask.

    Raises:
        RequestError: it names no model.
    """
    if not message.HasField("model_spec"):
        raise invalid("Missing ModelSpec")
    spec = message.model_spec
    if not spec.name:
        raise invalid("ModelSpec has no name specified.")
    match spec.WhichOneof("version_choice"):
        case "version":
            return ModelSpec(spec.name, version=spec.version.value)
        case "version_label":
            return ModelSpec(spec.name, label=spec.version_label)
    return ModelSpec(spec.name)


def parse_predict(
    message: Any, signatures: Mapping[str, Signature]
) -> tuple[PredictRequest, tuple[str, ...]]:
    """Read a PredictRequest.

    Args:
        message: The message.
        signatures: The signatures of the model, by name.

    Returns:
        The request, and the names of the outputs to reply in the order asked for; empty: all.

    Raises:
        RequestError: it does not fit the signature; the message says where.
    """
    name = _signature_name(message)
    signature = signatures.get(name)
    if signature is None:
        raise RequestError(Code.FAILED_PRECONDITION, f'Serving signature key "{name[:200]}" not found.')
    inputs = message.inputs
    if len(inputs) != len(signature.inputs):
        raise _wrong_inputs(set(inputs), set(signature.inputs))
    arrays = {}
    for position, (key, spec) in enumerate(signature.inputs.items()):
        if key not in inputs:  # to look it up would make one
            raise _missing_input(key, spec, set(inputs))
        arrays[key] = to_array(inputs[key], spec, key, position)
    return PredictRequest(name, arrays), _output_filter(message, signature)


def predict_response(
    spec: ModelSpec, version: int, signature_name: str, outputs: Mapping[str, NDArray[Any]]
) -> Any:
    """Return a PredictResponse.

    Args:
        spec: What was asked.
        version: The version that answered.
        signature_name: The signature that was run.
        outputs: By name.

    Raises:
        RequestError: an output is of a dtype that TensorProto has no form for.
    """
    response = protos.message("tensorflow.serving.PredictResponse")()
    _answered(response, spec, version, signature_name)
    for name, array in outputs.items():
        to_proto(array, response.outputs[name])
    return response


def parse_examples(action: Action, message: Any, signatures: Mapping[str, Signature]) -> PredictRequest:
    """Read a ClassificationRequest or a RegressionRequest.

    Raises:
        RequestError: there are no examples, or the signature is not one for this.
    """
    name = _signature_name(message)
    find_signature(action, name, signatures)  # before its examples take more memory than the message
    return examples_request(action, name, _examples(message.input), signatures)


def classification_response(
    spec: ModelSpec, version: int, request: PredictRequest, outputs: Mapping[str, NDArray[Any]]
) -> Any:
    """Return a ClassificationResponse.

    Raises:
        RequestError: an output is not what a classification gives.
    """
    response = protos.message("tensorflow.serving.ClassificationResponse")()
    _answered(response, spec, version, request.signature_name)
    _fill_result(response.result, "classify", request, outputs)
    return response


def regression_response(
    spec: ModelSpec, version: int, request: PredictRequest, outputs: Mapping[str, NDArray[Any]]
) -> Any:
    """Return a RegressionResponse.

    Raises:
        RequestError: the output is not what a regression gives.
    """
    response = protos.message("tensorflow.serving.RegressionResponse")()
    _answered(response, spec, version, request.signature_name)
    _fill_result(response.result, "regress", request, outputs)
    return response


def multi_inference_spec(message: Any) -> ModelSpec:
    """Return which version the tasks of a MultiInferenceRequest ask: the first one's.

    Raises:
        RequestError: there are no tasks, or they name no model or several.
    """
    if not message.tasks:
        raise invalid("Missing ModelSpec")
    spec = model_spec(message.tasks[0])
    for task in message.tasks:
        if not task.model_spec.name:
            raise invalid("Found ModelSpec with an empty model name.")
        if task.model_spec.name != spec.name:
            raise invalid("All ModelSpecs in a MultiInferenceRequest must access the same model name.")
    return spec


def parse_multi_inference(message: Any, signatures: Mapping[str, Signature]) -> list[InferenceTask]:
    """Read a MultiInferenceRequest.

    Raises:
        RequestError: there are no examples, or a signature is not one for its task.
    """
    actions: dict[str, Action] = {}
    for task in message.tasks:
        name = _signature_name(task)
        if name in actions:
            raise invalid(f"Duplicate evaluation of signature: {name}")
        if name not in signatures:
            raise invalid(f"Requested signature not found in model graph: {name[:200]}")
        action = _ACTIONS.get(task.method_name)
        if action is None:
            raise RequestError(
                Code.UNIMPLEMENTED, f"Unsupported signature method_name: {task.method_name[:200]}"
            )
        if any(_source(signatures[name]) != _source(signatures[other]) for other in actions):
            raise invalid("Input tensor must be the same for all Signatures.")
        find_signature(action, name, signatures)
        actions[name] = action
    examples = _examples(message.input)
    return [
        InferenceTask(action, examples_request(action, name, examples, signatures))
        for name, action in actions.items()
    ]


def _source(signature: Signature) -> str:
    """Return the tensor that takes the examples; empty if none does, which is an error of its own."""
    return signature.inputs[INPUTS].name if INPUTS in signature.inputs else ""


def multi_inference_response(
    spec: ModelSpec, version: int, results: Iterable[tuple[InferenceTask, Mapping[str, NDArray[Any]]]]
) -> Any:
    """Return a MultiInferenceResponse.

    Args:
        spec: What was asked.
        version: The version that answered.
        results: Each task with what its signature has computed, in the order asked for.

    Raises:
        RequestError: an output is not what a task gives.
    """
    response = protos.message("tensorflow.serving.MultiInferenceResponse")()
    for task, outputs in results:
        result = response.results.add()
        _answered(result, spec, version, task.request.signature_name)
        field = "classification_result" if task.action == "classify" else "regression_result"
        _fill_result(getattr(result, field), task.action, task.request, outputs)
    return response


def metadata_response(
    spec: ModelSpec, version: int, signatures: Mapping[str, Signature], fields: Iterable[str]
) -> Any:
    """Return a GetModelMetadataResponse.

    Args:
        spec: What was asked.
        version: The version that answers.
        signatures: Its signatures, by name.
        fields: The request's `metadata_field`.

    Raises:
        RequestError: there is no field, or one that does not exist.
    """
    fields = list(fields)
    if not fields:
        raise invalid("GetModelMetadataRequest must specify at least one metadata_field")
    for field in fields:
        if field != _METADATA_FIELD:
            raise invalid(f"Metadata field {field[:200]} is not supported")
    response = protos.message("tensorflow.serving.GetModelMetadataResponse")()
    _answered(response, spec, version, "")
    definitions = protos.message("tensorflow.serving.SignatureDefMap")()
    for name, signature in signatures.items():
        definition = definitions.signature_def[name]
        definition.method_name = signature.method_name
        for key, tensor in signature.inputs.items():
            _fill_tensor_info(definition.inputs[key], tensor)
        for key, tensor in signature.outputs.items():
            _fill_tensor_info(definition.outputs[key], tensor)
    response.metadata[_METADATA_FIELD].Pack(definitions)
    return response


def status_response(statuses: Iterable[VersionStatus]) -> Any:
    """Return a GetModelStatusResponse."""
    response = protos.message("tensorflow.serving.GetModelStatusResponse")()
    for status in statuses:
        response.model_version_status.add(
            version=status.number,
            state=status.state.value,
            status={"error_code": status.code.value, "error_message": status.error},
        )
    return response


def parse_reload(message: Any) -> tuple[ModelConfig, ...]:
    """Read a ReloadConfigRequest.

    Raises:
        RequestError: it is not a list of models that can be served.
    """
    if message.config.WhichOneof("config") != "model_config_list":
        raise invalid(
            "ServerModelConfig type not supported by HandleReloadConfigRequest."
            " Only ModelConfigList is currently supported"
        )
    try:
        return model_configs(message.config)
    except UsageError as err:
        raise invalid(f"{err.message}. {err.hint}".strip()) from err


def reload_response() -> Any:
    """Return the ReloadConfigResponse that says that all is well."""
    return protos.message("tensorflow.serving.ReloadConfigResponse")(status={"error_code": Code.OK.value})


def _signature_name(message: Any) -> str:
    return message.model_spec.signature_name or DEFAULT_SIGNATURE


def _wrong_inputs(sent: set[str], expected: set[str]) -> RequestError:
    return invalid(
        f"input size does not match signature: {len(sent)}!={len(expected)}"
        f" len({{{_joined(sent)}}}) != len({{{_joined(expected)}}})."
        f" Sent extra: {{{_joined(sent - expected)}}}."
        f" Missing but required: {{{_joined(expected - sent)}}}."
    )


def _missing_input(key: str, spec: TensorSpec, sent: set[str]) -> RequestError:
    return invalid(
        f"Signature input alias: {key}(feed name: {spec.name}) not found in request and no default value"
        f" provided. Inputs expected to be in the request {{{_joined(sent)}}}, or default input alias set: "
    )


def _joined(names: Iterable[str]) -> str:
    return ",".join(sorted(name[:200] for name in names)[:100])


def _output_filter(message: Any, signature: Signature) -> tuple[str, ...]:
    names: dict[str, None] = {}
    for name in message.output_filter:
        if name not in signature.outputs:
            raise invalid(
                f"output tensor alias not found in signature: {name[:200]}"
                f" Outputs expected to be in the set {{{_joined(signature.outputs)}}}."
            )
        if name in names:
            raise invalid(f"duplicate output tensor alias: {name}")
        names[name] = None
    return tuple(names)


def _examples(message: Any) -> Sequence[bytes]:
    """Return the serialized examples of an Input, each with the context where there is one."""
    context = b""
    match message.WhichOneof("kind"):
        case "example_list":
            examples = message.example_list.examples
        case "example_list_with_context":
            examples = message.example_list_with_context.examples
            context = message.example_list_with_context.context.SerializeToString()
        case _:
            raise invalid("Input is empty.")
    return with_context(context, [example.SerializeToString() for example in examples])


def _answered(response: Any, spec: ModelSpec, version: int, signature_name: str) -> None:
    response.model_spec.name = spec.name
    response.model_spec.version.value = version
    response.model_spec.signature_name = signature_name


def _fill_result(
    result: Any, action: Action, request: PredictRequest, outputs: Mapping[str, NDArray[Any]]
) -> None:
    if action == "regress":
        for value in regressions(outputs, request.rows).tolist():
            result.regressions.add(value=value)
        return
    labels, scores = classifications(outputs, request.rows)
    for row_labels, row_scores in zip(labels, scores.tolist(), strict=True):
        classes = result.classifications.add().classes
        for label, score in zip(row_labels, row_scores, strict=True):
            classes.add(label=label.decode(errors="replace"), score=score)


def _fill_tensor_info(info: Any, spec: TensorSpec) -> None:
    info.name = spec.name
    info.dtype = dtype_number(spec.dtype)
    info.tensor_shape.SetInParent()
    if spec.shape is None:
        info.tensor_shape.unknown_rank = True
    for size in spec.shape or ():
        info.tensor_shape.dim.add(size=size)
