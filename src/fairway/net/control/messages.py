"""What is said on the control channel: one JSON object a line, its kind under `type`."""

from __future__ import annotations

import json
import logging
import time
from typing import Any

from fairway.errors import FairwayError

log = logging.getLogger(__name__)

Message = dict[str, Any]

SILENCE_S = 15.0
"""How long a peer may say nothing before it counts as lost: a busy machine may be slow."""
PING_S = 1.0
"""How often each side says that it is still there."""
MAX_LINE_BYTES = 2**20

FIRST_NOTICE_S = 5.0
NOTICE_S = 30.0


class FailedPeerError(FairwayError):
    """Another task has failed and said why; to start this one again would not help.

    Args:
        message: The other task's words, with its name.
        hint: Its hint.
        exit_code: Its exit code, which becomes this task's.
    """

    def __init__(self, message: str, *, hint: str = "", exit_code: int = 1) -> None:
        super().__init__(message, hint=hint)
        self.exit_code = exit_code


class FinishedError(Exception):
    """The training is over and exported; there is nothing left to take part in."""


def encode(kind: str, /, **fields: Any) -> bytes:
    """Return a message as the line to send; no field can be called `type`.

    Raises:
        TypeError: a field is nothing that JSON knows.
        ValueError: the line would be longer than `MAX_LINE_BYTES`.
    """
    line = json.dumps({**fields, "type": kind}).encode() + b"\n"
    if len(line) > MAX_LINE_BYTES:
        raise ValueError(f"a message of {len(line)} bytes is too long for the control channel")
    return line


def encode_failure(err: FairwayError) -> bytes:
    """Return the line that tells a peer of an error."""
    return encode("failed", message=err.message, hint=err.hint, exit_code=err.exit_code)


def decode(line: bytes) -> Message | None:
    """Return the message on a line; None for anything else, as somebody else's request is."""
    if not line.endswith(b"\n"):
        return None  # the connection ended in the middle of it
    try:
        message = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return message if isinstance(message, dict) and isinstance(message.get("type"), str) else None


def fields(message: Message) -> Message:
    """Return what a message says beside its kind."""
    return {name: value for name, value in message.items() if name != "type"}


def failure(message: Message, *, who: str = "") -> FailedPeerError:
    """Return the error that a message `failed` tells of.

    Args:
        message: The message.
        who: Name of the task that sent it, to begin with; empty where the words name it already.
    """
    words, code = str(message.get("message", "")), message.get("exit_code")
    known = isinstance(code, int) and not isinstance(code, bool) and 1 <= code <= 255
    return FailedPeerError(
        f"{who}: {words}" if who else words,
        hint=str(message.get("hint", "")),
        exit_code=code if known and isinstance(code, int) else 1,
    )


class Notice:
    """Says what is waited for: not at once, then when it changes, and every half minute."""

    def __init__(self) -> None:
        self._due = time.monotonic() + FIRST_NOTICE_S
        self._said = ""

    def say(self, what: str) -> None:
        """Log it if it is time to."""
        now = time.monotonic()
        if now >= self._due or (self._said and what != self._said):
            log.info("waiting for %s", what)
            self._due, self._said = now + NOTICE_S, what
