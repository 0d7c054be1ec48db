"""What the encodings share: limits of values, RivetKit's markers, and the plain Python form of what is encoded.

JSON has no word for undefined, BigInt, bytes and sets. RivetKit writes them as arrays of two, `["$BigInt", "123"]`, and
adds one more `$` to a genuine array of two that begins with such a text: `["$a", 2]` travels as `["$$a", 2]`. The same
layer lies over the CBOR that a server sends and over all CBOR inside BARE.
"""

import base64
import binascii
import re
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Never, cast

from trivet.errors import DecodeError, EncodeError
from trivet.protocol.values import MAX_SAFE_INTEGER, UNDEFINED, Value

MAX_DEPTH: Final = 128
"""Containers in containers. It keeps every walk far from Python's own recursion limit."""

MAX_DIGITS: Final = 4096
"""Decimal digits of a BigInt. Converting digits takes quadratic time, so this bounds what a short message can cost."""

MAX_BITS: Final = 13_606
"""The largest size in bits of which every integer has at most MAX_DIGITS digits."""

FREE_MEMBERS: Final = 1000
"""So many members of a set cost little even if all of them have one hash."""

MAX_COLLISIONS: Final = 32
"""Members of a larger set that have one hash. Python hashes numbers, and what is made of them, modulo 2^61-1."""

UNDEFINED_MARKER: Final = "$Undefined"
BIGINT_MARKER: Final = "$BigInt"
BYTES_MARKER: Final = "$Uint8Array"
BUFFER_MARKER: Final = "$ArrayBuffer"
SET_MARKER: Final = "$Set"

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
exact_type: Final[Callable[[object], type[Any]]] = type
"""`type`, in a form that type checkers leave alone."""

_MICROSECOND: Final = timedelta(microseconds=1)
_DECIMAL: Final = re.compile(r"-?[0-9]+")
_IDENTIFIER: Final = re.compile(r"[A-Za-z_$][A-Za-z0-9_$]{0,63}")


class Unencodable(Exception):
    """Raised deep inside a value, and given its place on the way out. Never leaves an encoder."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.places: list[str] = []

    def error(self, root: str) -> EncodeError:
        """What the encoder raises; `root` names the value as a whole."""
        return EncodeError(f"{root}{''.join(reversed(self.places))}: {self.reason}")


TOO_DEEP: Final = f"nested more than {MAX_DEPTH} levels deep, or contains itself"
LONE_SURROGATE: Final = "a text with a lone surrogate has no UTF-8 form"


def place(key: object) -> str:
    """How one step into a value is written: `.name`, `["odd name"]` or `[0]`."""
    if isinstance(key, str) and _IDENTIFIER.fullmatch(key):
        return f".{key}"
    text = ascii(key)
    return f"[{text if len(text) <= 64 else text[:61] + '...'}]"


def refuse_key(key: object) -> Never:
    """Raise for a key that is not a text."""
    raise Unencodable(f"keys must be str, not {type(key).__name__}: {ascii(key)[:64]}")


def simplified(value: object) -> object:
    """The same value as an exact dict, list, set, str, int, float or bytes.

    Encoders handle exact types themselves, and come here with the rest: subclasses such as enums and NamedTuples, and
    other mappings, sequences and sets. Raises Unencodable for what is no value at all.
    """
    match value:
        case str():
            return str.__str__(value)
        case int():
            return int(value)
        case float():
            return float(value)
        case bytes() | bytearray() | memoryview():
            return bytes(cast("bytes", value))
        case datetime():
            # A subclass, which Pendulum and its like make.
            return datetime.combine(value.date(), value.timetz())
        case Mapping():
            return dict(cast("Mapping[object, object]", value))
        case AbstractSet():
            return set(cast("AbstractSet[object]", value))
        case Sequence():
            return list(cast("Sequence[object]", value))
        case _:
            kind = type(value)
            raise Unencodable(f"{kind.__module__}.{kind.__qualname__} is not a value that can travel")


def check_finite(value: float) -> None:
    """Raise Unencodable for NaN and the infinities, which are null in JSON."""
    if value - value != 0.0:
        raise Unencodable(f"{value!r} cannot travel; send None or a text instead")


def check_integer(value: int) -> None:
    """Raise Unencodable for an integer that no decoder would take."""
    if value.bit_length() > MAX_BITS:
        raise Unencodable(f"an integer of more than {MAX_DIGITS} digits")


def microseconds(value: datetime) -> int:
    """Since the epoch. Raises Unencodable for a datetime without a time zone, which names no moment."""
    if value.tzinfo is None or value.utcoffset() is None:
        raise Unencodable("a datetime needs a time zone, as in datetime.now(timezone.utc)")
    return (value - EPOCH) // _MICROSECOND


def iso_8601(value: datetime) -> str:
    """The text that JavaScript's Date.toJSON gives: UTC, with milliseconds."""
    try:
        moment = EPOCH + timedelta(microseconds=microseconds(value))
    except OverflowError:
        raise Unencodable("a datetime outside the years 1 to 9999 of UTC") from None
    return moment.isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"


def number(value: float) -> int | float:
    """A number as every decoder gives it: an int where it is integral and up to 2^53-1, whichever way it was written.

    NaN and the infinities are errors: JSON cannot have sent them, and nothing could send them on.
    """
    if value - value != 0.0:
        raise DecodeError("a number that is not finite")
    if -MAX_SAFE_INTEGER <= value <= MAX_SAFE_INTEGER and value.is_integer():
        return int(value)
    return value


def bigint(text: object) -> int:
    """The integer in a $BigInt marker."""
    if not isinstance(text, str) or len(text) > MAX_DIGITS + 1 or not _DECIMAL.fullmatch(text):
        raise DecodeError(f"$BigInt needs a text of at most {MAX_DIGITS} decimal digits")
    value = int(text)
    if value.bit_length() > MAX_BITS:
        raise DecodeError("$BigInt has too many digits")
    return value


def revive_leaf(marker: str, argument: object) -> Value:
    """The value of a marker array that holds no other values: anything but $Set and an escaped array."""
    if marker == BIGINT_MARKER:
        return bigint(argument)
    if marker in (BYTES_MARKER, BUFFER_MARKER):
        if isinstance(argument, str):
            try:
                return base64.b64decode(argument, validate=True)
            except (binascii.Error, ValueError):
                pass
        raise DecodeError(f"{marker} needs a text in base64")
    if marker == UNDEFINED_MARKER:
        if type(argument) is int and argument == 0:
            return UNDEFINED
        raise DecodeError("$Undefined needs a zero")
    raise DecodeError(f"unknown marker {ascii(marker)[:40]}")


def collide(members: Sequence[object]) -> bool:
    """Whether a peer has chosen these for their hash, so that a set of them would take quadratic time.

    Texts and bytes are safe by their secret hash; numbers, dates and UUIDs are not. Raises TypeError as `hash` does.
    """
    if len(members) <= FREE_MEMBERS or len(set(map(hash, members))) == len(members):
        return False
    same: dict[int, list[object]] = {}
    for member in members:
        others = same.setdefault(hash(member), [])
        if member not in others:
            others.append(member)
            if len(others) > MAX_COLLISIONS:
                return True
    return False


def make_set(members: list[Value]) -> set[Value]:
    """The set of these members. Lists, dicts and sets cannot be members in Python: a DecodeError."""
    try:
        if collide(members):
            raise DecodeError("a set whose members have one hash")
        return set(members)
    except TypeError:
        raise DecodeError("a set member that is an array, an object or a set") from None
