"""What a prediction over REST takes without a server: read the body, compute, write the reply, in a loop.

Written for this model alone and of the quickest parts known, so that a server is measured against what the
work itself takes and not against its own functions.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import simdjson
from ai_edge_litert.interpreter import Interpreter

from fairway.quiet import without_notices


class BareLoop:
    """Answers predict requests of one batch size.

    Args:
        version: Directory of an exported version.
        rows: The batch size.
    """

    def __init__(self, version: Path, rows: int) -> None:
        self._parser = simdjson.Parser()
        self._shape = (rows, 28, 28)
        with without_notices():
            self._interpreter = Interpreter(model_path=str(version / "model.tflite"), num_threads=1)
        self._input, self._classes, self._predictions = self._tensors()
        self._interpreter.resize_tensor_input(self._input, self._shape)
        self._interpreter.allocate_tensors()

    def answer(self, body: bytes) -> bytes:
        """Return the reply to a request."""
        document: Any = self._parser.parse(body)
        values = np.frombuffer(document["instances"].as_buffer(of_type="d"))
        self._interpreter.set_tensor(self._input, values.astype(np.float32).reshape(self._shape))
        self._interpreter.invoke()
        classes = self._interpreter.get_tensor(self._classes).tolist()
        predictions = self._interpreter.get_tensor(self._predictions).tolist()
        rows = [{"classes": a, "predictions": b} for a, b in zip(classes, predictions, strict=True)]
        return orjson.dumps({"predictions": rows})

    def compute(self) -> None:
        """Compute the latest request again, without reading it or writing a reply."""
        self._interpreter.invoke()

    def _tensors(self) -> tuple[int, int, int]:
        # A runner at hand forbids to resize the input: it must be gone when this returns.
        runner = self._interpreter.get_signature_runner("serving_default")
        outputs = runner.get_output_details()
        indices = (runner.get_input_details()["x"], outputs["classes"], outputs["predictions"])
        first, second, third = (int(each["index"]) for each in indices)
        return first, second, third


def cpu_us(work: Callable[[], object], seconds: float) -> float:
    """Return the processor time that something takes, microseconds, by doing it for so long."""
    count, end = 0, time.perf_counter() + seconds
    begun = time.process_time()
    while time.perf_counter() < end:
        work()
        count += 1
    return (time.process_time() - begun) / count * 1e6
