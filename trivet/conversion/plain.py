"""Values of no declared type: whatever is plain passes."""

import math
import threading
from base64 import b64encode
from collections.abc import Callable
from datetime import datetime
from typing import Any, Final

from trivet.conversion.errors import ValidationError
from trivet.conversion.leaves import (
    Hook,
    bytes_in_stored,
    datetime_in_stored,
    invalid,
    is_array,
    is_dict,
    is_set,
    mismatch,
)
from trivet.conversion.paths import step
from trivet.protocol.values import UNDEFINED

_WRITTEN_AS_IT_IS: Final = frozenset({str, int, bool, type(None)})
_STORED_AS_IT_IS: Final = _WRITTEN_AS_IT_IS | {float}
_SIMPLE: Final = frozenset({str, int, bool, bytes, type(None), type(UNDEFINED)})


def plain_in(value: Any, _: object = None) -> Any:
    """The value itself, checked for being plain. It is not copied: what a decoder made belongs to whoever gets it."""
    type_: type[object] = value.__class__
    if type_ in _SIMPLE:
        return value
    if type_ is float and math.isfinite(value):
        return value
    if is_dict(value):
        _each(plain_in, value.items())
    elif is_array(value):
        _each(plain_in, enumerate(value))
    elif is_set(value):
        for item in value:
            plain_in(item)
    elif not isinstance(value, datetime):
        raise mismatch("a plain value", value)
    return value


def _each(convert: Callable[[Any], Any], parts: Any) -> list[tuple[Any, Any]]:
    """The parts converted, with their keys. Mistakes carry the place."""
    key: Any = ""
    converted: list[tuple[Any, Any]] = []
    try:
        for key, part in parts:
            converted.append((key, convert(part)))
    except ValidationError as error:
        raise error.prefixed(step(key)) from None
    return converted


def make_plain_out(of_class: Callable[[type], Hook | None]) -> Hook:
    """Unstructures by what the values are at run time. `of_class` gives the hook of a type with a shape, or None."""

    def plain_out(value: Any, _: object = None) -> Any:
        type_: type[object] = value.__class__
        if type_ in _SIMPLE:
            return value
        if type_ is float:
            if math.isfinite(value):
                return value
            raise invalid(f"{value!r} cannot travel")
        if type_ is dict:
            return {_key(key): part for key, part in _each(plain_out, value.items())}
        if type_ is list or type_ is tuple:
            return [part for _, part in _each(plain_out, enumerate(value))]
        if type_ is set or type_ is frozenset:
            return {frozen(plain_out(item)) for item in value}
        hook = of_class(type_)
        if hook is None:
            raise invalid(f"a value of type {type_.__qualname__} cannot travel")
        return hook(value)

    return plain_out


def _key(key: object) -> str:
    if isinstance(key, str):
        return str.__str__(key)
    raise invalid(f"keys have to be str, got {type(key).__qualname__}")


def frozen(value: Any) -> Any:
    """A plain value as it can be in a set."""
    if is_array(value):
        return tuple(map(frozen, value))
    if is_set(value):
        return frozenset(map(frozen, value))
    if is_dict(value):
        raise invalid("an object cannot be in a Set")
    return value


# In storage, what JSON lacks is an object with a single key that begins with "$". A dict that looks so is wrapped.


class Marks(threading.local):
    """Of the text that a thread decodes."""

    possible = True
    """Whether such an object may be in it. Where none is, what JSON has made is the value."""


marks: Final = Marks()


def plain_out_stored(value: Any, _: object = None) -> Any:
    try:
        return _out_stored(value)
    except ValidationError:
        return _out_stored_with_places(value)  # the same mistake, which says where it is


def _out_stored(value: Any) -> Any:
    type_: type[object] = value.__class__
    if type_ is dict:
        result = {
            key if key.__class__ is str else _key(key): part
            if part.__class__ in _WRITTEN_AS_IT_IS
            else _out_stored(part)
            for key, part in value.items()
        }
        return _wrapped(result)
    if type_ is list or type_ is tuple:
        return [part if part.__class__ in _WRITTEN_AS_IT_IS else _out_stored(part) for part in value]
    return _out_stored_with_places(value)


def _wrapped(result: dict[str, Any]) -> dict[str, Any]:
    return {"$dict": result} if len(result) == 1 and next(iter(result)).startswith("$") else result


def _out_stored_with_places(value: Any) -> Any:
    type_: type[object] = value.__class__
    if type_ in _WRITTEN_AS_IT_IS:
        return value
    if type_ is float and math.isfinite(value):
        return value
    if type_ is dict:
        return _wrapped({_key(key): part for key, part in _each(_out_stored_with_places, value.items())})
    if type_ is list or type_ is tuple:
        return [part for _, part in _each(_out_stored_with_places, enumerate(value))]
    if type_ is set or type_ is frozenset:
        return {"$set": sorted(map(_out_stored_with_places, value), key=repr)}
    if type_ is bytes:
        return {"$bytes": b64encode(value).decode()}
    if isinstance(value, datetime):
        return {"$datetime": value.isoformat()}
    if value is UNDEFINED:
        return {"$undefined": True}
    if type_ is float:
        raise invalid(f"{value!r} cannot be stored")
    raise invalid(f"a value of type {type_.__qualname__} cannot be stored where any value is allowed; declare its type")


def plain_in_stored(value: Any, _: object = None) -> Any:
    if not marks.possible:
        return value
    try:
        return _in_stored(value)
    except ValidationError:
        return _in_stored_with_places(value)  # the same mistake, which says where it is


def _in_stored(value: Any) -> Any:
    # JSON makes lists and dicts of no other class, and most of what is in them is neither.
    if value.__class__ is list:
        return [part if part.__class__ in _STORED_AS_IT_IS else _in_stored(part) for part in value]
    if value.__class__ is not dict:
        return value
    if len(value) == 1:
        value, is_marked = _unwrapped(value)
        if is_marked:
            return value
    return {key: part if part.__class__ in _STORED_AS_IT_IS else _in_stored(part) for key, part in value.items()}


def _in_stored_with_places(value: Any) -> Any:
    if is_array(value):
        return [part for _, part in _each(_in_stored_with_places, enumerate(value))]
    if not is_dict(value):
        return value
    if len(value) == 1:
        value, is_marked = _unwrapped(value)
        if is_marked:
            return value
    return dict(_each(_in_stored_with_places, value.items()))


def _unwrapped(value: dict[str, Any]) -> tuple[Any, bool]:
    """What an object with one key stands for, and whether that is what JSON lacks, and done."""
    [(name, inner)] = value.items()
    if name == "$dict":
        if not is_dict(inner):
            raise mismatch("object in $dict", inner)
        return inner, False
    if name in _STORED_MARKERS:
        return _STORED_MARKERS[name](inner), True
    return value, False


def _set_in_stored(inner: Any) -> set[Any]:
    if not is_array(inner):
        raise mismatch("array in $set", inner)
    return {frozen(part) for _, part in _each(_in_stored_with_places, enumerate(inner))}


def _undefined_in_stored(_: Any) -> Any:
    return UNDEFINED


_STORED_MARKERS: Final[dict[str, Hook]] = {
    "$bytes": bytes_in_stored,
    "$datetime": datetime_in_stored,
    "$undefined": _undefined_in_stored,
    "$set": _set_in_stored,
}
