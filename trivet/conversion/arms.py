"""Which arms of a union a value can be of, seen from outside: by its kind, its tags, its keys and its plain parts.

What is ruled out here would have failed in any case. It matters that it is not tried, and that nothing is tried twice:
in a recursive union, arms that are tried one after the other at every level take time exponential in the depth.
"""

import threading
from collections.abc import Callable, Iterable
from typing import Any

import attrs

from trivet.conversion.errors import ValidationError
from trivet.conversion.hooks import PLAIN_LEAVES
from trivet.conversion.leaves import Hook, is_array, is_mapping, is_set
from trivet.conversion.paths import step
from trivet.conversion.shapes import (
    Choice,
    Class,
    Collection,
    Dictionary,
    Enumeration,
    Field,
    Leaf,
    Record,
    Shape,
    TypedMapping,
    Union,
    resolved,
)
from trivet.protocol.values import UNDEFINED, Undefined


class Choices(threading.local):
    """What came of the choices inside of an arm that may fail: they are made only once, whatever is tried next.

    Kept while one value is structured, for each thread, since hooks are shared. Flat data leaves nothing here.
    """

    def __init__(self) -> None:
        self.nested = 0
        """How many arms are being tried that are not the last of theirs."""
        self.made: dict[tuple[object, int], tuple[object, Any]] = {}
        """By union and identity of the part: that part, and what it made, a ValidationError where no arm was right."""

    def forget(self) -> None:
        """The value is done."""
        if self.made:
            self.made = {}


@attrs.frozen(eq=False)
class Arm:
    """What a value of one arm looks like. `tags` and `plain` are parts with their hooks, by key, in a tuple by index.

    `known` are the keys of a class, None for what is none; `length` the bounds of a tuple's.
    """

    index: int
    shape: Shape
    required: frozenset[str] = frozenset()
    known: frozenset[str] | None = None
    tags: tuple[tuple[Any, Hook], ...] = ()
    plain: tuple[tuple[Any, Hook], ...] = ()
    length: tuple[int, int] | None = None

    def strangers(self, value: Any) -> int:
        """How many keys of a value the arm does not know."""
        return len(value.keys() - self.known) if self.known is not None else 0

    def has_parts(self, value: Any) -> bool:
        """Whether everything is there that has to be."""
        if self.length is not None:
            return self.length[0] <= len(value) <= self.length[1]
        return not self.required or all(value.get(name, UNDEFINED) is not UNDEFINED for name in self.required)


def sketch(index: int, shape: Shape, hook: Callable[[Shape], Hook], comes_in: Callable[[Class, Field], bool]) -> Arm:
    """The arm of a shape, which is resolved."""
    if isinstance(shape, Record):
        parts: list[tuple[Any, Shape]] = list(enumerate(shape.items))
        length = (len(parts) - shape.optional, len(parts))
        return Arm(index, shape, tags=_tags(parts, hook), plain=_plain(parts, hook), length=length)
    if isinstance(shape, Class):
        fields = [field for field in shape.fields if comes_in(shape, field)]
        parts = [(field.wire, field.shape) for field in fields]
        required = {field.wire for field in fields if field.required and not admits_undefined(field.shape)}
        known = frozenset(field.wire for field in shape.fields)
    elif isinstance(shape, TypedMapping):
        parts = [(name, key.shape) for name, key in shape.keys.items()]
        required = {name for name, key in shape.keys.items() if key.required and not admits_undefined(key.shape)}
        known = frozenset(shape.keys)
    else:
        return Arm(index, shape)
    return Arm(index, shape, frozenset(required), known, _tags(parts, hook), _plain(parts, hook))


def _tags(parts: Iterable[tuple[Any, Shape]], hook: Callable[[Shape], Hook]) -> tuple[tuple[Any, Hook], ...]:
    return tuple((key, hook(shape)) for key, shape in parts if isinstance(resolved(shape), Choice))


def _plain(parts: Iterable[tuple[Any, Shape]], hook: Callable[[Shape], Hook]) -> tuple[tuple[Any, Hook], ...]:
    return tuple((key, hook(shape)) for key, shape in parts if _is_plain(resolved(shape)))


def _is_plain(shape: Shape) -> bool:
    """Whether its hook looks at nothing but the value itself."""
    if isinstance(shape, Union):
        return all(_is_plain(resolved(arm)) for arm in shape.arms)
    if isinstance(shape, Leaf):
        return shape.python_type in PLAIN_LEAVES or shape.python_type is float
    return isinstance(shape, Enumeration)


def for_objects(shape: Shape) -> bool:
    """Whether an object can be of this shape."""
    return isinstance(shape, Class | TypedMapping | Dictionary) or _is_anything(shape)


def for_arrays(shape: Shape) -> bool:
    """Whether an array or a Set can be of this shape."""
    return isinstance(shape, Collection | Record) or _is_anything(shape)


def _is_anything(shape: Shape) -> bool:
    return isinstance(shape, Leaf) and shape.python_type in {object, Undefined}


def admits_undefined(shape: Shape) -> bool:
    """Whether a type names Undefined, so that absence is one of its values."""
    inner = resolved(shape)
    if isinstance(inner, Union):
        return any(map(admits_undefined, inner.arms))
    return isinstance(inner, Leaf) and inner.python_type is Undefined


def candidates(arms: list[Arm], value: Any) -> tuple[list[Arm], Arm | None]:
    """The arms that are worth a try, most fitting first; where there are none, the one that the value was meant for.

    `arms` are those for the kind of value that it is, an object or an array.
    """
    if is_set(value):
        return arms, None
    # A tag that names another arm says so plainly.
    agreed = [arm for arm in arms if all(map(_agrees(value), arm.tags))]
    complete = [arm for arm in agreed if arm.has_parts(value)]
    if not complete:
        if len(agreed) > 1:
            agreed = [arm for arm in agreed if any(_part(value, key) is not UNDEFINED for key, _ in arm.tags)]
        return [], agreed[0] if len(agreed) == 1 else None
    if len(complete) > 1:
        complete = [arm for arm in complete if all(map(_agrees(value), arm.plain))]
        if len(complete) > 1 and is_mapping(value):
            complete.sort(key=lambda arm: arm.strangers(value))
    return complete, None


def _agrees(value: Any) -> Callable[[tuple[Any, Hook]], bool]:
    def agrees(part: tuple[Any, Hook]) -> bool:
        key, hook = part
        inner = _part(value, key)
        if inner is UNDEFINED:
            return True
        try:
            hook(inner)
        except ValidationError:
            return False
        return True

    return agrees


def _part(value: Any, key: Any) -> Any:
    if is_array(value):
        return value[key] if key < len(value) else UNDEFINED
    return value.get(key, UNDEFINED)


def is_meant(arm: Shape, value: Any, error: ValidationError) -> bool:
    """Whether a value that is not of this arm looks like an attempt at it."""
    if isinstance(arm, Class | TypedMapping) and is_mapping(value):
        # A tag that names another arm says so plainly.
        shapes: list[tuple[str, Shape]] = (
            [(field.wire, field.shape) for field in arm.fields]
            if isinstance(arm, Class)
            else [(name, key.shape) for name, key in arm.keys.items()]
        )
        tags = {step(wire) for wire, inner in shapes if isinstance(resolved(inner), Choice) and wire in value}
        return not any(issue.path in tags for issue in error.issues)
    return any(issue.path for issue in error.issues)
