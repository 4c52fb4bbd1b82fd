"""Warm-up records are what TensorFlow Serving reads, and hold TensorFlow's answers."""

from pathlib import Path

import numpy as np
import tensorflow as tf

from fairway.tfs.signatures import Signature, TensorSpec
from fairway.tfs.warmup import read_warmup
from fairway.train.warmup import BATCH_SIZES, write_warmup

SIGNATURES = {
    "serving_default": Signature(
        {"x": TensorSpec("x:0", "DT_FLOAT", (-1, 2))}, {"y": TensorSpec("y:0", "DT_FLOAT", (-1,))}
    )
}


def add_up(x: tf.Tensor) -> dict[str, tf.Tensor]:
    return {"y": tf.reduce_sum(x, axis=1)}


def test_records_have_a_request_and_its_answer(tmp_path: Path) -> None:
    path = tmp_path / "tf_serving_warmup_requests"

    write_warmup(path, "adder", "serving_default", add_up, {"x": np.array([[1, 2.5]], np.float32)})

    records = list(read_warmup(path.read_bytes(), SIGNATURES))
    assert len(list(tf.data.TFRecordDataset(str(path)))) == len(BATCH_SIZES)
    for size, record in zip(BATCH_SIZES, records, strict=True):
        assert record.request.inputs["x"].tolist() == [[1, 2.5]] * size
        assert record.expected is not None
        assert record.expected["y"].tolist() == [3.5] * size
