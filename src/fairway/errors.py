"""The one family of errors that a user may see.

FairwayError                 something the user can mend; the command exits 1
├── UsageError               a setting has a value it cannot have; the command exits 2
├── DataError                a data file is missing, damaged or not what it should be
├── StorageError             a directory or file cannot be read or written
│   └── StoreAwayError       an object store gave no answer for a while; exits 138, to be started again
├── ServerError              a server that was asked did not answer, or refused
├── ClusterError             a Kubernetes cluster did not answer, or refused
├── StoppedError             SIGINT or SIGTERM came; exits 130 or 143
└── PeerError                another task of a distributed training was lost; exits 138, to be started again

Every error says what is wrong with which value; its hint says what to do next.
"""

from __future__ import annotations

import signal

RETRYABLE = 128
"""Exit codes from here on are for what a new start can mend, as Kubeflow's training operator has it:
https://www.kubeflow.org/docs/components/trainer/legacy-v1/user-guides/tensorflow/"""
START_AGAIN = 138
"""Exit code of a task that is to be started again: the one that the operator leaves to programs."""


class FairwayError(Exception):
    """A mistake or a misfortune that is explained in a sentence instead of a traceback.

    Args:
        message: What is wrong, naming the value.
        hint: What to do next; empty where there is nothing useful to say.
    """

    exit_code = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    @property
    def is_retryable(self) -> bool:
        """Whether a new start can mend it."""
        return self.exit_code >= RETRYABLE


class UsageError(FairwayError):
    """A setting has a value it cannot have."""

    exit_code = 2


class DataError(FairwayError):
    """A data file is missing, damaged or not what it should be."""


class StorageError(FairwayError):
    """A directory or file cannot be read or written."""


class StoreAwayError(StorageError):
    """An object store gave no answer, or none of use, until its deadline; it may in a while."""

    exit_code = START_AGAIN


class ServerError(FairwayError):
    """A server that was asked did not answer, or refused."""


class ClusterError(FairwayError):
    """A Kubernetes cluster did not answer, or refused."""


class PeerError(FairwayError):
    """Another task of a distributed training was lost; this one is to be started again."""

    exit_code = START_AGAIN


class StoppedError(FairwayError):
    """The command was asked to stop; exits as the signal would.

    Args:
        signum: The signal by which it was asked.
        where: How far it is, after a blank; empty while nothing was done.
        hint: How to go on.
    """

    def __init__(
        self, signum: int, where: str, *, hint: str = "The same command goes on from there."
    ) -> None:
        super().__init__(f"stopped by {signal.Signals(signum).name}{where}", hint=hint)
        self.exit_code = 128 + signum


def missing_extra(package: str, extra: str, purpose: str) -> FairwayError:
    """Return the error for a package that only an extra of fairway installs."""
    return FairwayError(
        f"{purpose} needs {package}, which is not installed",
        hint=f"Install it with: pip install 'fairway[{extra}]'",
    )


def first_line(err: BaseException) -> str:
    """Return the first line of an error's message, or its kind where it has none."""
    return next(iter(str(err).splitlines()), type(err).__name__)
