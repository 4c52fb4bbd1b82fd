"""Figures, the goals they are held against, and the table they are printed in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Figure:
    """One measured number.

    Attributes:
        name: What was measured.
        value: In `unit`.
        unit: "%", "s" …
        goal: The bound, in the same unit; `None` for a number that is only told.
        better: Whether the value should be at least (`higher`) or at most (`lower`) the goal.
        note: How it was measured, or the values behind a median.
    """

    name: str
    value: float
    unit: str
    goal: float | None = None
    better: Literal["higher", "lower"] = "lower"
    note: str = ""

    @property
    def met(self) -> bool:
        """Tell whether the goal is reached; a figure without one always is."""
        if self.goal is None:
            return True
        return self.value >= self.goal if self.better == "higher" else self.value <= self.goal

    def row(self) -> tuple[str, str, str, str, str]:
        """Return the cells of its line in the table."""
        sign = {"higher": "≥", "lower": "≤"}[self.better]
        value = f"{self.value:.4g} {self.unit}"
        if self.goal is None:
            return self.name, value, "", "", self.note
        gap = abs(self.value - self.goal)
        verdict = "met" if self.met else f"MISSED by {gap:.3g} {self.unit}"
        return self.name, value, f"{sign} {self.goal:g} {self.unit}", verdict, self.note


def table(figures: list[Figure]) -> str:
    """Return figures as a Markdown table, so that it can be pasted into the README."""
    rows = [("measured", "value", "goal", "", "how"), *(figure.row() for figure in figures)]
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in rows
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)
