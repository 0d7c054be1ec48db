"""Which types give the same value for the same stored text each time: nothing in them makes up what is not stored.

A field that is not stored takes its default. That is the same each time where the default is a value or an empty
container; a factory of the user's may give another one each time, an id or the time. So may `__attrs_post_init__`, a
converter, and an `__init__` of the class's own.
"""

from types import FunctionType
from typing import Any, Final, get_origin

from trivet.conversion.fixed import parts
from trivet.conversion.shapes import Class, Field, Shape, resolved

_CONTAINERS: Final[frozenset[object]] = frozenset({list, dict, set, tuple, frozenset})
_AROUND_INIT: Final = ("__attrs_pre_init__", "__attrs_post_init__", "__post_init__")


def is_repeatable(shape: Shape) -> bool:
    """Whether values of this type are such, as far as types can tell."""
    seen: set[Shape] = set()
    pending = [resolved(shape)]
    while pending:
        shape = pending.pop()
        if shape in seen:
            continue
        seen.add(shape)
        if isinstance(shape, Class) and not (_is_made_plainly(shape.python_type) and all(map(_is_plain, shape.fields))):
            return False
        pending += map(resolved, parts(shape))
    return True


def _is_made_plainly(cls: Any) -> bool:
    """Whether its `__init__` is one that attrs or dataclasses have written, and nothing comes before or after it."""
    init: object = cls.__init__
    if not (isinstance(init, FunctionType) and init.__code__.co_filename.startswith("<")):
        return False
    return cls.__new__ is object.__new__ and not any(hasattr(cls, name) for name in _AROUND_INIT)


def _is_plain(field: Field) -> bool:
    attribute: Any = field.attribute
    if attribute.converter is not None:
        return False
    factory: Any = getattr(attribute.default, "factory", None)
    return factory is None or (get_origin(factory) or factory) in _CONTAINERS
