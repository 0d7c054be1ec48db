"""What a type looks like from outside: a small tree, built once from annotations, that hooks are made from.

All reading of annotations is here. A type is refused here or never.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from datetime import date, datetime, timedelta
from decimal import Decimal
from enum import Enum, Flag
from types import NoneType
from typing import Any, Final, Literal, TypeAlias
from uuid import UUID

import attrs

from trivet.protocol.values import Undefined


@attrs.define(eq=False)
class Leaf:
    """A type without parts; `python_type` is one of LEAF_TYPES. `object` stands for any plain value."""

    python_type: type
    name: str


@attrs.define(eq=False)
class Collection:
    """list, tuple[T, ...], set or frozenset. Structuring makes a `python_type`, unstructuring takes `accepts`."""

    python_type: type
    accepts: tuple[type, ...]
    item: "Shape"
    name: str


@attrs.define(eq=False)
class Dictionary:
    """dict[K, V]; K is something that travels as a string."""

    key: "Shape"
    value: "Shape"
    name: str


@attrs.define(eq=False)
class Record:
    """A tuple of a fixed form, or a NamedTuple (`python_type`). The last `optional` items have defaults."""

    python_type: type
    items: list["Shape"]
    optional: int
    name: str


@attrs.define(eq=False)
class Key:
    """A key of a TypedDict."""

    shape: "Shape"
    required: bool


@attrs.define(eq=False)
class TypedMapping:
    """A TypedDict."""

    keys: dict[str, Key]
    name: str


@attrs.define(eq=False)
class Field:
    """A field of a class; `attribute` as cattrs' generators want it, whatever kind of class it came from."""

    attribute: "attrs.Attribute[Any]"
    wire: str
    shape: "Shape"

    @property
    def required(self) -> bool:
        return self.attribute.init and self.attribute.default is attrs.NOTHING


@attrs.define(eq=False)
class Class:
    """An attrs class or a dataclass. `fields` is filled after the shape is known, since classes may be recursive."""

    python_type: type
    name: str
    frozen: bool
    fields: list[Field] = attrs.field(factory=list[Field])


@attrs.define(eq=False)
class Enumeration:
    """An Enum, by value."""

    python_type: type[Enum]
    name: str

    @property
    def is_flag(self) -> bool:
        return issubclass(self.python_type, Flag)


@attrs.define(eq=False)
class Choice:
    """A Literal. Enum members among the values travel as their values."""

    values: list[Any]
    name: str


@attrs.define(eq=False)
class Union:
    """Arms in declared order, none of them a union."""

    arms: list["Shape"]
    name: str


@attrs.define(eq=False)
class Reference:
    """A named alias inside its own definition; `target` is set once the definition is read."""

    name: str
    target: "Shape | None" = None


Shape: TypeAlias = (
    Leaf | Collection | Dictionary | Record | TypedMapping | Class | Enumeration | Choice | Union | Reference
)

LEAF_TYPES: Final[Mapping[type, str]] = {
    str: "str",
    int: "int",
    float: "float",
    bool: "bool",
    bytes: "bytes",
    NoneType: "None",
    Undefined: "undefined",
    datetime: "datetime",
    date: "date",
    timedelta: "timedelta",
    Decimal: "Decimal",
    UUID: "UUID",
    object: "any value",
}

LEAVES: Final[Mapping[type, Leaf]] = {type_: Leaf(type_, name) for type_, name in LEAF_TYPES.items()}
ANYTHING: Final = LEAVES[object]

COLLECTIONS: Final[Mapping[object, tuple[type, tuple[type, ...]]]] = {
    # annotation: what structuring makes, what unstructuring takes
    list: (list, (list,)),
    Sequence: (list, (list, tuple)),
    set: (set, (set,)),
    frozenset: (frozenset, (frozenset,)),
}

_STRING_LEAVES: Final = frozenset({str, int, UUID, date, Decimal})


def as_key(shape: Shape) -> bool:
    """Whether values of this shape can be keys. JavaScript's keys are strings; integers travel in decimal."""
    match shape:
        case Leaf():
            return shape.python_type in _STRING_LEAVES
        case Enumeration():
            return not shape.is_flag and all(type(member.value) is str for member in shape.python_type)
        case Choice():
            return all(type(value) is str for value in map(plain_value, shape.values))
        case Reference(target=target):
            return target is not None and as_key(target)
        case _:
            return False


def hashable(shape: Shape) -> bool:
    """Whether the plain form of this shape can be in a set."""
    match shape:
        case Leaf() | Enumeration() | Choice():
            return True
        case Record():
            return all(map(hashable, shape.items))
        case Union():
            return all(map(hashable, shape.arms))
        case Collection():
            return shape.python_type in {tuple, frozenset} and hashable(shape.item)
        case Reference(target=target):
            return target is not None and hashable(target)
        case _:
            return False


def plain_value(value: Any) -> Any:
    """An enum member's value, or the value itself."""
    return value.value if isinstance(value, Enum) else value


def resolved(shape: Shape) -> Shape:
    """What a reference stands for."""
    while isinstance(shape, Reference) and shape.target is not None:
        shape = shape.target
    return shape


JsonKind: TypeAlias = Literal["null", "bool", "int", "float", "str", "array", "object"]


def dataclass_attributes(cls: Any) -> "list[attrs.Attribute[Any]]":
    """A dataclass's fields in attrs' terms, which is what cattrs' generators read."""
    return [_attribute(field) for field in dataclasses.fields(cls)]


def _attribute(field: "dataclasses.Field[Any]") -> "attrs.Attribute[Any]":
    default: Any = attrs.NOTHING
    if field.default is not dataclasses.MISSING:
        default = field.default
    elif field.default_factory is not dataclasses.MISSING:
        default = attrs.Factory(field.default_factory)
    make: Any = attrs.Attribute  # its constructor is private to attrs, and untyped; cattrs calls it the same way
    attribute: attrs.Attribute[Any] = make(
        name=field.name,
        default=default,
        validator=None,
        repr=True,
        cmp=None,
        hash=None,
        init=field.init,
        inherited=False,
        metadata=field.metadata,
        type=None,
        converter=None,
        kw_only=field.kw_only,
        eq=True,
        alias=field.name,
    )
    return attribute
