"""Which values cannot change: the types that promise it, and the values that keep what their types promise.

A type is fixed where every part of it is: str, numbers, dates, enums, and tuples, frozensets, NamedTuples, frozen attrs
classes and frozen dataclasses of fixed parts. A frozen class with a list in it is not. Values are looked at as well,
since a subclass may do as it likes, and a bytearray passes for bytes.

`object.__setattr__` changes a frozen object behind everybody's back. Nothing here can see that.
"""

import inspect
import types
from collections.abc import Callable, Iterator
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any, Final, TypeAlias
from uuid import UUID

import attrs

from trivet.conversion.shapes import (
    Choice,
    Class,
    Collection,
    Dictionary,
    Enumeration,
    Leaf,
    Record,
    Shape,
    TypedMapping,
    Union,
    resolved,
)
from trivet.protocol.values import Undefined

Check: TypeAlias = Callable[[Any], bool]

# Of these, what is encoded is the value itself, also where a subclass says otherwise.
_ALWAYS_FIXED: Final[frozenset[type]] = frozenset({str, int, float, bool, types.NoneType, Undefined})
_EXACTLY_FIXED: Final[frozenset[type]] = frozenset({bytes, datetime, date, timedelta, Decimal, UUID})


@attrs.frozen
class _Frozen:
    """Has the method that attrs gives to every frozen class, and to no other."""


def is_frozen(cls: Any) -> bool:
    """Whether attrs or dataclasses refuse to set the fields of a class."""
    if attrs.has(cls):
        return cls.__setattr__ is _Frozen.__setattr__
    owner = next(base for base in cls.__mro__ if "__setattr__" in vars(base))
    return "__dataclass_params__" in vars(owner) and bool(owner.__dataclass_params__.frozen)


def inherits(cls: type, base: type, *methods: str) -> bool:
    """Whether these methods of a class are those of its base."""
    return all(getattr(cls, method) is getattr(base, method) for method in methods)


def parts(shape: Shape) -> Iterator[Shape]:
    """The shapes that a shape is made of."""
    match shape:
        case Collection(item=item):
            yield item
        case Dictionary(key=key, value=value):
            yield from (key, value)
        case Record(items=items):
            yield from items
        case TypedMapping(keys=keys):
            yield from (key.shape for key in keys.values())
        case Class(fields=fields):
            yield from (field.shape for field in fields)
        case Union(arms=arms):
            yield from arms
        case _:
            pass


def holds_throughout(shape: Shape, holds: Callable[[Shape], bool]) -> bool:
    """Whether something holds for a shape and all that it is made of."""
    seen: set[Shape] = set()
    pending = [resolved(shape)]
    while pending:
        shape = pending.pop()
        if shape in seen:
            continue
        seen.add(shape)
        if not holds(shape):
            return False
        pending += map(resolved, parts(shape))
    return True


def is_fixed(shape: Shape) -> bool:
    """Whether values of this type cannot change, as far as types can tell."""
    return holds_throughout(shape, _is_fixed_itself)


def _is_fixed_itself(shape: Shape) -> bool:
    match shape:
        case Leaf():
            return shape.python_type in _ALWAYS_FIXED or shape.python_type in _EXACTLY_FIXED
        case Collection(python_type=kind):
            return kind is tuple or kind is frozenset
        case Record(python_type=kind):
            return inherits(kind, tuple, "__iter__", "__len__", "__getitem__")
        case Class():
            return shape.frozen and _keeps_fields(shape)
        case Enumeration() | Choice() | Union():
            return True
        case _:
            return False


def _keeps_fields(shape: Class) -> bool:
    """Whether reading a field gives what was set, and no property stands in its place."""
    cls = shape.python_type
    if not inherits(cls, object, "__getattribute__"):
        return False
    found: list[object] = [inspect.getattr_static(cls, field.attribute.name, None) for field in shape.fields]
    return all(isinstance(each, types.MemberDescriptorType) or not hasattr(type(each), "__get__") for each in found)


class Checks:
    """Makes the checks of values. A check is for values that were encoded as their fixed type, without an error."""

    def __init__(self) -> None:
        self._made: dict[Shape, Check | None] = {}

    def check(self, shape: Shape) -> Check | None:
        """Says whether a value is as fixed as its type; None where every value of the type is."""
        shape = resolved(shape)
        if shape not in self._made:
            self._made[shape] = lambda value: (made := self._made[shape]) is None or made(value)
            self._made[shape] = self._make(shape)
        return self._made[shape]

    def _make(self, shape: Shape) -> Check | None:
        match shape:
            case Leaf(python_type=kind):
                return None if shape.python_type in _ALWAYS_FIXED else lambda value: type(value) is kind
            case Collection():
                return self._all(shape.python_type, self.check(shape.item))
            case Record():
                return self._each(shape.python_type, [*enumerate(map(self.check, shape.items))])
            case Class():
                return self._fields(
                    shape.python_type, [(field.attribute.name, self.check(field.shape)) for field in shape.fields]
                )
            case Union():
                return self._union([*map(resolved, shape.arms)])
            case _:
                return None

    def _all(self, kind: type[Any], check: Check | None) -> Check:
        return lambda value: type(value) is kind and (check is None or all(map(check, value)))

    def _each(self, kind: type[Any], items: list[tuple[int, Check | None]]) -> Check:
        checks = [(index, check) for index, check in items if check is not None]
        return lambda value: type(value) is kind and all(check(value[index]) for index, check in checks)

    def _fields(self, kind: type[Any], fields: list[tuple[str, Check | None]]) -> Check:
        checks = [(name, check) for name, check in fields if check is not None]
        if not checks:
            return lambda value: type(value) is kind
        return lambda value: type(value) is kind and all(check(getattr(value, name)) for name, check in checks)

    def _union(self, arms: list[Shape]) -> Check | None:
        checks = [self.check(arm) for arm in arms]
        if not any(checks):
            return None
        # Which arm a value was encoded as is not known here: it has to pass for all that it can have been.
        table: dict[type, list[Check | None]] = {}
        for arm, check in zip(arms, checks, strict=True):
            for kind in _python_types(arm):
                table.setdefault(kind, []).append(check)

        def union(value: Any) -> bool:
            kind: type[object] = value.__class__
            found = table.get(kind)
            return found is not None and all(check is None or check(value) for check in found)

        return union


def _python_types(shape: Shape) -> set[type]:
    """What values of a fixed shape that is no union are instances of."""
    if isinstance(shape, Choice):
        return set(map(type, shape.values))
    assert isinstance(shape, Leaf | Collection | Record | Class | Enumeration)
    return {shape.python_type}
