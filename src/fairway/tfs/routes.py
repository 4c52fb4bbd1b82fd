"""The paths of TensorFlow Serving's REST API.

Source: the regular expressions in tensorflow_serving/model_servers/http_rest_api_util.cc.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, cast
from urllib.parse import unquote

from fairway.tfs.request import ModelSpec
from fairway.tfs.status import Code, RequestError, invalid

Action = Literal["predict", "classify", "regress", "status", "metadata"]

_WHICH = r"(?:/versions/(?P<version>[0-9]+)|/labels/(?P<label>[^/:]+))?"
_POST = re.compile(
    rf"/v1/models/(?P<model>[^/:]+){_WHICH}:(?P<action>predict|classify|regress)", re.IGNORECASE
)
_GET = re.compile(rf"/v1/models(?:/(?P<model>[^/:]+))?{_WHICH}(?:/(?P<action>metadata))?", re.IGNORECASE)
_MAX_VERSION = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Route:
    """What a request asks for, and of which model."""

    action: Action
    spec: ModelSpec


@lru_cache(maxsize=256)  # clients ask for the same few paths: it saves 5 µs each time
def parse_route(method: str, path: str) -> Route:
    """Find out what a request asks for.

    Args:
        method: The HTTP method, in capitals.
        path: The path as sent, percent-encoded, without the query.

    Raises:
        RequestError: NOT_FOUND outside of /v1/; INVALID_ARGUMENT for what TensorFlow Serving calls malformed,
            which a wrong method is too.
    """
    pattern = {"POST": _POST, "GET": _GET}.get(method)
    match = pattern.fullmatch(path) if pattern else None
    if not match:
        if path[:4].lower() == "/v1/":
            raise invalid(f"Malformed request: {method} {path[:200]}")
        raise RequestError(Code.NOT_FOUND, f"Not found: {path[:200]}")
    if match["model"] is None:
        raise invalid("Missing model name in request.")
    label = match["label"] and unquote(match["label"])
    spec = ModelSpec(unquote(match["model"]), _version(match["version"]), label)
    return Route(cast(Action, (match["action"] or "status").lower()), spec)


def _version(digits: str | None) -> int | None:
    if digits is None:
        return None
    # int() refuses more than 4300 digits, so the length comes first.
    if len(digits) > 20 or int(digits) > _MAX_VERSION:
        raise invalid(f"Failed to convert version: {digits[:200]} to numeric.")
    return int(digits)
