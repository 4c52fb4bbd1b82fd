"""Clients that mean harm or know no better: each gets a refusal at most, and the others notice nothing."""

from __future__ import annotations

import contextlib
import gzip
import json
import resource
import socket
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest

from fairway.tfs.protos import message
from tests.integration.serving.conftest import Server
from tests.integration.serving.wire import Wire, request

IDLE_CONNECTIONS = 10_000
# Descriptors that a process needs for everything else.
OTHER_FILES = 500
# The longest that a request of anybody else may take meanwhile, on a machine that is busy with other tests.
PATIENCE_S = 5.0
PREDICT = "/v1/models/m:predict"
GOOD = b'{"instances": [1.0, 2.0, 5.0]}'
GOOD_ANSWER = {"predictions": [2.5, 3.0, 4.5]}


@pytest.fixture
def many_files() -> Iterator[int]:
    """Raise the limit on open files for this process and those it starts; return it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = IDLE_CONNECTIONS + OTHER_FILES
    raised = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, raised), hard))
    yield max(soft, raised)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture
def server(many_files: int, publish: Callable[[str, int], Path], serve: Callable[..., Any]) -> Iterator[Any]:
    publish("half_plus_two", 1)
    server = serve()
    server.wait_for_version(1)
    ask(server)
    files = open_files(server)
    yield server
    ask(server)
    # Whatever came and went has left no connection behind.
    server.wait_for(lambda: open_files(server) <= files + 5)
    assert not any("Traceback" in line for line in server.lines), server.output


@pytest.fixture(scope="module")
def hardened(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """One server for all that is refused at once."""
    base = tmp_path_factory.mktemp("hardened")
    (base / "1").symlink_to(models / "half_plus_two")
    server = Server(base)
    server.wait_for_version(1)
    yield server
    ask(server)
    assert server.stop() == 0, server.output
    assert not any("Traceback" in line for line in server.lines), server.output


def ask(server: Any) -> None:
    """Check that somebody else gets the right answer, and soon."""
    started = time.monotonic()
    with Wire(server.root, PATIENCE_S) as wire:
        wire.send(request(PREDICT, GOOD))
        reply = wire.reply()
    assert reply
    assert json.loads(reply.body) == GOOD_ANSWER
    assert time.monotonic() - started < PATIENCE_S


def open_files(server: Any) -> int:
    count: int = psutil.Process(server.process.pid).num_fds()
    return count


def peak_mb(server: Any) -> float:
    """Return the most memory that the server has had since the last `forget_peak`."""
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    [line] = [line for line in status.splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) / 1024


def forget_peak(server: Any) -> float:
    """Start to look for the peak anew; return the memory that is in use now."""
    Path(f"/proc/{server.process.pid}/clear_refs").write_text("5")
    return peak_mb(server)


def test_idle_connections(server: Any, many_files: int) -> None:
    count = min(IDLE_CONNECTIONS, many_files - OTHER_FILES)  # fewer where the system allows no more
    before = forget_peak(server)
    with contextlib.ExitStack() as stack:
        for number in range(count):
            stack.enter_context(Wire(server.root))
            if number % 1000 == 0:
                ask(server)
        server.wait_for(lambda: open_files(server) > count)
        ask(server)
        grown = peak_mb(server) - before
    assert count >= 1000, f"{count} connections say little, but the limit on open files is {many_files}"
    assert grown / count < 0.02, f"{grown:.0f} MB for {count} connections"


def test_slow_headers_and_slow_bodies(server: Any) -> None:
    whole = request(PREDICT, GOOD)
    with contextlib.ExitStack() as stack:
        slow = [stack.enter_context(Wire(server.root)) for _ in range(400)]
        for wire in slow[:200]:
            wire.send(b"POST /v1/models/m:predict HTTP/1.1\r\nhost: m\r\nx-slow: ")
        for wire in slow[200:]:
            wire.send(whole[:-10])
        for _ in range(20):
            for wire in slow[:200]:
                wire.send(b"y")
            ask(server)
        for wire in slow[200:]:
            wire.send(whole[-10:])
        for wire in slow[200:]:
            reply = wire.reply()
            assert reply
            assert json.loads(reply.body) == GOOD_ANSWER


LENGTHS = {
    b"1073741824": {413},
    b"99999999999999999999999": {400, 413},
    b"-1": {400},
    b"1e3": {400},
    b"0x10": {400},
    b"4\r\ncontent-length: 5": {400},
    b"5\r\ntransfer-encoding: chunked": {400},
}


@pytest.mark.parametrize("length", LENGTHS)
def test_bodies_of_a_wrong_length(hardened: Any, length: bytes) -> None:
    before = forget_peak(hardened)
    with Wire(hardened.root) as wire:
        wire.send(b"POST /v1/models/m:predict HTTP/1.1\r\nhost: m\r\ncontent-length: " + length + b"\r\n\r\n")
        wire.send(b"[" * 5)
        reply = wire.reply()
    assert reply
    assert reply.status in LENGTHS[length]
    assert peak_mb(hardened) - before < 5


def bombs() -> dict[str, bytes]:
    """Return a gigabyte in a few kilobytes of gzip: as one stream, and as a hundred."""
    part = b" " * 10_000_000
    packer = zlib.compressobj(9, wbits=31)
    # What follows such a flush stands for itself, so it may be repeated.
    first, again = (packer.compress(part) + packer.flush(zlib.Z_FULL_FLUSH) for _ in range(2))
    return {"one": first + again * 99, "many": gzip.compress(part, 9) * 100}


@pytest.mark.parametrize(("kind", "statuses"), [("one", {413}), ("many", {400, 413})])
def test_a_gzip_bomb(hardened: Any, kind: str, statuses: set[int]) -> None:
    before = forget_peak(hardened)
    with Wire(hardened.root) as wire:
        wire.send(request(PREDICT, bombs()[kind], content_encoding="gzip"))
        reply = wire.reply()
    assert reply
    assert reply.status in statuses
    assert peak_mb(hardened) - before < 200  # the limit of a body is 64 MiB


REFUSED_BODIES = {
    "deep": b"[" * 1_000_000,
    "deep and whole": b'{"instances": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "deep objects": b'{"instances": ' + b'{"a":' * 100_000 + b"1" + b"}" * 100_001,
    "deep in what is not used": b'{"instances": [1.0], "signature_name": '
    + b"[" * 100_000
    + b"]" * 100_000
    + b"}",
    "ragged": b'{"instances": [[1, 2], [3]]}',
    "ragged further in": b'{"instances": [[[1], [2]], [[3], 4]]}',
    "too deep for the input": b'{"instances": [[1.0], [2.0]]}',
    "a string": b'{"instances": ["1.0"]}',
    "a boolean": b'{"instances": [true]}',
    "null": b'{"instances": [null]}',
    "an object": b'{"instances": [{"b64": "AAAA"}]}',
    "NaN for a string": b'{"signature_name": NaN, "instances": [1.0]}',
    "half a NaN": b'{"instances": [Na]}',
    "a huge number": b'{"instances": [' + b"9" * 1_000_000 + b"]}",
    "a huge exponent": b'{"instances": [1e9999999999]}',
    "a huge name": b'{"instances": [{"' + b"x" * 1_000_000 + b'": 1.0}]}',
    "many names": json.dumps({f"k{number}": 1 for number in range(100_000)}).encode(),
    "the same name twice": b'{"instances": [1.0], "instances": ["x"]}',
    "UTF-16": '{"instances": [1.0]}'.encode("utf-16"),
    "half a character": b'{"instances": ["\xc3"]}',
    "half a surrogate": b'{"signature_name": "\\ud800", "instances": [1.0]}',
    "zero bytes": b"\x00" * 1000,
    "more after the end": GOOD + b"]",
}


@pytest.mark.parametrize("body", REFUSED_BODIES.values(), ids=REFUSED_BODIES)
def test_bodies_that_are_refused(hardened: Any, body: bytes) -> None:
    with Wire(hardened.root) as wire:
        wire.send(request(PREDICT, body))
        reply = wire.reply()
        assert reply
        assert reply.status == 400, reply
        assert 5 < len(json.loads(reply.body)["error"]) < 2000
        wire.send(request(PREDICT, GOOD))
        reply = wire.reply()
        assert reply
        assert json.loads(reply.body) == GOOD_ANSWER


PATHS = [
    *("/v1/models/../../../../etc/passwd", "/v1/models/..%2f..%2f..%2fetc%2fpasswd", "/v1/models/%2e%2e/m"),
    *("/v1/models/..:predict", "/v1/models/%00:predict", "/v1/models/m%00:predict", "/v1/models/.:predict"),
    *("/v1/models/m/../m:predict", "/v1/models//m:predict", "/v1/models/m/versions/../1:predict"),
    *("/v1/models/m\\..\\m:predict", "/v1/models/%c0%ae%c0%ae%c0%af:predict", "/v1/models/%zz:predict"),
    *("/v1/models/模型:predict", "/v1/models/%E6%A8%A1%E5%9E%8B:predict", "/v1/models/%ff%fe:predict"),
    *("/v1/models/" + "m" * 20_000 + ":predict", "/v1/models/m/versions/99999999999999999999:predict"),
    *(
        "/v1/models/m/versions/-1:predict",
        "/v1/models/m/versions/%31:predict",
        "/v1/models/m/labels/..:predict",
    ),
    *(
        "/v1/models/m/versions/٣:predict",
        "//etc/passwd",
        "http://other/v1/models/m/../x:predict",
        "/v1/models/m;x=1:predict",
    ),
]


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_paths_lead_nowhere(hardened: Any, method: str) -> None:
    for path in PATHS:
        with Wire(hardened.root) as wire:
            wire.send(request(path.encode().decode("latin-1"), GOOD, method).decode().encode("latin-1"))
            reply = wire.reply()
            assert reply, path
            assert reply.status in (400, 404, 405, 414), (path, reply)
            assert b"root:" not in reply.body
            assert not reply.body.startswith(b"{") or json.loads(reply.body)["error"]


def test_pipelined_requests_are_answered_in_order(server: Any) -> None:
    with Wire(server.root) as wire:
        wire.send(b"".join(request(PREDICT, b'{"instances": [%d]}' % number) for number in range(100)))
        for number in range(100):
            reply = wire.reply()
            assert reply
            assert json.loads(reply.body) == {"predictions": [number / 2 + 2]}


@pytest.mark.parametrize(
    "asked",
    [
        request("/v1/models/m", method="GET"),
        request(PREDICT, GOOD + b" " * 10_000, content_encoding="identity"),
    ],
    ids=["get", "post"],
)
def test_a_client_that_never_reads_the_replies(hardened: Any, asked: bytes) -> None:
    before = forget_peak(hardened)
    with Wire(hardened.root) as wire:
        wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        wire.socket.settimeout(1)
        sent = 0
        with contextlib.suppress(TimeoutError):
            while sent < 100_000_000:
                wire.socket.sendall(asked * (100_000 // len(asked)))
                sent += 100_000
        ask(hardened)
        assert peak_mb(hardened) - before < 10, f"for {sent / 1e6:.1f} MB of requests"


def test_clients_that_send_no_more_or_hang_up(server: Any) -> None:
    whole = request(PREDICT, GOOD)
    for end in range(0, len(whole) + 1, 3):
        with Wire(server.root) as wire:
            wire.send(whole[:end])
            wire.socket.shutdown(1)
            reply = wire.reply()
            assert reply is None or reply.status in (200, 400), reply
        with Wire(server.root) as wire:
            wire.send(whole[:end])
            if end % 2:  # the server finds out when it writes
                wire.socket.setsockopt(1, 13, b"\x01\x00\x00\x00\x00\x00\x00\x00")


def test_huge_headers(hardened: Any) -> None:
    before = forget_peak(hardened)
    for head in (b"x: " + b"y" * 1_000_000, b"\r\n".join(b"x%d: y" % number for number in range(100_000))):
        with Wire(hardened.root) as wire:
            wire.send(b"GET /healthz HTTP/1.1\r\nhost: m\r\n" + head * 50 + b"\r\n\r\n")
            reply = wire.reply()
        assert reply is None or reply.status in (400, 431), reply
    assert peak_mb(hardened) - before < 20, "50 MB of headers are kept in memory"


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 500,
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x00" * 1000,
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"SSH-2.0-x\r\n" * 100,
    ],
)
def test_other_protocols(hardened: Any, data: bytes) -> None:
    for address in (hardened.root, f"http://{hardened.grpc}"):
        with Wire(address) as wire:
            wire.send(data)
            wire.socket.shutdown(1)
            while wire.socket.recv(1 << 16):
                pass
    ask(hardened)


def tensor_message(changes: Callable[[Any], None]) -> bytes:
    """Return a request for y(1.0), changed."""
    asked = message("tensorflow.serving.PredictRequest")()
    asked.model_spec.name = "m"
    tensor = asked.inputs["x"]
    tensor.dtype = 1
    tensor.tensor_shape.dim.add().size = 1
    tensor.float_val.append(1.0)
    changes(asked)
    data: bytes = asked.SerializeToString()
    return data


def change(path: str, value: Any) -> Callable[[Any], None]:
    """Return a change of the request: of its tensor's dtype, sizes, bytes or numbers."""

    def apply(asked: Any) -> None:
        tensor = asked.inputs["x"]
        if path == "sizes":
            del tensor.tensor_shape.dim[:]
            for size in value:
                tensor.tensor_shape.dim.add().size = size
        elif path == "name":
            asked.model_spec.name = value
        elif path == "numbers":
            tensor.float_val[:] = value
        else:
            setattr(tensor, path, value)

    return apply


