"""Says what is waited for, each reason once."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from fairway.deploy.diagnosis import Record, State

log = logging.getLogger(__name__)


class Told:
    """What the user was told of components that are not ready."""

    def __init__(self) -> None:
        self._reasons: dict[str, str] = {}

    @property
    def waiting(self) -> set[str]:
        """The components of which it was told that they are waited for."""
        return set(self._reasons)

    def tell(self, records: Iterable[Record]) -> None:
        """Log why components are waited for, where that is new, and that one is ready that was waited for."""
        for record in records:
            before = self._reasons.get(record.component)
            if record.has_arrived or record.state is State.RUNNING:
                if self._reasons.pop(record.component, None):
                    log.info(
                        "%s %s", record.component, "runs" if record.state is State.RUNNING else "is ready"
                    )
            elif record.reason != before:
                self._reasons[record.component] = record.reason
                hint = f" ({record.hint.rstrip('.')})" if record.hint else ""
                log.info("waiting for %s: %s%s", record.component, record.reason, hint)
