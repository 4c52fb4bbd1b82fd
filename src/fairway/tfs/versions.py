"""How the versions of a model are doing, as both APIs tell it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Any

from fairway.tfs.status import Code


class State(Enum):
    """`ModelVersionStatus.State`; the value is its number.

    Source: tensorflow_serving/apis/get_model_status.proto.
    """

    START = 10
    LOADING = 20
    AVAILABLE = 30
    UNLOADING = 40
    END = 50


@dataclass(frozen=True)
class VersionStatus:
    """How a version is doing. `error` is why it does not serve; empty if nothing is wrong with it."""

    number: int
    state: State
    error: str = ""

    @property
    def code(self) -> Code:
        """The code that goes with `error`."""
        return Code.UNKNOWN if self.error else Code.OK


def statuses_json(statuses: Iterable[VersionStatus]) -> dict[str, Any]:
    """Return the body of a reply to a status request."""
    return {"model_version_status": [_status_json(status) for status in statuses]}


def _status_json(status: VersionStatus) -> dict[str, Any]:
    return {
        "version": str(status.number),  # protobuf's JSON writes 64-bit integers as strings
        "state": status.state.name,
        "status": {"error_code": status.code.name, "error_message": status.error},
    }
