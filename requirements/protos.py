"""Makes src/fairway/tfs/serving.binpb; run by `make protos`.

The messages come from the official packages, whose generated modules hold them serialized:
tensorflow-serving-api and tensorflow. Three configuration files of
tensorflow_model_server are in no package and are described here.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet

MODULES = (
    "apis.prediction_service_pb2",
    "apis.model_service_pb2",
    "apis.prediction_log_pb2",
    "config.model_server_config_pb2",
    "config.platform_config_pb2",
)
WRAPPERS = "google/protobuf/wrappers.proto"
INT64 = ".google.protobuf.Int64Value"

# File, its imports, and its messages: (field, number, type), where a message's name stands for its type.
# Source of names and numbers: the files of these names in github.com/tensorflow/serving. Of its last one
# only what --batching_parameters_file holds. The very last is no message that anybody sends: it shows fields
# of a TensorProto as the bytes they are on the wire, which numpy reads at once instead of one by one.
UNPACKAGED: tuple[tuple[str, tuple[str, ...], dict[str, list[tuple[str, int, Any]]]], ...] = (
    (
        "tensorflow_serving/config/monitoring_config.proto",
        (),
        {
            "PrometheusConfig": [("enable", 1, "bool"), ("path", 2, "string")],
            "MonitoringConfig": [("prometheus_config", 1, ".tensorflow.serving.PrometheusConfig")],
        },
    ),
    (
        "tensorflow_serving/config/ssl_config.proto",
        (),
        {
            "SSLConfig": [
                ("server_key", 1, "string"),
                ("server_cert", 2, "string"),
                ("custom_ca", 3, "string"),
                ("client_verify", 4, "bool"),
            ]
        },
    ),
    (
        "tensorflow_serving/servables/tensorflow/session_bundle_config.proto",
        (WRAPPERS,),
        {
            "BatchingParameters": [
                ("max_batch_size", 1, INT64),
                ("batch_timeout_micros", 2, INT64),
                ("max_enqueued_batches", 3, INT64),
                ("num_batch_threads", 4, INT64),
                ("thread_pool_name", 5, ".google.protobuf.StringValue"),
                ("allowed_batch_sizes", 6, "repeated int64"),
                ("pad_variable_length_inputs", 7, "bool"),
            ]
        },
    ),
    (
        "fairway/packed_tensor.proto",
        (),
        {"PackedTensor": [("float_val", 5, "bytes"), ("double_val", 6, "bytes"), ("bool_val", 11, "bytes")]},
    ),
)


def packaged() -> list[FileDescriptorProto]:
    """Return the files of the modules, and before each what it imports."""
    files: dict[str, FileDescriptorProto] = {}

    def visit(descriptor: Any) -> None:
        if descriptor.name not in files:
            for imported in descriptor.dependencies:
                visit(imported)
            files[descriptor.name] = FileDescriptorProto.FromString(descriptor.serialized_pb)

    for module in MODULES:
        visit(importlib.import_module(f"tensorflow_serving.{module}").DESCRIPTOR)
    return list(files.values())


def described() -> list[FileDescriptorProto]:
    """Return the files that are in no package."""
    files = []
    for name, imports, messages in UNPACKAGED:
        package = "tensorflow.serving" if name.startswith("tensorflow_serving/") else "fairway"
        file = FileDescriptorProto(name=name, package=package, syntax="proto3", dependency=imports)
        for message, fields in messages.items():
            file.message_type.add(name=message, field=[field(*values) for values in fields])
        files.append(file)
    return files


def field(name: str, number: int, kind: str) -> FieldDescriptorProto:
    """Return one field; `kind` is a scalar type, perhaps after "repeated ", or the name of a message."""
    label = "LABEL_REPEATED" if kind.startswith("repeated ") else "LABEL_OPTIONAL"
    kind = kind.removeprefix("repeated ")
    is_message = kind.startswith(".")
    return FieldDescriptorProto(
        name=name,
        number=number,
        label=FieldDescriptorProto.Label.Value(label),
        type=FieldDescriptorProto.Type.Value("TYPE_MESSAGE" if is_message else f"TYPE_{kind.upper()}"),
        type_name=kind if is_message else None,
    )


if __name__ == "__main__":
    content = FileDescriptorSet(file=packaged() + described())
    Path(sys.argv[1]).write_bytes(content.SerializeToString(deterministic=True))
