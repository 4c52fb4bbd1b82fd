"""One version of a model in memory: which of its signatures run on LiteRT, which on TensorFlow.

LiteRT runs a signature only where the export has recorded that it answers as the SavedModel does, and only
if it still does so here: the answers that are recorded with the warm-up requests are compared at loading.
"""

from __future__ import annotations

import ctypes
import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fairway.errors import FairwayError
from fairway.quiet import without_notices
from fairway.serve.compute.runtime import LiteRuntime
from fairway.serve.compute.savedmodel import SavedModel
from fairway.storage.exports import Version, damaged_files
from fairway.storage.files import sha256
from fairway.storage.manifest import SAVED_MODEL, TFLITE, WARMUP, Manifest
from fairway.tfs.request import PredictRequest
from fairway.tfs.signatures import DEFAULT_SIGNATURE, NUMPY_DTYPES, Signature, signatures_from_json
from fairway.tfs.status import Code, RequestError
from fairway.tfs.warmup import WarmupRecord, read_warmup

# The largest difference, absolute or relative, of a LiteRT answer from the recorded one of TensorFlow. It is
# what the export requires of the probabilities. Another processor rounds otherwise, but by less: 7e-7 was
# measured, a tenth of it. Whole numbers, such as classes, must be the same.
PARITY = 1e-5

_WITH_ZERO = NUMPY_DTYPES.keys() - {"DT_STRING"}
_MEASURED_ROWS = 8
_SLOW_S = 0.002  # a row that takes longer is not computed on the event loop; no need to know more

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Servable:
    """A loaded version.

    Nothing has to close it: each request holds it while it runs, and the memory goes with the last of them.

    Attributes:
        model: Under which name it serves.
        number: The version.
        signatures: By name.
        saved_model: Runs what LiteRT does not.
        lite: Runs the signature `lite_signature`; `None` where TensorFlow runs all.
        row_seconds: What a row of that signature takes, as measured at loading; infinite where unknown.
        rows_independent: Whether the answer to a row is known not to depend on the other rows of the request.
            It is so with what fairway has exported; of other programs' models nobody can tell.
    """

    model: str
    number: int
    signatures: Mapping[str, Signature]
    saved_model: SavedModel
    lite: LiteRuntime | None = None
    lite_signature: str = ""
    row_seconds: float = float("inf")
    rows_independent: bool = False

    def run(self, request: PredictRequest) -> dict[str, NDArray[Any]]:
        """Return the outputs of a request, in the order of the signature; wait while LiteRT is busy.

        Raises:
            RequestError: the model cannot compute the inputs, or TensorFlow is needed and not installed.
        """
        if self.lite and request.signature_name == self.lite_signature:
            return self.lite.run(request.inputs)
        try:
            outputs = self.saved_model.run(request.signature_name, request.inputs)
        except RequestError:
            raise
        except FairwayError as err:
            raise RequestError(Code.FAILED_PRECONDITION, f"{err.message}. {err.hint}".rstrip()) from err
        return {name: outputs[name] for name in self.signatures[request.signature_name].outputs}

    def run_if_free(self, request: PredictRequest) -> dict[str, NDArray[Any]] | None:
        """Return what `run` returns, but `None` at once where TensorFlow runs it or LiteRT is busy.

        Raises:
            RequestError: the model cannot compute the inputs.
        """
        if self.lite and request.signature_name == self.lite_signature:
            return self.lite.run_if_free(request.inputs)
        return None

    def one_at_a_time(self, signature_name: str) -> bool:
        """Tell whether a signature computes one request at a time, as LiteRT does."""
        return self.lite is not None and signature_name == self.lite_signature

    def seconds(self, request: PredictRequest) -> float:
        """Return how long `run` computes, roughly; infinity where nobody can tell."""
        if not self.one_at_a_time(request.signature_name):
            return float("inf")
        return max(1, request.rows) * self.row_seconds


def load_servable(version: Version, model: str, *, warmup: bool) -> Servable:
    """Load a version and have it answer once.

    Args:
        version: A complete one.
        model: The name under which it is to serve.
        warmup: Whether to run its warm-up records. On LiteRT they are run in any case, as they are what its
            answers are checked by.

    Raises:
        FairwayError: the version is damaged, or cannot be run here.
    """
    if version.manifest is None:
        return _load_foreign(version, model, warmup=warmup)
    if damaged := damaged_files(version):
        raise FairwayError(f"wrong checksum of {', '.join(damaged)}")
    signatures = _signatures(version.manifest)
    saved_model = SavedModel(version.path)
    reason = _why_not_lite(version, version.manifest, signatures)
    # Before TensorFlow is imported, which takes 460 MB for good: what is refused must not cost that.
    records = _records(version, signatures) if warmup or not reason else []
    if not reason:
        name = version.manifest.tflite["signature"]
        with without_notices():
            lite = LiteRuntime(version.path / TFLITE, name, signatures[name])
            reason = _disagreement(lite, [each for each in records if each.request.signature_name == name])
            row_seconds = _row_seconds(lite, signatures[name])
    if reason:
        logger.warning("version %d of %s is run by TensorFlow: %s", version.number, model, reason)
        servable = Servable(model, version.number, signatures, saved_model, rows_independent=True)
        return _load_tensorflow(servable, records, warmup=warmup)
    return Servable(
        model, version.number, signatures, saved_model, lite, name, row_seconds, rows_independent=True
    )


def release_memory() -> None:
    """Give the memory of versions that are gone back to the operating system, where the C library can.

    glibc keeps it otherwise: when a dozen versions of the `cnn` had come, answered and gone, 93 MB were
    resident without this, and 48 with it. It takes up to 30 ms, in which other threads go on.
    """
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):
        trim(0)


