"""YAML that people write: read strictly, and changed in place, so that each line nobody meant stays as it is.

A plain scalar is the text that stands there and null is nothing: `1.10`, `no`, `007` and `12:30` are not
guessed into something else. What they mean, the param's type says, as it does for a word of the command line.

ruamel.yaml was tried for the changes: it put a new key behind the comment above the next component, gave the
whole file one indentation and LF line ends, and wrote `no` without quotes, which others read as false.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml
from yaml.nodes import CollectionNode, MappingNode, Node, ScalarNode, SequenceNode

from fairway.errors import first_line

MAX_CHARACTERS = 1_000_000
MAX_NODES = 100_000
"""What a document may come to with its aliases expanded: a few lines of them can stand for gigabytes."""
MAX_DEPTH = 50

_SAFE_PLAIN = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?|true|false", re.ASCII)
"""What needs no quotes for us, and is a number or a truth for every other reader."""
_NULL, _MERGE = "tag:yaml.org,2002:null", "tag:yaml.org,2002:merge"
_TAGS = tuple(
    f"tag:yaml.org,2002:{name}"
    for name in ("null", "merge", "bool", "float", "int", "map", "seq", "str", "timestamp", "value")
)
_ALIAS = "!alias"
_BYTE_ORDER_MARK = "\ufeff"


class DocumentError(ValueError):
    """A text is not what it should be; says which line, where there is one.

    Args:
        problem: What is wrong.
        line: Counted from 1; `None`: no one line.
    """

    def __init__(self, problem: str, line: int | None = None) -> None:
        super().__init__(problem if line is None else f"line {line}: {problem}")


def parse(text: str) -> Any:
    """Return what a document says: mappings, lists, texts and `None`.

    Raises:
        DocumentError: it is no YAML, has a key twice, or comes to too much.
    """
    root = _compose(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    return None if root is None else _Reader(set()).read(root)


def set_entry(text: str, path: Sequence[str], value: Any, *, first: bool = False) -> str:
    """Return a document with one entry set; only its line changes, or lines are added for it.

    Args:
        text: The document.
        path: Keys from the outermost mapping to the entry; those that are missing are made.
        value: A text, number, truth, list or mapping.
        first: Whether a new entry goes before those there, and not behind them.

    Raises:
        DocumentError: that cannot be done without changing something else too.
    """
    expected = _plain_data(parse(text)) or {}
    inner = expected
    for key in path[:-1]:
        if inner.get(key) is None:
            inner[key] = {}
        inner = inner[key]
        if not isinstance(inner, dict):
            raise DocumentError(f"{key} has no `key: value` lines")
    inner[path[-1]] = _plain_data(value)
    return _checked(_Text(text, first=first).set(path, value), expected, path)


def delete_entry(text: str, path: Sequence[str]) -> str:
    """Return a document without an entry, and without the mappings that have nothing left, not even comments.

    Args:
        text: The document.
        path: Keys from the outermost mapping to the entry, which is there.

    Raises:
        DocumentError: that cannot be done without changing something else too.
    """
    expected = _plain_data(parse(text))
    inner, depth = [expected], len(path)
    for key in path[:-1]:
        inner.append(inner[-1][key])
    after = _Text(text).delete(path)
    comments = after.count("#")  # a key with this sign at worst stays
    while depth > 1 and len(inner[depth - 1]) == 1:
        shorter = _Text(text).delete(path[: depth - 1])
        if shorter.count("#") < comments:
            break
        after, depth = shorter, depth - 1
    del inner[depth - 1][path[depth - 1]]
    if depth > 1 and not inner[depth - 1] and not _Text(text).has_braces(path[: depth - 1]):
        inner[depth - 2][path[depth - 2]] = None  # as a key with nothing behind it is read
    return _checked(after, expected, path)


def _checked(text: str, expected: Any, path: Sequence[str]) -> str:
    try:
        done = (parse(text) or None) == (expected or None)
    except DocumentError:
        done = False
    if not done:
        raise DocumentError(f"{'.'.join(path)} cannot be changed there without changing something else too")
    return text


def _plain_data(value: Any) -> Any:
    """Return a value as it is read from a document, nothing of it shared."""
    match value:
        case Mapping():
            return {str(key): _plain_data(entry) for key, entry in value.items()}
        case list() | tuple():
            return [_plain_data(entry) for entry in value]
        case bool():
            return str(value).lower()
    return None if value is None else str(value)


# --- reading


def _compose(text: str, loader: Any) -> Node | None:
    if len(text) > MAX_CHARACTERS:
        raise DocumentError(f"it has {len(text):,} characters, more than {MAX_CHARACTERS:,}")
    try:
        return yaml.compose(text, Loader=loader)
    except yaml.YAMLError as err:
        mark = getattr(err, "problem_mark", None)
        problem = getattr(err, "problem", None) or first_line(err)
        raise DocumentError(problem, mark.line + 1 if mark else None) from err
    except RecursionError as err:
        raise DocumentError("it is nested too deeply") from err


@dataclass
class _Reader:
    """Makes data of nodes; those on the way to the present one tell whether it is inside of itself."""

    outer: set[int]
    nodes: int = 0

    def read(self, node: Node) -> Any:
        self.nodes += 1
        line = node.start_mark.line + 1
        if self.nodes > MAX_NODES:
            raise DocumentError(f"its aliases stand for more than {MAX_NODES:,} values")
        if id(node) in self.outer:
            raise DocumentError("an alias stands for something that it is part of", line)
        if node.tag not in _TAGS:
            raise DocumentError(f"the tag {node.tag} is not known", line)
        if isinstance(node, ScalarNode):
            return None if node.tag == _NULL else node.value
        if len(self.outer) >= MAX_DEPTH:
            raise DocumentError("it is nested too deeply", line)
        self.outer.add(id(node))
        read = [self.read(each) for each in node.value] if isinstance(node, SequenceNode) else self._map(node)
        self.outer.remove(id(node))
        return read

    def _map(self, node: Node) -> dict[str, Any]:
        own: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            if key.tag == _MERGE:
                for source in value.value if isinstance(value, SequenceNode) else [value]:
                    if not isinstance(content := self.read(source), dict):
                        raise DocumentError("<< is not followed by `key: value` lines", line)
                    merged = content | merged
                continue
            if not isinstance(name := self.read(key), str):
                raise DocumentError("a key is not a word", line)
            if name in own:
                raise DocumentError(f"the key {name!r} is there twice", line)
            own[name] = self.read(value)
        return own | {name: value for name, value in merged.items() if name not in own}


# --- changing


class _Composer(yaml.SafeLoader):
    """Keeps an alias as a node of its own, with its place; the C loader cannot."""

    def compose_node(self, parent: Node | None, index: int) -> Node | None:
        if self.check_event(yaml.AliasEvent):
            event = self.get_event()  # type: ignore[no-untyped-call]
            return ScalarNode(_ALIAS, event.anchor, event.start_mark, event.end_mark)
        return super().compose_node(parent, index)


class _Text:
    """A document with its nodes, which know their places in it."""

    def __init__(self, text: str, *, first: bool = False) -> None:
        self._text = text
        self._first = first
        self._break = "\r\n" if "\r\n" in text else "\n"
        root = _compose(text, _Composer)
        self._root = None if root is None or (_is_null(root) and not root.value) else root
        self._step = next(_steps(self._root), 2)

    def set(self, path: Sequence[str], value: Any) -> str:
        if self._root is None:
            return self._add(len(self._text), path, value, 0)
        node = self._root
        for depth, name in enumerate(path):
            found = _find(node, name)
            if found is None:
                return self._insert(node, path[depth:], value)
            key, entry = found
            if depth == len(path) - 1 or _is_null(entry):
                return self._replace(node, key, entry, path[depth + 1 :], value)
            node = entry
        raise AssertionError("a path has at least one key")

    def has_braces(self, path: Sequence[str]) -> bool:
        node = self._at(path)
        return node is not None and _is_flow(node)

    def delete(self, path: Sequence[str]) -> str:
        node = self._at(path[:-1])
        found = _find(node, path[-1])
        if node is None or found is None:
            return self._text  # it comes from an alias or a merge
        start, end = found[0].start_mark.index, self._end(found[1], found[0])
        if _is_flow(node):
            return self._delete_flow(node, found[0], end)
        return self._without(self._line_start(start), self._line_end(end))

    def _at(self, path: Sequence[str]) -> Node | None:
        node = self._root
        for name in path:
            found = _find(node, name)
            node = found[1] if found else None
        return node

    def _delete_flow(self, node: Node, key: Node, end: int) -> str:
        """Delete an entry and one comma; of an entry that has a line of its own, the line."""
        start, keys = key.start_mark.index, [each for each, _ in node.value]
        number = keys.index(key)
        if number + 1 < len(keys) and keys[number + 1].start_mark.line == key.start_mark.line:
            return self._without(start, keys[number + 1].start_mark.index)
        if number:
            before = self._end(*reversed(node.value[number - 1]))
            if "\n" not in self._text[before:start]:
                return self._without(before, end)
        if comma := re.compile(r"[ \t]*,").match(self._text, end):
            end = comma.end()
        first, last = self._line_start(start), self._line_end(end)
        if self._text[first:start].strip() or self._text[end:last].strip():
            return self._without(start, end)
        return self._without(first, last)

    def _replace(self, node: Node, key: Node, entry: Node, rest: Sequence[str], value: Any) -> str:
        """Put a value, or the mappings that lead to it, where another value or nothing was."""
        colon = self._text.index(":", key.end_mark.index) + 1
        start, end = entry.start_mark.index, self._end(entry, key)
        if rest and not _is_flow(node):
            if start < end:  # a null that was written
                self._text = self._without(colon, end)
            return self._add(self._line_end(colon), rest, value, int(key.start_mark.column) + self._step)
        word = _flow(_nested(rest, value)) if _is_flow(node) else _word(value)
        if start == end:
            return f"{self._text[:colon]} {word}{self._text[colon:]}"
        if _is_block(entry) and entry.start_mark.line > key.end_mark.line:
            # A comment behind the key stays, and those above the first of the lines that go.
            between = self._text[colon : self._line_start(start)]
            return f"{self._text[:colon]} {word}{between}{self._text[self._line_end(end) :]}"
        return self._text[:start] + word + self._text[end:]

    def _insert(self, node: Node, rest: Sequence[str], value: Any) -> str:
        if not isinstance(node, MappingNode):
            raise DocumentError(f"{rest[0]} has no place there", node.start_mark.line + 1)
        if not _is_flow(node):
            start, end = node.value[0][0].start_mark.index, self._end(node, node)
            at = self._line_start(start) if self._first else self._line_end(end)
            return self._add(at, rest, value, _column(node))
        word = f"{_flow(rest[0])}: {_flow(_nested(rest[1:], value))}"
        if node.value:
            word, at = f", {word}", self._end(*reversed(node.value[-1]))
        else:
            at = node.end_mark.index - 1
        return self._text[:at] + word + self._text[at:]

    def _add(self, at: int, path: Sequence[str], value: Any, column: int) -> str:
        """Add lines with an entry, and one for each mapping around it."""
        lines = [f"{' ' * (column + depth * self._step)}{_word(key)}:" for depth, key in enumerate(path)]
        lines[-1] += f" {_word(value)}"
        before = self._text[:at]
        if before and not before.endswith(("\n", _BYTE_ORDER_MARK)):
            before += self._break
        return before + self._break.join([*lines, ""]) + self._text[at:]

    def _end(self, node: Node, key: Node) -> int:
        """Return where a value's own text ends: a block's with its last entry, not where the next begins."""
        if isinstance(node, CollectionNode) and _is_block(node):
            last = node.value[-1]
            return self._end(*reversed(last)) if isinstance(last, tuple) else self._end(last, last)
        if isinstance(node, ScalarNode) and node.style in ("|", ">"):
            return len(self._text[: node.end_mark.index].rstrip())
        return max(int(node.end_mark.index), int(key.end_mark.index))

    def _line_start(self, index: int) -> int:
        start = self._text.rfind("\n", 0, index) + 1
        return start + self._text.startswith(_BYTE_ORDER_MARK, start)

    def _line_end(self, index: int) -> int:
        return self._text.find("\n", index) + 1 or len(self._text)

    def _without(self, start: int, end: int) -> str:
        return self._text[:start] + self._text[end:]


def _find(node: Node | None, key: str) -> tuple[Node, Node] | None:
    """Return an entry of a mapping, none that is merged into it."""
    if isinstance(node, MappingNode):
        for each, value in node.value:
            if isinstance(each, ScalarNode) and each.value == key and each.tag != _MERGE:
                return each, value
    return None


def _is_null(node: Node) -> bool:
    return isinstance(node, ScalarNode) and node.tag == _NULL


def _is_flow(node: Node) -> bool:
    return isinstance(node, CollectionNode) and bool(node.flow_style)


def _is_block(node: Node) -> bool:
    return isinstance(node, CollectionNode) and not node.flow_style and bool(node.value)


def _column(node: Node) -> int:
    return int(node.value[0][0].start_mark.column)


def _steps(node: Node | None) -> Iterator[int]:
    """Yield by how much each mapping inside of another is indented."""
    if isinstance(node, MappingNode) and _is_block(node):
        for _, value in node.value:
            if isinstance(value, MappingNode) and _is_block(value):
                yield _column(value) - _column(node)
            yield from _steps(value)


def _nested(path: Sequence[str], value: Any) -> Any:
    for key in reversed(path):
        value = {key: value}
    return value


def _word(value: Any) -> str:
    """Return a value as it stands behind `key: `."""
    data = _plain_data(value)
    if not isinstance(data, str):
        return _flow(data)
    return data if _SAFE_PLAIN.fullmatch(data) else _dump(data).removesuffix("...\n").strip()


def _flow(value: Any) -> str:
    """Return a value as it stands inside of braces and brackets."""
    match data := _plain_data(value):
        case dict():
            return "{" + ", ".join(f"{_flow(key)}: {_flow(entry)}" for key, entry in data.items()) + "}"
        case list():
            return "[" + ", ".join(map(_flow, data)) + "]"
        case None:
            return "null"
    return data if _SAFE_PLAIN.fullmatch(data) else _dump([data]).strip()[1:-1]


def _dump(data: Any) -> str:
    """Return YAML in one line."""
    text = data if isinstance(data, str) else data[0]
    style = None if text.isprintable() else '"'  # a text in one line needs escapes for line ends
    return yaml.safe_dump(
        data, default_style=style, default_flow_style=True, allow_unicode=True, width=float("inf")
    )
