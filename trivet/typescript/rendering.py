"""From shapes to TypeScript's types."""

import inspect
from collections.abc import Callable, Iterator, Mapping
from datetime import date, datetime, timedelta
from decimal import Decimal
from types import NoneType
from typing import Any, Final, Literal, TypeAlias, TypeGuard, get_args
from uuid import UUID

from trivet.conversion.arms import admits_undefined
from trivet.conversion.shapes import (
    Choice,
    Class,
    Collection,
    Dictionary,
    Enumeration,
    Field,
    Leaf,
    Record,
    Reference,
    Shape,
    TypedMapping,
    Union,
)
from trivet.protocol.values import Undefined
from trivet.typescript.text import Names, comment, is_identifier, key, literal, union

Direction: TypeAlias = Literal["to client", "to server"]

_PLAIN: Final[Mapping[type, str]] = {
    str: "string",
    int: "number",
    float: "number",
    bool: "boolean",
    bytes: "Uint8Array",
    NoneType: "null",
    Undefined: "undefined",
    datetime: "Date",
    object: "unknown",
}

_ALIASES: Final[Mapping[type, tuple[str, str, str]]] = {
    date: ("IsoDate", "string", "A date in ISO 8601: `2026-02-28`."),
    timedelta: ("Seconds", "number", "A length of time in seconds."),
    Decimal: ("DecimalString", "string", "A finite decimal number: `0.10`."),
    UUID: ("Uuid", "string", "A UUID in its hexadecimal form, with hyphens."),
}
"""Types whose values JavaScript has no type for: a name, what they travel as, and what it means."""

_Named: TypeAlias = Class | TypedMapping | Record | Enumeration | Reference | Leaf


def is_named(shape: Shape) -> "TypeGuard[_Named]":
    """Whether a shape has a declaration of its own."""
    match shape:
        case Class() | TypedMapping() | Enumeration() | Reference():
            return True
        case Record():
            return shape.python_type is not tuple
        case Leaf():
            return shape.python_type in _ALIASES
        case _:
            return False


class Types:
    """The types of one file. All are announced with `use` first, so that names can be given; then they are written.

    What a client sends may be less than what it gets: a field with a default may be left out, and one that is
    computed is ignored. A type for which that makes a difference has two declarations, `Position` and
    `PositionInput`, where both are in use.
    """

    def __init__(self, names: Names, rename: Callable[[str], str]) -> None:
        self._names = names
        self._rename = rename
        self._used: dict[tuple[_Named, Direction], None] = {}
        self._differs: dict[Shape, bool] = {}
        self._enumerations: dict[type, Enumeration] = {}
        self._given: dict[tuple[_Named, Direction], str] = {}

    def use(self, shape: Shape, direction: Direction) -> None:
        """Announce that a shape will be written, and with it the declarations that it needs."""
        if is_named(shape):
            entry = self._entry(shape, direction)
            if entry in self._used:
                return
            self._used[entry] = None
        for part in _parts(shape, direction):
            self.use(part, direction)

    def give_names(self) -> None:
        """Name every declaration. Nothing is announced from now on."""
        both: list[tuple[_Named, Direction]] = []
        for shape, direction in self._used:
            if direction == "to server" and (shape, "to client") in self._used:
                both.append((shape, direction))
            else:
                self._given[shape, direction] = self._names.type(_base_name(shape))
        for shape, direction in both:
            self._given[shape, direction] = self._names.type(f"{self._given[shape, 'to client']}Input")

    def declarations(self) -> Iterator[list[str]]:
        """Every declaration as lines, in the order of first use."""
        for shape in dict.fromkeys(shape for shape, _ in self._used):
            for direction in get_args(Direction):
                if (shape, direction) in self._given:
                    yield self._declaration(shape, direction)

    def text(self, shape: Shape, direction: Direction, *, defined: bool = False) -> str:
        """The type in one line; with `defined`, without undefined."""
        if is_named(shape):
            return self._given[self._entry(shape, direction)]
        match shape:
            case Leaf():
                return _PLAIN[shape.python_type]
            case Union():
                arms = [arm for arm in shape.arms if not (defined and _is_undefined(arm))]
                return union(self.text(arm, direction) for arm in arms)
            case Choice():
                return union(map(literal, shape.values))
            case Dictionary():
                return self._dictionary(shape, direction)
            case Collection():
                if shape.python_type in {set, frozenset}:
                    return f"Set<{self.text(shape.item, direction)}>"
                return self.array_of(shape.item, direction)
            case Record():
                return self.tuple_of(shape.items, direction)
            case _:
                raise AssertionError(f"{shape!r} has a declaration")

    def array_of(self, item: Shape, direction: Direction) -> str:
        """The type of an array of such items."""
        text = self.text(item, direction)
        return f"({text})[]" if isinstance(item, Union | Choice) and " | " in text else f"{text}[]"

    def tuple_of(self, items: list[Shape], direction: Direction) -> str:
        """A tuple; its members are named after their types where all of these have names."""
        labels = [self._label(item) for item in items]
        texts = [self.text(item, direction) for item in items]
        if all(labels) and len(set(labels)) == len(labels):
            texts = [f"{label}: {text}" for label, text in zip(labels, texts, strict=True)]
        return f"[{', '.join(texts)}]"

    def _label(self, shape: Shape) -> str:
        name = _base_name(shape) if isinstance(shape, Class | TypedMapping | Enumeration) else ""
        return name[:1].lower() + name[1:] if is_identifier(name) else ""

    def _entry(self, shape: _Named, direction: Direction) -> "tuple[_Named, Direction]":
        if isinstance(shape, Enumeration):  # each mention of one has a shape of its own
            shape = self._enumerations.setdefault(shape.python_type, shape)
        return shape, direction if self.differs(shape) else "to client"

    def differs(self, shape: Shape) -> bool:
        """Whether clients may send something else than what they get."""
        known = self._differs.get(shape)
        if known is None:
            known = self._differs[shape] = any(map(_differs_itself, _reachable(shape)))
        return known

    def _dictionary(self, shape: Dictionary, direction: Direction) -> str:
        value = self.text(shape.value, direction)
        if isinstance(shape.key, Leaf):  # all of them travel as strings
            return f"{{ [key: string]: {value} }}"
        return f"{{ [key in {self.text(shape.key, direction)}]?: {value} }}"

    def _declaration(self, shape: _Named, direction: Direction) -> list[str]:
        name = self._given[shape, direction]
        if direction == "to server" and (received := self._given.get((shape, "to client"))):
            doc: str | None = f"{received}, as clients may send it."
        else:
            doc = _doc(shape)
        match shape:
            case Class():
                lines = [f"  {key(field.wire)}{self._field(field, direction)};" for field in _fields(shape, direction)]
                return [*comment(doc), f"export interface {name} {{", *lines, "}"]
            case TypedMapping():
                lines = [
                    f"  {key(wire)}{self._property(part.shape, direction, optional=not part.required)};"
                    for wire, part in shape.keys.items()
                ]
                return [*comment(doc), f"export interface {name} {{", *lines, "}"]
            case Record():
                text = self._namedtuple(shape, direction)
            case Enumeration():
                members = [literal(member) for member in shape.python_type]
                text = "number" if shape.is_flag else union(members)
            case Leaf():
                text = _ALIASES[shape.python_type][1]
            case Reference():
                assert shape.target is not None, f"the alias {shape.name} was left open"
                text = self.text(shape.target, direction)
        return [*comment(doc), f"export type {name} = {text};"]

    def _field(self, field: Field, direction: Direction) -> str:
        return self._property(field.shape, direction, optional=direction == "to server" and not field.required)

    def _property(self, shape: Shape, direction: Direction, *, optional: bool) -> str:
        """What follows the name of a property."""
        optional = optional or admits_undefined(shape)
        return f"{'?' if optional else ''}: {self.text(shape, direction, defined=optional)}"

    def _namedtuple(self, shape: Record, direction: Direction) -> str:
        cls: Any = shape.python_type
        first_optional = len(shape.items) - (shape.optional if direction == "to server" else 0)
        members: list[str] = []
        for index, (field, item) in enumerate(zip(cls._fields, shape.items, strict=True)):
            label = self._rename(field)
            label = label if is_identifier(label) else field
            members.append(f"{label}{'?' if index >= first_optional else ''}: {self.text(item, direction)}")
        return f"[{', '.join(members)}]"


