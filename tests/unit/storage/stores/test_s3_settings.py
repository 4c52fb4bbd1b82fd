"""What the environment says about S3, and the boto3 client that comes of it."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from fairway.errors import StorageError, UsageError
from fairway.storage.stores.s3_connection import make_client
from fairway.storage.stores.s3_settings import S3Settings, default_region, explain, is_aws, s3_settings
from fairway.storage.stores.uri import open_store

AWS_WEST = "https://s3.us-west-2.amazonaws.com"


@pytest.fixture(autouse=True)
def no_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")


def settings_with(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]) -> S3Settings:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return s3_settings()


def test_nothing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    assert settings_with(monkeypatch, {}) == S3Settings(endpoint=None, region=None, verify=None)


@pytest.mark.parametrize(
    ("environment", "endpoint"),
    [
        ({"S3_ENDPOINT": "minio:9000"}, "https://minio:9000"),
        ({"S3_ENDPOINT": "minio:9000", "S3_USE_HTTPS": "1"}, "https://minio:9000"),
        ({"S3_ENDPOINT": "minio:9000", "S3_USE_HTTPS": "0"}, "http://minio:9000"),
        ({"S3_ENDPOINT": "minio:9000", "S3_USE_HTTPS": "False"}, "http://minio:9000"),
        ({"S3_ENDPOINT": "minio:9000", "S3_USE_HTTPS": ""}, "https://minio:9000"),
        ({"S3_ENDPOINT": "minio"}, "https://minio"),
        ({"S3_ENDPOINT": "[::1]:9000"}, "https://[::1]:9000"),
        ({"S3_ENDPOINT": "http://minio:9000"}, "http://minio:9000"),
        ({"S3_ENDPOINT": "http://minio:9000/", "S3_USE_HTTPS": "1"}, "http://minio:9000"),
        ({"S3_ENDPOINT": "https://minio:9000", "S3_USE_HTTPS": "0"}, "https://minio:9000"),
        ({"S3_ENDPOINT": "s3.us-west-2.amazonaws.com"}, AWS_WEST),
        ({"AWS_ENDPOINT_URL": "http://a:1"}, "http://a:1"),
        ({"AWS_ENDPOINT_URL": "http://a:1", "AWS_ENDPOINT_URL_S3": "http://b:2"}, "http://b:2"),
        ({"AWS_ENDPOINT_URL_S3": "http://b:2/gateway"}, "http://b:2/gateway"),
        ({"AWS_ENDPOINT_URL_S3": "http://b:2", "S3_ENDPOINT": "c:3"}, "https://c:3"),
        ({"S3_ENDPOINT": "", "AWS_ENDPOINT_URL": ""}, None),
    ],
)
def test_endpoint(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], endpoint: str | None) -> None:
    assert settings_with(monkeypatch, environment).endpoint == endpoint


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("S3_ENDPOINT", "minio:port"),
        ("S3_ENDPOINT", "minio:70000"),
        ("S3_ENDPOINT", "minio:0"),
        ("S3_ENDPOINT", ":9000"),
        ("S3_ENDPOINT", "s3://bucket"),
        ("S3_ENDPOINT", "minio:9000/bucket"),
        ("S3_ENDPOINT", "http://minio/bucket"),
        ("S3_ENDPOINT", "min io"),
        ("S3_ENDPOINT", "minio?x=1"),
        ("AWS_ENDPOINT_URL", "minio:9000"),
        ("AWS_ENDPOINT_URL_S3", "nonsense"),
        ("S3_USE_HTTPS", "maybe"),
        ("S3_USE_HTTPS", "2"),
        ("S3_VERIFY_SSL", "off "),
        ("AWS_REGION", "us east 1"),
        ("AWS_DEFAULT_REGION", "https://x"),
    ],
)
def test_nonsense_is_named(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(UsageError) as caught:
        open_store("s3://bucket")
    assert f"{name} is {value!r}" in caught.value.message
    assert name in caught.value.hint


def test_password_in_an_endpoint_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("S3_ENDPOINT", "http://name:hidden@minio:9000")
    with pytest.raises(UsageError, match="S3_ENDPOINT is a URL with a name and password") as caught:
        s3_settings()
    assert "hidden" not in caught.value.message + caught.value.hint


@pytest.mark.parametrize(("value", "verify"), [("0", False), ("false", False), ("1", None), ("", None)])
def test_verification(monkeypatch: pytest.MonkeyPatch, value: str, verify: bool | None) -> None:
    assert settings_with(monkeypatch, {"S3_VERIFY_SSL": value}).verify is verify


@pytest.mark.parametrize(
    ("environment", "region"),
    [
        ({"AWS_REGION": "eu-west-1"}, "eu-west-1"),
        ({"AWS_DEFAULT_REGION": "eu-west-2"}, "eu-west-2"),
        ({"AWS_REGION": "eu-west-1", "AWS_DEFAULT_REGION": "eu-west-2"}, "eu-west-1"),
        ({"S3_ENDPOINT": "minio:9000"}, "us-east-1"),
        ({"S3_ENDPOINT": "minio:9000", "AWS_REGION": "eu-west-1"}, "eu-west-1"),
        ({"S3_ENDPOINT": "s3.us-west-2.amazonaws.com"}, "us-west-2"),
        ({"S3_ENDPOINT": "s3.us-west-2.amazonaws.com", "AWS_REGION": "eu-west-1"}, "eu-west-1"),
    ],
)
def test_region(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], region: str) -> None:
    _, client = make_client(settings_with(monkeypatch, environment))
    assert client.meta.region_name == region


@pytest.mark.parametrize(
    ("endpoint", "aws", "region"),
    [
        (None, True, None),
        (AWS_WEST, True, "us-west-2"),
        ("https://s3-eu-central-1.amazonaws.com", True, "eu-central-1"),
        ("https://s3.dualstack.eu-west-1.amazonaws.com", True, "eu-west-1"),
        ("https://s3.cn-north-1.amazonaws.com.cn", True, "cn-north-1"),
        ("https://s3.amazonaws.com", True, "us-east-1"),
        ("https://amazonaws.com.example", False, "us-east-1"),
        ("http://minio:9000", False, "us-east-1"),
    ],
)
def test_what_is_aws(endpoint: str | None, aws: bool, region: str | None) -> None:
    assert is_aws(endpoint) is aws
    assert default_region(endpoint) == region


def test_client_off_aws(monkeypatch: pytest.MonkeyPatch) -> None:
    _, client = make_client(settings_with(monkeypatch, {"S3_ENDPOINT": "minio:9000", "S3_USE_HTTPS": "0"}))
    assert client.meta.endpoint_url == "http://minio:9000"
    assert client.meta.config.s3["addressing_style"] == "path"
    assert client.meta.config.request_checksum_calculation == "when_required"
    assert client.meta.config.response_checksum_validation == "when_required"


def test_client_for_aws(monkeypatch: pytest.MonkeyPatch) -> None:
    _, client = make_client(settings_with(monkeypatch, {"AWS_REGION": "eu-west-1"}))
    assert client.meta.endpoint_url == "https://s3.eu-west-1.amazonaws.com"
    assert not client.meta.config.s3 or "addressing_style" not in client.meta.config.s3
    assert client.meta.config.request_checksum_calculation == "when_supported"


def test_endpoint_of_the_profile(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "config").write_text(
        "[profile office]\nregion = eu-north-1\nservices = office\n"
        "[services office]\ns3 =\n  endpoint_url = http://minio.office:9000\n"
    )
    environment = {"AWS_CONFIG_FILE": str(tmp_path / "config"), "AWS_PROFILE": "office"}
    _, client = make_client(settings_with(monkeypatch, environment))
    assert client.meta.endpoint_url == "http://minio.office:9000"
    assert client.meta.region_name == "eu-north-1"
    assert client.meta.config.s3["addressing_style"] == "path"


def test_unknown_profile_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(StorageError, match="nobody") as caught:
        open_store("s3://bucket/a")
    assert "s3://bucket" in caught.value.message


def test_half_of_the_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(StorageError, match="there are no complete credentials") as caught:
        open_store("s3://bucket/a")
    assert "AWS_SECRET_ACCESS_KEY" in caught.value.hint


def test_scheme_in_the_endpoint_is_explained(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "fairway")
    explain(settings_with(monkeypatch, {"S3_ENDPOINT": "minio:9000"}))
    assert caplog.messages == []
    explain(settings_with(monkeypatch, {"S3_ENDPOINT": "http://minio:9000"}))
    assert len(caplog.messages) == 1
    assert "http://minio:9000" in caplog.text
    assert "S3_USE_HTTPS is not looked at" in caplog.text


def test_certificates_that_are_not_checked_are_warned_of(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    explain(settings_with(monkeypatch, {"S3_ENDPOINT": "minio:9000", "S3_VERIFY_SSL": "0"}))
    assert caplog.messages == ["the TLS certificate of minio is not checked, as S3_VERIFY_SSL is 0"]
