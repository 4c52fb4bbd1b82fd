"""What runs a version: LiteRT where its answers are TensorFlow's, else TensorFlow, which is a fake here."""

from __future__ import annotations

import gc
import json
import shutil
import weakref
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fairway.errors import FairwayError
from fairway.serve.compute import servable as module
from fairway.serve.compute.runtime import LiteRuntime
from fairway.serve.compute.servable import PARITY, Servable, load_servable, release_memory
from fairway.storage.exports import Version, read_version
from fairway.storage.files import sha256
from fairway.storage.manifest import (
    EXTRA,
    MANIFEST,
    SAVED_MODEL,
    TFLITE,
    WARMUP,
    DatasetRecord,
    Manifest,
    describe_files,
)
from fairway.tfs.request import PredictRequest
from fairway.tfs.signatures import Signature, TensorSpec, signatures_to_json
from fairway.tfs.status import Code, RequestError, invalid
from fairway.tfs.warmup import WarmupRecord

FILE = Path(__file__).with_name("half_plus_two.tflite")
ROWS = TensorSpec("x:0", "DT_FLOAT", (-1,))
SIGNATURES = {
    "serving_default": Signature({"x": ROWS}, {"y": ROWS}),
    "text": Signature({"t": TensorSpec("t:0", "DT_STRING", (-1,))}, {"z": ROWS, "y": ROWS}),
}


