"""Asks a model server over TensorFlow Serving's REST API."""

from __future__ import annotations

import math
import re
import time
from dataclasses import dataclass
from typing import Any, Literal

import httpx
import numpy as np
import orjson
from numpy.typing import NDArray

from fairway.errors import ServerError, UsageError

CLASSES = 10
CONNECT_TIMEOUT_S = 3.0
STATUS_TIMEOUT_S = 3.0
# A server may compile the model at its first prediction.
PREDICT_TIMEOUT_S = 10.0
# Within this time a version that answered is asked again without a look for a newer one.
VERSION_AGE_S = 1.0
# What a server says of a version that has just been replaced: then one look for the new one.
_GONE = (httpx.codes.NOT_FOUND, httpx.codes.SERVICE_UNAVAILABLE)


@dataclass(frozen=True)
class ServerStatus:
    """What a model server says of a model.

    `serving`: a version answers. `loading`: one is on its way. `failed`: one could not be loaded.
    `empty`: the server is there, but has no version of the model.
    """

    state: Literal["serving", "loading", "failed", "empty"]
    version: int | None = None
    detail: str = ""
    """What the server says went wrong; empty where nothing did."""


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


class ModelServer:
    """A model at a model server, asked by version so that the version that answers is known.

    Args:
        address: HOST:PORT, or a URL with scheme http or https.
        model_name: Name of the model there.
        transport: Replaces the network, for tests.

    Raises:
        UsageError: that is not an address.
    """

    def __init__(
        self, address: str, model_name: str, transport: httpx.AsyncBaseTransport | None = None
    ) -> None:
        self.address, self.model_name = address, model_name
        self._path = f"/v1/models/{model_name}"
        # trust_env: a proxy for the outside world must not see requests to the model server.
        self._http = httpx.AsyncClient(base_url=_base_url(address), trust_env=False, transport=transport)
        self._version: int | None = None
        self._version_seen = -math.inf

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def status(self) -> ServerStatus:
        """Return whether and in which version the model is served.

        Raises:
            ServerError: the server does not answer, or not as a model server does.
        """
        response = await self._send("GET", self._path)
        try:
            content = orjson.loads(response.content)
            if response.status_code == httpx.codes.NOT_FOUND and "error" in content:
                self._version = None
                return ServerStatus("empty")
            versions = {int(entry["version"]): entry for entry in content["model_version_status"]}
            states = {number: str(entry["state"]) for number, entry in versions.items()}
        except (KeyError, TypeError, ValueError) as err:
            raise self._not_a_model_server(response) from err
        available = [number for number, state in states.items() if state == "AVAILABLE"]
        if available:
            self._version, self._version_seen = max(available), time.monotonic()
            return ServerStatus("serving", self._version)
        self._version = None
        return _unavailable(versions, states)

    async def predict(self, image: NDArray[np.float32]) -> Prediction:
        """Return the newest version's answer to an image, float32 [28, 28] in 0..1.

        Raises:
            NoVersionError: no version is served.
            ServerError: the server does not answer, or refuses.
        """
        body = orjson.dumps({"instances": image[None]}, option=orjson.OPT_SERIALIZE_NUMPY)
        for _ in range(2):
            version = await self._newest_version()
            started = time.perf_counter()
            response = await self._send("POST", f"{self._path}/versions/{version}:predict", body)
            if response.is_success:
                return self._prediction(response, version, time.perf_counter() - started)
            self._version = None
            if response.status_code not in _GONE:
                break
        raise self._refused(response)

    async def _newest_version(self) -> int:
        if self._version is None or time.monotonic() - self._version_seen > VERSION_AGE_S:
            await self.status()
        if self._version is None:
            raise NoVersionError(
                f"the model server at {self.address} has no version of {self.model_name} yet",
                hint="It answers as soon as a training has exported one.",
            )
        return self._version

    async def _send(self, method: str, path: str, body: bytes | None = None) -> httpx.Response:
        headers = {"Content-Type": "application/json"} if body else None
        timeout_s = PREDICT_TIMEOUT_S if body else STATUS_TIMEOUT_S
        timeout = httpx.Timeout(timeout_s, connect=CONNECT_TIMEOUT_S)
        try:
            return await self._http.request(method, path, content=body, headers=headers, timeout=timeout)
        except httpx.HTTPError as err:
            raise ServerError(
                f"model server at {self.address} does not answer: {_cause(err, timeout_s)}",
                hint="Start one with: fairway serve. If it runs elsewhere, name it with --server.",
            ) from err

    def _prediction(self, response: httpx.Response, version: int, seconds: float) -> Prediction:
        try:
            answer = orjson.loads(response.content)["predictions"][0]
            digit, probabilities = int(answer["classes"]), [float(p) for p in answer["predictions"]]
        except (KeyError, TypeError, ValueError, IndexError) as err:
            raise self._not_this_model() from err
        usable = len(probabilities) == CLASSES and all(math.isfinite(p) for p in probabilities)
        if not usable or not 0 <= digit < CLASSES:
            raise self._not_this_model()
        return Prediction(digit, probabilities, version, seconds)

    def _not_this_model(self) -> ServerError:
        return ServerError(
            f"model {self.model_name} at {self.address} does not answer with a digit and ten probabilities",
            hint="Name a model that recognises digits with --model-name.",
        )

    def _not_a_model_server(self, response: httpx.Response) -> ServerError:
        return ServerError(
            f"{self.address} answers (HTTP {response.status_code}), but not as a model server does",
            hint="Name the address of a model server's REST API with --server; its usual port is 8500.",
        )

    def _refused(self, response: httpx.Response) -> ServerError:
        try:
            reason = str(orjson.loads(response.content)["error"])
        except (KeyError, TypeError, ValueError):
            reason = f"HTTP {response.status_code}"
        return ServerError(f"model server at {self.address} refuses: {reason}")


def _base_url(address: str) -> httpx.URL:
    try:
        url = httpx.URL(address if "://" in address else f"http://{address}")
        usable = url.scheme in ("http", "https") and url.path == "/" and not url.query
        usable &= bool(re.fullmatch(r"[^%\s]+", url.host)) and (url.port is None or 0 < url.port < 65536)
    except httpx.InvalidURL:
        usable = False
    if not usable:
        raise UsageError(
            f"server is {address!r}, but must be HOST:PORT", hint="Set it with --server, as 127.0.0.1:8500."
        )
    return url


def _unavailable(versions: dict[int, Any], states: dict[int, str]) -> ServerStatus:
    coming = [number for number, state in states.items() if state in ("START", "LOADING")]
    if coming:
        return ServerStatus("loading", max(coming))
    failed = {number: versions[number].get("status") or {} for number in versions}
    for number in sorted(failed, reverse=True):
        if failed[number].get("error_code", "OK") != "OK":
            return ServerStatus("failed", number, str(failed[number].get("error_message", "")))
    return ServerStatus("empty")


def _cause(error: httpx.HTTPError, timeout_s: float) -> str:
    if isinstance(error, httpx.ConnectTimeout):
        return f"no connection within {CONNECT_TIMEOUT_S:g} s"
    if isinstance(error, httpx.TimeoutException):
        return f"no answer within {timeout_s:g} s"
    if "attempts failed" in str(error):
        return "nothing listens there"
    return re.sub(r"^\[Errno -?\d+\] ", "", str(error)).lower() or "the connection broke"
