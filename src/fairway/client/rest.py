"""Asks a model server over TensorFlow Serving's REST API."""

from __future__ import annotations

import math
import re
import time
from typing import Any
from urllib.parse import quote

import httpx
import numpy as np
import orjson
from numpy.typing import NDArray

from fairway.client.address import parse_address
from fairway.client.answers import (
    CONNECT_TIMEOUT_S,
    PREDICT_TIMEOUT_S,
    STATUS_TIMEOUT_S,
    Prediction,
    ServerStatus,
    Target,
    VersionReport,
    judge,
)

PORT = 8500
# Within this time a version that answered is asked again without a look for a newer one.
VERSION_AGE_S = 1.0
# What a server says of a version that has just been replaced: then one look for the new one.
_GONE = (httpx.codes.NOT_FOUND, httpx.codes.SERVICE_UNAVAILABLE)


class RestClient:
    """A model at a model server, asked by version so that the version that answers is known.

    Args:
        address: HOST:PORT, or a URL with scheme http or https.
        model_name: Name of the model there.
        version: The version to ask; `None`: the newest one.
        label: The label of the version to ask; empty: none.
        transport: Replaces the network, for tests.

    Raises:
        UsageError: that is not an address.
    """

    def __init__(
        self,
        address: str,
        model_name: str,
        *,
        version: int | None = None,
        label: str = "",
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        place = parse_address(address, PORT)
        self.target = Target(place.text, model_name, version, label)
        self._path = f"/v1/models/{quote(model_name, safe='')}"
        # trust_env: a proxy for the outside world must not see requests to the model server.
        self._http = httpx.AsyncClient(base_url=place.url, trust_env=False, transport=transport)
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
        response = await self._send("GET", self._path + self._selection())
        self._version = None
        try:
            content = orjson.loads(response.content)
            if "error" in content:
                return self._without_version(response)
            status = judge({int(v["version"]): _report(v) for v in content["model_version_status"]})
        except (KeyError, TypeError, ValueError, AttributeError) as err:
            raise self.target.not_a_model_server(f"HTTP {response.status_code}") from err
        if status.state == "serving":
            self._version, self._version_seen = status.version, time.monotonic()
        return status

    async def predict(self, image: NDArray[np.float32]) -> Prediction:
        """Return the asked version's answer to an image, float32 [28, 28] in 0..1.

        Raises:
            NoVersionError: no such version is served.
            ServerError: the server does not answer, or refuses.
        """
        body = orjson.dumps({"instances": image[None]}, option=orjson.OPT_SERIALIZE_NUMPY)
        for _ in range(2):
            version = await self._current_version()
            started = time.perf_counter()
            response = await self._send("POST", f"{self._path}/versions/{version}:predict", body)
            if response.is_success:
                return self._prediction(response, version, time.perf_counter() - started)
            self._version = None
            if response.status_code not in _GONE:
                break
        raise self.target.refused(_reason(response))

    async def _current_version(self) -> int:
        if self._version is None or time.monotonic() - self._version_seen > VERSION_AGE_S:
            status = await self.status()
            if self._version is None:
                raise self.target.no_version(status)
        return self._version

    def _without_version(self, response: httpx.Response) -> ServerStatus:
        if response.status_code != httpx.codes.NOT_FOUND:
            raise self.target.refused(_reason(response))
        return ServerStatus("empty", detail=_reason(response))

    def _selection(self) -> str:
        if self.target.version is not None:
            return f"/versions/{self.target.version}"
        return f"/labels/{quote(self.target.label, safe='')}" if self.target.label else ""

    async def _send(self, method: str, path: str, body: bytes | None = None) -> httpx.Response:
        headers = {"Content-Type": "application/json"} if body else None
        timeout_s = PREDICT_TIMEOUT_S if body else STATUS_TIMEOUT_S
        timeout = httpx.Timeout(timeout_s, connect=CONNECT_TIMEOUT_S)
        try:
            return await self._http.request(method, path, content=body, headers=headers, timeout=timeout)
        except httpx.HTTPError as err:
            if isinstance(err, httpx.RemoteProtocolError) and "illegal" in str(err):
                raise self.target.not_a_model_server("not in HTTP/1.1") from err
            raise self.target.away(_cause(err, timeout_s)) from err

    def _prediction(self, response: httpx.Response, version: int, seconds: float) -> Prediction:
        try:
            answer = orjson.loads(response.content)["predictions"][0]
            digit, probabilities = int(answer["classes"]), [float(p) for p in answer["predictions"]]
        except (KeyError, TypeError, ValueError, IndexError) as err:
            raise self.target.not_this_model() from err
        return self.target.read(digit, probabilities, version, seconds)


def _report(version: dict[str, Any]) -> VersionReport:
    status = version.get("status") or {}
    code = status.get("error_code", "OK")
    return VersionReport(str(version["state"]), "" if code == "OK" else status.get("error_message") or code)


def _reason(response: httpx.Response) -> str:
    try:
        return str(orjson.loads(response.content)["error"])
    except (KeyError, TypeError, ValueError):
        return f"HTTP {response.status_code}"


def _cause(error: httpx.HTTPError, timeout_s: float) -> str:
    if isinstance(error, httpx.ConnectTimeout):
        return f"no connection within {CONNECT_TIMEOUT_S:g} s"
    if isinstance(error, httpx.TimeoutException):
        return f"no answer within {timeout_s:g} s"
    if "attempts failed" in str(error):
        return "nothing listens there"
    if "WRONG_VERSION_NUMBER" in str(error):
        return "it does not speak TLS"
    plain = re.sub(r"^\[(Errno -?\d+|SSL: \w+)\] | \(_ssl\.c:\d+\)$", "", str(error))
    return plain.lower() or "the connection broke"
