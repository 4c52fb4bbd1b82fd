"""The arithmetic of the training step."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fairway.config import Precision

_CPU_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}  # x86, x86, Arm


def best_precision() -> Precision:
    """Return `bfloat16` where the processor computes with it, else `float32`.

    Elsewhere bfloat16 is emulated and several times slower than float32.
    """
    try:
        flags = set(Path("/proc/cpuinfo").read_text().split())
    except OSError:
        return "float32"  # not Linux
    return "bfloat16" if flags & _CPU_FLAGS else "float32"


@contextmanager
def use_precision(precision: Precision) -> Iterator[None]:
    """Build the models of the block with this precision; weights are float32 in both."""
    import keras  # here, so that the question above can be asked without loading TensorFlow

    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16" if precision == "bfloat16" else "float32")
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)
