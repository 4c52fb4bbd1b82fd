"""A model server that speaks TensorFlow Serving's REST contract, small enough to misbehave on command."""

from __future__ import annotations

import json
from typing import Any

import httpx
import numpy as np


class FakeServer:
    """Answers with the number of bright quadrants as the digit; the tests change its attributes."""

    def __init__(self) -> None:
        self.states = {7: "AVAILABLE"}
        self.message = ""
        self.down: Exception | None = None
        self.reply: httpx.Response | None = None
        self.paths: list[str] = []
        self.images: list[Any] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.paths.append(request.url.path)
        if self.down:
            raise self.down
        if request.method == "GET":
            return self._status()
        if self.reply:
            return self.reply
        version = int(request.url.path.split("/")[-1].removesuffix(":predict"))
        if self.states.get(version) != "AVAILABLE":
            error = f"Servable not found for request: Specific(mnist, {version})"
            return httpx.Response(404, json={"error": error})
        return self._predict(np.array(json.loads(request.content)["instances"]))

    def _status(self) -> httpx.Response:
        if not self.states:
            return httpx.Response(404, json={"error": "Could not find any versions of model mnist"})
        code = "UNKNOWN" if self.message else "OK"
        status = {"error_code": code, "error_message": self.message}
        versions = [{"version": str(v), "state": s, "status": status} for v, s in self.states.items()]
        return httpx.Response(200, json={"model_version_status": versions})

    def _predict(self, images: np.ndarray[Any, Any]) -> httpx.Response:
        assert images.shape == (1, 28, 28)
        self.images.append(images[0])
        digit = sum(bool(part.any()) for half in np.split(images[0], 2) for part in np.split(half, 2, axis=1))
        probabilities = [0.91 if i == digit else 0.01 for i in range(10)]
        return httpx.Response(200, json={"predictions": [{"classes": digit, "predictions": probabilities}]})
