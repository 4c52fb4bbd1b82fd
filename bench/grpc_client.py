"""Calls Predict from a process of its own: `python -m bench.grpc_client HOST:PORT FILE CALLERS SECONDS`.

Each caller has a connection, and calls again as soon as it has its answer. The message in the file is sent
as it is and the reply not read, so that little of the machine's time goes into the client. Writes the
latencies as a JSON list, in microseconds.
"""

from __future__ import annotations

import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc

PREDICT = "/tensorflow.serving.PredictionService/Predict"
TIMEOUT_S = 10
# A connection for each channel, and none through a proxy for the outside world.
OPTIONS = (("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0))


def call(address: str, request: bytes) -> bytes:
    """Return the reply to one call.

    Raises:
        grpc.RpcError: the server refused.
    """
    with grpc.insecure_channel(address, OPTIONS) as channel:
        reply: bytes = channel.unary_unary(PREDICT)(request, timeout=TIMEOUT_S, wait_for_ready=True)
        return reply


def main() -> None:
    """Call for so many seconds."""
    address, file, callers, seconds = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
    request, end = file.read_bytes(), time.perf_counter() + seconds

    def run(_caller: int) -> list[int]:
        latencies = []
        with grpc.insecure_channel(address, OPTIONS) as channel:
            predict = channel.unary_unary(PREDICT)
            started = time.perf_counter()
            while started < end:
                predict(request, timeout=TIMEOUT_S, wait_for_ready=True)
                done = time.perf_counter()
                latencies.append(round((done - started) * 1e6))
                started = done
        return latencies

    with ThreadPoolExecutor(callers) as executor:
        print(json.dumps([each for found in executor.map(run, range(callers)) for each in found]))


if __name__ == "__main__":
    main()
