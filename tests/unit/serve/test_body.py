"""What is inflated, and how much of it."""

import gzip

import pytest

from fairway.serve import body
from fairway.serve.body import BodyError, inflate
from fairway.tfs.status import RequestError


def test_what_gzip_has_written_comes_back() -> None:
    assert inflate(gzip.compress(b"")) == b""
    assert inflate(gzip.compress(b"body" * 1000)) == b"body" * 1000


@pytest.mark.parametrize("size", [1000, 1001])
def test_a_bomb_is_not_unpacked(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body, "MAX_BODY_BYTES", 1000)
    packed = gzip.compress(b" " * size)

    if size == 1000:
        assert len(inflate(packed)) == size
        return
    with pytest.raises(BodyError, match="larger than the limit") as caught:
        inflate(packed)
    assert caught.value.http_status == 413


@pytest.mark.parametrize(
    "data", [b"", b"x", b"\x1f\x8b", gzip.compress(b"a", mtime=0) + b"b", gzip.compress(b"a", mtime=0) * 2]
)
def test_what_is_not_one_gzip_stream_is_refused(data: bytes) -> None:
    with pytest.raises(RequestError, match="the body cannot be decompressed: ") as caught:
        inflate(data)

    assert caught.value.code.http == 400
