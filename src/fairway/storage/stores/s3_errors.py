"""What S3 and boto3 say when something goes wrong, in words that tell what to look at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from botocore import exceptions as boto
from urllib3.exceptions import HTTPError

from fairway.errors import StorageError, StoreAwayError
from fairway.storage.stores.network import (
    UnreachableError,
    endpoint_of,
    is_plain_answer,
    is_tls_setting,
)

ERRORS = (boto.BotoCoreError, boto.ClientError, UnreachableError, HTTPError)
"""All that a call of boto3, or the look at its endpoint before, may raise."""

STALE = {
    "ExpiredToken",
    "ExpiredTokenException",
    "RequestExpired",
    "TokenRefreshRequired",
    "InvalidToken",
} | {
    "InvalidAccessKeyId",  # the key was replaced by another
    "SignatureDoesNotMatch",  # Swift's word for that
    "400",  # the answer to a HEAD request has no body, so these may mean any of the above
    "403",
}
"""Codes after which it is worth a try to read the credentials anew."""

_DROPPED = (
    UnreachableError,
    boto.ConnectionError,
    boto.ConnectionClosedError,
    boto.ReadTimeoutError,
    boto.ResponseStreamingError,
    boto.IncompleteReadError,
    HTTPError,
)
_BUSY = {"SlowDown", "ServiceUnavailable", "Throttling", "ThrottlingException", "TooManyRequests"}
_TRANSIENT = _BUSY | {
    "ConditionalRequestConflict",
    "InternalError",
    "OperationAborted",
    "RequestTimeout",
    "408",
    "429",
}

UNKNOWN_REQUEST = {"NotImplemented", "MethodNotAllowed", "MissingContentMD5", "405", "501"}
"""Answers of servers that do not know a kind of request, such as the deletion of many keys."""

_PERMISSIONS = {
    "list": "s3:ListBucket",
    "read": "s3:GetObject (and s3:ListBucket, to be told what is not there)",
    "write": "s3:PutObject",
    "delete": "s3:DeleteObject",
}
_KEYS = "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or the profile AWS_PROFILE"
_ROLES = "Check AWS_PROFILE, AWS_ROLE_ARN and AWS_WEB_IDENTITY_TOKEN_FILE."
_CREDENTIAL_CALLS = {"AssumeRole", "AssumeRoleWithWebIdentity", "GetRoleCredentials", "GetSessionToken"}
_EXPIRED = ("the credentials have expired", "Get new ones, for example with: aws sso login")
_REGION = ("the bucket is in another region than {region}", "Set AWS_REGION to the bucket's region{right}.")
_FORBIDDEN = (
    "access is denied",
    "Check {keys}; they need the permission {permission} for the bucket {bucket}.",
)
_CAUSES: dict[str, tuple[str, str]] = {
    "AccessDenied": _FORBIDDEN,
    "403": _FORBIDDEN,
    "AllAccessDisabled": _FORBIDDEN,
    "InvalidAccessKeyId": ("{endpoint} does not know the access key", "Check {keys}."),
    "SignatureDoesNotMatch": (
        "the access key and the secret key do not belong together",
        "Check {keys}, and that no space or line end was copied with them.",
    ),
    "ExpiredToken": _EXPIRED,
    "ExpiredTokenException": _EXPIRED,
    "RequestExpired": _EXPIRED,
    "TokenRefreshRequired": _EXPIRED,
    "InvalidToken": ("the session token is not valid", "Check AWS_SESSION_TOKEN, which belongs to {keys}."),
    "RequestTimeTooSkewed": (
        "the clock of this machine differs from that of {endpoint} by more than it allows",
        "Set this machine's clock, for example with: timedatectl set-ntp true",
    ),
    "NoSuchBucket": (
        "there is no bucket {bucket} at {endpoint}",
        "Check the bucket's name and S3_ENDPOINT, or make the bucket.",
    ),
    "InvalidBucketName": ("{bucket} is not a bucket's name", "Check the URI."),
    "PermanentRedirect": _REGION,
    "AuthorizationHeaderMalformed": _REGION,
    "IllegalLocationConstraintException": _REGION,
}
_REDIRECTS = (301, 302, 307, 308)
_LASTING_STATUS = (501, 507)
"""Not implemented; no space left: both stay until somebody does something about it."""


def code_of(err: Exception) -> str:
    """Return the code of a server's refusal: its name, or the HTTP status where it has none; else ""."""
    return str(err.response.get("Error", {}).get("Code", "")) if isinstance(err, boto.ClientError) else ""


