"""What structuring and unstructuring have in common: hooks made from shapes, once for each, two ways.

A fast hook stops at the first mistake. Where it failed, the detailed hook of the same shape runs over the same value
and gathers all of them. Classes go through the functions that cattrs generates, each mode with its own.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from datetime import datetime
from types import NoneType
from typing import Annotated, Any, Final

import attrs
import cattrs
from cattrs.gen import override

from trivet.conversion.errors import ValidationError
from trivet.conversion.leaves import Hook, invalid
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

PLAIN_LEAVES: Final = frozenset({str, int, bool, bytes, NoneType, Undefined, datetime})

# Lists of these are checked as a whole, at C's speed: by the count of their items' types.
UNIFORM: Final = frozenset({str, int, bool, float})


def uniform(values: list[Any], type_: type) -> bool:
    """Whether every item is exactly of this type (and finite)."""
    if list(map(type, values)).count(type_) != len(values):
        return False
    return type_ is not float or all(map(math.isfinite, values))


class Hooks(ABC):
    """Makes and keeps one kind of hook: in or out, fast or detailed, for the wire or for storage."""

    def __init__(self, *, detailed: bool, stored: bool) -> None:
        self.detailed = detailed
        self.stored = stored
        self.cattrs: Any = cattrs.Converter(detailed_validation=detailed)
        self._made: dict[Shape, Hook] = {}
        self._makers: Mapping[type, Callable[[Any], Hook]] = {
            Leaf: self.leaf,
            Collection: self.collection,
            Dictionary: self.dictionary,
            Record: self.record,
            TypedMapping: self.typed_mapping,
            Class: self.class_,
            Enumeration: self.enumeration,
            Choice: self.choice,
            Union: self.union,
            Reference: self.reference,
        }

    def hook(self, shape: Shape) -> Hook:
        """The hook of a shape."""
        made = self._made.get(shape)
        if made is None:
            # Recursive shapes find this while their own hook is being made.
            self._made[shape] = self._late(shape)
            made = self._made[shape] = self._makers[type(shape)](shape)
        return made

    def _late(self, shape: Shape) -> Hook:
        def late(value: Any, _: object = None) -> Any:
            return self._made[shape](value)

        return late

    def reference(self, shape: Reference) -> Hook:
        if shape.target is None:
            raise AssertionError(f"the alias {shape.name} was left open")
        return self.hook(shape.target)

    def attributes(self, shape: Class, include: Callable[[Field], bool]) -> "list[attrs.Attribute[Any]]":
        """The fields as cattrs' generators take them. Hooks travel in annotations, since keyword arguments would clash
        with the generators' own where a field is called `cl` or `converter`."""
        return [self._attribute(field) for field in shape.fields if include(field)]

    def _attribute(self, field: Field) -> "attrs.Attribute[Any]":
        hook = self.hook(field.shape)
        how = override(rename=field.wire, omit=False, struct_hook=hook, unstruct_hook=hook)
        # To the generators, a default says that the key may be absent, as it always may for what __init__ computes.
        default = field.attribute.default if field.attribute.init else None
        return field.attribute.evolve(type=Annotated[object, how], converter=None, default=default)

    @abstractmethod
    def leaf(self, shape: Leaf) -> Hook: ...
    @abstractmethod
    def collection(self, shape: Collection) -> Hook: ...
    @abstractmethod
    def dictionary(self, shape: Dictionary) -> Hook: ...
    @abstractmethod
    def record(self, shape: Record) -> Hook: ...
    @abstractmethod
    def typed_mapping(self, shape: TypedMapping) -> Hook: ...
    @abstractmethod
    def class_(self, shape: Class) -> Hook: ...
    @abstractmethod
    def enumeration(self, shape: Enumeration) -> Hook: ...
    @abstractmethod
    def choice(self, shape: Choice) -> Hook: ...
    @abstractmethod
    def union(self, shape: Union) -> Hook: ...


def two_speeds(fast: Hook, detailed: Hook) -> Callable[[Any], Any]:
    """The fast hook first; where it fails, what the detailed one makes of the value."""

    def convert(value: Any) -> Any:
        try:
            return fast(value)
        except Exception:
            # Whatever it was, the detailed run finds it again, and tells users' mistakes from values'.
            pass
        try:
            return detailed(value)
        except RecursionError:
            raise invalid("nested too deeply") from None
        except ValidationError as error:
            raise ValidationError(error.issues) from None

    return convert
