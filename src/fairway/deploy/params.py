"""Params: the settings of a component, each a field of a dataclass, as are the settings of commands.

The field `num_workers` is the param `numWorkers`; its type, default, range, unit and help are the field's.
"""

from __future__ import annotations

import inspect
import re
import types
from collections.abc import Iterable, Mapping
from dataclasses import Field, dataclass, fields, is_dataclass
from difflib import get_close_matches
from functools import cache
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from fairway.config import Range, Settings
from fairway.deploy.languages import Language
from fairway.errors import UsageError

_WHOLE = re.compile(r"[+-]?[0-9]{1,18}", re.ASCII)
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,3})?", re.ASCII)


@dataclass(frozen=True)
class From:
    """Where the value of a param comes from that is not set: a param of a component of another kind.

    Of several of that kind it is the first that is not switched off by its param `enabled`.
    """

    kind: str
    param: str


@dataclass(frozen=True, kw_only=True)
class Params(Settings):
    """What the params of all kinds of component share: they are checked when they are made."""


@dataclass(frozen=True)
class Param:
    """One param of a kind of component.

    Attributes:
        name: As users write it: `numWorkers`.
        field: Name of the dataclass's field.
        default: Where nothing is set; `None` may stand for a value that depends on others.
        type: What values it takes, in words.
        range: Bounds in words; empty without any.
        source: Where its value comes from if it is not set, and not from the default.
    """

    name: str
    field: str
    default: Any
    type: str
    range: str
    source: From | None


def camel_case(field: str) -> str:
    """Return a param's name: `train_steps` is `trainSteps`."""
    head, *tail = field.split("_")
    return head + "".join(word.capitalize() for word in tail)


def list_params(params: type[Params]) -> dict[str, Param]:
    """Return the params of a kind of component by name, its own before those it shares."""
    return _list_params(params)  # type: ignore[arg-type] # mypy takes the hash of instances for the class's


@cache
def _hints(params: type[Params]) -> dict[str, Any]:
    return get_type_hints(params, include_extras=True)


@cache
def _list_params(params: type[Params]) -> dict[str, Param]:
    hints = _hints(params)  # type: ignore[arg-type] # as in list_params
    found = {}
    for field in sorted(fields(params), key=lambda field: -_depth(params, field.name)):
        notes = _notes(hints[field.name])
        bounds = next((note for note in notes if isinstance(note, Range)), None)
        found[camel_case(field.name)] = Param(
            camel_case(field.name),
            field.name,
            _default(field),
            _type_words(hints[field.name]),
            str(bounds or ""),
            next((note for note in notes if isinstance(note, From)), None),
        )
    return found


def help_texts(params: type[Params]) -> dict[str, str]:
    """Return the help of each param by its name: the text under the field, the nearest class's."""
    return _help_texts(params)  # type: ignore[arg-type] # as in list_params


@cache
def _help_texts(params: type[Params]) -> dict[str, str]:
    import docstring_parser  # takes longer than the manifests of a whole app

    texts = {}
    for cls in reversed(params.__mro__):
        if is_dataclass(cls):
            for entry in docstring_parser.parse_from_object(cls).params:
                texts[camel_case(entry.arg_name)] = " ".join((entry.description or "").split())
    return texts


def find_param(params: type[Params], kind: str, name: str, retired: Mapping[str, str]) -> Param:
    """Return a param by its name.

    Args:
        params: Those of the kind of component.
        kind: Name of that kind, for the message.
        name: What the user wrote.
        retired: Params of the 2019 tutorial that are gone: what to do instead.

    Raises:
        UsageError: there is none of that name; the message names the nearest one.
    """
    known = list_params(params)
    if name in known:
        return known[name]
    if name in retired:
        raise UsageError(f"the param {name} of the 2019 tutorial is gone", hint=retired[name])
    raise UsageError(
        f"a component of kind {kind} has no param {name!r}{nearest(name, known)}",
        hint="List all that a component can have, with their help: fairway param list COMPONENT --all",
    )


