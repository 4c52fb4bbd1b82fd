r"""The tutorial's mini-languages: lists in one word, such as `K=V,K=V`, and what they say the same in YAML.

A value may be a word or, in a YAML file, a mapping or a list. In a word a backslash takes from the next
character its meaning: `MESSAGE=one\\, two` is one variable whose value has a comma.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", re.ASCII)
_SERVICE = re.compile(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?", re.ASCII)
_DOTTED = r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*"
_SUBDOMAIN = re.compile(rf"(?!.{{254}}){_DOTTED}", re.ASCII)
_QUANTITY = re.compile(r"[0-9]+(\.[0-9]+)?(m|k|[KMGTPE]i?)?", re.ASCII)
_VARIABLE = re.compile(r"(?!\.$|\.\.)[A-Za-z_.-][A-Za-z0-9_.-]*", re.ASCII)
_LABEL_KEY = re.compile(rf"({_DOTTED}/)?[A-Za-z0-9]([A-Za-z0-9_.-]{{0,61}}[A-Za-z0-9])?", re.ASCII)
_LABEL_VALUE = re.compile(r"([A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?", re.ASCII)
_TOLERATION = ("key", "operator", "value", "effect", "tolerationSeconds")
_OPERATORS = ("Equal", "Exists")
_SECRET_KEY = re.compile(r"(?!\.$|\.\.)[A-Za-z0-9_.-]{1,253}", re.ASCII)
_EFFECTS = ("NoSchedule", "PreferNoSchedule", "NoExecute")
_FACTORS = {
    **{"n": Decimal("1e-9"), "u": Decimal("1e-6"), "m": Decimal("1e-3"), "": Decimal(1)},
    **{suffix: Decimal(1000) ** power for power, suffix in enumerate("kMGTPE", start=1)},
    **{f"{suffix}i": Decimal(1024) ** power for power, suffix in enumerate("KMGTPE", start=1)},
}


@dataclass(frozen=True)
class Language:
    """How a param's value is read; a note on its type.

    Attributes:
        form: What a value looks like, for help and errors.
        parse: Returns what a word or a YAML value says; raises `ValueError` with the reason.
    """

    form: str
    parse: Callable[[Any], Any]


@dataclass(frozen=True)
class SecretKey:
    """One value in a Secret: `SECRET.KEY`."""

    secret: str
    key: str


@dataclass(frozen=True)
class SecretMount:
    """A Secret whose values are files in a directory: `SECRET=/path`."""

    secret: str
    path: str


@dataclass(frozen=True)
class Share:
    """A part of the traffic.

    Attributes:
        label: Pods with this label get it; `version` where only a version was named.
        value: The label's value.
        weight: Proportional to the traffic; all weights together are 100.
    """

    label: str
    value: str
    weight: int


def split_escaped(word: str, separator: str, limit: int = -1) -> list[str]:
    """Return a word's parts, the backslashes still in them; at most `limit` splits where that is not -1."""
    parts, start, index = [], 0, 0
    while index < len(word) and limit:
        if word[index] == "\\":
            index += 1
        elif word[index] == separator:
            parts.append(word[start:index])
            start = index + 1
            limit -= 1
        index += 1
    return [*parts, word[start:]]


def unescape(word: str) -> str:
    """Return a word without its backslashes, and what they stood before with no special meaning."""
    return re.sub(r"\\(.)", r"\1", word, flags=re.DOTALL)


def parse_pairs(value: Any) -> dict[str, str]:
    """Read `K=V,K=V`, a list of `K=V`, or a mapping; only the first `=` of a pair separates.

    Backslashes mean something only in the first form: the others can hold any value without.
    """
    pairs = _raw_pairs(value)
    return {name: unescape(raw) for name, raw in pairs.items()} if isinstance(value, str) else pairs


def parse_env_variables(value: Any) -> dict[str, str]:
    """Read environment variables: `K=V,K=V`."""
    pairs = parse_pairs(value)
    for name in pairs:
        _check(_VARIABLE, name, "the name of an environment variable")
    return pairs


def parse_secret_key_refs(value: Any) -> dict[str, SecretKey]:
    """Read variables that come from Secrets: `K=SECRET.KEY,…`.

    The first dot separates, unless a backslash is before it, in all forms: both names may have dots.
    """
    raw = _raw_pairs(value)
    refs = {}
    for name, place in raw.items():
        _check(_VARIABLE, name, "the name of an environment variable")
        secret, *key = split_escaped(place, ".", 1)
        if not key or not secret or not key[0]:
            raise ValueError(f"{place!r} is not SECRET.KEY")
        refs[name] = SecretKey(
            _check(_SUBDOMAIN, unescape(secret), "the name of a Secret"),
            _check(_SECRET_KEY, unescape(key[0]), "a key of a Secret"),
        )
    return refs


