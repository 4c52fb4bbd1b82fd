"""Every setting, once: a field gives the flag, the environment variable, type, default, unit and help.

The field `train_steps` is the flag `--train-steps` (or `--train_steps`) and the environment variable
`TF_TRAIN_STEPS`, the names of Kubeflow's MNIST tutorial. A flag wins over the environment, the
environment over the default. The text under a field is its help: one line, as the help wraps it itself.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

from cyclopts import Parameter, Token

from fairway.errors import UsageError

ENV_PREFIX = "TF_"
# Defaults that several commands share, so that they find each other without a flag.
MODEL_NAME = "mnist"
MODEL_DIR = "mnist/model"
EXPORT_DIR = "mnist/export"
METRICS_PATH = "/monitoring/prometheus/metrics"  # TensorFlow Serving's, PrometheusExporter::kPrometheusPath


@dataclass(frozen=True)
class Range:
    """The bounds of a numeric setting. NaN lies outside every range."""

    minimum: float | None = None
    maximum: float | None = None
    above: float | None = None

    def __contains__(self, value: float) -> bool:
        return (
            (self.minimum is None or value >= self.minimum)
            and (self.maximum is None or value <= self.maximum)
            and (self.above is None or value > self.above)
            and value == value
        )

    def __str__(self) -> str:
        return " and ".join(
            f"{words} {bound:g}"
            for words, bound in (
                ("at least", self.minimum),
                ("above", self.above),
                ("at most", self.maximum),
            )
            if bound is not None
        )


def cache_dir() -> Path:
    """Return the directory for what can be fetched again (XDG base directory specification)."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fairway"


def environment_variable(field: str) -> str:
    """Return the name of the environment variable of a setting: `train_steps` is `TF_TRAIN_STEPS`."""
    return ENV_PREFIX + field.upper()


def tf_config() -> str | None:
    """Return `TF_CONFIG`: which task of a distributed training this process is; `None` if it is not set."""
    return os.environ.get("TF_CONFIG")


class Settings:
    """What the settings of all commands share: their values are checked when they are made."""

    def __post_init__(self) -> None:
        """Check each value against its `Range`.

        Raises:
            UsageError: a value lies outside; the message names the setting and the value.
        """
        for name, bounds in _ranges(type(self)):
            value = getattr(self, name)
            if value is not None and value not in bounds:
                raise UsageError(
                    f"{name} is {value!r}, but must be {bounds}",
                    hint=f"Set it with --{name.replace('_', '-')} or {environment_variable(name)}.",
                )


def _ranges(settings: type[Settings]) -> Iterator[tuple[str, Range]]:
    hints = get_type_hints(settings, include_extras=True)
    for field in fields(settings):  # type: ignore[arg-type]
        for note in getattr(hints[field.name], "__metadata__", ()):
            if isinstance(note, Range):
                yield field.name, note


def _whole_number(_type: object, tokens: Sequence[Token]) -> int:
    """Refuse 1.5, which cyclopts would round."""
    try:
        return int(tokens[0].value)
    except ValueError as err:
        raise ValueError(f"{tokens[0].value!r} is not a whole number") from err


