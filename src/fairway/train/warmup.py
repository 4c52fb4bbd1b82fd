"""Warm-up records, with which TensorFlow Serving calls a model before it serves it.

`assets.extra/tf_serving_warmup_requests` is a TFRecord file of PredictionLog messages (source:
https://www.tensorflow.org/tfx/serving/saved_model_warmup). Each has TensorFlow's answer, too, by which a
server can check its own; TensorFlow Serving overlooks it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from fairway.tfs import protos
from fairway.tfs.tensors import to_proto

BATCH_SIZES = (1, 32)


def write_warmup(
    path: Path,
    model: str,
    signature: str,
    function: Callable[..., Mapping[str, tf.Tensor]],
    inputs: Mapping[str, np.ndarray],
) -> None:
    """Write a request and its answer for each of a few batch sizes.

    Args:
        path: The file; its directory exists.
        model: Name of the model.
        signature: Name of the signature.
        function: The signature as the SavedModel has it.
        inputs: One example batch by input name; the first dimension is repeated as needed.
    """
    with tf.io.TFRecordWriter(str(path)) as writer:
        for size in BATCH_SIZES:
            batch = {name: np.resize(values, (size, *values.shape[1:])) for name, values in inputs.items()}
            outputs = function(**{name: tf.constant(values) for name, values in batch.items()})
            answers = {name: tensor.numpy() for name, tensor in outputs.items()}
            log = _prediction_log(model, signature, batch, answers)
            writer.write(log.SerializeToString(deterministic=True))


def _prediction_log(
    model: str, signature: str, inputs: Mapping[str, np.ndarray], outputs: Mapping[str, np.ndarray]
) -> Any:
    """Return a PredictionLog message with a PredictRequest and its PredictResponse."""
    log = protos.message("tensorflow.serving.PredictionLog")()
    request, response = log.predict_log.request, log.predict_log.response
    for message in (request, response):
        message.model_spec.name = model
        message.model_spec.signature_name = signature
    for name, values in inputs.items():
        to_proto(values, request.inputs[name])
    for name, values in outputs.items():
        to_proto(values, response.outputs[name])
    return log
