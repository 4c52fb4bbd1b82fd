"""What a request asks for, whichever protocol it came by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """Which version of which model is asked.

    Attributes:
        name: The model; whatever the client wrote, never a path.
        version: `None` means the latest, unless there is a label.
        label: Name of a version; `None` where the version is not asked for by label.
    """

    name: str
    version: int | None = None
    label: str | None = None

    def __str__(self) -> str:
        """Return how TensorFlow Serving names it in its messages: `Latest(m)` or `Specific(m, 2)`."""
        return f"Latest({self.name})" if self.version is None else f"Specific({self.name}, {self.version})"


@dataclass(frozen=True, slots=True)
class PredictRequest:
    """The inputs of a signature, checked against it.

    Attributes:
        signature_name: The signature to run.
        inputs: One array for each input of the signature, of its dtype, and of a shape it accepts.
    """

    signature_name: str
    inputs: dict[str, NDArray[Any]]

    @property
    def rows(self) -> int:
        """The size of the largest first dimension: the batch, as far as one can tell from outside."""
        return max((len(array) for array in self.inputs.values() if array.ndim), default=1)
