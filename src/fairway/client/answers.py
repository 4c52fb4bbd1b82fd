"""What a model server may answer, and how it is judged, whatever the protocol."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from fairway.errors import ServerError

CLASSES = 10
CONNECT_TIMEOUT_S = 3.0
STATUS_TIMEOUT_S = 3.0
# A server may compile the model at its first prediction.
PREDICT_TIMEOUT_S = 10.0


@dataclass(frozen=True)
class ServerStatus:
    """What a model server says of a model.

    `serving`: a version answers. `loading`: one is on its way. `failed`: one could not be loaded.
    `empty`: the server is there, but has no version of the model.
    """

    state: Literal["serving", "loading", "failed", "empty"]
    version: int | None = None
    detail: str = ""
    """What the server says went wrong, or is not there; empty where it says nothing."""


class VersionReport(NamedTuple):
    """What a server says of one version: a state in TensorFlow Serving's words, and what went wrong."""

    state: str
    error: str = ""


@dataclass(frozen=True)
class Prediction:
    """A model's answer.

    Attributes:
        probabilities: Ten numbers, of the digits 0 to 9.
        version: The version that answered.
        seconds: From question to answer.
    """

    digit: int
    probabilities: list[float]
    version: int
    seconds: float


class NoVersionError(ServerError):
    """The model server has no version of the model that could answer."""


class Client(Protocol):
    """A model at a model server."""

    async def predict(self, image: NDArray[np.float32]) -> Prediction:
        """Return the model's answer to an image, float32 [28, 28] in 0..1; raises ServerError."""

    async def close(self) -> None:
        """Close the connections."""


class Target(NamedTuple):
    """Which model is asked where; makes the errors about it.

    Attributes:
        address: The server's, as errors name it.
        model_name: The model's name there.
        version: The version to ask; `None`: the newest one.
        label: The label of the version to ask; empty: none.
        api: Which of the server's two APIs lies at the address.
    """

    address: str
    model_name: str
    version: int | None = None
    label: str = ""
    api: Literal["REST", "gRPC"] = "REST"

    def read(self, digit: int, probabilities: Sequence[float], version: int, seconds: float) -> Prediction:
        """Return an answer as a prediction.

        Raises:
            ServerError: it is not a digit's.
        """
        usable = len(probabilities) == CLASSES and all(map(math.isfinite, probabilities))
        if not usable or not 0 <= digit < CLASSES:
            raise self.not_this_model()
        return Prediction(digit, list(probabilities), version, seconds)

    def away(self, cause: str) -> ServerError:
        """Return the error for a server that does not answer."""
        return ServerError(
            f"model server at {self.address} does not answer: {cause}",
            hint="Start one with: fairway serve. If it runs elsewhere, name it with --server.",
        )

    def not_a_model_server(self, answer: str) -> ServerError:
        """Return the error for an address where something else listens.

        Args:
            answer: What it answers.
        """
        port = {"REST": 8500, "gRPC": 9000}[self.api]
        return ServerError(
            f"{self.address} answers ({answer}), but not as a model server does",
            hint=f"Name the address of a model server's {self.api} API with --server; "
            f"its usual port is {port}.",
        )

    def not_this_model(self) -> ServerError:
        """Return the error for a model that does something else."""
        return ServerError(
            f"model {self.model_name} at {self.address} does not answer with a digit and ten probabilities",
            hint="Name a model that recognises digits with --model-name.",
        )

    def refused(self, reason: str) -> ServerError:
        """Return the error for a question that the server refuses, in the server's words."""
        return ServerError(f"model server at {self.address} refuses: {reason}")

    def no_version(self, status: ServerStatus) -> NoVersionError:
        """Return the error for a model of which no version answers."""
        where = f"the model server at {self.address}"
        match status.state:
            case "loading":
                return NoVersionError(
                    f"{where} is loading version {status.version} of {self.model_name}",
                    hint="It answers as soon as it is loaded.",
                )
            case "failed":
                return NoVersionError(
                    f"{where} could not load version {status.version} of {self.model_name}: {status.detail}",
                    hint="Export another version with: fairway train",
                )
        said = f": {status.detail}" if status.detail else ""
        if self.version is not None or self.label:
            wanted = f"version {self.version}" if self.version is not None else f"label {self.label!r}"
            return NoVersionError(
                f"{where} has no {wanted} of {self.model_name}{said}",
                hint="Leave it out to ask the newest version.",
            )
        return NoVersionError(
            f"{where} has no version of {self.model_name} yet{said}",
            hint="It answers as soon as a training has exported one. "
            "If the model has another name there, give it with --model-name.",
        )


def judge(versions: Mapping[int, VersionReport]) -> ServerStatus:
    """Return what the states of its versions mean for a model."""
    available = [number for number, report in versions.items() if report.state == "AVAILABLE"]
    if available:
        return ServerStatus("serving", max(available))
    coming = [number for number, report in versions.items() if report.state in ("START", "LOADING")]
    if coming:
        return ServerStatus("loading", max(coming))
    failed = [number for number, report in versions.items() if report.error]
    if failed:
        return ServerStatus("failed", max(failed), versions[max(failed)].error)
    return ServerStatus("empty")