def read_value(params: type[Params], name: str, value: Any, where: str) -> Any:
    """Return what a word or a YAML value means for a param.

    Args:
        params: Those of the kind of component.
        name: The param's.
        value: A word of the command line, or what a YAML file has.
        where: The component's name, for the message.

    Raises:
        UsageError: it cannot have that value. The message names the value and what is allowed.
    """
    param = list_params(params)[name]
    hint = _hints(params)[param.field]  # type: ignore[arg-type] # as in list_params
    try:
        read = _convert(hint, value)
    except ValueError as err:
        hint_text = f"{help_texts(params)[name]} It takes {param.type}."
        raise UsageError(f"{where}: {name} is {_short(value)}, but {err}", hint=hint_text) from err
    for note in _notes(hint):
        if isinstance(note, Range) and read is not None and read not in note:
            raise UsageError(
                f"{where}: {name} is {_short(value)}, but must be {note}", hint=help_texts(params)[name]
            )
    return read


def nearest(name: str, known: Iterable[str]) -> str:
    """Return a question for a message, `; did you mean 'train'?`, or nothing if nothing is near."""
    lower = {each.lower(): each for each in known}
    close = get_close_matches(name.lower(), lower, n=1, cutoff=0.5)
    return f"; did you mean {lower[close[0]]!r}?" if close else ""


def _convert(hint: Any, value: Any) -> Any:
    """Return a value as a type has it. Raises `ValueError` with what is wrong, to follow a `but`."""
    allowed = _members(hint)
    value = "" if value is None else value
    if value == "" and type(None) in allowed:
        return None
    for note in _notes(hint):
        if isinstance(note, Language):
            return note.parse(value)
    if value == "":
        raise ValueError("must have a value")
    (kind,) = (member for member in allowed if member is not type(None))
    if get_origin(kind) is Literal:
        if value not in get_args(kind):
            raise ValueError(
                f"must be one of {', '.join(get_args(kind))}{nearest(str(value), list(get_args(kind)))}"
            )
        return value
    return _PLAIN[kind](value)


def _convert_bool(value: Any) -> bool:
    words = {
        "1": True,
        "0": False,
        "true": True,
        "false": False,
        "yes": True,
        "no": False,
        "on": True,
        "off": False,
    }
    try:
        return words[str(value).lower()]
    except KeyError:
        raise ValueError("must be true or false") from None


def _convert_int(value: Any) -> int:
    if isinstance(value, bool) or not _WHOLE.fullmatch(str(value)):
        raise ValueError("must be a whole number")
    return int(str(value))


def _convert_float(value: Any) -> float:
    if isinstance(value, bool) or not _NUMBER.fullmatch(str(value)):
        raise ValueError("must be a number")
    return float(str(value))


def _convert_str(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if not isinstance(value, str | int | float):
        raise ValueError("must be a word")
    return str(value)


_PLAIN = {bool: _convert_bool, int: _convert_int, float: _convert_float, str: _convert_str}
_WORDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a word"}


def _short(value: Any) -> str:
    """Return a value for a message, however long it is."""
    text = str(value) if isinstance(value, int | float) else repr(value)
    return text if len(text) <= 200 else f"{text[:200]}…"


def _notes(hint: Any) -> tuple[Any, ...]:
    """Return what is annotated to a type or to the members of its union."""
    if get_origin(hint) in (Union, types.UnionType):
        return tuple(note for member in get_args(hint) for note in _notes(member))
    own = getattr(hint, "__metadata__", ())
    return own + _notes(hint.__origin__) if own else ()


def _members(hint: Any) -> list[Any]:
    """Return the types of a union, without annotations; `None` is `NoneType`."""
    if get_origin(hint) in (Union, types.UnionType):
        return [member for part in get_args(hint) for member in _members(part)]
    return _members(hint.__origin__) if getattr(hint, "__metadata__", ()) else [hint]


def _type_words(hint: Any) -> str:
    for note in _notes(hint):
        if isinstance(note, Language):
            return note.form
    (kind,) = (member for member in _members(hint) if member is not type(None))
    return " | ".join(get_args(kind)) if get_origin(kind) is Literal else _WORDS[kind]


def _default(field: Field[Any]) -> Any:
    return field.default_factory() if callable(field.default_factory) else field.default


def _depth(params: type[Params], name: str) -> int:
    """Return how many classes up a field was first named: a kind's own params are listed first."""
    owners = [cls for cls in params.__mro__ if name in inspect.get_annotations(cls)]
    return len(owners[-1].__mro__)
