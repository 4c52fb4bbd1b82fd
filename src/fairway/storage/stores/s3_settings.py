"""The environment's settings for S3, beyond those that boto3 looks for itself."""

from __future__ import annotations

import logging
import os
import re
import warnings
from dataclasses import dataclass
from functools import cache
from urllib.parse import urlsplit

from fairway.errors import UsageError

DEFAULT_REGION = "us-east-1"
"""What servers other than AWS take for their own, unless they were told another."""

_AWS = re.compile(r"(^|\.)amazonaws\.com(\.cn)?$")
_AWS_REGION = re.compile(r"^s3[.-](?:dualstack\.)?([a-z]{2}(?:-[a-z]+)+-\d)\.amazonaws\.com")
_BOOLEANS = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class S3Settings:
    """What the environment says about S3.

    Attributes:
        endpoint: URL of the server; `None`: AWS, unless boto3's configuration names another.
        region: `None`: what boto3's configuration says, else `default_region`.
        verify: Whether to check TLS certificates; `None`: as boto3 does, with `AWS_CA_BUNDLE`.
    """

    endpoint: str | None
    region: str | None
    verify: bool | None


def s3_settings() -> S3Settings:
    """Return what the environment says.

    Raises:
        UsageError: a variable has a value it cannot have.
    """
    https, verify = _boolean("S3_USE_HTTPS"), _boolean("S3_VERIFY_SSL")
    return S3Settings(_endpoint(https), _region(), None if verify else False)


@cache
def explain(settings: S3Settings) -> None:
    """Say in the log what is unusual about the settings, once."""
    if "://" in os.environ.get("S3_ENDPOINT", ""):
        log.info(
            "S3_ENDPOINT names the scheme: %s; so S3_USE_HTTPS is not looked at, HOST:PORT would be enough",
            settings.endpoint,
        )
    if settings.verify is False and (settings.endpoint or "https:").startswith("https:"):
        host = urlsplit(settings.endpoint or "").hostname
        log.warning("the TLS certificate of %s is not checked, as S3_VERIFY_SSL is 0", host or "AWS")
        shown = re.escape(host) if host else r"\S+\.amazonaws\.com"
        warnings.filterwarnings("ignore", f"Unverified HTTPS request is being made to host '{shown}'")


def is_aws(endpoint: str | None) -> bool:
    """Tell whether a URL is one of AWS's own servers; `None` is."""
    return endpoint is None or bool(_AWS.search(urlsplit(endpoint).hostname or ""))


def default_region(endpoint: str | None) -> str | None:
    """Return the region where neither a variable nor the profile names one; `None`: boto3's default."""
    if endpoint is None:
        return None
    match = _AWS_REGION.match(urlsplit(endpoint).hostname or "")
    return match[1] if match else DEFAULT_REGION


def _region() -> str | None:
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION"):
        if region := os.environ.get(name, ""):
            if not re.fullmatch("[A-Za-z0-9-]{1,63}", region):
                raise UsageError(
                    f"{name} is {region!r}, but must be a region such as {DEFAULT_REGION}",
                    hint=f"Set {name} to that, or unset it.",
                )
            return region
    return None


def _endpoint(https: bool) -> str | None:
    if value := os.environ.get("S3_ENDPOINT"):
        url = value if "://" in value else f"{'https' if https else 'http'}://{value}"
        _check_url("S3_ENDPOINT", url, "HOST:PORT", path="/")
        return url.rstrip("/")
    for name in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"):
        if url := os.environ.get(name, ""):
            _check_url(name, url, "a URL such as https://HOST:PORT")
            return url
    return None


def _check_url(name: str, url: str, form: str, path: str = "") -> None:
    try:
        parts = urlsplit(url)
        fits = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # the port is not a number
        fits = False
    else:
        fits = fits and not (parts.query or parts.fragment or parts.username or re.search(r"\s", url))
        fits = fits and (not path or parts.path in ("", path))
    if not fits:
        shown = "a URL with a name and password" if "@" in url else repr(os.environ[name])
        raise UsageError(f"{name} is {shown}, but must be {form}", hint=f"Set {name} to that, or unset it.")


def _boolean(name: str) -> bool:
    """Return a variable that is true unless it says otherwise."""
    text = os.environ.get(name) or "1"
    if text.lower() not in _BOOLEANS:
        raise UsageError(f"{name} is {text!r}, but must be 1 or 0", hint=f"Set {name} to that, or unset it.")
    return _BOOLEANS[text.lower()]