@dataclass
class TensorFlow:
    """Stands in for the SavedModel; its answers are told apart by being wrong."""

    error: FairwayError | None = None
    runs: list[tuple[str, list[Any]]] = field(default_factory=list)
    is_loaded: bool = False

    def __call__(self, path: Path) -> TensorFlow:
        return self

    def read_signatures(self) -> Mapping[str, Signature]:
        return SIGNATURES

    def load(self) -> None:
        if self.error and not isinstance(self.error, RequestError):
            raise self.error
        self.is_loaded = True

    def run(self, name: str, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        if self.error:
            raise self.error
        self.runs.append((name, next(iter(inputs.values())).tolist()))
        return {"y": np.array([-1.0]), "z": np.array([-2.0])}


@pytest.fixture
def tensorflow(monkeypatch: pytest.MonkeyPatch) -> TensorFlow:
    fake = TensorFlow()
    monkeypatch.setattr(module, "SavedModel", fake)
    return fake


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """An export of `half_plus_two` whose SavedModel is empty."""
    path = tmp_path / "7"
    path.mkdir()
    (path / SAVED_MODEL).write_bytes(b"a graph")
    shutil.copy(FILE, path / TFLITE)
    write_manifest(path)
    return path


def write_manifest(path: Path, **changes: Any) -> None:
    content: dict[str, Any] = {
        "workload": "test",
        "model_type": "tiny",
        "run": "r",
        "step": 1,
        "created": "2026-01-01T00:00:00+00:00",
        "settings": {},
        "dataset": DatasetRecord(
            name="none", source="", train_images=0, test_images=0, test_name="", sha256={}
        ),
        "metrics": {},
        "software": {},
        "signatures": signatures_to_json(SIGNATURES),
        "tflite": {"signature": "serving_default", "saved_model_sha256": sha256(path / SAVED_MODEL)},
    }
    (path / MANIFEST).unlink(missing_ok=True)
    manifest = Manifest(**content | {"files": describe_files(path)} | changes)
    (path / MANIFEST).write_text(json.dumps(asdict(manifest)))


Record = Callable[..., None]


@pytest.fixture
def record(path: Path, monkeypatch: pytest.MonkeyPatch) -> Record:
    """Give the version warm-up records; how their file is written is tested where it is read."""

    def record(*records: WarmupRecord) -> None:
        (path / EXTRA).mkdir()
        (path / WARMUP).write_bytes(b"records")
        if (path / MANIFEST).exists():
            write_manifest(path)

        def read(data: bytes, signatures: Mapping[str, Signature]) -> Iterator[WarmupRecord]:
            assert (data, signatures) == (b"records", SIGNATURES)
            yield from records

        monkeypatch.setattr(module, "read_warmup", read)

    return record


def load(path: Path, *, warmup: bool = True) -> Servable:
    version = read_version(path)
    assert not version.problem
    return load_servable(version, "m", warmup=warmup)


def ask(servable: Servable, name: str = "serving_default") -> dict[str, Any]:
    inputs = {"serving_default": np.array([1, 2], np.float32), "text": np.array([b"a"], object)}[name]
    argument = next(iter(SIGNATURES[name].inputs))
    return {
        key: value.tolist() for key, value in servable.run(PredictRequest(name, {argument: inputs})).items()
    }


def warm(x: list[float], y: list[float] | None = None, dtype: Any = np.float32) -> WarmupRecord:
    request = PredictRequest("serving_default", {"x": np.array(x, np.float32)})
    return WarmupRecord(request, None if y is None else {"y": np.array(y, dtype)})


def test_an_export_runs_on_litert_and_loads_no_tensorflow(path: Path, tensorflow: TensorFlow) -> None:
    servable = load(path)
    assert ask(servable) == {"y": [2.5, 3]}
    assert (servable.model, servable.number, dict(servable.signatures)) == ("m", 7, SIGNATURES)
    assert servable.one_at_a_time("serving_default")
    assert servable.rows_independent
    assert not tensorflow.is_loaded


def test_the_other_signatures_run_on_tensorflow(path: Path, tensorflow: TensorFlow) -> None:
    servable = load(path)
    assert list(ask(servable, "text").items()) == [("z", [-2]), ("y", [-1])]  # the signature's order
    assert tensorflow.runs == [("text", [b"a"])]
    request = PredictRequest("text", {"t": np.array([b"a"], object)})
    assert servable.run_if_free(request) is None
    assert servable.seconds(request) == float("inf")
    assert not servable.one_at_a_time("text")


def test_a_signature_that_needs_tensorflow_where_it_is_not_installed(
    path: Path, tensorflow: TensorFlow
) -> None:
    servable = load(path)
    tensorflow.error = FairwayError("it needs TensorFlow", hint="Install it.")
    with pytest.raises(RequestError, match=r"it needs TensorFlow\. Install it\.") as caught:
        ask(servable, "text")
    assert caught.value.code is Code.FAILED_PRECONDITION
    assert ask(servable) == {"y": [2.5, 3]}


@pytest.mark.parametrize("warmup", [True, False])
@pytest.mark.parametrize(
    ("answer", "number"),
    [
        (warm([2], [3 + 4 * PARITY * 3]), "in 'y' by up to 1.2e-04, more than 1e-05"),
        (warm([2], [float("nan")]), "in 'y' by up to nan"),
        (warm([2], [3, 3]), "by its shape, (1,) instead of (2,)"),
        (warm([2, 3], [3, 4], np.int64), "in 1 of 2 elements"),
        (WarmupRecord(warm([2]).request, {"other": np.zeros(1)}), "has no output 'other'"),
        (
            WarmupRecord(PredictRequest("serving_default", {"x": np.zeros(1)})),
            "LiteRT does not take a warm-up request",
        ),
    ],
)
def test_wrong_answers_are_never_served(
    path: Path,
    tensorflow: TensorFlow,
    record: Record,
    caplog: pytest.LogCaptureFixture,
    answer: WarmupRecord,
    number: str,
    warmup: bool,
) -> None:
    record(warm([1], [2.5]), answer)
    servable = load(path, warmup=warmup)
    assert servable.lite is None
    assert ask(servable) == {"y": [-1]}
    assert len(tensorflow.runs) == (3 if warmup else 1)
    assert number in caplog.text
    assert "version 7 of m is run by TensorFlow" in caplog.text


def test_right_answers_and_requests_without_one(path: Path, tensorflow: TensorFlow, record: Record) -> None:
    other = WarmupRecord(PredictRequest("text", {"t": np.array([b"a"], object)}), {"y": np.array([5.0])})
    record(warm([1, 2], [2.5, 3 + PARITY]), warm([3]), other)
    assert ask(load(path)) == {"y": [2.5, 3]}
    assert not tensorflow.is_loaded


@pytest.mark.parametrize("foreign", [True, False])
def test_a_damaged_warmup_file_fails_the_version(
    path: Path, tensorflow: TensorFlow, record: Record, monkeypatch: pytest.MonkeyPatch, foreign: bool
) -> None:
    record()
    if foreign:
        (path / TFLITE).unlink()
        (path / MANIFEST).unlink()

    def damaged(*_: object) -> Iterator[WarmupRecord]:
        raise ValueError("wrong checksum at byte 12")

    monkeypatch.setattr(module, "read_warmup", damaged)
    with pytest.raises(FairwayError, match="tf_serving_warmup_requests cannot be read: wrong checksum"):
        load(path)


def make_foreign(path: Path) -> None:
    (path / TFLITE).unlink()
    (path / MANIFEST).unlink()


def test_another_programs_model_is_warmed_by_its_records(
    path: Path, tensorflow: TensorFlow, record: Record
) -> None:
    make_foreign(path)
    record(warm([5], [6]), warm([7]))
    servable = load(path)
    assert tensorflow.runs == [("serving_default", [5]), ("serving_default", [7])]
    assert ask(servable) == {"y": [-1]}
    assert not servable.rows_independent


def test_another_programs_model_without_records_is_warmed_with_zeros(
    path: Path, tensorflow: TensorFlow
) -> None:
    make_foreign(path)
    load(path)
    assert tensorflow.runs == [("serving_default", [0])]


def test_no_warmup_where_none_is_wanted(path: Path, tensorflow: TensorFlow, record: Record) -> None:
    make_foreign(path)
    record(warm([5]))
    load(path, warmup=False)
    assert tensorflow.is_loaded
    assert tensorflow.runs == []


def test_a_model_that_refuses_its_own_record(path: Path, tensorflow: TensorFlow, record: Record) -> None:
    make_foreign(path)
    record(warm([5]))
    tensorflow.error = invalid("five is right out")
    with pytest.raises(FairwayError, match="does not take one of its own warm-up requests: five is right"):
        load(path)


def test_a_model_that_does_not_take_zeros(path: Path, tensorflow: TensorFlow) -> None:
    make_foreign(path)
    tensorflow.error = invalid("division by zero")
    load(path)


@pytest.mark.parametrize(
    ("tflite", "reason"),
    [
        ({}, f"it has no {TFLITE}"),
        ({"signature": "gone"}, "holds a signature that the model does not have"),
        ({"signature": "serving_default", "saved_model_sha256": "0"}, f"made from another {SAVED_MODEL}"),
    ],
)
def test_a_tflite_that_is_not_known_to_be_right(
    path: Path,
    tensorflow: TensorFlow,
    caplog: pytest.LogCaptureFixture,
    tflite: dict[str, Any],
    reason: str,
) -> None:
    write_manifest(path, tflite=tflite)
    servable = load(path)
    assert servable.lite is None
    assert servable.rows_independent
    assert reason in caplog.text


def test_damage(path: Path, tensorflow: TensorFlow) -> None:
    (path / SAVED_MODEL).write_bytes(b"another")
    with pytest.raises(FairwayError, match=f"wrong checksum of {SAVED_MODEL}"):
        load(path)
    (path / MANIFEST).unlink()
    with pytest.raises(FairwayError, match="no manifest: it is damaged or still being copied"):
        load(path)
    (path / SAVED_MODEL).write_bytes(b"a graph")
    write_manifest(path, signatures={"serving_default": {}})
    with pytest.raises(FairwayError, match="its manifest cannot be read"):
        load_servable(Version(7, str(path), read_version(path).manifest, ""), "m", warmup=True)


@pytest.mark.parametrize("signatures", [{}, signatures_to_json({"text": SIGNATURES["text"]})])
def test_what_is_refused_loads_no_tensorflow(
    path: Path, tensorflow: TensorFlow, monkeypatch: pytest.MonkeyPatch, signatures: dict[str, Any]
) -> None:
    (path / EXTRA).mkdir()
    (path / WARMUP).write_bytes(b"records")
    write_manifest(path, signatures=signatures)

    def of_another_signature(*_: object) -> Iterator[WarmupRecord]:
        raise ValueError("no signature serving_default")

    monkeypatch.setattr(module, "read_warmup", of_another_signature)
    with pytest.raises(FairwayError, match="no signature"):
        load(path)
    assert not tensorflow.is_loaded


def test_what_a_request_takes(path: Path, tensorflow: TensorFlow) -> None:
    servable = load(path)
    none, one, many = (
        servable.seconds(PredictRequest("serving_default", {"x": np.zeros(rows, np.float32)}))
        for rows in (0, 1, 1_000_000)
    )
    assert 0 < none == one < 1
    assert many == pytest.approx(1_000_000 * one)


@pytest.mark.parametrize(
    "spec",
    [
        TensorSpec("x:0", "DT_FLOAT", None),
        TensorSpec("x:0", "DT_FLOAT", (-1, -1)),
        TensorSpec("x:0", "DT_STRING", (-1,)),
        TensorSpec("x:0", "DT_DOUBLE", (-1,)),  # which this model does not take
    ],
)
def test_what_zeros_do_not_tell(path: Path, spec: TensorSpec) -> None:
    lite = LiteRuntime(path / TFLITE, "serving_default", SIGNATURES["serving_default"])
    assert module._row_seconds(lite, Signature({"x": spec}, {})) == float("inf")


def test_a_row_of_a_fixed_shape(path: Path) -> None:
    lite = LiteRuntime(path / TFLITE, "serving_default", SIGNATURES["serving_default"])
    fixed = Signature({"x": TensorSpec("x:0", "DT_FLOAT", (10_000,))}, {})
    assert 0 < module._row_seconds(lite, fixed) < 1e-4


def test_a_version_that_is_let_go_of_is_freed(path: Path, tensorflow: TensorFlow) -> None:
    servable = load(path)
    held = weakref.ref(servable), weakref.ref(servable.lite)
    gc.disable()  # reference counting alone must do
    try:
        del servable
        assert [ref() for ref in held] == [None, None]
    finally:
        gc.enable()


def test_memory_goes_back_to_the_system() -> None:
    def resident_mb() -> float:
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20

    blocks = [bytes(1000) for _ in range(100_000)]
    keep = bytes(1000)  # above them, so that the heap cannot simply shrink
    before = resident_mb()
    del blocks
    release_memory()
    assert resident_mb() < before - 50
    assert keep


def test_a_c_library_that_cannot_give_memory_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ctypes.CDLL", lambda name: object())
    release_memory()
