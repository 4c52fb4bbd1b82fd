"""LiteRT on a real model of 1 KB, `half_plus_two` of `tests/integration/serving/build_models.py`."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fairway.errors import FairwayError
from fairway.serve.compute.runtime import LiteRuntime
from fairway.tfs.signatures import Signature, TensorSpec
from fairway.tfs.status import Code, RequestError

FILE = Path(__file__).with_name("half_plus_two.tflite")
ROWS = TensorSpec("x:0", "DT_FLOAT", (-1,))
SIGNATURE = Signature({"x": ROWS}, {"y": ROWS})


@pytest.fixture
def lite() -> LiteRuntime:
    return LiteRuntime(FILE, "serving_default", SIGNATURE)


def numbers(*values: float) -> dict[str, Any]:
    return {"x": np.array(values, np.float32)}


def test_any_number_of_rows(lite: LiteRuntime) -> None:
    for rows in (1, 3, 1000, 1):
        values = np.arange(rows, dtype=np.float32)
        np.testing.assert_array_equal(lite.run({"x": values})["y"], values / 2 + 2)


def test_no_rows_are_answered_without_asking_the_model(
    lite: LiteRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """XNNPack refuses them with most models, though not with this one."""
    monkeypatch.setattr(lite, "_interpreter", None)
    answer = lite.run({"x": np.zeros(0, np.float32)})["y"]
    assert (answer.shape, answer.dtype) == ((0,), np.dtype(np.float32))


def test_no_rows_where_the_shape_of_the_answer_is_not_known() -> None:
    unknown = TensorSpec("y:0", "DT_FLOAT", None)
    lite = LiteRuntime(FILE, "serving_default", Signature({"x": ROWS}, {"y": unknown}))
    assert lite._without_rows({"x": (0,)}) is None


def test_answers_are_copies(lite: LiteRuntime) -> None:
    first = lite.run(numbers(2))["y"]
    lite.run(numbers(4))
    assert first.tolist() == [3]


def test_arrays_that_are_not_contiguous(lite: LiteRuntime) -> None:
    values = np.arange(10, dtype=np.float32)[::-2]
    np.testing.assert_array_equal(lite.run({"x": values})["y"], values / 2 + 2)


def test_an_input_that_is_refused_leaves_no_trace(lite: LiteRuntime) -> None:
    for _ in range(3):
        with pytest.raises(RequestError, match="the model cannot compute this input") as caught:
            lite.run({"x": np.zeros(3, np.float64)})
        assert caught.value.code is Code.INVALID_ARGUMENT
        assert len(caught.value.message) < 300
        assert lite.run(numbers(1, 2))["y"].tolist() == [2.5, 3]


def test_many_threads_get_their_own_answers(lite: LiteRuntime) -> None:
    def ask(rows: int) -> bool:
        values = np.full(rows, rows, np.float32)
        return all((lite.run({"x": values})["y"] == rows / 2 + 2).all() for _ in range(50))

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(ask, range(1, 33)))


def test_who_cannot_wait_is_told_that_it_is_busy(lite: LiteRuntime) -> None:
    outputs = lite.run_if_free(numbers(1))
    assert outputs is not None
    assert outputs["y"].tolist() == [2.5]
    with lite._lock:
        assert lite.run_if_free(numbers(1)) is None
    with pytest.raises(RequestError):
        lite.run_if_free({"x": np.zeros(3, np.float64)})
    assert lite.run_if_free(numbers(1)) is not None


def test_a_file_that_is_deleted_goes_on_serving(tmp_path: Path) -> None:
    copy = Path(shutil.copy(FILE, tmp_path))
    lite = LiteRuntime(copy, "serving_default", SIGNATURE)
    copy.unlink()
    assert lite.run(numbers(1, 2))["y"].tolist() == [2.5, 3]


@pytest.mark.parametrize("content", [b"", b"not a model", FILE.read_bytes()[:500]])
def test_a_damaged_file(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.tflite"
    path.write_bytes(content)
    with pytest.raises(FairwayError, match=r"model\.tflite cannot be loaded"):
        LiteRuntime(path, "serving_default", SIGNATURE)


@pytest.mark.parametrize(
    ("name", "signature", "message"),
    [
        ("classify", SIGNATURE, r"holds the signatures \['serving_default'\] instead of \['classify'\]"),
        ("serving_default", Signature({"z": ROWS}, {"y": ROWS}), r"inputs \['x'\] instead of \['z'\]"),
        ("serving_default", Signature({"x": ROWS}, {}), r"outputs \['y'\] instead of \[\]"),
        (
            "serving_default",
            Signature({"x": TensorSpec("x:0", "DT_INT32", (-1,))}, {"y": ROWS}),
            r"input 'x' of .* is float32 \[-1\] instead of DT_INT32 \[-1\]",
        ),
        (
            "serving_default",
            Signature({"x": ROWS}, {"y": TensorSpec("y:0", "DT_FLOAT", (-1, 2))}),
            r"output 'y' of .* is float32 \[-1\] instead of DT_FLOAT \[-1,2\]",
        ),
    ],
)
def test_a_file_that_holds_something_else(name: str, signature: Signature, message: str) -> None:
    with pytest.raises(FairwayError, match=message):
        LiteRuntime(FILE, name, signature)
