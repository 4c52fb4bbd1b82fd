"""The messages of TensorFlow Serving, in a pool of their own."""

import subprocess
import sys

import pytest

from fairway.tfs import protos


def test_messages_of_all_that_is_needed() -> None:
    for name in (
        "tensorflow.Example",
        "tensorflow.SignatureDef",
        "tensorflow.TensorProto",
        "tensorflow.serving.BatchingParameters",
        "tensorflow.serving.GetModelMetadataRequest",
        "tensorflow.serving.ModelServerConfig",
        "tensorflow.serving.MonitoringConfig",
        "tensorflow.serving.PredictionLog",
        "tensorflow.serving.ReloadConfigRequest",
        "tensorflow.serving.SSLConfig",
    ):
        assert protos.message(name).DESCRIPTOR.full_name == name


def test_the_services_have_their_methods() -> None:
    methods = {
        service: {method.name for method in protos.pool().FindServiceByName(service).methods}
        for service in ("tensorflow.serving.PredictionService", "tensorflow.serving.ModelService")
    }

    assert methods == {
        "tensorflow.serving.PredictionService": {
            "Predict",
            "Classify",
            "Regress",
            "MultiInference",
            "GetModelMetadata",
        },
        "tensorflow.serving.ModelService": {"GetModelStatus", "HandleReloadConfigRequest"},
    }


def test_a_message_has_one_class() -> None:
    request = protos.message("tensorflow.serving.PredictRequest")

    assert protos.message("tensorflow.serving.PredictRequest") is request
    assert type(request().inputs["x"]) is protos.message("tensorflow.TensorProto")


def test_an_unknown_message() -> None:
    with pytest.raises(KeyError, match=r"tensorflow\.Tensor"):
        protos.message("tensorflow.Tensor")


def test_bytes_that_are_no_message() -> None:
    assert protos.parse("tensorflow.serving.ModelSpec", b"\x0a\x01m").name == "m"
    with pytest.raises(ValueError, match=r"not a tensorflow\.serving\.ModelSpec message"):
        protos.parse("tensorflow.serving.ModelSpec", b"\xff")


def test_neither_tensorflow_nor_the_default_pool_is_touched() -> None:
    program = """
import sys
from fairway.tfs import protos
assert not any(name.startswith("google") for name in sys.modules), "the import alone loads protobuf"
protos.message("tensorflow.TensorProto")
from google.protobuf import descriptor_pool
for find, name in (("FindFileByName", "tensorflow/core/framework/tensor.proto"),
                   ("FindMessageTypeByName", "tensorflow.serving.ModelSpec")):
    try:
        getattr(descriptor_pool.Default(), find)(name)
    except KeyError:
        continue
    sys.exit(f"{name} is in the default pool")
assert "tensorflow" not in sys.modules
"""

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)

    assert done.returncode == 0, done.stderr
