"""Asks before something is destroyed."""

from __future__ import annotations

import sys

from fairway.errors import FairwayError, UsageError


def confirm(question: str, *, yes: bool) -> None:
    """Ask on the terminal, unless the answer is there already.

    Args:
        question: What is to be done.
        yes: The answer was given on the command line.

    Raises:
        FairwayError: the answer is no.
        UsageError: there is no terminal to ask on.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise UsageError(f"{question} There is no terminal to ask on", hint="Say it with --yes.")
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise FairwayError("nothing was done")
