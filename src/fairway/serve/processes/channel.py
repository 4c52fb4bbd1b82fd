"""Calls between the deciding process and one that answers, in both directions over one pipe."""

from __future__ import annotations

import itertools
import logging
import pickle
import socket
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

from fairway.errors import FairwayError
from fairway.tfs.status import Code, RequestError

logger = logging.getLogger(__name__)


class ClosedError(Exception):
    """The other process has ended, or this channel was closed."""


class Channel:
    """One end of a pipe between two processes.

    Each call is answered in a thread of its own, so that a long one holds up no other.

    Args:
        connection: Both directions of the pipe, which is a pair of sockets.
        answers: What the other side may call, by name.
    """

    def __init__(self, connection: Connection[Any, Any], answers: Mapping[str, Callable[..., Any]]) -> None:
        self._connection = connection
        self._answers = answers
        self._numbers = itertools.count()
        self._waiting: dict[int, Future[Any]] = {}
        self._lock = threading.Lock()
        self._sending = threading.Lock()
        self._closed = False

    def run(self) -> None:
        """Read until the other process has ended or this channel is closed."""
        try:
            while True:
                self._receive(*self._connection.recv())
        except (EOFError, OSError, pickle.UnpicklingError):
            pass  # an end in the middle of a message is an end, too
        finally:
            self.close()
            with self._sending:
                self._connection.close()

    def call(self, name: str, *args: Any) -> Any:
        """Return what the other side answers.

        Raises:
            FairwayError: the other side refused: also `RequestError`.
            ClosedError: the other side ends before it answers.
        """
        return self.ask(name, *args).result()

    def ask(self, name: str, *args: Any) -> Future[Any]:
        """Call without waiting: the future gets what `call` returns or raises."""
        future: Future[Any] = Future()
        with self._lock:
            if self._closed:
                future.set_exception(ClosedError())
                return future
            number = next(self._numbers)
            self._waiting[number] = future
        self._send(("call", number, name, args))
        return future

    def close(self) -> None:
        """End all calls that wait; the other side sees the end, too."""
        with self._lock:
            self._closed = True
            waiting, self._waiting = self._waiting, {}
        for future in waiting.values():
            future.set_exception(ClosedError())
        with (
            suppress(OSError),
            socket.fromfd(self._connection.fileno(), socket.AF_UNIX, socket.SOCK_STREAM) as end,
        ):
            end.shutdown(socket.SHUT_RDWR)  # which wakes up the reader, as closing would not

    def _send(self, message: Any) -> None:
        try:
            with self._sending:
                self._connection.send(message)
        except (OSError, ValueError):
            # The other side is gone, or has not read for as long as the socket allows: then half of the
            # message may be on its way. The reader sees the end, and tells all who wait.
            self.close()

    def _receive(self, kind: str, number: int, *content: Any) -> None:
        if kind == "call":
            threading.Thread(target=self._answer, args=(number, *content), daemon=True).start()
            return
        with self._lock:
            future = self._waiting.pop(number, None)
        if future is None:
            return  # this channel was closed meanwhile
        if kind == "done":
            future.set_result(content[0])
        else:
            future.set_exception(_error(*content))

    def _answer(self, number: int, name: str, args: tuple[Any, ...]) -> None:
        try:
            self._send(("done", number, self._answers[name](*args)))
        except RequestError as err:
            self._send(("refused", number, err.code, err.message, err.hint))
        except FairwayError as err:
            self._send(("refused", number, None, err.message, err.hint))
        except Exception as err:
            logger.exception("%s failed", name)
            self._send(("refused", number, None, f"{type(err).__name__}: {err}", ""))


def _error(code: Code | None, message: str, hint: str) -> FairwayError:
    if code is None:
        return FairwayError(message, hint=hint)
    error = RequestError(code, message)
    error.hint = hint
    return error