def _is_undefined(shape: Shape) -> bool:
    return isinstance(shape, Leaf) and shape.python_type is Undefined


def _fields(shape: Class, direction: Direction) -> list[Field]:
    return [field for field in shape.fields if direction == "to client" or field.attribute.init]


def _parts(shape: Shape, direction: Direction) -> list[Shape]:
    match shape:
        case Collection():
            return [shape.item]
        case Dictionary():
            return (
                [shape.key, shape.value] if is_named(shape.key) and not isinstance(shape.key, Leaf) else [shape.value]
            )
        case Record():
            return shape.items
        case TypedMapping():
            return [part.shape for part in shape.keys.values()]
        case Class():
            return [field.shape for field in _fields(shape, direction)]
        case Union():
            return shape.arms
        case Reference(target=target):
            return [] if target is None else [target]
        case _:
            return []


def _reachable(shape: Shape) -> Iterator[Shape]:
    seen: set[Shape] = set()
    waiting = [shape]
    while waiting:
        current = waiting.pop()
        if current not in seen:
            seen.add(current)
            yield current
            waiting += _parts(current, "to client")


def _differs_itself(shape: Shape) -> bool:
    match shape:
        case Class():
            return any(
                not field.attribute.init or (not field.required and not admits_undefined(field.shape))
                for field in shape.fields
            )
        case Record():
            return shape.optional > 0
        case _:
            return False


def _base_name(shape: _Named) -> str:
    if isinstance(shape, Leaf):
        return _ALIASES[shape.python_type][0]
    # A class inside of a class or function is known by its own name.
    return shape.name.rpartition(".")[2]


def _doc(shape: _Named) -> str | None:
    """What its author wrote about a class, without what Python writes there."""
    if isinstance(shape, Leaf):
        return _ALIASES[shape.python_type][2]
    if isinstance(shape, TypedMapping | Reference):
        return None  # those shapes do not know where they come from
    own: object = vars(shape.python_type).get("__doc__")
    if not isinstance(own, str) or own.startswith(f"{shape.python_type.__name__}("):
        return None
    return inspect.cleandoc(own)
