"""One version of a model in memory: which of its signatures run on LiteRT, which on TensorFlow."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fairway.errors import FairwayError
from fairway.quiet import without_notices
from fairway.serve.runtime import LiteRuntime
from fairway.serve.savedmodel import SavedModel
from fairway.storage.exports import Version, damaged_files
from fairway.storage.files import sha256
from fairway.storage.manifest import SAVED_MODEL, TFLITE, Manifest
from fairway.tfs.rest import PredictRequest
from fairway.tfs.signatures import DEFAULT_SIGNATURE, NUMPY_DTYPES, Signature, signatures_from_json
from fairway.tfs.status import Code, RequestError

_WITH_ZERO = NUMPY_DTYPES.keys() - {"DT_STRING"}

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Servable:
    """A loaded version.

    Nothing has to close it: each request holds it while it runs, and the memory goes with the last of them.

    Attributes:
        number: The version.
        signatures: By name.
        lite: Runs the signature `lite_signature`; `None` where TensorFlow runs all.
        saved_model: Runs the other signatures.
        row_seconds: What one row takes on LiteRT, as measured at loading.
    """

    number: int
    signatures: Mapping[str, Signature]
    saved_model: SavedModel
    lite: LiteRuntime | None = None
    lite_signature: str = ""
    row_seconds: float = 0.0

    def run(self, request: PredictRequest) -> dict[str, NDArray[Any]]:
        """Return the outputs of a request, in the order of the signature.

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

    def seconds(self, request: PredictRequest) -> float:
        """Return how long `run` will take, roughly; infinity where it may wait or nobody can tell."""
        if self.lite and request.signature_name == self.lite_signature and not self.lite.busy:
            return request.rows * self.row_seconds
        return float("inf")


def load_servable(version: Version) -> Servable:
    """Load a version and have it answer once.

    Raises:
        FairwayError: the version is damaged, or cannot be run here.
    """
    if version.manifest is None:
        return _load_foreign(version)
    if damaged := damaged_files(version):
        raise FairwayError(f"wrong checksum of {', '.join(damaged)}")
    try:
        signatures = signatures_from_json(version.manifest.signatures)
    except ValueError as err:
        raise FairwayError(f"its manifest cannot be read: {err}") from err
    if reason := _why_not_lite(version, version.manifest, signatures):
        logger.info("version %d is run by TensorFlow: %s", version.number, reason)
        return _warm_tensorflow(Servable(version.number, signatures, SavedModel(version.path)))
    name = version.manifest.tflite["signature"]
    with without_notices():
        lite = LiteRuntime(version.path / TFLITE, name, signatures[name])
        seconds = _warm_lite(lite, signatures[name])
    return Servable(version.number, signatures, SavedModel(version.path), lite, name, seconds)


def _why_not_lite(version: Version, manifest: Manifest, signatures: Mapping[str, Signature]) -> str:
    """Return why LiteRT must not run a version; empty if it may."""
    if not manifest.tflite or not (version.path / TFLITE).is_file():
        return f"it has no {TFLITE}"
    if manifest.tflite.get("signature") not in signatures:
        return f"{TFLITE} holds a signature that the model does not have"
    if manifest.tflite.get("saved_model_sha256") != sha256(version.path / SAVED_MODEL):
        return f"{TFLITE} was made from another {SAVED_MODEL}"
    return ""


def _load_foreign(version: Version) -> Servable:
    if (version.path / TFLITE).exists():
        raise FairwayError(f"it has a {TFLITE} but no manifest: it is damaged or still being copied")
    model = SavedModel(version.path)
    return _warm_tensorflow(Servable(version.number, model.read_signatures(), model))


def _warm_lite(lite: LiteRuntime, signature: Signature) -> float:
    """Run zeros twice and return the seconds of the second time."""
    inputs = _zeros(signature)
    lite.run(inputs)
    start = time.perf_counter()
    lite.run(inputs)
    return time.perf_counter() - start


def _warm_tensorflow(servable: Servable) -> Servable:
    """Load the model and run zeros, so that the first client does not wait for TensorFlow's planning."""
    servable.saved_model.load()
    signature = servable.signatures.get(DEFAULT_SIGNATURE)
    if signature and all(spec.dtype in _WITH_ZERO for spec in signature.inputs.values()):
        try:
            servable.saved_model.run(DEFAULT_SIGNATURE, _zeros(signature))
        except RequestError as err:
            # Not every model takes zeros, and what it does not take it will tell the client.
            logger.debug("version %d does not take zeros: %s", servable.number, err)
    return servable


def _zeros(signature: Signature) -> dict[str, NDArray[Any]]:
    return {
        name: np.zeros([1 if size < 0 else size for size in spec.shape or ()], NUMPY_DTYPES[spec.dtype])
        for name, spec in signature.inputs.items()
    }
