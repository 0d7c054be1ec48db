"""How the arms of a union are told apart in storage.

On the wire a union is its arms, as JavaScript writes them. Storage must give back the very type that was there, and
JSON has only six kinds of value: arms of one kind are stored as {"$type": name, "value": ...}.
"""

from collections import Counter
from collections.abc import Sequence
from datetime import timedelta
from enum import Enum
from types import NoneType
from typing import Any, Final

from trivet.conversion.shapes import (
    Choice,
    Collection,
    Enumeration,
    JsonKind,
    Leaf,
    Record,
    Shape,
    plain_value,
    resolved,
)
from trivet.protocol.values import Undefined

TAG: Final = "$type"
TAGGED: Final = "value"

_KINDS: Final[dict[type, frozenset[JsonKind]]] = {
    NoneType: frozenset({"null"}),
    bool: frozenset({"bool"}),
    int: frozenset({"int"}),
    float: frozenset({"float", "int"}),
    timedelta: frozenset({"float", "int"}),
    Undefined: frozenset({"object"}),
}
_STR: Final[frozenset[JsonKind]] = frozenset({"str"})
_NATURAL: Final = frozenset({str, int, bool, float, NoneType})


def kinds(shape: Shape) -> frozenset[JsonKind]:
    """What a shape can be in JSON."""
    match shape:
        case Leaf():
            return _KINDS.get(shape.python_type, _STR)
        case Enumeration():
            return _kinds_of_values(list(shape.python_type))
        case Choice():
            return _kinds_of_values(shape.values)
        case Collection() | Record():
            return frozenset({"array"})
        case _:
            return frozenset({"object"})


def _kinds_of_values(values: Sequence[Any]) -> frozenset[JsonKind]:
    types: list[type] = [type(plain_value(value)) for value in values]
    return frozenset(kind for type_ in types for kind in _KINDS.get(type_, _STR))


def _natural(shape: Shape) -> bool:
    """Whether JSON gives values of this shape back as they are, without knowing it."""
    if isinstance(shape, Choice):
        return not any(isinstance(value, Enum | bytes) for value in shape.values)
    return isinstance(shape, Leaf) and shape.python_type in _NATURAL


def tags(arms: Sequence[Shape]) -> dict[int, str]:
    """The arms that need a tag, by index."""
    arms = [resolved(arm) for arm in arms]
    has_int = any(isinstance(arm, Leaf) and arm.python_type is int for arm in arms)
    found = [
        kinds(arm) - {"int"} if has_int and isinstance(arm, Leaf) and arm.python_type is float else kinds(arm)
        for arm in arms
    ]
    count = Counter(kind for each in found for kind in each)
    needed = {
        index
        for index, (arm, each) in enumerate(zip(arms, found, strict=True))
        if not _natural(arm) and any(count[kind] > 1 for kind in each)
    }
    if needed:
        # So that no untagged object can look like a tagged one.
        needed |= {index for index, each in enumerate(found) if "object" in each}
    names = Counter(arm.name for arm in arms)
    return {
        index: arms[index].name if names[arms[index].name] == 1 else f"{arms[index].name}#{index}"
        for index in sorted(needed)
    }
