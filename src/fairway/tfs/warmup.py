"""Reads warm-up records: requests that a model came with, perhaps with the answers that they must get.

A SavedModel keeps them in `assets.extra/tf_serving_warmup_requests`, a TFRecord file with PredictionLog
messages. Source: https://www.tensorflow.org/tfx/serving/saved_model_warmup and, for the file's format,
https://www.tensorflow.org/tutorials/load_data/tfrecord#tfrecords_format_details
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fairway.tfs import protos
from fairway.tfs.messages import parse_examples, parse_multi_inference, parse_predict
from fairway.tfs.request import PredictRequest
from fairway.tfs.signatures import Signature
from fairway.tfs.status import RequestError
from fairway.tfs.tensors import from_proto

_HEADER = struct.Struct("<QI")  # a record's length in bytes, and the checksum of these 8 bytes
_CHECKSUM = struct.Struct("<I")
_MASK_DELTA = 0xA282EAD8
_POLYNOMIAL = 0x82F63B78  # CRC-32C, bits reversed
# The checksum starts with all bits set. These bytes bring it there from zero, from where it is linear.
_INITIAL = bytes.fromhex("54641f64")


class WarmupRecord(NamedTuple):
    """A request to run, and what TensorFlow answered; `None`: that was not recorded."""

    request: PredictRequest
    expected: dict[str, NDArray[Any]] | None = None


def read_warmup(data: bytes, signatures: Mapping[str, Signature]) -> Iterator[WarmupRecord]:
    """Read the content of a file of warm-up records.

    Records that call the graph below its signatures (`session_run_log`), or stream, are left out: nothing
    here could ever ask that of the model.

    Args:
        data: The content.
        signatures: The signatures of the model, by name.

    Raises:
        ValueError: it is damaged, or a request does not fit the model.
    """
    for number, content in enumerate(_records(data), start=1):
        try:
            yield from _read(protos.parse("tensorflow.serving.PredictionLog", content), signatures)
        except RequestError as err:
            raise ValueError(f"record {number} does not fit the model: {err.message}") from err


def _read(log: Any, signatures: Mapping[str, Signature]) -> Iterator[WarmupRecord]:
    match log.WhichOneof("log_type"):
        case "predict_log":
            request, _ = parse_predict(log.predict_log.request, signatures)
            yield WarmupRecord(request, _expected(log.predict_log))
        case "classify_log":
            yield WarmupRecord(parse_examples("classify", log.classify_log.request, signatures))
        case "regress_log":
            yield WarmupRecord(parse_examples("regress", log.regress_log.request, signatures))
        case "multi_inference_log":
            for task in parse_multi_inference(log.multi_inference_log.request, signatures):
                yield WarmupRecord(task.request)


def _expected(log: Any) -> dict[str, NDArray[Any]] | None:
    if not log.HasField("response"):
        return None
    return {name: from_proto(tensor, name) for name, tensor in log.response.outputs.items()}


def _records(data: bytes) -> Iterator[bytes]:
    """Return the records of a TFRecord file: each a header, the content and the content's checksum."""
    position = 0
    while position < len(data):
        start = position + _HEADER.size
        if start > len(data):
            raise ValueError(f"it ends within the record at byte {position}")
        length, checksum = _HEADER.unpack_from(data, position)
        if _masked_crc(data[position : position + 8]) != checksum:
            raise ValueError(f"the record at byte {position} is damaged: wrong checksum of its length")
        end = start + length
        if end + _CHECKSUM.size > len(data):
            raise ValueError(f"it ends within the record at byte {position}")
        content = data[start:end]
        if _masked_crc(content) != _CHECKSUM.unpack_from(data, end)[0]:
            raise ValueError(f"the record at byte {position} is damaged: wrong checksum")
        yield content
        position = end + _CHECKSUM.size


def _masked_crc(data: bytes) -> int:
    crc = _crc(data)
    return ((crc >> 15 | crc << 17) + _MASK_DELTA) & 0xFFFFFFFF


def _crc(data: bytes) -> int:
    """Return the CRC-32C, quicker than byte by byte: neighbours are joined until one is left."""
    table, shift = _tables()
    parts = table[np.frombuffer(_INITIAL + data, np.uint8)]
    while len(parts) > 1:
        if len(parts) % 2:
            parts = np.concatenate([np.zeros(1, np.uint32), parts])
        # The left one is followed by as many bytes as the right one stands for.
        parts = _apply(shift, parts[::2]) ^ parts[1::2]
        shift = _apply(shift, shift)
    return int(parts[0]) ^ 0xFFFFFFFF


@cache
def _tables() -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
    """Return the checksum of each byte, [256], and what a zero byte makes of a checksum, [4, 256].

    The latter holds the effect of each of the checksum's four bytes, the lowest first; `_apply` adds them up.
    """
    table: NDArray[np.uint32] = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = table >> np.uint32(1) ^ (table & np.uint32(1)) * np.uint32(_POLYNOMIAL)
    single = np.arange(256, dtype=np.uint32)
    return table, np.stack([table, single, single << 8, single << 16])


def _apply(shift: NDArray[np.uint32], crc: NDArray[np.uint32]) -> NDArray[np.uint32]:
    changed = np.take(shift[0], crc & 0xFF)
    for position in (1, 2, 3):
        changed ^= np.take(shift[position], crc >> 8 * position & 0xFF)
    return changed
