"""What gRPC's core writes to stderr: nothing."""

import os
import subprocess
import sys

import pytest

_BAD_KEY = """
from fairway.net.grpc_log import silence
silence()
import asyncio, grpc, grpc.aio
async def listen():
    try:
        grpc.aio.server().add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([(b"no", b"PEM")]))
    except RuntimeError:
        print("refused")
asyncio.run(listen())
"""


@pytest.mark.parametrize(("chosen", "is_silent"), [({}, True), ({"GRPC_VERBOSITY": "ERROR"}, False)])
def test_it_is_silent_unless_the_user_wants_it(chosen: dict[str, str], is_silent: bool) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "GRPC_VERBOSITY"} | chosen
    done = subprocess.run(
        [sys.executable, "-c", _BAD_KEY],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout == "refused\n"
    assert (done.stderr == "") is is_silent
