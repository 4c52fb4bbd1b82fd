"""What Google Cloud Storage says when something goes wrong, in words that tell what to look at."""

from __future__ import annotations

import requests
from google.api_core import exceptions as api
from google.auth import exceptions as auth
from google.cloud.storage.exceptions import DataCorruption, InvalidResponse
from urllib3.exceptions import HTTPError

from fairway.storage.stores.network import UnreachableError, is_tls_setting

ERRORS = (
    api.GoogleAPIError,
    auth.GoogleAuthError,
    requests.RequestException,
    HTTPError,
    DataCorruption,
    InvalidResponse,
    UnreachableError,
    ConnectionError,
)
"""All that a call of Google's library, or the look at its server before, may raise."""

_DROPPED = (
    requests.ConnectionError,
    requests.Timeout,
    requests.exceptions.ChunkedEncodingError,
    HTTPError,
    DataCorruption,
    ConnectionError,
)
_TRANSIENT_STATUS = (408, 429, 500, 502, 503, 504)

_PERMISSIONS = {
    "list": "storage.objects.list",
    "read": "storage.objects.get",
    "write": "storage.objects.create, and storage.objects.delete to replace files,",
    "delete": "storage.objects.delete",
}
_CREDENTIALS = "GOOGLE_APPLICATION_CREDENTIALS, or run: gcloud auth application-default login"


def status_of(err: Exception) -> int:
    """Return the HTTP status of a refusal; 0 if it is something else."""
    if isinstance(err, InvalidResponse):
        return int(err.response.status_code)
    return int(err.code or 0) if isinstance(err, api.GoogleAPICallError) else 0


def is_transient(err: Exception) -> bool:
    """Tell whether the same call may succeed in a moment."""
    err = cause_of(err)
    if isinstance(err, UnreachableError):
        return err.is_transient
    if isinstance(err, requests.exceptions.SSLError):
        return not is_tls_setting(err)
    return isinstance(err, _DROPPED) or status_of(err) in _TRANSIENT_STATUS


def cause_of(err: Exception) -> Exception:
    """Return what is wrapped: by retries that were given up, or by a request for a token."""
    inner: object = None
    if isinstance(err, api.RetryError):
        inner = err.cause
    elif isinstance(err, auth.TransportError) and err.args:
        inner = err.args[0]
    return cause_of(inner) if isinstance(inner, Exception) else err


def explain_error(err: Exception, action: str, bucket: str, endpoint: str) -> tuple[str, str]:
    """Return cause and hint of an error in what was done (`list`, `read`, `write`, `delete`)."""
    status = status_of(err)
    if isinstance(err, UnreachableError):
        return f"{endpoint} cannot be reached: {err}", "Check the network and the firewall."
    if isinstance(err, requests.Timeout):
        return f"{endpoint} does not answer", "Check the network and the state of the server."
    if isinstance(err, requests.exceptions.SSLError):
        return f"the TLS connection to {endpoint} fails", "Check REQUESTS_CA_BUNDLE and any proxy in between."
    if isinstance(err, _DROPPED):
        return f"the connection to {endpoint} breaks off", "Check the network and the state of the server."
    if isinstance(err, auth.DefaultCredentialsError):
        said = str(err.args[0]).splitlines()[0]
        return f"there are no usable Google credentials: {said}", f"Set {_CREDENTIALS}"
    if isinstance(err, auth.GoogleAuthError):
        return "Google does not accept the credentials", f"Check this machine's clock, and {_CREDENTIALS}"
    if status == 401:
        return "the credentials are not accepted", f"Check {_CREDENTIALS}"
    if status == 403:
        return (
            "access is denied",
            f"Give the account {_PERMISSIONS[action]} for the bucket {bucket}, or check {_CREDENTIALS}",
        )
    if status in (429, 503):
        return f"{endpoint} is overloaded ({status})", "Try again later."
    return f"{endpoint} answers {err}", "Look into the server's log."
