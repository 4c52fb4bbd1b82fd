"""SIGINT and SIGTERM are noted, so that no step is cut in half."""

from __future__ import annotations

import signal
from collections.abc import Callable
from types import FrameType
from typing import Any, Self

from fairway.errors import StoppedError


class StopSignal:
    """Notes the first SIGINT or SIGTERM; a second one ends at once. A context manager.

    Attributes:
        signum: The signal that came; `None` so far.
        on_stop: Is called with it, between any two instructions of the main thread.
    """

    def __init__(self) -> None:
        self.signum: int | None = None
        self.on_stop: Callable[[int], None] | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        self._before = {
            signum: signal.signal(signum, self._note) for signum in (signal.SIGINT, signal.SIGTERM)
        }
        return self

    def renew(self) -> None:
        """Take the signals again from whoever has taken them since, as TensorFlow does when tasks connect."""
        for signum in self._before if self.signum is None else ():
            signal.signal(signum, self._note)

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Leave the signals to what they did before."""
        for signum, handler in self._before.items():
            signal.signal(signum, handler)
        self._before.clear()

    def check(self) -> None:
        """Raise a `StoppedError` if a signal came while nothing was trained."""
        if self.signum is not None:
            raise StoppedError(self.signum, "")

    def _note(self, signum: int, frame: FrameType | None) -> None:
        self.signum = signum
        signal.signal(signum, self._before[signum])
        if self.on_stop:
            self.on_stop(signum)
