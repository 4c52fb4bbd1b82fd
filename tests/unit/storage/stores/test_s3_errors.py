"""What S3 says, in words that tell what to look at."""

from __future__ import annotations

from typing import Any

import pytest
from botocore import exceptions as boto

from fairway.storage.stores.network import UnreachableError
from fairway.storage.stores.s3_errors import Place, code_of, is_transient, raise_refusal, storage_error

PLACE = Place("models", "https://store:9000", "us-east-1")
PLAIN = Place("models", "http://store:9000", "us-east-1")


def refusal(code: str, status: int = 403, operation: str = "PutObject", **more: str) -> boto.ClientError:
    answer: Any = {
        "Error": {"Code": code, "Message": f"{{{code}}}", **more},
        "ResponseMetadata": {"HTTPStatusCode": status},
    }
    return boto.ClientError(answer, operation)


def connection(kind: Any, reason: str = "") -> Exception:
    error: Exception = kind(endpoint_url=PLACE.url, error=reason)
    return error


DROPPED = [
    connection(boto.EndpointConnectionError),
    connection(boto.ConnectTimeoutError),
    connection(boto.ReadTimeoutError),
    boto.ConnectionClosedError(endpoint_url=PLACE.url, error="", request=None),
    boto.ResponseStreamingError(error=""),
    boto.IncompleteReadError(actual_bytes=1, expected_bytes=2),
    UnreachableError("it refuses connections"),
]


@pytest.mark.parametrize("err", DROPPED, ids=lambda err: type(err).__name__)
def test_broken_connection_may_pass(err: Exception) -> None:
    assert is_transient(err)
    assert "store:9000" in storage_error(err, "read", "s3://models/a", PLACE).message


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("SlowDown", 503),
        ("ServiceUnavailable", 503),
        ("503", 503),
        ("InternalError", 500),
        ("", 502),
        ("504", 504),
        ("RequestTimeout", 400),
        ("429", 429),
        ("ConditionalRequestConflict", 409),
        ("OperationAborted", 409),
        ("InternalError", 200),  # for one key of a deletion
    ],
)
def test_trouble_of_the_server_may_pass(code: str, status: int) -> None:
    assert is_transient(refusal(code, status))


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("AccessDenied", 403),
        ("SignatureDoesNotMatch", 403),
        ("RequestTimeTooSkewed", 403),
        ("NoSuchKey", 404),
        ("NoSuchBucket", 404),
        ("PreconditionFailed", 412),
        ("InvalidRange", 416),
        ("NotImplemented", 501),
        ("XMinioStorageFull", 507),
        ("507", 507),
        ("400", 400),
        ("301", 301),
    ],
)
def test_refusal_will_last(code: str, status: int) -> None:
    assert not is_transient(refusal(code, status))


@pytest.mark.parametrize(
    "reason",
    [
        "[SSL: CERTIFICATE_VERIFY_FAILED]",
        "[SSL: WRONG_VERSION_NUMBER]",
        "[SSL] record layer failure (_ssl.c:1000)",
    ],
)
def test_certificates_and_plain_http_will_last(reason: str) -> None:
    assert not is_transient(connection(boto.SSLError, reason))
    assert is_transient(connection(boto.SSLError, "EOF occurred in violation of protocol"))


def test_unknown_host_will_last() -> None:
    assert not is_transient(UnreachableError("there is no host store", is_transient=False))


