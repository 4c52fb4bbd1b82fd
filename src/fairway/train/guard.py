"""What a lost peer does to this task: TensorFlow's errors get its name, and what hangs is ended."""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from fairway.errors import FairwayError, PeerError, first_line
from fairway.net.control.messages import SILENCE_S

GRACE_S = 5.0
"""How long TensorFlow may take to notice a lost peer by itself; a hung one it never notices."""
REASON_S = SILENCE_S + 3
"""How long to wait for a reason, after TensorFlow has failed: it may be a silence that is yet to be found."""

log = logging.getLogger(__name__)


class Guard:
    """Watches over the part of a run that needs all peers."""

    def __init__(self) -> None:
        self._error: FairwayError | None = None
        self._is_noted = threading.Event()
        self._timer: threading.Timer | None = None
        self._lock = threading.RLock()  # a signal's handler may come while it is held
        self._is_watching = False

    def lose(self, peer: str, grace_s: float = GRACE_S) -> None:
        """Note a lost peer, in any thread; what was noted first stays.

        Args:
            peer: Its name, and why it is lost.
            grace_s: After so long the process is ended, if it is in the watched block then.
        """
        self.fail(_lost(peer), grace_s)

    def fail(self, err: FairwayError, grace_s: float = GRACE_S) -> None:
        """Note an error that ends the whole training, likewise."""
        with self._lock:
            if self._timer is not None:
                return
            self._error = err
            self._timer = threading.Timer(grace_s, self._end)
            self._timer.daemon = True
            self._timer.start()
        self._is_noted.set()

    def forget(self) -> None:
        """Take a note back: the peer has returned."""
        with self._lock:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self._error = None
            self._is_noted.clear()

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Turn TensorFlow's errors in the block into the one that was noted.

        Raises:
            PeerError: a peer was lost.
            FairwayError: what else was noted.
        """
        self._is_watching = True
        try:
            yield
        except Exception as err:
            if not _is_of_tensorflow(err):
                raise
            if self._is_noted.wait(REASON_S) and self._error:
                raise self._error from err
            if not _is_about_connections(err):
                raise
            raise _lost(f"TensorFlow reports: {first_line(err)}") from err
        finally:
            self._is_watching = False
            with self._lock:
                if self._timer is not None:
                    self._timer.cancel()

    def _end(self) -> None:
        err = self._error
        if self._is_watching and err:
            log.error("error: %s\n  %s", err.message, err.hint)
            sys.stderr.flush()
            os._exit(err.exit_code)  # the main thread is deep in TensorFlow, waiting for the lost peer


def _lost(reason: str) -> PeerError:
    return PeerError(f"lost {reason}", hint="Started again, the training goes on from its last checkpoint.")


def _is_of_tensorflow(err: Exception) -> bool:
    from tensorflow import errors  # here, because the tasks meet before TensorFlow is loaded

    return isinstance(err, errors.OpError) or type(err).__module__.startswith("tensorflow.")


def _is_about_connections(err: Exception) -> bool:
    from tensorflow import errors

    kinds = (
        errors.UnavailableError,
        errors.AbortedError,
        errors.CancelledError,
        errors.DeadlineExceededError,
    )
    return isinstance(err, kinds)
