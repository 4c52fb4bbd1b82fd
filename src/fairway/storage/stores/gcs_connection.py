"""Calls to Google Cloud Storage: made again while that may help, and explained if they fail."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar
from urllib.parse import urlsplit

import google.auth
from google.api_core.retry import Retry
from google.auth.credentials import AnonymousCredentials
from google.auth.exceptions import DefaultCredentialsError
from google.auth.transport.requests import AuthorizedSession, Request
from google.cloud.storage import Client
from requests.adapters import HTTPAdapter

from fairway.errors import StorageError, StoreAwayError, UsageError
from fairway.storage.stores import gcs_errors
from fairway.storage.stores.network import endpoint_of, reach
from fairway.storage.stores.retry import ATTEMPT_S, DEADLINE_S, FIRST_DELAY_S, MAX_DELAY_S, with_retries
from fairway.storage.stores.store import NotThereError

CONNECTIONS = 32
"""Kept open: one for each of 16 transfer threads, and as many for deletions."""
TIMEOUT = (ATTEMPT_S, ATTEMPT_S)
"""Seconds to connect, and to wait for an answer."""
GOOGLE = "https://storage.googleapis.com"
SCOPES = ("https://www.googleapis.com/auth/devstorage.read_write",)

T = TypeVar("T")


class ConditionError(StorageError):
    """The object is not as the request demanded, so nothing was done."""


class PastTheEndError(StorageError):
    """The object ends before the first byte that was asked for."""


class GcsConnection:
    """A client for one bucket, shared by threads; made when it is first used, as that may take seconds.

    Raises:
        UsageError: `STORAGE_EMULATOR_HOST` is not an address.
    """

    def __init__(self, bucket: str) -> None:
        self._bucket = bucket
        self._emulator = _emulator()
        self._url = self._emulator or GOOGLE
        self._client: Client | None = None
        self._lock = threading.Lock()
        self._was_reached = self._has_bucket = False

    def ask(
        self,
        action: str,
        uri: str,
        call: Callable[[Client], T],
        progress: Callable[[], object] = lambda: None,
    ) -> T:
        """Return what a call returns that gets the client; as `S3Connection.ask` does.

        Raises:
            NotThereError: there is the bucket, but not the key.
            ConditionError: a condition of the request is not met.
            PastTheEndError: the range lies behind the object's end.
            StorageError: anything else that goes wrong.
        """
        try:
            answer = with_retries(partial(self._attempt, call), gcs_errors.is_transient, progress)
        except gcs_errors.ERRORS as err:
            raise self._translated(gcs_errors.cause_of(err), action, uri) from err
        self._has_bucket = True
        return answer

    def _attempt(self, call: Callable[[Client], T]) -> T:
        client = self._connected()
        if not self._was_reached:
            reach(self._url)
            self._was_reached = True
        try:
            return call(client)
        except gcs_errors.ERRORS as err:
            if gcs_errors.is_transient(err):
                self._was_reached = False
            raise

    def _connected(self) -> Client:
        with self._lock:
            if self._client is None:
                self._client = _make_client(self._emulator)
            return self._client

    def _translated(self, err: Exception, action: str, uri: str) -> StorageError:
        status = gcs_errors.status_of(err)
        if status == 404:
            if self._has_bucket or self._is_there():
                return NotThereError(f"there is no {uri}")
            return StorageError(
                f"cannot {action} {uri}: there is no bucket {self._bucket} at {endpoint_of(self._url)}",
                hint="Check the bucket's name, or make the bucket.",
            )
        if status == 412:
            return ConditionError(f"{uri} is not as it was expected to be")
        if status == 416:
            return PastTheEndError(f"{uri} ends before the byte that was asked for")
        cause, hint = gcs_errors.explain_error(err, action, self._bucket, endpoint_of(self._url))
        kind = StoreAwayError if gcs_errors.is_transient(err) else StorageError
        return kind(f"cannot {action} {uri}: {cause}", hint=hint)

    def _is_there(self) -> bool:
        """Tell whether the bucket exists, as a status of 404 may mean it or the object."""
        try:
            list(self._connected().list_blobs(self._bucket, max_results=1, timeout=TIMEOUT, retry=None))
        except gcs_errors.ERRORS as err:
            return gcs_errors.status_of(err) != 404
        self._has_bucket = True
        return True


def chunk_retries() -> Retry:
    """Return `with_retries` in Google's form, for each chunk of an upload; the last attempt ends in time."""
    return Retry(
        predicate=gcs_errors.is_transient,
        initial=FIRST_DELAY_S,
        maximum=MAX_DELAY_S,
        timeout=DEADLINE_S - ATTEMPT_S,
    )


def _make_client(emulator: str | None) -> Client:
    # Else the client asks for each bucket's description, for traces that nobody reads.
    os.environ.setdefault("DISABLE_GCS_PYTHON_CLIENT_OTEL_BUCKET_METADATA", "1")
    credentials = AnonymousCredentials() if emulator else _find_credentials()
    session = AuthorizedSession(credentials, refresh_timeout=ATTEMPT_S, auth_request=_BoundedRequest())
    for scheme in ("http://", "https://"):
        session.mount(scheme, HTTPAdapter(pool_connections=2, pool_maxsize=CONNECTIONS))
    options = {"api_endpoint": emulator} if emulator else None
    return Client(project=None, credentials=credentials, _http=session, client_options=options)


def _find_credentials() -> Any:
    """Let Google's library look for credentials, as it lets errors of their file through."""
    try:
        return google.auth.default(scopes=SCOPES, request=_BoundedRequest())[0]
    except OSError as err:
        if isinstance(err, gcs_errors.ERRORS):
            raise
        raise DefaultCredentialsError(f"{err.filename}: {err.strerror}") from err


class _BoundedRequest(Request):  # type: ignore[misc]
    """Asks for tokens, and waits for them no longer than for data; Google's default is 120 s."""

    def __call__(self, *args: Any, timeout: float = ATTEMPT_S, **options: Any) -> Any:
        return super().__call__(*args, timeout=min(timeout, ATTEMPT_S), **options)


def _emulator() -> str | None:
    value = os.environ.get("STORAGE_EMULATOR_HOST")
    if not value:
        return None
    url = value if "://" in value else f"http://{value}"
    try:
        parts = urlsplit(url)
        fits = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # the port is not a number
        fits = False
    if not fits or "@" in url:
        shown = "a URL with a name and password" if "@" in url else repr(value)
        raise UsageError(
            f"STORAGE_EMULATOR_HOST is {shown}, but must be a URL such as http://HOST:PORT",
            hint="Set STORAGE_EMULATOR_HOST to that, or unset it.",
        )
    return url.rstrip("/")
