"""Hooks for types without parts, each way. They are strict: nothing is coerced but what JavaScript cannot tell apart.

A hook takes the value, and ignores a second argument, which is the type that cattrs passes. It returns the converted
value or raises ValidationError.
"""

import math
import re
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from datetime import date, datetime, timedelta
from decimal import Decimal
from types import NoneType
from typing import Any, Final, TypeAlias
from uuid import UUID

from trivet.conversion.errors import Issue, ValidationError
from trivet.protocol.values import MAX_SAFE_INTEGER, UNDEFINED, Undefined

Hook: TypeAlias = Callable[..., Any]

_WIRE_NAMES: Final[Mapping[type, str]] = {NoneType: "None", dict: "object", list: "array", tuple: "array"}


def mismatch(expected: str, value: object) -> ValidationError:
    """`expected int, got str`."""
    return ValidationError([Issue("", f"expected {expected}, got {kind_of(value)}")])


def invalid(message: str) -> ValidationError:
    return ValidationError([Issue("", message)])


def kind_of(value: object) -> str:
    """What a value is called in messages."""
    if value is UNDEFINED:
        return "undefined"
    return _WIRE_NAMES.get(type(value), type(value).__qualname__)


# These answer without narrowing: to a type checker, what is inside a narrowed Any is unknown.


def is_dict(value: object) -> bool:
    return isinstance(value, dict)


def is_mapping(value: object) -> bool:
    return type(value) is dict or isinstance(value, Mapping)


def is_array(value: object) -> bool:
    return isinstance(value, list | tuple)


def is_set(value: object) -> bool:
    return isinstance(value, AbstractSet)


def str_in(value: Any, _: object = None) -> str:
    if type(value) is str:
        return value
    raise mismatch("str", value)


def int_in(value: Any, _: object = None) -> int:
    if type(value) is int:
        return value
    if type(value) is float:
        if value.is_integer() and abs(value) <= MAX_SAFE_INTEGER:
            return int(value)
        raise invalid(f"expected int, got the number {value!r}")
    raise mismatch("int", value)


def float_in(value: Any, _: object = None) -> float:
    if type(value) is float and math.isfinite(value):
        return value
    if type(value) is int and abs(value) <= MAX_SAFE_INTEGER:
        return float(value)
    if type(value) in {float, int}:
        raise invalid("expected float, got " + ("a BigInt" if type(value) is int else repr(value)))
    raise mismatch("float", value)


def bool_in(value: Any, _: object = None) -> bool:
    if value is True or value is False:
        return bool(value)
    raise mismatch("bool", value)


def bytes_in(value: Any, _: object = None) -> bytes:
    if type(value) is bytes:
        return value
    if isinstance(value, bytes | bytearray):
        return bytes(value)
    raise mismatch("bytes", value)


def none_in(value: Any, _: object = None) -> None:
    if value is None or value is UNDEFINED:
        return
    raise mismatch("None", value)


def undefined_in(value: object, _: object = None) -> Undefined:
    if value is not UNDEFINED:
        raise mismatch("undefined", value)
    return UNDEFINED


def _parsed_datetime(value: Any) -> datetime:
    if isinstance(value, datetime):
        return value
    if type(value) is not str:
        raise mismatch("datetime", value)
    try:
        return datetime.fromisoformat(value)
    except ValueError:
        raise invalid("expected datetime, got a str that is not ISO 8601") from None


def datetime_in(value: Any, _: object = None) -> datetime:
    moment = _parsed_datetime(value)
    if moment.tzinfo is None:
        raise invalid("expected datetime with its UTC offset, got one without")
    return moment


def datetime_in_stored(value: Any, _: object = None) -> datetime:
    return _parsed_datetime(value)


def date_in(value: Any, _: object = None) -> date:
    if type(value) is not str:
        raise mismatch("date", value)
    try:
        return date.fromisoformat(value)
    except ValueError:
        raise invalid("expected date, got a str that is not ISO 8601") from None


def timedelta_in(value: Any, _: object = None) -> timedelta:
    if type(value) not in {int, float} or not math.isfinite(value):
        raise mismatch("a number of seconds", value)
    try:
        return timedelta(seconds=value)
    except OverflowError:
        raise invalid("expected timedelta, got too large a number of seconds") from None


def decimal_in(value: Any, _: object = None) -> Decimal:
    if type(value) is not str:
        raise mismatch("a decimal number as str", value)
    if _DECIMAL.fullmatch(value) is None:
        raise invalid("expected Decimal, got a str that is no finite decimal number")
    return Decimal(value)


