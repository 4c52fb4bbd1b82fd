"""Warm-up records, with which TensorFlow Serving calls a model before it serves it.

`assets.extra/tf_serving_warmup_requests` is a TFRecord file of PredictionLog messages (source:
https://www.tensorflow.org/tfx/serving/saved_model_warmup). The few fields that are needed are written by
hand here, because the package with these messages requires the full `tensorflow`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import tensorflow as tf

BATCH_SIZES = (1, 32)

# Field numbers of tensorflow_serving/apis/{prediction_log,predict,model}.proto.
_LOG_PREDICT = 6
_PREDICT_REQUEST = 1
_REQUEST_MODEL, _REQUEST_INPUTS = 1, 2
_MODEL_NAME, _MODEL_SIGNATURE = 1, 3
_MAP_KEY, _MAP_VALUE = 1, 2


def write_warmup(path: Path, model: str, signature: str, inputs: Mapping[str, np.ndarray]) -> None:
    """Write a request for each of a few batch sizes.

    Args:
        path: The file; its directory exists.
        model: Name of the model.
        signature: Name of the signature.
        inputs: One example batch by input name; the first dimension is repeated as needed.
    """
    with tf.io.TFRecordWriter(str(path)) as writer:
        for size in BATCH_SIZES:
            batch = {name: np.resize(values, (size, *values.shape[1:])) for name, values in inputs.items()}
            writer.write(prediction_log(model, signature, batch))


def prediction_log(model: str, signature: str, inputs: Mapping[str, np.ndarray]) -> bytes:
    """Return a PredictionLog message with one PredictRequest."""
    spec = _field(_MODEL_NAME, model.encode()) + _field(_MODEL_SIGNATURE, signature.encode())
    request = _field(_REQUEST_MODEL, spec)
    for name, values in inputs.items():
        tensor = tf.make_tensor_proto(values).SerializeToString()
        request += _field(_REQUEST_INPUTS, _field(_MAP_KEY, name.encode()) + _field(_MAP_VALUE, tensor))
    return _field(_LOG_PREDICT, _field(_PREDICT_REQUEST, request))


def _field(number: int, content: bytes) -> bytes:
    """Encode a length-delimited field (https://protobuf.dev/programming-guides/encoding)."""
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
