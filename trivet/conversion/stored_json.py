"""The JSON text of what is stored, and the plain values that it holds.

Unlike the JSON of the protocol it takes lone surrogates (escaped) and ints of any size (as digits), since what is
stored has to come back as it was. NaN and the infinities are no JSON (RFC 8259 section 6), neither way.
"""

import json
import math
import re
from typing import Any, Final, Never

from trivet.conversion.errors import ValidationError
from trivet.conversion.leaves import invalid
from trivet.conversion.paths import step
from trivet.errors import DecodeError

to_json: Final = json.JSONEncoder(
    ensure_ascii=False, allow_nan=False, check_circular=False, separators=(",", ":")
).encode
"""The text of a value that is known to be JSON's; ValueError for an int with too many digits."""

_SURROGATE: Final = re.compile("[\ud800-\udfff]")


def _refuse_constant(name: str) -> Never:
    raise ValueError(f"{name} is no JSON")


_from_json: Final = json.JSONDecoder(parse_constant=_refuse_constant).decode


def to_utf8(text: str) -> bytes:
    """Of a text, or of any part of it. Lone surrogates have no UTF-8; escaped, they are still JSON."""
    try:
        return text.encode()
    except UnicodeEncodeError:
        return _SURROGATE.sub(lambda found: f"\\u{ord(found[0]):04x}", text).encode()


def dump_text(plain: object) -> str:
    """The text of a value that is known to be JSON's. Raises ValidationError for an int with too many digits."""
    try:
        return to_json(plain)
    except ValueError:
        # More than Python turns into text (sys.set_int_max_str_digits).
        raise invalid("an int in the state is too large to be stored") from None


def dump_json(plain: object) -> bytes:
    """`dump_text` in UTF-8."""
    return to_utf8(dump_text(plain))


def load_json(data: bytes) -> object:
    """What a stored text holds: dicts, lists, str, int, float, bool and None. Raises DecodeError."""
    try:
        return _from_json(data.decode())
    except (ValueError, RecursionError) as error:
        raise DecodeError(f"what is stored is not JSON: {error}") from error


def check_json(value: object) -> None:
    """Raise ValidationError, with its path, for a value that JSON would not give back as it is."""
    try:
        _check(value)
    except RecursionError:
        raise invalid("nested too deeply") from None


def _check(value: Any) -> None:
    # Exact types: an enum's member or a NamedTuple would come back as something else.
    kind: type[object] = value.__class__
    if kind is str or kind is int or kind is bool or value is None:
        return
    if kind is float:
        if not math.isfinite(value):
            raise invalid(f"{value!r} is no JSON")
    elif kind is dict:
        for key, part in value.items():
            if type(key) is not str:
                raise invalid(f"keys have to be str, got {type(key).__qualname__}")
            _check_part(part, key)
    elif kind is list:
        for index, part in enumerate(value):
            _check_part(part, index)
    else:
        raise invalid(f"a value of type {kind.__qualname__} is no JSON")


def _check_part(part: Any, key: object) -> None:
    try:
        _check(part)
    except ValidationError as error:
        raise error.prefixed(step(key)) from None
