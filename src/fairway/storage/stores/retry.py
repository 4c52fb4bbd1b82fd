"""Ask an object store again while it may yet answer, and not longer."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

DEADLINE_S = 13.5
"""Longest time that a store may go without any progress. A command that waits for one fails within 15 s."""
ATTEMPT_S = 5.5
"""Longest wait for an answer. Two attempts fit into the deadline, also where boto3 waits a second more before
it sends the body of a PUT."""
FIRST_DELAY_S = 0.2
MAX_DELAY_S = 3.0

log = logging.getLogger(__name__)


def with_retries(
    call: Callable[[], T],
    is_transient: Callable[[Exception], bool],
    progress: Callable[[], object] = lambda: None,
) -> T:
    """Return what a call returns, repeating it after transient errors until the deadline.

    A further attempt is made only if one as long as the last would end before the deadline. The deadline
    starts anew whenever an attempt got further than those before it.

    Args:
        call: What to do; it bounds its own waits (connect and read timeouts).
        is_transient: Tells which errors may pass.
        progress: Returns how far the attempts have come; any change counts.

    Raises:
        Exception: the last error of the call, as it is.
    """
    started, delay, reached = time.monotonic(), FIRST_DELAY_S, progress()
    while True:
        attempt = time.monotonic()
        try:
            return call()
        except Exception as err:
            if not is_transient(err):
                raise
            now = time.monotonic()
            lasted = now - attempt
            if (further := progress()) != reached:
                started, lasted, delay, reached = now, 0.0, FIRST_DELAY_S, further
            wait = delay * random.uniform(0.5, 1.0)
            if now + wait + lasted > started + DEADLINE_S:
                raise
            log.debug("trying again in %.1f s: %s", wait, err)
            time.sleep(wait)
            delay = min(2 * delay, MAX_DELAY_S)
