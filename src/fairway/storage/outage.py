"""Says once that something asked again and again does not work, and once that it works again."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from fairway.errors import FairwayError

log = logging.getLogger(__name__)


class Outage:
    """How it stands with something that is tried again and again.

    Args:
        over: Is logged once it works again.
    """

    def __init__(self, over: str) -> None:
        self._over = over
        self._said: set[str] = set()
        self.problem = ""
        """Why it did not work the last time; empty if it did."""

    @contextmanager
    def noted(self, meanwhile: str) -> Iterator[None]:
        """Note how the block ends; a `FairwayError` goes no further.

        Args:
            meanwhile: Follows the reason in the warning: what goes on all the same.
        """
        try:
            yield
        except FairwayError as err:
            self.problem = explain(err)
            if self.problem not in self._said:
                log.warning("%s; %s", self.problem, meanwhile)
            self._said.add(self.problem)
        else:
            if self.problem:
                log.info("%s", self._over)
            self.problem = ""
            self._said.clear()


def explain(err: FairwayError) -> str:
    """Return message and hint of an error in one line."""
    return f"{err.message} ({err.hint.rstrip('.')})" if err.hint else err.message
