"""The configuration files of tensorflow_model_server."""

import time
from typing import Any

import pytest

from fairway.errors import UsageError
from fairway.tfs import protos
from fairway.tfs.configs import (
    All,
    BatchingParameters,
    Latest,
    ModelConfig,
    Monitoring,
    Specific,
    TlsFiles,
    model_configs,
    parse_batching,
    parse_model_configs,
    parse_monitoring,
    parse_tls,
)

KEY = "-----BEGIN PRIVATE KEY-----\\nAA==\\n-----END PRIVATE KEY-----\\n"
CERT = "-----BEGIN CERTIFICATE-----\\nAA==\\n-----END CERTIFICATE-----\\n"


def one(fields: str) -> str:
    return f'model_config_list {{ config {{ name: "m" base_path: "/m" {fields} }} }}'


def test_models() -> None:
    found = parse_model_configs("""
        # The example of TensorFlow Serving's documentation, and more.
        model_config_list {
          config {
            name: 'first'
            base_path: '/models/first'
            model_platform: 'tensorflow'
          }
          config {
            name: 'second'
            base_path: 's3://bucket/second'
            model_type: TENSORFLOW
            model_version_policy { specific { versions: 43 versions: 42 versions: 43 } }
            version_labels { key: 'stable' value: 42 }
            version_labels { key: 'canary' value: 43 }
          }
          config { name: 'third', base_path: '/c', model_version_policy: { all: {} } }
          config { name: 'fourth' base_path: '/d' model_version_policy { latest { num_versions: 3 } } }
        }""")

    assert found == (
        ModelConfig("first", "/models/first"),
        ModelConfig("second", "s3://bucket/second", Specific((42, 43)), {"stable": 42, "canary": 43}),
        ModelConfig("third", "/c", All()),
        ModelConfig("fourth", "/d", Latest(3)),
    )


@pytest.mark.parametrize(
    "fields", ["", "model_version_policy {}", "model_version_policy { latest { num_versions: 0 } }"]
)
def test_the_latest_version_is_served_by_default(fields: str) -> None:
    assert parse_model_configs(one(fields)) == (ModelConfig("m", "/m", Latest(1)),)