Count = Annotated[int, Parameter(converter=_whole_number)]
DatasetName = Literal["auto", "mnist", "embedded", "custom"]
Precision = Literal["auto", "float32", "bfloat16"]
Output = Annotated[Literal["table", "json"], Parameter(alias="-o")]
Port = Annotated[Count, Range(minimum=0, maximum=65535)]
Host = Annotated[str, Parameter(help="Address to listen on; 0.0.0.0 is every interface.")]


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class DataSettings(Settings):
    """Where the digits come from."""

    dataset: DatasetName = "auto"
    """mnist: all of it, genuine. embedded: 5,000 digits of it. auto: what can be had. custom: your own."""

    data_dir: str | None = None
    """Directory with the four IDX files, gzipped or not, or Keras's mnist.npz. Default: the user's cache."""

    data_url: Annotated[str | None, Parameter(env_var="FAIRWAY_DATA_URL")] = None
    """Address under which the four gzipped IDX files can be downloaded. Default: a list of mirrors."""


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class TrainSettings(DataSettings):
    """What is trained, on what, for how long, and where the results go."""

    model_type: Literal["cnn", "linear"] = "cnn"
    """cnn: a small convolutional network. linear: softmax regression."""

    train_steps: Annotated[Count | None, Range(minimum=1)] = None
    """Steps to train for in all, those of an interrupted run included. Default: the recipe's."""

    batch_size: Annotated[Count, Range(minimum=1)] = 128
    """Images per step of each worker."""

    learning_rate: Annotated[float | None, Range(above=0, maximum=10)] = None
    """Peak of the one-cycle schedule. Default: the model type's."""

    augment: bool | None = None
    """Shift, turn, scale and shear the training images a little. Default: only for the embedded digits."""

    precision: Precision = "auto"
    """Arithmetic of the training step. auto: bfloat16 where the processor has it. Exports are float32."""

    seed: Annotated[Count, Range(minimum=0, maximum=2**31 - 1)] = 0
    """Seed of the weights, the order of the images and the augmentation."""

    checkpoint_steps: Annotated[Count, Range(minimum=1)] = 200
    """Steps between two checkpoints."""

    model_dir: str = MODEL_DIR
    """Directory for checkpoints, events, metrics.jsonl and config.json. A second run resumes from it."""

    export_dir: str = EXPORT_DIR
    """Directory that gets one servable version per finished run."""

    keep: Annotated[Count | None, Range(minimum=1)] = None
    """Versions to keep in the export directory: older ones are deleted after an export. Default: all."""

    profile: bool = False
    """Write a TensorBoard profile of a few steps to the model directory."""

    peer_wait_seconds: Annotated[float, Range(above=0)] = 300.0
    """How long a task of a distributed training waits for the others."""


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class ClusterSettings(Settings):
    """The processes of a distributed training on this machine."""

    workers: Annotated[Count, Range(minimum=0)] = 0
    """Workers besides the chief, which trains too unless there are parameter servers."""

    ps: Annotated[Count, Range(minimum=0)] = 0
    """Parameter servers: with any, the workers train asynchronously."""

    evaluator: Annotated[bool, Parameter(negative="")] = False
    """Evaluate each new checkpoint in a process of its own."""

    def __post_init__(self) -> None:
        """Check each value, and that parameter servers have somebody to serve.

        Raises:
            UsageError: a value lies outside its range, or there are parameter servers without workers.
        """
        super().__post_init__()
        if self.ps and not self.workers:
            raise UsageError(
                f"ps is {self.ps}, but there are no workers to train with parameter servers",
                hint="Add --workers 2, or leave out --ps.",
            )


