"""Progress of a long wait: a bar on a terminal, a line every few seconds elsewhere."""

from __future__ import annotations

import logging
import re
import sys
import threading
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

log = logging.getLogger(__name__)

LINE_INTERVAL_S = 2.0
_LINE = re.compile(
    r"(?P<task>[^:·]+): (?P<done>[\d.]+) of (?P<total>[\d.]+) (?P<unit>[^\s·]+)(?: · (?P<rest>.*))?"
)
_LEFT = re.compile(r"(?P<seconds>\d+) s left")


@dataclass(frozen=True)
class Reading:
    """What a line of progress says.

    Attributes:
        task: What goes on.
        done: Units done; bytes to a tenth of a megabyte.
        total: Units in all.
        unit: The plural of what is counted, or `bytes`.
        note: What is shown beside them.
        seconds_left: `None` where it could not be told.
    """

    task: str
    done: int
    total: int
    unit: str
    note: str
    seconds_left: int | None


def parse_line(line: str) -> Reading | None:
    """Read a line as `Progress` writes it where there is no terminal; `None` if it is none."""
    found = _LINE.fullmatch(line)
    if found is None:
        return None
    parts = found["rest"].split(" · ") if found["rest"] else []
    left = _LEFT.fullmatch(parts[-1]) if parts else None
    is_bytes = found["unit"] == "MB"
    try:
        done, total = (float(found[name]) * (1e6 if is_bytes else 1) for name in ("done", "total"))
    except ValueError:  # dots that make no number
        return None
    return Reading(
        found["task"],
        round(done),
        round(total),
        "bytes" if is_bytes else found["unit"],
        " · ".join(parts[:-1] if left else parts),
        int(left["seconds"]) if left else None,
    )


class Progress:
    """Shows how far something is; a context manager.

    While there is a bar, what is logged or written to `sys.stderr` appears above it.

    Args:
        task: What goes on, in a word or two.
        total: Units in all.
        done: Units done before the start, by an earlier run.
        unit: The plural of what is counted, or `bytes`.
    """

    def __init__(self, task: str, total: int, *, done: int = 0, unit: str = "steps") -> None:
        self._task, self._total, self._unit = task, total, unit
        self._first, self._started, self._last_line = done, time.monotonic(), time.monotonic()
        self._done, self._lock = done, threading.Lock()
        self._bar: Any = None
        if sys.stderr.isatty():
            self._bar = _make_bar(unit)
            self._bar_task = self._bar.add_task(task, total=total, completed=done, note="")

    def __enter__(self) -> Self:
        if self._bar:
            self._to_terminal = _log_handlers()
            self._bar.start()  # puts something in the place of sys.stderr that writes above the bar
            for handler in self._to_terminal:
                handler.setStream(sys.stderr)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar.stop()
            for handler in self._to_terminal:
                handler.setStream(sys.stderr)

    def update(self, done: int, note: str = "") -> None:
        """Show that `done` units in all are done; `note` is shown beside them."""
        if self._bar:
            self._bar.update(self._bar_task, completed=done, note=note)
        elif time.monotonic() - self._last_line >= LINE_INTERVAL_S:
            self._last_line = time.monotonic()
            log.info("%s", self._line(done, note))

    def advance(self, units: int) -> None:
        """Show that some more units are done; safe to call from several threads."""
        with self._lock:
            self._done += units
            self.update(self._done)

    def _line(self, done: int, note: str) -> str:
        rate = (done - self._first) / max(time.monotonic() - self._started, 1e-9)
        left = f"{(self._total - done) / rate:.0f} s left" if rate > 0 else ""
        count = (
            f"{done / 1e6:.1f} of {self._total / 1e6:.1f} MB"
            if self._unit == "bytes"
            else f"{done} of {self._total} {self._unit}"
        )
        return " · ".join(part for part in (f"{self._task}: {count}", note, left) if part)


def _log_handlers() -> list[logging.StreamHandler[Any]]:
    """Return the handlers that write the log to the terminal."""
    return [
        handler
        for handler in logging.getLogger().handlers
        if isinstance(handler, logging.StreamHandler) and handler.stream is sys.stderr
    ]


def _make_bar(unit: str) -> Any:
    # rich takes 0.1 s to import: only where there is a terminal to draw on.
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as RichProgress

    return RichProgress(
        TextColumn("[bold]{task.description}"),
        BarColumn(),
        DownloadColumn() if unit == "bytes" else MofNCompleteColumn(),
        TextColumn("{task.fields[note]}"),
        TimeRemainingColumn(compact=True),
        console=Console(stderr=True),
    )
