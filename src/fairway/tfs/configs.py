"""The files that configure `tensorflow_model_server`, in protobuf's text format, as plain data.

Source of the rules: tensorflow_serving/config/*.proto, tensorflow_serving/model_servers/server_core.cc and
tensorflow_serving/servables/tensorflow/session_bundle_config.proto.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fairway.config import METRICS_PATH
from fairway.errors import UsageError
from fairway.tfs import protos

_PLATFORM = "tensorflow"
_MODEL_TYPE = 1  # ModelType::TENSORFLOW, the deprecated way to say the same


@dataclass(frozen=True)
class Latest:
    """Serve the newest `count` versions."""

    count: int = 1


@dataclass(frozen=True)
class All:
    """Serve all versions."""


@dataclass(frozen=True)
class Specific:
    """Serve these versions, in rising order."""

    numbers: tuple[int, ...]


@dataclass(frozen=True)
class ModelConfig:
    """A model to serve.

    Attributes:
        name: Its name in requests.
        base_path: Its export directory: an absolute path or a URI.
        policy: Which of its versions to serve.
        labels: Version by label.
    """

    name: str
    base_path: str
    policy: Latest | All | Specific = Latest()
    labels: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class BatchingParameters:
    """How requests are computed together.

    Attributes:
        max_batch_size: Rows that are computed together at most.
        batch_timeout_s: Seconds that a row waits for others at most.
        max_enqueued_batches: Batches that may wait; what is more is refused.
        num_batch_threads: Batches that are computed at the same time.
        allowed_batch_sizes: Batches are padded to one of these sizes, in rising order; empty: not padded.
        pad_variable_length_inputs: Whether inputs of different shapes are padded to make them one batch.
    """

    max_batch_size: int = 1000
    batch_timeout_s: float = 0.0
    max_enqueued_batches: int = 100
    num_batch_threads: int = field(default_factory=lambda: os.cpu_count() or 1)
    allowed_batch_sizes: tuple[int, ...] = ()
    pad_variable_length_inputs: bool = False


@dataclass(frozen=True)
class Monitoring:
    """Whether Prometheus finds metrics, and at which path of the REST API."""

    enabled: bool = False
    path: str = METRICS_PATH


@dataclass(frozen=True)
class TlsFiles:
    """What gRPC needs for TLS: texts in PEM.

    Attributes:
        server_key: The server's private key.
        server_cert: Its certificate, with those that vouch for it.
        custom_ca: Certificates of those whom the server trusts to vouch for clients; empty: nobody.
        client_verify: Whether a client must show a certificate.
    """

    server_key: str
    server_cert: str
    custom_ca: str = ""
    client_verify: bool = False


def parse_model_configs(text: str) -> tuple[ModelConfig, ...]:
    """Read a ModelServerConfig.

    Raises:
        UsageError: it is not one, or one that cannot be served.
    """
    return model_configs(_parse(text, "ModelServerConfig"))


def model_configs(message: Any) -> tuple[ModelConfig, ...]:
    """Return the models of a ModelServerConfig message.

    Raises:
        UsageError: they cannot be served.
    """
    match message.WhichOneof("config"):
        case "custom_model_config":
            raise UsageError(
                "custom_model_config is not supported", hint="List the models in model_config_list."
            )
        case None:
            raise UsageError(
                "it has no model_config_list",
                hint='Write: model_config_list { config { name: "mnist" base_path: "/models/mnist" } }',
            )
    configs = tuple(_model_config(config) for config in message.model_config_list.config)
    for name, count in Counter(config.name for config in configs).items():
        if count > 1:
            raise UsageError(
                f"Illegal to list model {name} multiple times in config list", hint="Give each its own name."
            )
    return configs


def parse_batching(text: str) -> BatchingParameters:
    """Read BatchingParameters.

    `thread_pool_name` is read and has no effect: it names threads in TensorFlow's own profiles.

    Raises:
        UsageError: they are not that, or a value lies outside its range.
    """
    message = _parse(text, "BatchingParameters")
    sizes = tuple(message.allowed_batch_sizes)
    default = BatchingParameters()
    parameters = BatchingParameters(
        max_batch_size=_number(message, "max_batch_size", default.max_batch_size),
        batch_timeout_s=_number(message, "batch_timeout_micros", 0, minimum=0) / 1e6,
        max_enqueued_batches=_number(message, "max_enqueued_batches", default.max_enqueued_batches),
        num_batch_threads=_number(message, "num_batch_threads", default.num_batch_threads),
        allowed_batch_sizes=sizes,
        pad_variable_length_inputs=message.pad_variable_length_inputs,
    )
    if sizes and (sizes[0] < 1 or sorted(set(sizes)) != list(sizes)):
        raise UsageError(
            f"allowed_batch_sizes are {', '.join(map(str, sizes))}, but must be positive and in rising order"
        )
    if sizes and sizes[-1] != parameters.max_batch_size:
        raise UsageError(
            "Last entry in allowed_batch_sizes must match max_batch_size; last entry was"
            f" {sizes[-1]}; expected {parameters.max_batch_size}"
        )
    return parameters


def parse_monitoring(text: str) -> Monitoring:
    """Read a MonitoringConfig.

    Raises:
        UsageError: it is not one, or its path is none.
    """
    prometheus = _parse(text, "MonitoringConfig").prometheus_config
    path = prometheus.path or METRICS_PATH
    if not path.startswith("/"):
        raise UsageError(f"prometheus_config's path is '{path}'", hint=f"Begin it with a slash: '/{path}'.")
    return Monitoring(prometheus.enable, path)


def parse_tls(text: str) -> TlsFiles:
    """Read an SSLConfig.

    Raises:
        UsageError: it is not one, or something is missing for TLS.
    """
    message = _parse(text, "SSLConfig", secret=True)
    for name in ("server_key", "server_cert", "custom_ca"):
        value = getattr(message, name)
        if not value and (name != "custom_ca" or message.client_verify):
            needed = " and client_verify needs it" if name == "custom_ca" else ""
            raise UsageError(f"{name} is missing{needed}", hint="It holds a text in PEM.")
        if value and "-----BEGIN " not in value:
            # Neither names the value: it may be a secret in another form.
            raise UsageError(
                f"{name} is not in PEM", hint="It holds the text that the file has, not the file's name."
            )
    return TlsFiles(message.server_key, message.server_cert, message.custom_ca, message.client_verify)


def _parse(text: str, name: str, *, secret: bool = False) -> Any:
    """Return the message that a text holds; an error does not quote from one that is secret."""
    from google.protobuf import text_format  # only with such files: it takes 10 ms to import

    message = protos.message(f"tensorflow.serving.{name}")()
    try:
        return text_format.Parse(text, message, descriptor_pool=protos.pool())
    except text_format.ParseError as err:
        line, column = err.GetLine(), err.GetColumn()
        place = "" if line is None else f"line {line}, column {column}"
        reason = "" if secret else str(err).removeprefix(f"{line}:{column} : ")
        problem = ": ".join(filter(None, (place, reason)))
        raise UsageError(f"not a {name} in protobuf's text format: {problem}") from (None if secret else err)


def _model_config(message: Any) -> ModelConfig:
    name = message.name
    if not name:
        raise UsageError("a model in model_config_list has no name", hint='Add name: "..." to its config.')
    if not message.base_path:
        raise UsageError(f"model '{name}' has no base_path", hint='Add base_path: "..." to its config.')
    if not message.base_path.startswith("/") and "://" not in message.base_path:
        raise UsageError(
            f"Expected model {name} to have an absolute path or URI; got base_path()={message.base_path}"
        )
    if message.model_platform not in ("", _PLATFORM) or message.model_type not in (0, _MODEL_TYPE):
        platform = message.model_platform or message.model_type
        raise UsageError(
            f"model '{name}' is for the platform '{platform}', which is not supported",
            hint=f'Write model_platform: "{_PLATFORM}".',
        )
    if message.HasField("logging_config"):
        # Whoever wrote it counts on the requests being logged.
        raise UsageError(
            f"model '{name}' has a logging_config, and logging of whole requests is not supported",
            hint="Leave it out; --access_log writes a line for each request.",
        )
    return ModelConfig(
        name, message.base_path, _policy(name, message.model_version_policy), _labels(name, message)
    )


def _policy(name: str, message: Any) -> Latest | All | Specific:
    match message.WhichOneof("policy_choice"):
        case "all":
            return All()
        case "specific":
            if not message.specific.versions:
                raise UsageError(
                    f"model '{name}' is to serve specific versions, but names none",
                    hint="Write: specific { versions: 1 versions: 2 }",
                )
            return Specific(tuple(sorted(set(message.specific.versions))))
        case "latest":
            return Latest(max(message.latest.num_versions, 1))  # as FileSystemStoragePathSource reads a 0
    return Latest()


def _labels(name: str, message: Any) -> dict[str, int]:
    labels = dict(message.version_labels)
    if "" in labels:
        raise UsageError(f"model '{name}' has an empty label for version {labels['']}")
    return labels


def _number(message: Any, name: str, default: int, *, minimum: int = 1) -> int:
    if not message.HasField(name):
        return default
    value: int = getattr(message, name).value
    if value < minimum:
        raise UsageError(f"{name} is {value}, but must be at least {minimum}")
    return value
