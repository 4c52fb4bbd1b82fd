"""The status codes of TensorFlow Serving and the error a request is refused with."""

from __future__ import annotations

from enum import Enum

from fairway.errors import FairwayError


class Code(Enum):
    """The canonical codes of Google's APIs; the value is gRPC's number.

    Source: https://grpc.github.io/grpc/core/md_doc_statuscodes.html
    """

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16

    @property
    def http(self) -> int:
        """The status of the reply over HTTP."""
        return _HTTP.get(self, 500)


# Source of the pairs: `ToHTTPStatusCode` in tensorflow_serving/model_servers/http_server.cc. There
# RESOURCE_EXHAUSTED is 429, which tells one client to slow down; here it is the server that has no room.
_HTTP = {
    Code.OK: 200,
    Code.CANCELLED: 499,
    Code.INVALID_ARGUMENT: 400,
    Code.DEADLINE_EXCEEDED: 504,
    Code.NOT_FOUND: 404,
    Code.ALREADY_EXISTS: 409,
    Code.PERMISSION_DENIED: 403,
    Code.RESOURCE_EXHAUSTED: 503,
    Code.FAILED_PRECONDITION: 412,
    Code.ABORTED: 409,
    Code.OUT_OF_RANGE: 416,
    Code.UNIMPLEMENTED: 501,
    Code.UNAVAILABLE: 503,
    Code.UNAUTHENTICATED: 401,
}


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
