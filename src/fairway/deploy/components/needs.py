"""Params that are read only together with another one: without it they would silently do nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from fairway.deploy.params import Params, camel_case
from fairway.errors import UsageError


@dataclass(frozen=True)
class Needs:
    """What some params need to have an effect.

    Attributes:
        fields: The params, by their fields' names.
        condition: What they need, in words that follow `set`: `launcher tfjob`.
        holds: Whether that is so.
    """

    fields: Sequence[str]
    condition: str
    holds: Callable[[Any], object]


def unread(params: Params, needs: Sequence[Needs]) -> dict[str, Needs]:
    """Return the fields that are not as by default and yet without an effect, and what each needs."""
    defaults = {field.name: field.default for field in fields(params)}
    found: dict[str, Needs] = {}
    for need in needs:
        if not need.holds(params):
            for name in need.fields:
                if getattr(params, name) != defaults[name]:
                    found.setdefault(name, need)
    return found


def refuse_unread(params: Params, needs: Sequence[Needs], component: str) -> None:
    """Refuse params without an effect.

    Args:
        params: The component's.
        needs: Of its kind.
        component: The component's name, for the message.

    Raises:
        UsageError: there is one.
    """
    defaults: Mapping[str, Any] = {field.name: field.default for field in fields(params)}
    for name, need in unread(params, needs).items():
        param = camel_case(name)
        raise UsageError(
            f"{component}: {param} is {_word(getattr(params, name))}, which has no effect without "
            f"{need.condition}",
            hint=f"Set {need.condition}, or {param} back to {_word(defaults[name])}.",
        )


def _word(value: Any) -> str:
    """Return a value as users write it."""
    if value is None:
        return "''"
    return str(value).lower() if isinstance(value, bool) else str(value)
