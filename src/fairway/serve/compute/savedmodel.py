"""The fallback: a SavedModel run by TensorFlow. The only file of the server that imports it, when it must."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from fairway.errors import FairwayError, first_line, missing_extra
from fairway.quiet import without_notices
from fairway.storage.manifest import SAVED_MODEL
from fairway.tfs.signatures import Signature
from fairway.tfs.status import Code, RequestError, invalid

# How long a load that failed is not tried again. It takes seconds, and every request would.
_RETRY_S = 60.0

_threads = (0, 0)  # of TensorFlow, which has them once per process: intra-op, inter-op


def use_threads(intra_op: int, inter_op: int) -> None:
    """Say how many threads TensorFlow is to have, before it computes for the first time in this process.

    Args:
        intra_op: Threads for one operation; 0 leaves it to TensorFlow.
        inter_op: Operations at the same time; 0 leaves it to TensorFlow.
    """
    global _threads
    _threads = (intra_op, inter_op)


class SavedModel:
    """A SavedModel directory; TensorFlow is imported and the model loaded on first use.

    Args:
        path: The directory with `saved_model.pb`.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._failure: FairwayError | None = None
        self._retry_at = 0.0

    def read_signatures(self) -> dict[str, Signature]:
        """Return the signatures as the file has them; which shapes they take is left to the model.

        Raises:
            FairwayError: TensorFlow is not installed, or the file cannot be read.
        """
        self.load()
        from tensorflow.core.protobuf import saved_model_pb2

        message = saved_model_pb2.SavedModel.FromString((self._path / SAVED_MODEL).read_bytes())
        definitions = message.meta_graphs[0].signature_def
        names = sorted(self._model.signatures)
        return {name: Signature.from_proto(definitions[name], strict=False) for name in names}

    def load(self) -> None:
        """Load the model, if it is not loaded yet; takes seconds.

        Raises:
            FairwayError: TensorFlow is not installed, or the model is damaged; or it was a moment ago.
        """
        with self._lock:
            if self._failure and time.monotonic() < self._retry_at:
                raise FairwayError(self._failure.message, hint=self._failure.hint)
            try:
                _ = self._model
            except FairwayError as err:
                # A copy, as a traceback would keep the request alive.
                self._failure = FairwayError(err.message, hint=err.hint)
                self._retry_at = time.monotonic() + _RETRY_S
                raise

    def run(self, name: str, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Return the outputs of a signature, by name.

        Raises:
            RequestError: the model cannot compute these inputs, or has no such signature.
            FairwayError: as `load`.
        """
        self.load()
        tf = _tensorflow()
        function = self._model.signatures.get(name)
        if function is None:
            raise RequestError(Code.INTERNAL, f"the SavedModel does not have the signature {name}")
        try:
            outputs = function(**{key: _constant(tf, array) for key, array in inputs.items()})
        except (tf.errors.InvalidArgumentError, ValueError, TypeError) as err:
            raise invalid(f"the model cannot compute this input: {_reason(err)}") from err
        except tf.errors.OpError as err:
            raise RequestError(Code.INTERNAL, f"the model failed: {_reason(err)}") from err
        return {key: value.numpy() for key, value in outputs.items()}

    @cached_property
    def _model(self) -> Any:
        tf = _tensorflow()
        try:
            return tf.saved_model.load(str(self._path))
        except Exception as err:  # TensorFlow raises a dozen types here
            # Its first line says what is wrong, unlike that of an error while computing.
            reason = first_line(err)
            raise FairwayError(f"TensorFlow cannot load the SavedModel in {self._path}: {reason}") from err


@cache
def _tensorflow() -> Any:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # its C++ log would drown ours
    try:
        with without_notices():
            import tensorflow
    except ImportError as err:
        raise missing_extra("TensorFlow", "train", "This model or signature") from err
    intra_op, inter_op = _threads
    tensorflow.config.threading.set_intra_op_parallelism_threads(intra_op)
    tensorflow.config.threading.set_inter_op_parallelism_threads(inter_op)
    return tensorflow


def _constant(tf: Any, array: NDArray[Any]) -> Any:
    # The dtype of strings has to be named: an empty array of objects would become one of floats.
    return tf.constant(array, tf.string if array.dtype == object else None)


def _reason(err: Exception) -> str:
    """Return the line of a TensorFlow error that says what is wrong, from between traces and graph nodes."""
    lines = [line.strip() for line in str(err).splitlines()]
    return next((line for line in reversed(lines) if line and not line.startswith("[[")), type(err).__name__)
