"""Loads TensorFlow, which takes seconds: as late as possible, and quietly."""

from __future__ import annotations

import logging
import os

from fairway.quiet import without_notices


def load_tensorflow(*, is_alone: bool) -> None:
    """Import TensorFlow and Keras.

    Args:
        is_alone: Whether this process trains without others. Where a peer is lost, TensorFlow writes pages of
            errors about connections; that and who was lost is said by us in a line.
    """
    # TensorFlow reads this when it is imported; what it says otherwise is for its developers.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2" if is_alone else "3")
    logging.getLogger("tensorflow").setLevel(logging.WARNING if is_alone else logging.CRITICAL)
    with without_notices():
        import keras  # noqa: F401
        import tensorflow  # noqa: F401