def parse_secret(value: Any) -> SecretMount | None:
    """Read a Secret to be mounted: `SECRET=/path`; empty is none."""
    pairs = parse_pairs(value)
    if not pairs:
        return None
    if len(pairs) > 1:
        raise ValueError("it names more than one Secret")
    ((name, path),) = pairs.items()
    if not path.startswith("/"):
        raise ValueError(f"{path!r} is not an absolute path")
    if ":" in path:
        raise ValueError(f"{path!r} has a colon, which a path to mount at may not have")
    return SecretMount(_check(_SUBDOMAIN, name, "the name of a Secret"), path)


def parse_labels(value: Any) -> dict[str, str]:
    """Read labels: `K=V,K=V`."""
    pairs = parse_pairs(value)
    for key, entry in pairs.items():
        _check(_LABEL_KEY, key, "the key of a label")
        _check(_LABEL_VALUE, entry, "the value of a label")
    return pairs


def parse_tolerations(value: Any) -> tuple[dict[str, Any], ...]:
    """Read tolerations: `KEY=VALUE:EFFECT,KEY:EFFECT,…`, or a list of Kubernetes' own objects."""
    if (
        not isinstance(value, str)
        and isinstance(value, Sequence)
        and all(isinstance(v, Mapping) for v in value)
    ):
        return tuple(map(_toleration_object, value))
    return tuple(_toleration(item) for item in _items(value))