@Parameter(name="*", name_transform=lambda name: name)
@dataclass(frozen=True, kw_only=True)
class ServeSettings(Settings):
    """The model server, in the words of `tensorflow_model_server`."""

    port: Port = 9000
    """Port of the gRPC API; 0 takes a free one."""

    rest_api_port: Port = 8500
    """Port of the REST API; 0 takes a free one."""

    grpc_socket_path: str = ""
    """Unix socket on which the gRPC API listens, too."""

    model_name: str = MODEL_NAME
    """Name under which the model is served."""

    model_base_path: str = EXPORT_DIR
    """Export directory: one sub-directory per version."""

    model_config_file: str = ""
    """File with a ModelServerConfig: several models, their version policies and labels."""

    model_config_file_poll_wait_seconds: Annotated[float, Range(minimum=0)] = 0.0
    """Seconds between two looks at that file; 0 reads it once."""

    allow_version_labels_for_unavailable_models: Annotated[bool, Parameter(negative="")] = False
    """Take labels of versions that do not serve yet."""

    file_system_poll_wait_seconds: Annotated[float, Range(above=0)] = 1.0
    """Seconds between two looks for new versions."""

    enable_model_warmup: bool = True
    """Run a version's warm-up records before it serves."""

    enable_batching: Annotated[bool, Parameter(negative="")] = False
    """Compute requests together as the parameters file says."""

    batching_parameters_file: str = ""
    """File with BatchingParameters, for --enable_batching."""

    rest_api_timeout_in_ms: Annotated[Count, Range(minimum=1)] = 30_000
    """Milliseconds that the answer to a REST request may take."""

    rest_api_num_threads: Annotated[Count, Range(minimum=1)] = 4
    """Threads that compute what would hold up the others."""

    rest_api_enable_cors_support: Annotated[bool, Parameter(negative="")] = False
    """Let pages of other origins call the REST API."""

    grpc_max_threads: Annotated[Count | None, Range(minimum=1)] = None
    """gRPC predictions that are computed at a time, while others wait. Default: all; none needs a thread."""

    grpc_channel_arguments: str = ""
    """Settings of gRPC itself: grpc.max_connection_age_ms=2000,grpc.keepalive_time_ms=1000."""

    ssl_config_file: str = ""
    """File with an SSLConfig: key, certificate and, for clients' certificates, their authority; for gRPC."""

    monitoring_config_file: str = ""
    """File with a MonitoringConfig: whether and where Prometheus finds metrics. Default: the usual path."""

    tensorflow_intra_op_parallelism: Annotated[Count, Range(minimum=0)] = 0
    """Threads for one operation, where TensorFlow computes; 0 leaves it to TensorFlow."""

    tensorflow_inter_op_parallelism: Annotated[Count, Range(minimum=0)] = 0
    """Operations at the same time, where TensorFlow computes; 0 leaves it to TensorFlow."""

    workers: Annotated[Count, Range(minimum=1)] = 1
    """Processes that answer on the same ports, all with the same versions."""

    max_pending_requests: Annotated[Count, Range(minimum=1)] = 1000
    """Predictions that each worker takes on at a time; what is more is refused at once."""

    drain_seconds: Annotated[float, Range(minimum=0)] = 10.0
    """Seconds that requests may take to be answered once the server is told to end."""

    access_log: Annotated[bool, Parameter(negative="")] = False
    """Write a line of JSON to stdout for each request."""

    host: Host = "127.0.0.1"

    def __post_init__(self) -> None:
        """Check each value, and that the model has a name and a base path where no file has them.

        Raises:
            UsageError: a value lies outside its range, or one of these is empty.
        """
        super().__post_init__()
        for name in ("model_name", "model_base_path"):
            if not getattr(self, name) and not self.model_config_file:
                raise UsageError(
                    f"{name} is empty",
                    hint=f"Set it with --{name} or {environment_variable(name)}, or leave both out.",
                )


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class ModelsSettings(Settings):
    """Which exports to show, and how."""

    export_dir: str = EXPORT_DIR
    """Export directory: one sub-directory per version."""

    output: Output = "table"
    """`table` for people, `json` for programs."""


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class ProbeSettings(Settings):
    """Which directories are tried, and how that is shown."""

    model_dir: str = MODEL_DIR
    """Model directory of a training."""

    export_dir: str = EXPORT_DIR
    """Export directory of a training."""

    output: Output = "table"
    """`table` for people, `json` for programs."""


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class SyncSettings(Settings):
    """How versions are copied."""

    watch: Annotated[bool, Parameter(negative="")] = False
    """Go on copying what is new, until SIGTERM or Ctrl-C."""

    keep: Annotated[Count | None, Range(minimum=1)] = None
    """How many of the newest versions TARGET is to have; older ones are deleted there. Default: all."""

    delete: Annotated[bool, Parameter(negative="")] = False
    """Delete from TARGET what has gone from SOURCE, unless nothing of SOURCE is in TARGET."""

    poll_seconds: Annotated[float, Range(above=0)] = 5.0
    """Seconds between two looks for new versions, with --watch."""


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class WebSettings(DataSettings):
    """The web UI and the model server it asks."""

    port: Port = 5000
    """Port of the web UI; 0 takes a free one."""

    host: Host = "127.0.0.1"

    server: str = "127.0.0.1:8500"
    """HOST:PORT of the model server's REST API."""

    model_name: str = MODEL_NAME
    """Name of the model at that server."""

    model_dir: str = MODEL_DIR
    """Model directory, for the curves of a running training."""

    export_dir: str = EXPORT_DIR
    """Export directory, for the record of the served version."""

    path_prefix: str = ""
    """Path under which a proxy shows the UI, if it passes the path on unchanged: /ui."""


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class TensorBoardSettings(Settings):
    """TensorBoard on a model directory."""

    logdir: str = MODEL_DIR
    """Directory with event files, searched with all below it."""

    port: Port = 8090
    """Port of TensorBoard; 0 takes a free one."""

    host: Host = "127.0.0.1"

    path_prefix: str = ""
    """Path under which TensorBoard is shown: /tensorboard."""


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class UpSettings(Settings):
    """Where the parts of `fairway up` listen."""

    web_port: Port = 8080
    """Port of the web UI; 0 takes a free one."""

    tensorboard_port: Port = 8090
    """Port of TensorBoard; 0 takes a free one."""

    rest_api_port: Port = 8500
    """Port of the model server's REST API; 0 takes a free one."""

    grpc_port: Port = 9000
    """Port of the model server's gRPC API; 0 takes a free one."""

    host: Host = "127.0.0.1"


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class PredictSettings(Settings):
    """The model that is asked, and how."""

    server: str | None = None
    """HOST:PORT of the model server. Default: 127.0.0.1:8500, the REST API; with --grpc 127.0.0.1:9000."""

    grpc: Annotated[bool, Parameter(negative="")] = False
    """Ask over gRPC instead of REST."""

    model_name: str = MODEL_NAME
    """Name of the model at that server."""

    model_version: Annotated[Count | None, Range(minimum=0)] = None
    """Version to ask. Default: the newest one that is served."""

    version_label: str | None = None
    """Label of the version to ask, as `stable`, where the server knows some."""

    output: Output = "table"
    """`table` for people, `json` for programs."""

    def __post_init__(self) -> None:
        """Check each value, and that one version is asked.

        Raises:
            UsageError: a value lies outside its range, or there are both a version and a label.
        """
        super().__post_init__()
        if self.model_version is not None and self.version_label:
            raise UsageError(
                f"model_version is {self.model_version} and version_label is {self.version_label!r}, "
                "but only one of them can say which version to ask",
                hint="Leave out --model-version or --version-label.",
            )


