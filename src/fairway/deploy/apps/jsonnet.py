"""Jsonnet files of somebody else's, evaluated in a process of its own: the only module that uses rjsonnet.

A file may crash the evaluator, never end, or ask for all memory (seen: deep nesting, tail calls,
`std.repeat`). So a child process evaluates, with bounds on its time and memory; it reads nothing outside the
directory it was given. Run as a module, this is that child: one JSON request per line of stdin, one answer
per line of stdout.
"""

from __future__ import annotations

import importlib.util
import json
import re
import resource
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fairway.errors import DataError, FairwayError, StorageError, missing_extra
from fairway.storage.files import storage_errors

FILE_BYTES = 1 << 20
"""The largest file that is read: a hundred times the params of the largest known app."""
VALUE_BYTES = 4 << 20
"""The largest value, as JSON, that a file may have."""
CPU_S = 10
"""Processor time for all files of a directory; params take milliseconds."""
MEMORY_BYTES = 1 << 30
EXACT = 2**53
"""Beyond it a float of 64 bits, Jsonnet's only number, no longer tells whole numbers apart."""
WORDS = 200
"""How much of the evaluator's own message is shown."""

_PLACE = re.compile(r"^\s+(?P<path>/.+?):(?P<line>\d+):(?P<column>\d+)", re.MULTILINE)


def resolve_inside(root: Path, path: Path) -> Path:
    """Return a path with its symbolic links followed, which must not lead out of a directory.

    Args:
        root: The directory, itself resolved.
        path: What is below it.

    Raises:
        DataError: it lies outside.
    """
    with storage_errors("read", path):
        try:
            resolved = path.resolve()
        except (ValueError, RuntimeError) as err:  # a null byte; a loop of links
            raise DataError(f"{printable(str(path))} is no path", hint="Correct its name.") from err
    if not resolved.is_relative_to(root):
        raise DataError(
            f"{printable(str(path))} lies outside of {root}, and only files in there are read",
            hint="Copy it into the directory, and name it there.",
        )
    return resolved


def read_text(root: Path, path: Path) -> str:
    """Return the text of a file below a directory.

    Raises:
        DataError: it lies outside, is too large, no file, or no text.
        StorageError: it cannot be read.
    """
    path = resolve_inside(root, path)
    name = printable(str(path.relative_to(root)))
    with storage_errors("read", path):
        if not path.is_file():
            raise DataError(f"{name} is not a file", hint="Check the path.")
        with path.open("rb") as file:
            content = file.read(FILE_BYTES + 1)
    if len(content) > FILE_BYTES:
        raise DataError(
            f"{name} is larger than {FILE_BYTES:,} bytes", hint="Params are far smaller: check it."
        )
    try:
        text = content.decode()
    except UnicodeDecodeError as err:
        raise DataError(f"{name} is not a text in UTF-8", hint="Check what it is.") from err
    if "\0" in text:
        raise DataError(f"{name} is not a text: it has null bytes", hint="Check what it is.")
    return text


def printable(text: str) -> str:
    """Return a text without what could change a terminal: line ends, escapes."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


class Evaluator:
    """Evaluates the Jsonnet files of a directory, in a child process that is started when first needed.

    Args:
        root: The directory; imports from elsewhere are refused.
        cpu_s: Processor time for all of it, in seconds.

    Raises:
        FairwayError: rjsonnet is not installed.
    """

    def __init__(self, root: Path, *, cpu_s: int = CPU_S) -> None:
        if importlib.util.find_spec("rjsonnet") is None:
            raise missing_extra("rjsonnet", "ksonnet", "reading a ksonnet app")
        self._root, self._cpu_s = root.resolve(), cpu_s
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Evaluator:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def evaluate(
        self,
        path: Path,
        *,
        ext_codes: Mapping[str, str] | None = None,
        replace: Mapping[Path, str] | None = None,
    ) -> Any:
        """Return the value of a file; whole numbers are `int`.

        Args:
            path: The file, below the directory.
            ext_codes: Jsonnet for `std.extVar`.
            replace: Jsonnet to take instead of what is in these files, when they are imported.

        Raises:
            DataError: the file, or one it imports, is missing, outside, no text or has an error, or takes too
                much time or memory.
            StorageError: a file cannot be read.
        """
        process = self._process or self._start()
        request = {
            "path": str(resolve_inside(self._root, path)),
            "ext_codes": dict(ext_codes or {}),
            "replace": {str(file.resolve()): code for file, code in (replace or {}).items()},
        }
        answer = _ask(process, json.dumps(request))
        if answer is None:
            raise self._death(path)
        reply = json.loads(answer)
        if "error" in reply:
            kind = StorageError if reply["kind"] == StorageError.__name__ else DataError
            raise kind(reply["error"], hint=reply["hint"])
        try:
            return json.loads(reply["value"], parse_int=_number, parse_float=_number)
        except (ValueError, RecursionError) as err:  # an infinite number is written as `inf`
            raise DataError(
                f"{self._name(path)} has a value that JSON cannot express",
                hint="Look for numbers that are too large.",
            ) from err

    def _name(self, path: Path) -> str:
        return printable(str(resolve_inside(self._root, path).relative_to(self._root)))

    def _start(self) -> subprocess.Popen[str]:
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", __name__, str(self._root), str(self._cpu_s)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # the evaluator's dying words
            encoding="utf-8",
        )
        return self._process

    def _stop(self) -> int:
        process, self._process = self._process, None
        if process is None:
            return 0
        with process:  # closes its pipes and waits
            process.kill()
        return process.returncode

    def _death(self, path: Path) -> DataError:
        """Return why there was no answer."""
        assert self._process is not None
        code = self._process.wait()
        self._stop()
        if code == -signal.SIGXCPU:
            return DataError(
                f"{self._name(path)} takes more than {self._cpu_s} seconds to evaluate",
                hint="Look for a loop without an end.",
            )
        return DataError(
            f"{self._name(path)} cannot be evaluated: it is nested too deeply or takes more than "
            f"{MEMORY_BYTES >> 20:,} MiB of memory",
            hint="Look for a recursion without an end.",
        )


def _ask(process: subprocess.Popen[str], request: str) -> str | None:
    """Return a child's answer to a request; `None` if it has ended instead."""
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(request + "\n")
        process.stdin.flush()
    except BrokenPipeError:
        return None
    return process.stdout.readline() or None


