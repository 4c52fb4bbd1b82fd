"""`--help` of every command, which is the reference in docs/reference/cli.md."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import pytest
from cyclopts import App
from rich.console import Console

from fairway.cli import build_app
from tests.conftest import ROOT

REFERENCE = ROOT / "docs" / "reference" / "cli.md"
INTRODUCTION = """\
# The command line

Made from `--help` by `pytest --update-golden tests/unit/cli`; a test fails when it is out of date.
"""


def commands(app: App, words: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Return the words of every command, the first of them none."""
    found = [words]
    for name in app:
        if not name.startswith("-"):
            found += commands(app[name], (*words, name))
    return found


def help_of(words: tuple[str, ...]) -> str:
    file = io.StringIO()
    console = Console(file=file, width=100, color_system=None, force_terminal=False)
    build_app().help_print(list(words), console=console)
    return "\n".join(line.rstrip() for line in file.getvalue().strip().splitlines())


def reference() -> str:
    pages = [
        f"\n## {' '.join(('fairway', *words))}\n\n```text\n{help_of(words)}\n```\n"
        for words in commands(build_app())
    ]
    return INTRODUCTION + "".join(pages)


def test_reference_is_what_help_says(update_golden: bool) -> None:
    if update_golden:
        REFERENCE.write_text(reference())
    assert REFERENCE.read_text() == reference()


@pytest.mark.parametrize("words", commands(build_app())[1:], ids=" ".join)
def test_every_command_has_a_purpose_and_examples(words: tuple[str, ...]) -> None:
    text = help_of(words)
    assert "For example:" in text or "COMMAND" in text
    assert "See also: fairway" in text or len(words) > 1
    assert "╭" in text


def test_without_tensorflow_the_extra_is_named(tmp_path: Path) -> None:
    code = """
import importlib.util, sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("tensorflow", "keras", "tensorboard"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Absent())
real = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == "tensorflow" else real(name, *rest)
from fairway.cli import main
main()
"""
    for command, extra in (("train", "train"), ("tensorboard", "tensorboard")):
        done = subprocess.run(
            [sys.executable, "-c", code, command], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 1
        assert "which is not installed" in done.stderr
        assert f"pip install 'fairway[{extra}]'" in done.stderr
        assert "Traceback" not in done.stderr