def _signatures(manifest: Manifest) -> dict[str, Signature]:
    try:
        signatures = signatures_from_json(manifest.signatures)
    except ValueError as err:
        raise FairwayError(f"its manifest cannot be read: {err}") from err
    if not signatures:
        raise FairwayError("its manifest has no signatures")
    return signatures


def _load_foreign(version: Version, model: str, *, warmup: bool) -> Servable:
    if (version.path / TFLITE).exists():
        raise FairwayError(f"it has a {TFLITE} but no manifest: it is damaged or still being copied")
    saved_model = SavedModel(version.path)
    servable = Servable(model, version.number, saved_model.read_signatures(), saved_model)
    records = _records(version, servable.signatures) if warmup else []
    return _load_tensorflow(servable, records, warmup=warmup)


def _why_not_lite(version: Version, manifest: Manifest, signatures: Mapping[str, Signature]) -> str:
    """Return why LiteRT must not run a version; empty if it may."""
    if not manifest.tflite or not (version.path / TFLITE).is_file():
        return f"it has no {TFLITE}"
    if manifest.tflite.get("signature") not in signatures:
        return f"{TFLITE} holds a signature that the model does not have"
    if manifest.tflite.get("saved_model_sha256") != sha256(version.path / SAVED_MODEL):
        return f"{TFLITE} was made from another {SAVED_MODEL}"
    return ""


def _records(version: Version, signatures: Mapping[str, Signature]) -> list[WarmupRecord]:
    """Return a version's warm-up records; none where it has no such file.

    A damaged file fails the version, as in TensorFlow Serving: its other files may be no better.
    """
    try:
        return list(read_warmup((version.path / WARMUP).read_bytes(), signatures))
    except FileNotFoundError:
        return []
    except (ValueError, OSError) as err:
        raise FairwayError(f"{WARMUP} cannot be read: {err}") from err


def _disagreement(lite: LiteRuntime, records: Iterable[WarmupRecord]) -> str:
    """Return how LiteRT's answers differ from TensorFlow's at the export; empty if they agree."""
    for record in records:
        try:
            outputs = lite.run(record.request.inputs)
        except RequestError as err:
            return f"LiteRT does not take a warm-up request: {err.message}"
        for name, expected in (record.expected or {}).items():
            if name not in outputs:
                return f"LiteRT has no output '{name}', which the answer to a warm-up request has"
            if reason := _difference(outputs[name], expected):
                return f"LiteRT's answer to a warm-up request differs in '{name}' {reason}"
    return ""


def _difference(answer: NDArray[Any], expected: NDArray[Any]) -> str:
    if answer.shape != expected.shape:
        return f"by its shape, {answer.shape} instead of {expected.shape}"
    if not np.issubdtype(expected.dtype, np.inexact):
        count = int((answer != expected).sum())
        return f"in {count} of {expected.size} elements" if count else ""
    if np.allclose(answer, expected, rtol=PARITY, atol=PARITY, equal_nan=True):
        return ""
    return f"by up to {np.abs(answer - expected).max():.1e}, more than {PARITY:.0e}"


def _row_seconds(lite: LiteRuntime, signature: Signature) -> float:
    """Run zeros and return the seconds that a row takes, its share of what a call costs included.

    It is infinite where zeros cannot tell it: where they are not taken, or where more than the number of rows
    is open.
    """
    specs = signature.inputs.values()
    if any(spec.shape is None or -1 in spec.shape[1:] or spec.dtype not in _WITH_ZERO for spec in specs):
        return float("inf")
    seconds = 0.0
    for rows in (1, _MEASURED_ROWS):
        request = PredictRequest("", _zeros(signature, rows))
        try:
            seconds = _seconds(lite, request.inputs) / max(1, request.rows)
        except RequestError as err:
            logger.debug("LiteRT does not take zeros: %s", err.message)
            return float("inf")
        if seconds > _SLOW_S:
            break
    return seconds


def _seconds(lite: LiteRuntime, inputs: Mapping[str, NDArray[Any]]) -> float:
    """Return what a run takes of this thread's time, which no busy machine makes longer.

    It is the shortest of three, after a first one that makes room in memory.
    """
    lite.run(inputs)
    times = []
    for _ in range(3):
        start = time.thread_time()
        lite.run(inputs)
        times.append(time.thread_time() - start)
    return min(times)


def _load_tensorflow(servable: Servable, records: Sequence[WarmupRecord], *, warmup: bool) -> Servable:
    """Load the SavedModel and run it, so that the first client does not wait for TensorFlow's planning."""
    servable.saved_model.load()
    if not warmup:
        return servable
    for record in records:
        try:
            servable.run(record.request)
        except RequestError as err:
            raise FairwayError(f"it does not take one of its own warm-up requests: {err.message}") from err
    if not records:
        _run_zeros(servable)
    return servable


def _run_zeros(servable: Servable) -> None:
    signature = servable.signatures.get(DEFAULT_SIGNATURE)
    if signature and all(spec.dtype in _WITH_ZERO for spec in signature.inputs.values()):
        try:
            servable.run(PredictRequest(DEFAULT_SIGNATURE, _zeros(signature, 1)))
        except RequestError as err:
            # Not every model takes zeros, and what it does not take it will tell the client.
            logger.debug("version %d of %s does not take zeros: %s", servable.number, servable.model, err)


def _zeros(signature: Signature, rows: int) -> dict[str, NDArray[Any]]:
    """Return inputs of a number of rows, where that is open, and of size 1 where another dimension is."""
    return {
        name: np.zeros(
            [size if size >= 0 else 1 if axis else rows for axis, size in enumerate(spec.shape or ())],
            NUMPY_DTYPES[spec.dtype],
        )
        for name, spec in signature.inputs.items()
    }
