"""What a CBOR tag makes of the item behind it: dates and big integers (RFC 8949, section 3.4), typed arrays (RFC 8746).

The functions take that item as it was read. They raise DecodeError where it does not go with the tag.
"""

import struct
from datetime import UTC, datetime, timedelta
from typing import Final

from trivet.errors import DecodeError
from trivet.protocol import compat
from trivet.protocol.values import Value

SET_TAG: Final = 258
MAP_TAG: Final = 259

# 76 is reserved; 83 and 87 are 128-bit floats.
TYPED_ARRAYS: Final = {
    65: ">H", 66: ">I", 67: ">Q", 68: ">B", 69: "<H", 70: "<I", 71: "<Q", 72: ">b", 73: ">h", 74: ">i", 75: ">q",
    77: "<h", 78: "<i", 79: "<q", 80: ">e", 81: ">f", 82: ">d", 84: "<e", 85: "<f", 86: "<d",
}  # fmt: skip
BYTE_STRING_TAGS: Final = frozenset({2, 3, 64, *TYPED_ARRAYS})


def big_integer(data: bytes, *, negative: bool) -> int:
    """Tag 2, and with `negative` tag 3: -1 minus the magnitude."""
    magnitude = int.from_bytes(data, "big")
    value = ~magnitude if negative else magnitude
    if value.bit_length() > compat.MAX_BITS:
        raise DecodeError(f"a CBOR integer of more than {compat.MAX_DIGITS} digits")
    return value


def typed_array(data: bytes, code: str) -> list[Value]:
    """Tags 65 to 86. `code` is the format of one number, from TYPED_ARRAYS."""
    if len(data) % struct.calcsize(code):
        raise DecodeError("a CBOR typed array with a part of a number")
    numbers = [item for (item,) in struct.iter_unpack(code, data)]
    return [compat.number(item) for item in numbers] if code[1] in "efd" else numbers


def date_of_text(text: Value) -> datetime:
    """Tag 0, in UTC."""
    if isinstance(text, str) and len(text) <= 64:
        try:
            moment = datetime.fromisoformat(text)
            if moment.tzinfo is not None:
                return moment.astimezone(UTC)
        except (ValueError, OverflowError):
            pass
    raise DecodeError("CBOR tag 0 needs a date and time with a time zone")


def date_of_seconds(seconds: Value) -> datetime:
    """Tag 1, in UTC."""
    if isinstance(seconds, (int, float)) and not isinstance(seconds, bool):
        try:
            return compat.EPOCH + timedelta(seconds=seconds)
        except OverflowError:
            pass
    raise DecodeError("CBOR tag 1 needs the seconds of a moment in the years 1 to 9999")
