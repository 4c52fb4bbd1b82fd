"""The status codes of TensorFlow Serving and the error a request is refused with."""

from __future__ import annotations

from enum import Enum

from fairway.errors import FairwayError


class Code(Enum):
    """The canonical codes that are used here; the value is the HTTP status.

    Source of the pairs: `ToHTTPStatusCode` in tensorflow_serving/model_servers/http_server.cc.
    """

    OK = 200
    INVALID_ARGUMENT = 400
    NOT_FOUND = 404
    UNIMPLEMENTED = 501
    UNAVAILABLE = 503
    INTERNAL = 500


class RequestError(FairwayError):
    """A request that is refused.

    Args:
        code: Why, in TensorFlow Serving's terms.
        message: What is wrong, in TensorFlow Serving's words where it has some.
    """

    def __init__(self, code: Code, message: str) -> None:
        super().__init__(message)
        self.code = code


def invalid(message: str) -> RequestError:
    """Return the error for a request that can never be answered, whatever the state of the server."""
    return RequestError(Code.INVALID_ARGUMENT, message)
