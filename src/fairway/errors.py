"""The one family of errors that a user may see.

FairwayError                 something the user can mend; the command exits 1
├── UsageError               a setting has a value it cannot have; the command exits 2
├── DataError                a data file is missing, damaged or not what it should be
├── StorageError             a directory or file cannot be read or written
├── ServerError              a server that was asked did not answer, or refused
└── PeerError                another task of a distributed training was lost; exits 138, to be started again

Every error says what is wrong with which value; its hint says what to do next.
"""

from __future__ import annotations


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


class UsageError(FairwayError):
    """A setting has a value it cannot have."""

    exit_code = 2


class DataError(FairwayError):
    """A data file is missing, damaged or not what it should be."""


class StorageError(FairwayError):
    """A directory or file cannot be read or written."""


class ServerError(FairwayError):
    """A server that was asked did not answer, or refused."""


class PeerError(FairwayError):
    """Another task of a distributed training was lost; this one is to be started again."""

    # Kubeflow's training operator starts a replica again from 128 on, and leaves 138 to programs:
    # https://www.kubeflow.org/docs/components/trainer/legacy-v1/user-guides/tensorflow/
    exit_code = 138


def missing_extra(package: str, extra: str, purpose: str) -> FairwayError:
    """Return the error for a package that only an extra of fairway installs."""
    return FairwayError(
        f"{purpose} needs {package}, which is not installed",
        hint=f"Install it with: pip install 'fairway[{extra}]'",
    )
