"""What the deciding side tells the answering side of a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fairway.tfs.versions import VersionStatus


@dataclass(frozen=True)
class ModelTable:
    """One model, as clients are to see it.

    Attributes:
        serving: The versions that answer, newest first.
        labels: The version that each label names, whether it serves or not.
        statuses: Of all versions that serve, load, failed or have served, newest first.
        problem: Why nothing serves; empty where something does.
    """

    serving: tuple[int, ...]
    labels: Mapping[str, int]
    statuses: tuple[VersionStatus, ...]
    problem: str