def environment_without(settings: type[Settings]) -> dict[str, str]:
    """Return this process's environment for a child that is not to have some settings from it."""
    names = {environment_variable(field.name) for field in fields(settings)}  # type: ignore[arg-type]
    return {name: value for name, value in os.environ.items() if name not in names}


def as_flags(settings: Settings, *names: str) -> list[str]:
    """Return settings, all or the named ones, as command-line words for another fairway command.

    Booleans become `--augment` or `--no-augment`; a setting that is `None` is left out.
    """
    words: list[str] = []
    for name in names or [field.name for field in fields(settings)]:  # type: ignore[arg-type]
        value: Any = getattr(settings, name)
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{flag}" if value else f"--no-{flag}")
        elif value is not None:
            words += [f"--{flag}", str(value)]
    return words


def flags_given(settings: Settings) -> list[str]:
    """Return the fields whose value is neither the default nor from an environment variable."""
    hints = get_type_hints(type(settings), include_extras=True)
    given = []
    for field in fields(settings):  # type: ignore[arg-type]
        notes = [
            each for each in getattr(hints[field.name], "__metadata__", ()) if isinstance(each, Parameter)
        ]
        names = [environment_variable(field.name), *(name for note in notes for name in note.env_var or ())]
        if getattr(settings, field.name) != field.default and not any(map(os.environ.get, names)):
            given.append(field.name)
    return given