@pytest.mark.parametrize(
    ("err", "message", "hint"),
    [
        (refusal("InvalidAccessKeyId"), "store:9000 does not know the access key", "AWS_ACCESS_KEY_ID"),
        (refusal("SignatureDoesNotMatch"), "do not belong together", "AWS_SECRET_ACCESS_KEY"),
        (refusal("AccessDenied"), "access is denied", "s3:PutObject for the bucket models"),
        (refusal("403"), "access is denied", "s3:PutObject for the bucket models"),
        (refusal("ExpiredToken", 400), "the credentials have expired", "new ones"),
        (refusal("InvalidToken", 400), "the session token is not valid", "AWS_SESSION_TOKEN"),
        (
            refusal("RequestTimeTooSkewed"),
            "clock of this machine differs from that of store:9000",
            "clock",
        ),
        (refusal("NoSuchBucket", 404), "there is no bucket models at store:9000", "S3_ENDPOINT"),
        (
            refusal("AuthorizationHeaderMalformed", 400, Region="eu-west-1"),
            "the bucket is in another region than us-east-1",
            "AWS_REGION to the bucket's region, eu-west-1",
        ),
        (refusal("PermanentRedirect", 301), "in another region than us-east-1", "Set AWS_REGION"),
        (refusal("SlowDown", 503), "store:9000 is overloaded (SlowDown)", "later"),
        (refusal("503", 503), "store:9000 is overloaded (503)", "later"),
        (refusal("XMinioStorageFull", 507), "store:9000 has no space left (XMinioStorageFull)", "space"),
        (refusal("Odd", 418), "store:9000 answers 418 Odd: {Odd}", "log"),
        (
            refusal("AccessDenied", 403, "AssumeRoleWithWebIdentity"),
            "no credentials could be had: AssumeRoleWithWebIdentity is refused, AccessDenied",
            "AWS_ROLE_ARN",
        ),
        (boto.NoCredentialsError(), "there are no complete credentials", "AWS_ACCESS_KEY_ID"),
        (
            boto.CredentialRetrievalError(provider="sso", error_msg="{token} expired"),
            "no credentials could be had: Error when retrieving credentials from sso: {token} expired",
            "AWS_PROFILE",
        ),
        (
            UnreachableError("it refuses connections"),
            "store:9000 cannot be reached: it refuses connections",
            "S3_ENDPOINT",
        ),
        (connection(boto.ReadTimeoutError), "store:9000 does not answer", "S3_ENDPOINT"),
        (
            connection(boto.SSLError, "[SSL: CERTIFICATE_VERIFY_FAILED] self-signed"),
            "the TLS certificate of store:9000 is not trusted",
            "AWS_CA_BUNDLE",
        ),
        (connection(boto.SSLError, "[SSL: CERTIFICATE_VERIFY_FAILED]"), "is not trusted", "S3_VERIFY_SSL=0"),
        (connection(boto.SSLError, "[SSL: WRONG_VERSION_NUMBER]"), "does not speak TLS", "S3_USE_HTTPS=0"),
        (connection(boto.SSLError, "[SSL] record layer failure"), "does not speak TLS", "S3_USE_HTTPS=0"),
        (
            boto.ProxyConnectionError(proxy_url="http://***:***@proxy:3128", error=""),
            "the proxy proxy:3128 cannot be reached",
            "HTTPS_PROXY",
        ),
        (boto.ParamValidationError(report="{odd}"), "{odd}", "AWS_"),
    ],
)
def test_message_and_hint(err: Exception, message: str, hint: str) -> None:
    error = storage_error(err, "write", "s3://models/a/b", PLACE)
    assert error.message.startswith("cannot write s3://models/a/b: ")
    assert message in error.message
    assert hint in error.hint


def test_plain_http_at_a_port_with_tls() -> None:
    assert "S3_USE_HTTPS=1" in storage_error(refusal("400", 400), "list", "s3://models", PLAIN).hint
    assert "S3_USE_HTTPS" not in storage_error(refusal("400", 400), "list", "s3://models", PLACE).hint


@pytest.mark.parametrize(
    ("action", "permission"),
    [("list", "ListBucket"), ("read", "GetObject"), ("write", "PutObject"), ("delete", "DeleteObject")],
)
def test_missing_permission_is_named(action: str, permission: str) -> None:
    assert f"s3:{permission} " in storage_error(refusal("AccessDenied"), action, "s3://models", PLACE).hint


def test_what_a_credential_program_says_is_not_shown() -> None:
    err = boto.CredentialRetrievalError(provider="custom-process", error_msg="secret is hidden")
    error = storage_error(err, "read", "s3://models/a", PLACE)
    assert "hidden" not in error.message + error.hint


def test_errors_in_an_answer_to_a_deletion() -> None:
    raise_refusal({})
    raise_refusal({"Errors": [{"Key": "a", "Code": "NoSuchKey", "Message": ""}]})
    answer = {"Errors": [{"Key": "a", "Code": "NoSuchKey"}, {"Key": "b", "Code": "AccessDenied"}]}
    with pytest.raises(boto.ClientError) as caught:
        raise_refusal(answer)
    assert code_of(caught.value) == "AccessDenied"
