"""What the files say that the settings name."""

from pathlib import Path

import pytest

from fairway.config import ServeSettings
from fairway.errors import UsageError
from fairway.serve.plan import read_plan


def test_without_files() -> None:
    plan = read_plan(ServeSettings())
    assert (plan.batching, plan.tls, plan.channel_arguments) == (None, None, ())
    assert plan.metrics_path == "/monitoring/prometheus/metrics"


def test_batching_without_a_file_has_the_defaults() -> None:
    plan = read_plan(ServeSettings(enable_batching=True))
    assert plan.batching
    assert plan.batching.max_batch_size == 1000


def test_files(tmp_path: Path) -> None:
    batching, monitoring = tmp_path / "batching", tmp_path / "monitoring"
    batching.write_text("max_batch_size { value: 32 }")
    monitoring.write_text('prometheus_config { enable: true path: "/metrics" }')
    plan = read_plan(
        ServeSettings(
            enable_batching=True,
            batching_parameters_file=str(batching),
            monitoring_config_file=str(monitoring),
            grpc_channel_arguments="grpc.max_connection_age_ms=2000",
        )
    )
    assert plan.batching
    assert plan.batching.max_batch_size == 32
    assert plan.metrics_path == "/metrics"
    assert plan.channel_arguments == (("grpc.max_connection_age_ms", 2000),)


def test_metrics_that_are_switched_off(tmp_path: Path) -> None:
    path = tmp_path / "monitoring"
    path.write_text("prometheus_config { enable: false }")
    assert read_plan(ServeSettings(monitoring_config_file=str(path))).metrics_path is None


def test_channel_arguments_that_are_none() -> None:
    with pytest.raises(UsageError, match="'grpc.x'"):
        read_plan(ServeSettings(grpc_channel_arguments="grpc.x"))


def test_one_port_for_both_apis() -> None:
    with pytest.raises(UsageError, match="--port and --rest_api_port are both 8500"):
        read_plan(ServeSettings(port=8500))
    assert read_plan(ServeSettings(port=0, rest_api_port=0))