def _toleration_object(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return one of Kubernetes' own objects as the API has it.

    Source: https://kubernetes.io/docs/concepts/scheduling-eviction/taint-and-toleration/
    """
    for name in entry:
        if name not in _TOLERATION:
            raise ValueError(f"{name!r} is not one of {', '.join(_TOLERATION)}")
    read: dict[str, Any] = {name: _text(word) for name, word in entry.items() if word is not None}
    _check_toleration(read)
    if (seconds := read.get("tolerationSeconds")) is not None:
        if not re.fullmatch(r"-?[0-9]{1,18}", seconds, re.ASCII):
            raise ValueError(f"tolerationSeconds {seconds!r} is not a whole number")
        if read.get("effect") != "NoExecute":
            raise ValueError("tolerationSeconds needs the effect NoExecute")
        read["tolerationSeconds"] = int(seconds)
    return read


def _toleration(item: str) -> dict[str, Any]:
    taint, _, effect = item.partition(":")
    key, equals, entry = taint.partition("=")
    toleration: dict[str, Any] = {"key": key, "operator": "Equal" if equals else "Exists"}
    toleration |= ({"value": entry} if equals else {}) | ({"effect": effect} if effect else {})
    _check(_LABEL_KEY, key, "the key of a taint")
    _check_toleration(toleration)
    return toleration


def _check_toleration(toleration: Mapping[str, str]) -> None:
    """Refuse what Kubernetes refuses. Raises `ValueError` with the reason."""
    key, value = toleration.get("key"), toleration.get("value", "")
    operator, effect = toleration.get("operator") or "Equal", toleration.get("effect")
    if effect and effect not in _EFFECTS:
        raise ValueError(f"{effect!r} is not one of {', '.join(_EFFECTS)}")
    if operator not in _OPERATORS:
        raise ValueError(f"{operator!r} is not one of {', '.join(_OPERATORS)}")
    if key:
        _check(_LABEL_KEY, key, "the key of a taint")
    elif operator != "Exists":
        raise ValueError("a toleration without a key needs the operator Exists")
    if value and operator == "Exists":
        raise ValueError("a toleration with the operator Exists goes without a value")
    _check(_LABEL_VALUE, value, "the value of a taint")


def parse_traffic_rule(value: Any) -> tuple[Share, ...]:
    """Read how traffic is divided: `v1:90,v2:10`, or by another label `track=canary:10,…`."""
    shares = []
    for item in _items(value):
        place, _, weight = item.strip().rpartition(":")
        if not place or not weight.isascii() or not weight.isdigit():
            raise ValueError(f"{item!r} is not VERSION:PERCENT")
        label, equals, entry = place.partition("=")
        if not equals:
            label, entry = "version", place
        _check(_LABEL_KEY, label, "the key of a label")
        # It becomes part of a Service's name.
        shares.append(Share(label, _check(_LABEL, entry, "a version"), int(weight)))
    if not shares:
        raise ValueError("it is empty")
    if len({(share.label, share.value) for share in shares}) < len(shares):
        raise ValueError("a version is there twice")
    if (total := sum(share.weight for share in shares)) != 100:
        raise ValueError(f"the weights are {total} in all, not 100")
    return tuple(shares)


def write(value: Any) -> Any:
    """Return a value that a language has read as the word that says it; others as they are."""
    match value:
        case SecretKey(secret, key):
            return f"{_escape(secret, '.')}.{key}"
        case SecretMount(secret, path):
            return f"{secret}={_escape(path, ',')}"
        case Share(label, entry, weight):
            return f"{entry if label == 'version' else f'{label}={entry}'}:{weight}"
        case Mapping():
            return ",".join(f"{name}={_pair_value(entry)}" for name, entry in value.items())
        case tuple() if all(isinstance(entry, Share) for entry in value):
            return ",".join(write(entry) for entry in value)
        case tuple():
            return [dict(entry) for entry in value]
    return value


def parse_name(value: Any) -> str:
    """Read the name of an object: small letters, digits and hyphens, at most 63."""
    return _check(_LABEL, _text(value), "a name of small letters, digits and hyphens, at most 63")


def parse_service_name(value: Any) -> str:
    """Read the name of a Service: as other names, but it begins with a letter (RFC 1035)."""
    what = "a name of small letters, digits and hyphens that begins with a letter, at most 63"
    return _check(_SERVICE, _text(value), what)


def parse_subdomain(value: Any) -> str:
    """Read the name of an object that may have dots: small letters, digits, hyphens and dots."""
    return _check(_SUBDOMAIN, _text(value), "a name of small letters, digits, hyphens and dots")


def parse_gateway(value: Any) -> str:
    """Read which Gateway: `NAME` or `NAMESPACE/NAME`."""
    text = _text(value)
    namespace, slash, name = text.rpartition("/")
    if slash:
        _check(_LABEL, namespace, "NAME or NAMESPACE/NAME of a Gateway")
    _check(_SUBDOMAIN, name, "NAME or NAMESPACE/NAME of a Gateway")
    return text


def parse_quantity(value: Any) -> str:
    """Read an amount of something: `500m`, `2`, `1.5Gi`."""
    return _check(_QUANTITY, _text(value), "an amount such as 500m, 2 or 1Gi")


def parse_size(value: Any) -> str:
    """Read an amount of something of which there must be some: `1Gi`."""
    size = parse_quantity(value)
    if not amount(size):
        raise ValueError("must be above 0")
    return size


def amount(quantity: str) -> Decimal:
    """Return the number that a quantity such as `500m` or `1Gi` is.

    Source: https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/
    """
    number = quantity.rstrip("numkKMGTPEi")
    suffix = quantity[len(number) :]
    if suffix not in _FACTORS:  # 1E3: an exponent, and not a suffix
        return Decimal(quantity)
    return Decimal(number) * _FACTORS[suffix]


def _raw_pairs(value: Any) -> dict[str, str]:
    """Return pairs, the backslashes of their values still there."""
    if isinstance(value, Mapping):
        return {str(name): "" if entry is None else _text(entry) for name, entry in value.items()}
    pairs: dict[str, str] = {}
    for item in _items(value):
        name, equals, raw = item.partition("=")
        name = name.strip()
        if not equals or not name:
            raise ValueError(rf"{item!r} is not NAME=VALUE (a comma inside of a value is written \,)")
        if name in pairs:
            raise ValueError(f"{name} is there twice")
        pairs[name] = raw
    return pairs


def _pair_value(entry: Any) -> str:
    # What a dot's backslash is for is read only after the commas have separated.
    return str(write(entry)) if isinstance(entry, SecretKey) else _escape(str(entry), ",")


def _escape(text: str, separator: str) -> str:
    return re.sub(rf"([\\{separator}])", r"\\\1", text)


def _items(value: Any) -> list[str]:
    if value is None:
        return []
    if isinstance(value, str):
        return [item for item in split_escaped(value, ",") if item.strip()]
    if isinstance(value, Sequence):
        return [_text(item) for item in value]
    raise ValueError("is neither a word nor a list")


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()  # as YAML and the shell have it
    if isinstance(value, str | int | float):
        return str(value)
    raise ValueError(f"{value!r} is not a word")


def _check(form: re.Pattern[str], text: str, what: str) -> str:
    if not form.fullmatch(text):
        raise ValueError(f"{text!r} is not {what}")
    return text
