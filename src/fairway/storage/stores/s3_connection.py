"""Calls to S3: made again while that may help, with credentials read anew, and explained if they fail."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

import boto3
import botocore.session
from botocore import exceptions
from botocore.config import Config
from botocore.loaders import create_loader

from fairway.errors import StorageError
from fairway.storage.stores import s3_errors
from fairway.storage.stores.network import reach
from fairway.storage.stores.retry import ATTEMPT_S, with_retries
from fairway.storage.stores.s3_settings import S3Settings, default_region, is_aws
from fairway.storage.stores.store import NotThereError

AWS = "https://s3.amazonaws.com"
_DESCRIPTIONS = create_loader()
"""What boto3 knows of S3: read once, as that takes six times as long as the rest of making a client."""

T = TypeVar("T")


CONNECTIONS = 32
"""Kept open: one for each of 16 transfer threads, and as many for the parts of large files."""


class ConditionError(StorageError):
    """The object is not as the request demanded, so nothing was done."""


class PastTheEndError(StorageError):
    """The object ends before the first byte that was asked for."""


class UnknownRequestError(StorageError):
    """The server does not know this kind of request."""


class S3Connection:
    """A client for one bucket, shared by threads.

    Raises:
        StorageError: the profile or a setting is unusable.
    """

    def __init__(self, settings: S3Settings, bucket: str) -> None:
        self._settings, self._bucket = settings, bucket
        self._session, self._client = self._connected()
        self._lock = threading.Lock()
        self._was_reached = self._has_bucket = False

    @property
    def is_aws(self) -> bool:
        """Whether the server is AWS's own."""
        return is_aws(self._client.meta.endpoint_url)

    def ask(
        self,
        action: str,
        uri: str,
        call: Callable[[Any], T],
        progress: Callable[[], object] = lambda: None,
    ) -> T:
        """Return what a call returns that gets the boto3 client.

        Args:
            action: `list`, `read`, `write` or `delete`, for the message.
            uri: What it is done to.
            call: It may be made several times.
            progress: How far the calls have come: with each step the deadline starts anew.

        Raises:
            NotThereError: the server has the bucket, but not the key.
            ConditionError: a condition of the request is not met.
            UnknownRequestError: the server does not know the request.
            PastTheEndError: the range lies behind the object's end.
            StorageError: anything else that boto3 raises.
        """
        try:
            answer = with_retries(partial(self._attempt, call), s3_errors.is_transient, progress)
        except s3_errors.ERRORS as err:
            raise self._translated(err, action, uri) from err
        self._has_bucket = True
        return answer

    def try_once(self, call: Callable[[Any], object]) -> None:
        """Make a call, and never mind whether it succeeds."""
        with suppress(*s3_errors.ERRORS):
            call(self._client)

    def _attempt(self, call: Callable[[Any], T]) -> T:
        client = self._client
        if not self._was_reached:
            _find_credentials(self._session)
            reach(client.meta.endpoint_url)
            self._was_reached = True
        try:
            return call(client)
        except s3_errors.ERRORS as err:
            if s3_errors.code_of(err) in s3_errors.STALE:
                return call(self._renewed(client))
            if s3_errors.was_dropped(err):
                self._was_reached = False
            raise

    def _renewed(self, client: Any) -> Any:
        """Return a client with credentials that were read after those of the given one."""
        with self._lock:
            if self._client is client:
                self._session, self._client = self._connected()
            return self._client

    def _translated(self, err: Exception, action: str, uri: str) -> StorageError:
        if s3_errors.code_of(err).isdigit():
            err = self._with_body(err)
        code, status = s3_errors.code_of(err), s3_errors.status_of(err)
        if code in ("NoSuchKey", "NoSuchUpload", "404"):
            self._has_bucket = True
            return NotThereError(f"there is no {uri}")
        if status == 412:
            return ConditionError(f"{uri} is not as it was expected to be")
        if code in s3_errors.UNKNOWN_REQUEST:
            return UnknownRequestError(f"cannot {action} {uri}: the server does not know this request")
        if status == 416:
            return PastTheEndError(f"{uri} ends before the byte that was asked for")
        meta = self._client.meta
        place = s3_errors.Place(self._bucket, meta.endpoint_url, meta.region_name)
        return s3_errors.storage_error(err, action, uri, place)

    def _with_body(self, err: Exception) -> Exception:
        """Return what a request that is answered with a body says; a HEAD only gets a status.

        A status of 404 may mean the key or the bucket, 403 any trouble with the credentials.
        """
        if s3_errors.code_of(err) == "404" and self._has_bucket:
            return err
        try:
            self._client.list_objects_v2(Bucket=self._bucket, MaxKeys=1)
        except s3_errors.ERRORS as better:
            if s3_errors.code_of(better) not in ("", "AccessDenied"):
                return better
        return err

    def _connected(self) -> tuple[Any, Any]:
        """Return a session and a client of their own, so that changed credentials are found."""
        try:
            return make_client(self._settings)
        except (exceptions.BotoCoreError, ValueError) as err:
            place = s3_errors.Place(self._bucket, self._settings.endpoint or AWS, self._settings.region or "")
            raise s3_errors.storage_error(err, "open", f"s3://{self._bucket}", place) from err


def make_client(settings: S3Settings) -> tuple[Any, Any]:
    """Return a boto3 session, and a client that waits and asks no longer than `with_retries` wants."""
    core = botocore.session.Session()
    core.register_component("data_loader", _DESCRIPTIONS)
    # As the default it is also for the client that asks STS for credentials.
    core.set_default_client_config(_config(settings))
    session = boto3.session.Session(botocore_session=core, region_name=settings.region)
    client = session.client(
        "s3",
        endpoint_url=settings.endpoint,
        region_name=session.region_name or default_region(settings.endpoint),
        verify=settings.verify,
    )
    if settings.endpoint is None and not is_aws(client.meta.endpoint_url):  # the profile names a server
        return make_client(replace(settings, endpoint=client.meta.endpoint_url))
    client.meta.events.register("before-call.s3.HeadBucket", _follow_no_redirect)
    return session, client


def _follow_no_redirect(context: dict[str, Any], **_: object) -> None:
    """Let boto3 ask only once for the bucket's region after a redirect, which it does with HeadBucket.

    Where that is redirected too, as all is by a web server that wants TLS, it would ask for ever.
    """
    context["s3_redirect"]["redirected"] = True


def _find_credentials(session: Any) -> None:
    """Let boto3 look for credentials, as it lets errors of files through that hold a part of them."""
    try:
        if credentials := session.get_credentials():
            credentials.get_frozen_credentials()
    except OSError as err:
        if isinstance(err, exceptions.BotoCoreError):
            raise
        raise exceptions.CredentialRetrievalError(provider="a file", error_msg=err) from err


def _config(settings: S3Settings) -> Config:
    off_aws = {
        "s3": {"addressing_style": "path"},
        # Many servers do not know the newer checksums; a signature covers one of the body anyway.
        "request_checksum_calculation": "when_required",
        "response_checksum_validation": "when_required",
    }
    return Config(
        connect_timeout=ATTEMPT_S,
        read_timeout=ATTEMPT_S,
        retries={"total_max_attempts": 1, "mode": "standard"},
        max_pool_connections=CONNECTIONS,
        **({} if is_aws(settings.endpoint) else off_aws),
    )
