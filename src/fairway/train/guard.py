"""What a lost peer does to this task: TensorFlow's errors get its name, and what hangs is ended."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
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
    """Watches over the part of a run that needs all peers.

    What is noted, in any thread, either ends the run, and then the first stays; or it is a peer that is
    missed, and may come back.
    """

    def __init__(self) -> None:
        self._final: FairwayError | None = None
        self._deadline = 0.0
        self._missed: dict[str, tuple[FairwayError, threading.Timer]] = {}
        self._is_noted = threading.Event()
        self._lock = threading.RLock()  # a signal's handler may come while it is held
        self._is_watching = False

    def lose(self, peer: str) -> None:
        """Note a peer without which the run cannot go on: its name, and why it is lost."""
        self.fail(_lost(peer))

    def fail(self, err: FairwayError, grace_s: float = GRACE_S) -> None:
        """Note an error that ends the run.

        Args:
            err: What is raised in the watched block when TensorFlow fails there.
            grace_s: After so long the process is ended, if it is in the watched block then.
        """
        with self._lock:
            if self._final is None:
                self._final, self._deadline = err, time.monotonic() + grace_s
                self._end_in(grace_s, err)
            self._is_noted.set()

    def miss(self, peer: str, reason: str, wait_s: float) -> None:
        """Note a peer that may come back: unless it is welcomed within that time, the run ends."""
        err = _lost(reason)
        with self._lock:
            self.welcome(peer)
            self._missed[peer] = err, self._end_in(wait_s, err)
            self._is_noted.set()

    def welcome(self, peer: str) -> None:
        """Take back that a peer is missed."""
        with self._lock:
            if missed := self._missed.pop(peer, None):
                missed[1].cancel()
            if self._final is None and not self._missed:
                self._is_noted.clear()

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Turn TensorFlow's errors in the block into the one that was noted.

        Raises:
            PeerError: a peer was lost.
            FairwayError: what else was noted.
        """
        with self._lock:
            if self._final:
                raise self._final
            self._is_watching = True
        try:
            yield
        except Exception as err:
            if not _is_of_tensorflow(err):
                raise
            if self._is_noted.wait(REASON_S) and (noted := self._noted()):
                raise noted from err
            if not _is_about_connections(err):
                raise
            raise _lost(f"TensorFlow reports: {first_line(err)}") from err
        finally:
            self._is_watching = False

    @contextmanager
    def pause(self) -> Iterator[None]:
        """Do not end the process in this block of the watched one: it needs no peer, and takes its time."""
        was_watching, self._is_watching = self._is_watching, False
        try:
            yield
        finally:
            with self._lock:
                self._is_watching = was_watching
                if self._final:
                    self._end_in(max(GRACE_S, self._deadline - time.monotonic()), self._final)

    def _noted(self) -> FairwayError | None:
        with self._lock:
            return self._final or next((err for err, _ in self._missed.values()), None)

    def _end_in(self, seconds: float, err: FairwayError) -> threading.Timer:
        timer = threading.Timer(seconds, self._end, [err])
        timer.daemon = True
        timer.start()
        return timer

    def _end(self, err: FairwayError) -> None:
        with self._lock:
            self._final = self._final or err
            if not self._is_watching:
                return
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
