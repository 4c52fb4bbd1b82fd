"""Lines of progress: what is written is what is read."""

from __future__ import annotations

import pytest

from fairway.progress import Progress, Reading, parse_line


@pytest.mark.parametrize(
    ("task", "total", "unit", "first", "done", "note"),
    [
        ("training", 468, "steps", 0, 120, "loss 0.123 · accuracy 97.5 % · 50 steps/s · 6,400 images/s"),
        ("training", 468, "steps", 120, 120, "loss 0.123"),
        ("evaluating", 10000, "images", 0, 1, ""),
        ("variables/variables.data-00000-of-00001", 12_300_000, "bytes", 0, 4_500_000, ""),
    ],
)
def test_a_line_is_read_as_it_was_written(
    task: str, total: int, unit: str, first: int, done: int, note: str
) -> None:
    line = Progress(task, total, done=first, unit=unit)._line(done, note)
    reading = parse_line(line)
    assert reading is not None
    assert (reading.task, reading.done, reading.total, reading.unit, reading.note) == (
        task,
        done,
        total,
        unit,
        note,
    )
    assert (reading.seconds_left is None) == (done == first)


def test_a_line_of_the_log_of_a_training() -> None:
    line = (
        "training: 120 of 468 steps · loss 0.123 · accuracy 97.5 % · 50 steps/s · 6,400 images/s · 7 s left"
    )
    note = "loss 0.123 · accuracy 97.5 % · 50 steps/s · 6,400 images/s"
    assert parse_line(line) == Reading("training", 120, 468, "steps", note, 7)


@pytest.mark.parametrize(
    "line",
    [
        "",
        "resuming at step 120 of 468 from /mnt",
        "data: 60,000 images from /data (MNIST)",
        "trained already: step 468 of 468, version 1767225600",
        "copied: 1.2.3 of 4 steps",
    ],
)
def test_other_lines_are_none_of_progress(line: str) -> None:
    assert parse_line(line) is None
