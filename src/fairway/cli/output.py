"""How commands print their results: tables for people, JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any

from cyclopts import Parameter

from fairway import config

Output = Annotated[config.Output, Parameter(help="`table` for people, `json` for programs.")]


def print_rows(
    rows: Sequence[Mapping[str, Any]], output: Output, columns: Iterable[str] | None = None
) -> None:
    """Print records: as a table, or as a JSON list of objects.

    Args:
        rows: The records, all with the same keys.
        output: Which of the two.
        columns: Keys that the table shows; `None`: all of the first record's.
    """
    if output == "json":
        print(json.dumps(rows, indent=2))
        return
    if not rows:
        return
    names = list(columns or rows[0])
    cells = [[name.replace("_", " ").upper() for name in names]]
    cells += [[cell_text(row[name]) for name in names] for row in rows]
    print(table(cells))


def print_result(record: Mapping[Any, Any], output: Output, text: str = "") -> None:
    """Print what a command made or changed, at once: what stderr says next comes behind it.

    Args:
        record: For programs, as a JSON object.
        output: Which of the two.
        text: For people; empty: nothing is printed for them.
    """
    if output == "json":
        print(json.dumps(record, indent=2), flush=True)
    elif text:
        print(text, flush=True)


def table(cells: Sequence[Sequence[str]]) -> str:
    """Return rows as columns, each as wide as its widest cell."""
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in cells
    )


def cell_text(value: Any) -> str:
    """Return a value as a table shows it."""
    if value is None or value in ("", {}, (), []):
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return value if isinstance(value, str) and value.isprintable() else json.dumps(value, ensure_ascii=False)
