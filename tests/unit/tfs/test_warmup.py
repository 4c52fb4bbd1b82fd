"""Warm-up records are read, and damaged ones found."""

import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairway.tfs import protos
from fairway.tfs.signatures import Signature, TensorSpec
from fairway.tfs.tensors import to_proto
from fairway.tfs.warmup import read_warmup

SIGNATURES = {
    "serving_default": Signature(
        {"x": TensorSpec("x:0", "DT_FLOAT", (-1,))}, {"y": TensorSpec("y:0", "DT_FLOAT", (-1,))}
    ),
    "regress": Signature(
        {"inputs": TensorSpec("e:0", "DT_STRING", (-1,))}, {"outputs": TensorSpec("o:0", "DT_FLOAT", (-1,))}
    ),
    "classify": Signature(
        {"inputs": TensorSpec("e:0", "DT_STRING", (-1,))}, {"scores": TensorSpec("s:0", "DT_FLOAT", (-1, 2))}
    ),
}


def crc32c(data: bytes) -> int:
    """Byte by byte and bit by bit, as the polynomial is defined."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def masked(data: bytes) -> bytes:
    crc = crc32c(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def record(content: bytes) -> bytes:
    length = struct.pack("<Q", len(content))
    return length + masked(length) + content + masked(content)


def log(**fields: Any) -> Any:
    return protos.message("tensorflow.serving.PredictionLog")(**fields)


def predict_log(*answer: float) -> bytes:
    message = log()
    to_proto(np.array([1, 2], np.float32), message.predict_log.request.inputs["x"])
    if answer:
        to_proto(np.array(answer, np.float32), message.predict_log.response.outputs["y"])
    return bytes(message.SerializeToString())


def test_the_checksum_of_the_tests_is_the_published_one() -> None:
    assert crc32c(b"123456789") == 0xE3069283  # https://reveng.sourceforge.io/crc-catalogue/all.htm


def test_records_have_requests_and_perhaps_answers() -> None:
    first, second = read_warmup(record(predict_log()) + record(predict_log(3, 4)), SIGNATURES)

    assert first.request.inputs["x"].tolist() == [1, 2]
    assert first.expected is None
    assert second.expected is not None
    assert second.expected["y"].tolist() == [3, 4]


def test_records_of_other_methods() -> None:
    examples: Any = {"example_list": {"examples": [{}]}}
    regress = {"input": examples, "model_spec": {"signature_name": "regress"}}
    classify = {"input": examples, "model_spec": {"signature_name": "classify"}}
    tasks = [
        {"model_spec": {"name": "m", "signature_name": name}, "method_name": f"tensorflow/serving/{name}"}
        for name in ("classify", "regress")
    ]
    logs = [
        log(regress_log={"request": regress}),
        log(classify_log={"request": classify}),
        log(multi_inference_log={"request": {"input": examples, "tasks": tasks}}),
        log(session_run_log={}),
        log(),
    ]

    found = read_warmup(b"".join(record(each.SerializeToString()) for each in logs), SIGNATURES)

    assert [each.request.signature_name for each in found] == ["regress", "classify", "classify", "regress"]


def test_an_empty_file() -> None:
    assert list(read_warmup(b"", SIGNATURES)) == []


@given(st.binary(max_size=40))
def test_the_checksum_of_anything_is_right(content: bytes) -> None:
    problem = ""
    try:
        list(read_warmup(record(content), SIGNATURES))
    except ValueError as err:
        problem = str(err)
    assert "checksum" not in problem  # perhaps it is no message


GOOD = record(predict_log(3, 4))


@given(st.integers(0, len(GOOD) - 1), st.integers(1, 255))
def test_a_wrong_byte_is_found(position: int, change: int) -> None:
    data = bytearray(GOOD)
    data[position] ^= change

    with pytest.raises(ValueError, match="the record at byte 0 is damaged"):
        list(read_warmup(bytes(data), SIGNATURES))


@given(st.integers(1, len(GOOD) - 1))
def test_a_missing_end_is_found(size: int) -> None:
    with pytest.raises(ValueError, match=f"it ends within the record at byte {len(GOOD)}"):
        list(read_warmup(GOOD + GOOD[:size], SIGNATURES))


def test_a_record_that_is_no_log() -> None:
    with pytest.raises(ValueError, match=r"not a tensorflow\.serving\.PredictionLog message"):
        list(read_warmup(record(b"\xff"), SIGNATURES))


def test_a_request_that_does_not_fit_the_model() -> None:
    data = GOOD + record(log(predict_log={}).SerializeToString())

    with pytest.raises(ValueError, match="record 2 does not fit the model: input size does not match"):
        list(read_warmup(data, SIGNATURES))
