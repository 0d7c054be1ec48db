"""Which types give the same value for the same stored text each time: nothing in them makes up what is not stored.

A field that is not stored takes its default. A default that is nothing (None, 0, "", an empty container) is the same in
each process; any other may have been made up as its module was imported, an id or the time, and a factory makes one up
each time. So may every function of the user's that is called as a value is made. A type of which this cannot be told is
not repeatable.
"""

from types import FunctionType
from typing import Any, Final, get_origin

from trivet.conversion.fixed import holds_throughout, is_frozen
from trivet.conversion.shapes import Class, Enumeration, Field, Record, Shape

_CONTAINERS: Final[frozenset[object]] = frozenset({list, dict, set, tuple, frozenset})
_PLAIN: Final[frozenset[object]] = frozenset({type(None), bool, int, float, str, bytes, tuple, frozenset})
_AROUND_INIT: Final = ("__attrs_pre_init__", "__attrs_post_init__", "__post_init__")


def is_repeatable(shape: Shape) -> bool:
    """Whether values of this type are such, as far as types can tell."""
    return holds_throughout(shape, _is_repeatable_itself)


def _is_repeatable_itself(shape: Shape) -> bool:
    match shape:
        case Class():
            return _is_made_plainly(shape.python_type) and all(map(_is_plain, shape.fields))
        case Record():
            kind: Any = shape.python_type
            return kind is tuple or (not shape.optional and _is_generated(kind.__new__))
        case Enumeration():
            bases = shape.python_type.__mro__
            return not any("_missing_" in vars(base) for base in bases if base.__module__ != "enum")
        case _:
            return True


def _is_made_plainly(cls: Any) -> bool:
    """Whether only what attrs or dataclasses have written runs as one is made."""
    return (
        _is_generated(cls.__init__)
        and cls.__new__ is object.__new__
        and type(cls).__call__ is type.__call__
        and (cls.__setattr__ is object.__setattr__ or is_frozen(cls))
        and not any(hasattr(cls, name) for name in _AROUND_INIT)
    )


def _is_generated(method: object) -> bool:
    """Whether a method is of no file: attrs, dataclasses and NamedTuple name theirs so."""
    if not isinstance(method, FunctionType):
        return False
    name = method.__code__.co_filename
    return name == "<string>" or name.startswith(("<attrs generated", "<namedtuple"))


def _is_plain(field: Field) -> bool:
    attribute: Any = field.attribute
    default = attribute.default
    if attribute.converter is not None or attribute.validator is not None:
        return False
    if field.required:
        return True
    factory: Any = getattr(default, "factory", None)
    if factory is not None:
        return (get_origin(factory) or factory) in _CONTAINERS
    return type(default) in _PLAIN and not default
