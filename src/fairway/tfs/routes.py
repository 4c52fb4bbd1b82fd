"""The paths of TensorFlow Serving's REST API.

Source: the regular expressions in tensorflow_serving/model_servers/http_rest_api_util.cc.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal
from urllib.parse import unquote

from fairway.tfs.status import Code, RequestError, invalid

_MODEL = r"/v1/models/(?P<model>[^/:]+)(?:/versions/(?P<version>[0-9]+))?"
_PREDICT = re.compile(rf"{_MODEL}:predict", re.IGNORECASE)
_STATUS = re.compile(rf"{_MODEL}(?P<metadata>/metadata)?", re.IGNORECASE)
_MAX_VERSION = 2**63 - 1


@dataclass(frozen=True)
class Route:
    """What a request asks for.

    Attributes:
        action: What is wanted.
        model: Name of the model, percent-decoded: whatever the client wrote, never a path.
        version: `None` means the latest.
    """

    action: Literal["predict", "status", "metadata"]
    model: str
    version: int | None

    def servable_text(self) -> str:
        """Return how TensorFlow Serving names the request: `Latest(m)` or `Specific(m, 2)`."""
        if self.version is None:
            return f"Latest({self.model})"
        return f"Specific({self.model}, {self.version})"


def parse_route(method: str, path: str) -> Route:
    """Find out what a request asks for.

    Args:
        method: The HTTP method, in capitals.
        path: The path as sent, percent-encoded, without the query.

    Raises:
        RequestError: NOT_FOUND outside of /v1/; INVALID_ARGUMENT for what TensorFlow Serving calls malformed,
            which a wrong method is too.
    """
    if method == "POST" and (match := _PREDICT.fullmatch(path)):
        return Route("predict", unquote(match["model"]), _version(match["version"]))
    if method == "GET" and (match := _STATUS.fullmatch(path)):
        action: Literal["metadata", "status"] = "metadata" if match["metadata"] else "status"
        return Route(action, unquote(match["model"]), _version(match["version"]))
    if path[:4].lower() == "/v1/":
        raise invalid(f"Malformed request: {method} {path[:200]}")
    raise RequestError(Code.NOT_FOUND, f"Not found: {path[:200]}")


def _version(digits: str | None) -> int | None:
    if digits is None:
        return None
    # int() refuses more than 4300 digits, so the length comes first.
    if len(digits) > 20 or int(digits) > _MAX_VERSION:
        raise invalid(f"Failed to convert version: {digits[:200]} to numeric.")
    return int(digits)
