"""What a server is to do: its settings, and what the files say that they name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from fairway.config import METRICS_PATH, ServeSettings
from fairway.errors import UsageError
from fairway.serve.config_file import read_text
from fairway.tfs.configs import (
    BatchingParameters,
    Monitoring,
    TlsFiles,
    parse_batching,
    parse_monitoring,
    parse_tls,
)

_T = TypeVar("_T")


@dataclass(frozen=True)
class Plan:
    """What every process that answers is told.

    Attributes:
        settings: With the ports that were taken in place of 0.
        batching: `None`: requests are computed one by one.
        monitoring: Whether Prometheus finds metrics, and where; without a file it does.
        tls: For gRPC; `None`: none.
        channel_arguments: gRPC's own.
    """

    settings: ServeSettings
    batching: BatchingParameters | None
    monitoring: Monitoring
    tls: TlsFiles | None
    channel_arguments: tuple[tuple[str, str | int], ...]

    @property
    def metrics_path(self) -> str | None:
        """Where Prometheus finds the metrics; `None`: nowhere."""
        return self.monitoring.path if self.monitoring.enabled else None


def read_plan(settings: ServeSettings) -> Plan:
    """Read the files that the settings name.

    Raises:
        UsageError: one cannot be read or holds something else, or a setting does not go with another.
    """
    if settings.batching_parameters_file and not settings.enable_batching:
        raise UsageError(
            "--batching_parameters_file is given, but not --enable_batching",
            hint="Give both, or neither.",
        )
    if settings.port and settings.port == settings.rest_api_port:
        raise UsageError(
            f"--port and --rest_api_port are both {settings.port}",
            hint="Give each its own (0 takes a free one).",
        )
    batching = _parse_file(settings.batching_parameters_file, "--batching_parameters_file", parse_batching)
    return Plan(
        settings,
        (batching or BatchingParameters()) if settings.enable_batching else None,
        _parse_file(settings.monitoring_config_file, "--monitoring_config_file", parse_monitoring)
        or Monitoring(enabled=True, path=METRICS_PATH),
        _parse_file(settings.ssl_config_file, "--ssl_config_file", parse_tls),
        _channel_arguments(settings.grpc_channel_arguments),
    )


def _parse_file(path: str, flag: str, parse: Callable[[str], _T]) -> _T | None:
    if not path:
        return None
    text = read_text(path, flag)
    try:
        return parse(text)
    except UsageError as err:
        raise UsageError(f"{flag} {path}: {err.message}", hint=err.hint) from err


def _channel_arguments(text: str) -> tuple[tuple[str, str | int], ...]:
    if not text:
        return ()
    from fairway.serve.grpc import parse_channel_arguments  # gRPC takes 50 ms to load

    return parse_channel_arguments(text)