def status_of(err: Exception) -> int:
    """Return the HTTP status of a server's refusal; 0 if it is something else."""
    if not isinstance(err, boto.ClientError):
        return 0
    return int(err.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def raise_refusal(answer: dict[str, Any]) -> None:
    """Raise the first error for a key in an answer to DeleteObjects, which itself is a success."""
    for refusal in answer.get("Errors", ()):
        if refusal.get("Code") != "NoSuchKey":
            raise boto.ClientError({"Error": refusal}, "DeleteObjects")


def is_transient(err: Exception) -> bool:
    """Tell whether the same call may succeed in a moment."""
    if isinstance(err, boto.ClientError):
        return code_of(err) in _TRANSIENT or (status_of(err) >= 500 and status_of(err) not in _LASTING_STATUS)
    if isinstance(err, UnreachableError):
        return err.is_transient
    if isinstance(err, boto.SSLError):
        return not is_tls_setting(err)
    return isinstance(err, _DROPPED)


def was_dropped(err: Exception) -> bool:
    """Tell whether the connection failed, so that the server may or may not have done what was asked."""
    return isinstance(err, _DROPPED) or status_of(err) >= 500


@dataclass(frozen=True)
class Place:
    """Where something was asked: a bucket, and the URL and region of its server."""

    bucket: str
    url: str
    region: str


def storage_error(err: Exception, action: str, uri: str, place: Place) -> StorageError:
    """Return the error for the user, with what was done (`list`, `read`, `write`, `delete`) to which URI."""
    right = err.response.get("Error", {}).get("Region", "") if isinstance(err, boto.ClientError) else ""
    cause, hint = _explanation(err, place.url)
    words = {
        "bucket": place.bucket,
        "endpoint": endpoint_of(_asked(err) or place.url),
        "keys": _KEYS,
        "permission": _PERMISSIONS.get(action, ""),
        "region": place.region,
        "right": f", {right}" if right else "",
    }
    kind = StoreAwayError if is_transient(err) else StorageError
    return kind(f"cannot {action} {uri}: {cause.format(**words)}", hint=hint.format(**words))


def _asked(err: Exception) -> str | None:
    """Return the URL that gave no answer: also a proxy, or a server that gives credentials."""
    if not isinstance(err, boto.BotoCoreError):
        return None
    url: str | None = err.kwargs.get("proxy_url") or err.kwargs.get("endpoint_url")
    return url


def _explanation(err: Exception, url: str) -> tuple[str, str]:
    """Return cause and hint, with names in braces for what `storage_error` knows."""
    code, status = code_of(err), status_of(err)
    if isinstance(err, boto.ClientError) and err.operation_name in _CREDENTIAL_CALLS:
        return f"no credentials could be had: {err.operation_name} is refused, {code}", _ROLES
    if code in _CAUSES:
        return _CAUSES[code]
    if status in _REDIRECTS:  # those of AWS to another region have a code, or boto3 follows them
        return (
            f"{{endpoint}} sends requests elsewhere ({status}), as web servers do that are no S3 server",
            "Check S3_ENDPOINT; perhaps it wants TLS: set S3_USE_HTTPS=1.",
        )
    if status == 507:
        return f"{{endpoint}} has no space left ({code})", "Free some space there, or raise the quota."
    if code in _BUSY or status in (429, 503):
        return f"{{endpoint}} is overloaded ({code})", "Try again later."
    if isinstance(err, boto.ClientError):
        said = _plain(err.response.get("Error", {}).get("Message", ""))
        plain = url.startswith("http://") and status == 400
        return f"{{endpoint}} answers {status} {code}: {said}", (
            "Perhaps it wants TLS: set S3_USE_HTTPS=1." if plain else "Look into the server's log."
        )
    if isinstance(err, boto.NoCredentialsError | boto.PartialCredentialsError):
        return "there are no complete credentials for S3", "Set {keys}."
    if isinstance(err, boto.CredentialRetrievalError | boto.TokenRetrievalError | boto.SSOError):
        # What a program says that was asked for credentials may contain them.
        said = _plain(err) if err.kwargs.get("provider") != "custom-process" else "the program failed"
        return f"no credentials could be had: {said}", _ROLES
    if isinstance(err, boto.SSLError):
        return _tls(err)
    if isinstance(err, UnreachableError):
        return f"{{endpoint}} cannot be reached: {err}", "Check S3_ENDPOINT, the network and the firewall."
    if isinstance(err, boto.ProxyConnectionError):
        return "the proxy {endpoint} cannot be reached", "Check HTTP_PROXY, HTTPS_PROXY and NO_PROXY."
    if isinstance(err, boto.ReadTimeoutError | boto.ConnectTimeoutError):
        return "{endpoint} does not answer", "Check S3_ENDPOINT and the state of the server."
    if isinstance(err, _DROPPED):
        return "the connection to {endpoint} breaks off", "Check the network and the state of the server."
    return _plain(err), "Check the settings for S3: AWS_… and S3_…."


def _plain(text: object) -> str:
    """Return a text for a place where names stand in braces."""
    return str(text).replace("{", "{{").replace("}", "}}")


def _tls(err: Exception) -> tuple[str, str]:
    if is_plain_answer(err):
        return "{endpoint} does not speak TLS", "Set S3_USE_HTTPS=0 if it is meant to be plain HTTP."
    if is_tls_setting(err):
        return (
            "the TLS certificate of {endpoint} is not trusted",
            "Name its authority with AWS_CA_BUNDLE=FILE.pem, or trust it unseen with S3_VERIFY_SSL=0.",
        )
    return "the TLS connection to {endpoint} fails", "Check S3_USE_HTTPS and the server's certificate."