def uuid_in(value: Any, _: object = None) -> UUID:
    if type(value) is not str:
        raise mismatch("UUID", value)
    if _UUID.fullmatch(value) is None:
        raise invalid("expected UUID, got a str that is none")
    return UUID(value)


_DECIMAL: Final = re.compile(r"[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]{1,6})?")
_UUID: Final = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


def bytes_in_stored(value: Any, _: object = None) -> bytes:
    if type(value) is not str:
        raise mismatch("base64", value)
    try:
        return b64decode(value, validate=True)
    except ValueError:
        raise invalid("expected base64, got another str") from None


def undefined_in_stored(value: Any, _: object = None) -> Undefined:
    if value != STORED_UNDEFINED:
        raise mismatch("undefined", value)
    return UNDEFINED


def str_out(value: Any, _: object = None) -> str:
    if type(value) is str:
        return value
    if isinstance(value, str):
        return str.__str__(value)
    raise mismatch("str", value)


def int_out(value: Any, _: object = None) -> int:
    if type(value) is int:
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return int.__int__(value)
    raise mismatch("int", value)


def float_out(value: Any, _: object = None) -> float:
    if type(value) is float or isinstance(value, float):
        if math.isfinite(value):
            return float.__float__(value)
        raise invalid(f"{value!r} can be neither sent nor stored")
    if isinstance(value, int) and not isinstance(value, bool):
        try:
            return int.__int__(value) if abs(value) <= MAX_SAFE_INTEGER else float(value)
        except OverflowError:
            raise invalid("expected float, got too large an int") from None
    raise mismatch("float", value)


def none_out(value: Any, _: object = None) -> None:
    if value is not None:
        raise mismatch("None", value)


def datetime_out(value: Any, _: object = None) -> datetime:
    if not isinstance(value, datetime):
        raise mismatch("datetime", value)
    if value.tzinfo is None:
        raise invalid("a datetime without a time zone cannot travel; use datetime.now(timezone.utc)")
    return value


def datetime_out_stored(value: Any, _: object = None) -> str:
    if not isinstance(value, datetime):
        raise mismatch("datetime", value)
    return value.isoformat()


def date_out(value: Any, _: object = None) -> str:
    if not isinstance(value, date) or isinstance(value, datetime):
        raise mismatch("date", value)
    return value.isoformat()


def timedelta_out(value: Any, _: object = None) -> float:
    if not isinstance(value, timedelta):
        raise mismatch("timedelta", value)
    return value.total_seconds()


def decimal_out(value: Any, _: object = None) -> str:
    if not isinstance(value, Decimal):
        raise mismatch("Decimal", value)
    if not value.is_finite():
        raise invalid(f"{value} can be neither sent nor stored")
    return str(value)


def uuid_out(value: Any, _: object = None) -> str:
    if not isinstance(value, UUID):
        raise mismatch("UUID", value)
    return str(value)


def bytes_out_stored(value: Any, _: object = None) -> str:
    return b64encode(bytes_in(value)).decode()


def undefined_out_stored(value: Any, _: object = None) -> dict[str, bool]:
    undefined_in(value)
    return STORED_UNDEFINED


STORED_UNDEFINED: Final = {"$undefined": True}

IN: Final[Mapping[type, Hook]] = {
    str: str_in,
    int: int_in,
    float: float_in,
    bool: bool_in,
    bytes: bytes_in,
    NoneType: none_in,
    Undefined: undefined_in,
    datetime: datetime_in,
    date: date_in,
    timedelta: timedelta_in,
    Decimal: decimal_in,
    UUID: uuid_in,
}
OUT: Final[Mapping[type, Hook]] = {
    str: str_out,
    int: int_out,
    float: float_out,
    bool: bool_in,
    bytes: bytes_in,
    NoneType: none_out,
    Undefined: undefined_in,
    datetime: datetime_out,
    date: date_out,
    timedelta: timedelta_out,
    Decimal: decimal_out,
    UUID: uuid_out,
}
STORED_IN: Final[Mapping[type, Hook]] = {
    **IN,
    bytes: bytes_in_stored,
    Undefined: undefined_in_stored,
    datetime: datetime_in_stored,
}
STORED_OUT: Final[Mapping[type, Hook]] = {
    **OUT,
    bytes: bytes_out_stored,
    Undefined: undefined_out_stored,
    datetime: datetime_out_stored,
}