def test_no_models() -> None:
    assert parse_model_configs("model_config_list {}") == ()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "it has no model_config_list"),
        ('custom_model_config { type_url: "a/b" }', "custom_model_config is not supported"),
        (
            "model_config_list {\n  config { nam: 'm' }\n}",
            "not a ModelServerConfig in protobuf's text format: line 2, column 12:"
            ' Message type "tensorflow.serving.ModelConfig" has no field named "nam"',
        ),
        ("model_config_list {", "line 1, column 19: Expected"),
        (one("version_labels { key: 'a' value: 'b' }"), "Couldn't parse integer: 'b'"),
        ('model_config_list { config { base_path: "/m" } }', "a model in model_config_list has no name"),
        ('model_config_list { config { name: "m" } }', "model 'm' has no base_path"),
        (
            'model_config_list { config { name: "m" base_path: "m" } }',
            "Expected model m to have an absolute path or URI; got base_path()=m",
        ),
        (
            'model_config_list { config { name: "m" base_path: "/a" } config { name: "m" base_path: "/b" } }',
            "Illegal to list model m multiple times in config list",
        ),
        (one('model_platform: "caffe"'), "model 'm' is for the platform 'caffe', which is not supported"),
        (one("model_type: OTHER"), "model 'm' is for the platform '2', which is not supported"),
        (one("logging_config {}"), "model 'm' has a logging_config"),
        (one("model_version_policy { specific {} }"), "model 'm' is to serve specific versions"),
        (one("version_labels { value: 2 }"), "model 'm' has an empty label for version 2"),
    ],
)
def test_what_cannot_be_served(text: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_model_configs(text)

    assert message in caught.value.message


def test_batching() -> None:
    found = parse_batching("""
        max_batch_size { value: 128 }
        batch_timeout_micros { value: 1500 }
        max_enqueued_batches { value: 20 }
        num_batch_threads { value: 8 }
        thread_pool_name { value: 'pool' }
        allowed_batch_sizes: 32
        allowed_batch_sizes: 128
        pad_variable_length_inputs: true""")

    assert found == BatchingParameters(
        max_batch_size=128,
        batch_timeout_s=0.0015,
        max_enqueued_batches=20,
        num_batch_threads=8,
        allowed_batch_sizes=(32, 128),
        pad_variable_length_inputs=True,
    )


def test_batching_by_default() -> None:
    assert parse_batching("") == BatchingParameters()
    assert BatchingParameters().num_batch_threads > 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("max_batch_size: 4", "not a BatchingParameters"),
        ("max_batch_size { value: 0 }", "max_batch_size is 0, but must be at least 1"),
        ("max_batch_size {}", "max_batch_size is 0, but must be at least 1"),
        ("num_batch_threads { value: -1 }", "num_batch_threads is -1"),
        ("batch_timeout_micros { value: -1 }", "batch_timeout_micros is -1, but must be at least 0"),
        ("allowed_batch_sizes: [4, 8]", "last entry was 8; expected 1000"),
        ("max_batch_size { value: 8 } allowed_batch_sizes: [8, 4, 8]", "are 8, 4, 8, but must be positive"),
        ("max_batch_size { value: 8 } allowed_batch_sizes: [0, 8]", "are 0, 8, but must be positive"),
    ],
)
def test_batching_that_cannot_be(text: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_batching(text)

    assert message in caught.value.message


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", Monitoring(False, "/monitoring/prometheus/metrics")),
        ("prometheus_config { enable: true }", Monitoring(True, "/monitoring/prometheus/metrics")),
        ('prometheus_config: { enable: true, path: "/metrics" }', Monitoring(True, "/metrics")),
    ],
)
def test_monitoring(text: str, expected: Monitoring) -> None:
    assert parse_monitoring(text) == expected


def test_a_path_of_metrics_without_slash() -> None:
    with pytest.raises(UsageError, match="path is 'metrics'"):
        parse_monitoring('prometheus_config { path: "metrics" }')


def test_tls() -> None:
    found = parse_tls(f'server_key: "{KEY}" server_cert: "{CERT}" custom_ca: "{CERT}" client_verify: true')

    cert = CERT.replace("\\n", "\n")
    assert found == TlsFiles(KEY.replace("\\n", "\n"), cert, cert, True)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "server_key is missing"),
        ({"server_key": KEY}, "server_cert is missing"),
        ({"server_key": KEY, "other": "secret"}, r"not a SSLConfig in .*: line 1, column \d+$"),
        ({"server_key": "\nsecret"}, r"not a SSLConfig in .*: line 1, column 13$"),
        ({"server_key": "secret", "server_cert": CERT}, "server_key is not in PEM"),
        ({"server_key": KEY, "server_cert": "/etc/tls/server.crt"}, "server_cert is not in PEM"),
        (
            {"server_key": KEY, "server_cert": CERT, "client_verify": True},
            "custom_ca is missing and client_verify needs it",
        ),
    ],
)
def test_tls_that_cannot_be(fields: dict[str, Any], message: str) -> None:
    text = " ".join(
        f"{name}: true" if value is True else f'{name}: "{value}"' for name, value in fields.items()
    )

    with pytest.raises(UsageError, match=message) as caught:
        parse_tls(text)

    assert "secret" not in caught.value.message + caught.value.hint


def test_thousands_of_models_take_no_time() -> None:
    message = protos.message("tensorflow.serving.ModelServerConfig")()
    for number in range(10_000):
        message.model_config_list.config.add(name=f"m{number}", base_path="/m")
    start = time.process_time()
    assert len(model_configs(message)) == 10_000
    assert time.process_time() - start < 1  # it was two, and grew with the square