def _number(text: str) -> int | float:
    value = float(text)
    return int(value) if value.is_integer() and abs(value) <= EXACT else value


class _Imports:
    """Finds what a file imports: beside that file, or in ksonnet's `vendor/`."""

    def __init__(self, root: Path, replace: Mapping[str, str]) -> None:
        self._root, self._replace = root, replace
        self.refusal: FairwayError | None = None

    def __call__(self, directory: str, name: str) -> tuple[str, str]:
        """Return the path and text of an import; keep the reason where there is none."""
        try:
            path = self._find(Path(directory), name)
            return str(path), self._replace.get(str(path)) or read_text(self._root, path)
        except FairwayError as err:
            self.refusal = err  # the evaluator passes on no more than its text
            raise

    def _find(self, directory: Path, name: str) -> Path:
        for folder in (directory, self._root / "vendor"):
            path = resolve_inside(self._root, folder / name)
            with storage_errors("read", path):
                if path.exists():
                    return path
        raise DataError(
            f"{printable(name)} is imported in {directory.relative_to(self._root)}/, but is not there",
            hint="Add the file, or remove its import.",
        )


def _evaluate(root: Path, request: Mapping[str, Any]) -> str:
    """Return the JSON of a file's value."""
    import rjsonnet

    imports = _Imports(root, request["replace"])
    try:
        value = rjsonnet.evaluate_snippet(
            "import",
            # A file that is evaluated directly resolves its imports against the working directory.
            f"import {json.dumps(request['path'])}",
            import_callback=imports,
            ext_codes=request["ext_codes"],
            preserve_order=True,
        )
    except RuntimeError as err:
        raise imports.refusal or _explain(root, request["path"], str(err)) from err
    if len(value) > VALUE_BYTES:
        name = printable(str(Path(request["path"]).relative_to(root)))
        raise DataError(f"{name} has a value of more than {VALUE_BYTES:,} bytes", hint="Check what it is.")
    return value


def _explain(root: Path, path: str, message: str) -> DataError:
    """Return the evaluator's message and trace as one sentence about a place in a file."""
    place = _PLACE.search(message)
    named = Path(place["path"] if place else path)
    file = named.relative_to(root) if named.is_relative_to(root) else named
    where = f", line {place['line']}, column {place['column']}" if place else ""
    reason = message.splitlines()[0]
    if reason.startswith("syntax error"):
        reason = (
            "syntax error at " + reason.rpartition("got ")[2]
        )  # without the list of all that may be there
    return DataError(f"{printable(f'{file}{where}: {reason}')[:WORDS]}", hint="Correct the file.")


def _bound(cpu_s: int) -> None:
    """Bound what this process may use."""
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, cpu_s + 1))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":  # elsewhere it cannot be lowered below what is already mapped
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))


def _serve() -> None:
    """Answer requests until stdin ends."""
    root = Path(sys.argv[1])
    _bound(int(sys.argv[2]))
    for line in sys.stdin:
        try:
            answer = {"value": _evaluate(root, json.loads(line))}
        except FairwayError as err:
            answer = {"kind": type(err).__name__, "error": err.message, "hint": err.hint}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    _serve()
