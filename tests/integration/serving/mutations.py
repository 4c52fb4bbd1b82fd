"""Requests that go wrong in every way a grammar and chance can find; the same ones for the same seed."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Callable
from typing import Any

TOKENS = [
    *(b"[", b"]", b"{", b"}", b",", b":", b'"', b"\\", b"[]", b"{}", b"null", b"true", b"NaN", b"-Infinity"),
    *(
        b"1e999",
        b"-0",
        b"00",
        b"1e-400",
        b"9223372036854775808",
        b"0.1.2",
        b"\x00",
        b"\xff\xfe",
        b"\xef\xbb\xbf",
    ),
    *(b'"instances"', b'"inputs"', b'"signature_name"', b'{"b64": "AAAA"}', b'{"b64": "?"}', b'"\\ud800"'),
]
METHODS = ["POST"] * 40 + ["GET", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "PROPFIND", "post"]
HEADERS = [
    ("content-type", "application/json"),
    ("content-type", "text/plain; charset=\xff"),
    ("content-type", "multipart/form-data; boundary="),
    ("accept", "*/*;q=x"),
    ("accept-encoding", "gzip, br;q=0"),
    ("origin", "null"),
    ("origin", "http://" + "a" * 2000),
    ("access-control-request-method", "POST"),
    ("connection", "keep-alive, x"),
    ("upgrade", "websocket"),
    ("x-empty", ""),
    ("x-long", "y" * 4000),
    ("cookie", "=;=;="),
    ("range", "bytes=0-"),
    ("if-none-match", "*"),
    ("forwarded", 'for="[::1]'),
]


class Rest:
    """Makes requests for the REST API of a model with images of 28 by 28 pixels.

    Args:
        seed: The same one makes the same requests.
        model: The model's name.
        images: Bodies that are answered with 200.
    """

    def __init__(self, seed: int, model: str, images: list[bytes]) -> None:
        self._random = random.Random(seed)
        self._model = model
        self._valid = images

    def request(self) -> tuple[str, bytes]:
        """Return a method and a request of that method, whose length is as it says."""
        chance = self._random
        method = chance.choice(METHODS)
        body, extra = self._encoded(self._body())
        headers = [("host", "m"), *extra, *chance.sample(HEADERS, chance.choice((0, 0, 0, 1, 3)))]
        chance.shuffle(headers)
        if chance.random() < 0.15:
            headers.append(("transfer-encoding", "chunked"))
            body = self._chunked(body)
        else:
            headers.append(("content-length", str(len(body))))
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers)
        return method, f"{method} {self._path()} HTTP/1.1\r\n{lines}\r\n".encode("latin-1") + body

    def broken_request(self) -> bytes:
        """Return bytes that may not even be a request."""
        _, data = self.request()
        head, _, body = data.partition(b"\r\n\r\n")
        return mutate(self._random, head, [*TOKENS, b"\r\n", b"\n", b" ", b"\x00"]) + b"\r\n\r\n" + body

    def _path(self) -> str:
        chance = self._random
        base = f"/v1/models/{self._model}"
        kind = chance.random()
        if kind < 0.6:
            return f"{base}:predict"
        if kind < 0.8:
            action = chance.choice([":predict", ":classify", ":regress", "", "/metadata", ":explain", ":"])
            return f"{base}{chance.choice(['', '/versions/1', '/labels/x', '/versions/0'])}{action}"
        if kind < 0.9:
            version = chance.choice(["-1", "1.0", "1e3", "x", "9" * 30, "01", "%31", "", "/", "٣"])
            return _quoted(f"{base}/{chance.choice(['versions', 'labels'])}/{version}:predict")
        return _quoted(
            chance.choice(
                [
                    *(
                        "/",
                        "//",
                        "/healthz",
                        "/readyz",
                        "/v1",
                        "/v1/models",
                        "/v1/models/",
                        "*",
                        "/%",
                        "/%zz",
                    ),
                    *(
                        "/v1/models/../../etc/passwd",
                        "/v1/models/%2e%2e%2fetc:predict",
                        "/monitoring/prometheus/metrics",
                    ),
                    *(
                        f"{base}:predict?x=1&x",
                        f"{base}:predict#x",
                        f"{base}%00:predict",
                        "/v1/models/é:predict",
                    ),
                    *("/" + "a" * 3000, "/v1/models/" + "%F0%9F%A4%96" * 50 + ":predict", f"{base}:predict/"),
                ]
            )
        )

    def _body(self) -> bytes:
        chance = self._random
        kind = chance.random()
        if kind < 0.2:
            return chance.choice(self._valid)
        if kind < 0.5:
            return mutate(chance, chance.choice(self._valid), TOKENS)
        if kind < 0.75:
            return json.dumps(self._content()).encode()
        if kind < 0.95:
            return json.dumps(self._tree(4)).encode()
        depth = chance.choice((10, 1000, 20_000))
        return b'{"instances": ' + b"[" * depth + chance.choice((b"", b"1" + b"]" * depth + b"}"))

    def _content(self) -> dict[str, Any]:
        """Return what has the form of a request."""
        chance = self._random
        content: dict[str, Any] = {}
        for key in chance.choice((["instances"], ["inputs"], ["instances", "inputs"], ["examples"], [])):
            value = self._tensor(
                chance.choice(([2, 28, 28], [28, 28], [1, 28, 28, 1], [3], [0], [1, 2, 0, 3]))
            )
            named = chance.choice((value, {"x": value}, {"x": value, "y": 1}, {"z": value}, [{"x": value}]))
            content[key] = [{"x": row} for row in value] if chance.random() < 0.2 and value else named
        if chance.random() < 0.4:
            content["signature_name"] = chance.choice(("serving_default", "", "no", 1, None, [], "é" * 100))
        return content

    def _tensor(self, shape: list[int]) -> Any:
        chance = self._random
        if not shape:
            return self._scalar() if chance.random() < 0.02 else round(chance.random(), 3)
        size = shape[0] + (chance.choice((-1, 1)) if chance.random() < 0.02 else 0)
        return [self._tensor(shape[1:]) for _ in range(max(size, 0))]

    def _tree(self, depth: int) -> Any:
        """Return any JSON value."""
        chance = self._random
        kind = chance.random()
        if depth == 0 or kind < 0.4:
            return self._scalar()
        children = range(chance.randrange(5))
        if kind < 0.7:
            return [self._tree(depth - 1) for _ in children]
        keys = ("instances", "inputs", "signature_name", "examples", "context", "x", "b64", "", "é")
        return {chance.choice(keys): self._tree(depth - 1) for _ in children}

    def _scalar(self) -> Any:
        special = (
            None,
            True,
            "",
            "x",
            "é\ud800"[:1],
            1e308,
            -1,
            2**63,
            2**200,
            float("nan"),
            float("inf"),
            0.1,
        )
        return self._random.choice((*special, {"b64": "AAAA"}, {"b64": 1}, [], {}))

    def _encoded(self, body: bytes) -> tuple[bytes, list[tuple[str, str]]]:
        chance = self._random
        kind = chance.random()
        if kind < 0.8:
            return body, []
        if kind < 0.9:
            return gzip.compress(body, 1, mtime=0), [("content-encoding", "gzip")]
        if kind < 0.95:
            return mutate(chance, gzip.compress(body, 1, mtime=0), TOKENS), [("content-encoding", "gzip")]
        return body, [("content-encoding", chance.choice(("gzip", "br", "identity", "gzip, gzip", "x")))]

    def _chunked(self, body: bytes) -> bytes:
        parts = []
        while body:
            size = self._random.choice((1, 10, 1000, 100_000))
            part, body = body[:size], body[size:]
            parts.append(f"{len(part):x}\r\n".encode() + part + b"\r\n")
        return b"".join(parts) + b"0\r\n\r\n"


def mutate(chance: random.Random, data: bytes, tokens: list[bytes]) -> bytes:
    """Return the bytes with one to four accidents in them."""
    changes: list[Callable[[bytes, int, int], bytes]] = [
        lambda data, start, _: data[:start],
        lambda data, start, end: data[:start] + data[end:],
        lambda data, start, end: data[:end] + data[start:],
        lambda data, start, _: data[:start] + chance.choice(tokens) + data[start:],
        lambda data, start, _: data[:start] + bytes([chance.randrange(256)]) + data[start + 1 :],
        lambda data, start, end: data[:start] + data[start:end][::-1] + data[end:],
    ]
    for _ in range(chance.choice((1, 1, 2, 4))):
        start = chance.randrange(len(data) + 1)
        end = min(len(data), start + chance.choice((1, 4, 50)))
        data = chance.choice(changes)(data, start, end)
    return data


def _quoted(path: str) -> str:
    """Return a path as it goes over the wire: UTF-8, bytes that are not ASCII as they are."""
    return path.encode().decode("latin-1")