REFUSED_TENSORS = {
    "a petabyte": (change("sizes", [2**50]), "INVALID_ARGUMENT"),
    "sizes that overflow": (change("sizes", [2**31, 2**31, 4]), "INVALID_ARGUMENT"),
    "the largest sizes": (change("sizes", [2**63 - 1, 2**63 - 1]), "INVALID_ARGUMENT"),
    "a negative size": (change("sizes", [-1]), "INVALID_ARGUMENT"),
    "300 dimensions": (change("sizes", [1] * 300), "INVALID_ARGUMENT"),
    "too many numbers": (change("numbers", [1.0] * 1000), "INVALID_ARGUMENT"),
    "bytes of another size": (change("tensor_content", b"\x00" * 7), "INVALID_ARGUMENT"),
    "another dtype": (change("dtype", 7), "INVALID_ARGUMENT"),
    "no dtype": (change("dtype", 0), "INVALID_ARGUMENT"),
    "an unknown dtype": (change("dtype", 99), "INVALID_ARGUMENT"),
    "a resource": (change("dtype", 20), "INVALID_ARGUMENT"),
    "a path as name": (change("name", "../../etc/passwd"), "NOT_FOUND"),
    "a zero byte in the name": (change("name", "m\x00"), "NOT_FOUND"),
    "a long name": (change("name", "模" * 100_000), "NOT_FOUND"),
}


@pytest.mark.parametrize(("changes", "code"), REFUSED_TENSORS.values(), ids=REFUSED_TENSORS)
def test_tensors_that_are_refused(hardened: Any, changes: Callable[[Any], None], code: str) -> None:
    before = forget_peak(hardened)
    with grpc.insecure_channel(hardened.grpc) as channel:
        predict = channel.unary_unary("/tensorflow.serving.PredictionService/Predict")
        with pytest.raises(grpc.RpcError) as refusal:
            predict(tensor_message(changes), timeout=30)
        assert refusal.value.code().name == code, refusal.value
        predict(tensor_message(lambda _: None), timeout=30)
    assert peak_mb(hardened) - before < 20
