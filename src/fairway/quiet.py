"""Keep the start-up notices of C++ libraries off the terminal; everything else they say stays."""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

# Said by TensorFlow and LiteRT on every start, whatever TF_CPP_MIN_LOG_LEVEL is (2.21): to be read by their
# developers, not by somebody who trains a model.
_NOTICES = re.compile(
    rb"WARNING: All log messages before absl::InitializeLog"
    rb"|I0000 "
    rb"|INFO: Created TensorFlow Lite XNNPACK delegate"
    rb"|INFO: Initialized TensorFlow Lite runtime"
    rb"|W0000 .*(TFLITE_METADATA|Ignored (output_format|drop_control_dependency))"
)


@contextmanager
def without_notices() -> Iterator[None]:
    """Hold back what the block writes to standard error, and pass it on afterwards without the notices."""
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(kept, 2)
            os.close(kept)
            held.seek(0)
            for line in held:
                if not _NOTICES.match(line):
                    os.write(2, line)
