"""One CBOR item (RFC 8949), as the cbor-x library of RivetKit's client reads and writes it.

Two dialects. Compat: special values are RivetKit's markers (see `trivet.protocol.compat`); a server writes it, and both
sides do inside BARE. Native: tags, and no markers; clients write it in the cbor encoding. Dates are tag 1 in both.

Numbers follow JavaScript: an item of 8 bytes is a BigInt there, so that an integer from 2^32 to 2^53-1 is written as a
float64. Read are: integers, floats of every width, texts, byte strings, arrays, maps, and the tags 0-3 (dates, big
integers), 64-87 but the 128-bit floats (typed arrays), 258 (set) and 259 (map). Refused are indefinite lengths (cbor-x
neither writes nor reads them), other tags, simple values but false, true, null and undefined, and NaN and infinity.
"""

import base64
import struct
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from datetime import datetime
from typing import Any, Final

from trivet.errors import DecodeError
from trivet.protocol import compat
from trivet.protocol.cbor_tags import (
    BYTE_STRING_TAGS,
    MAP_TAG,
    SET_TAG,
    TYPED_ARRAYS,
    big_integer,
    date_of_seconds,
    date_of_text,
    typed_array,
)
from trivet.protocol.values import MAX_SAFE_INTEGER, UNDEFINED, Undefined, Value

_WIRE_DEPTH: Final = compat.MAX_DEPTH + 8
"""What a reader nests: a little more than a writer, for the envelope and for markers that stand for one value."""

_DOUBLE: Final = struct.Struct(">d")
_SINGLE: Final = struct.Struct(">f")
_HALF: Final = struct.Struct(">e")
# An initial byte and an argument of so many bits.
_HEAD_8: Final = struct.Struct(">BB")
_HEAD_16: Final = struct.Struct(">BH")
_HEAD_32: Final = struct.Struct(">BI")
_HEAD_64: Final = struct.Struct(">BQ")
_UNDEFINED_ITEM: Final = b"\x82\x6a$Undefined\x00"
_BIGINT_HEAD: Final = b"\x82\x67$BigInt"
_BYTES_HEAD: Final = b"\x82\x6b$Uint8Array"
_SET_HEAD: Final = b"\x82\x64$Set"

_SIMPLE: Final[Mapping[int, Value]] = {0xF4: False, 0xF5: True, 0xF6: None, 0xF7: UNDEFINED}


def write_head(out: bytearray, major: int, argument: int) -> None:
    """An initial byte with its argument in the shortest form. `major` is the major type, shifted into place."""
    if argument < 24:
        out.append(major | argument)
    elif argument < 0x100:
        out += _HEAD_8.pack(major | 24, argument)
    elif argument < 0x10000:
        out += _HEAD_16.pack(major | 25, argument)
    elif argument < 0x100000000:
        out += _HEAD_32.pack(major | 26, argument)
    else:
        out += _HEAD_64.pack(major | 27, argument)


def write_text(out: bytearray, text: str) -> None:
    """A text. Raises Unencodable where it has no UTF-8 form."""
    try:
        data = text.encode()
    except UnicodeEncodeError:
        raise compat.Unencodable(compat.LONE_SURROGATE) from None
    size = len(data)
    if size < 24:
        out.append(0x60 | size)
    else:
        write_head(out, 0x60, size)
    out += data


class Writer:
    """Appends items to `out`.

    `markers` chooses the compat dialect; `wide_maps` writes the size of a map in 16 bits or more, as cbor-x does.
    """

    __slots__ = ("_markers", "_out", "_wide_maps")

    def __init__(self, out: bytearray, *, markers: bool, wide_maps: bool) -> None:
        self._out = out
        self._markers = markers
        self._wide_maps = wide_maps

    # Any, because comparing exact types is twice as fast as isinstance, and type checkers cannot follow it.
    def write(self, value: Any, depth: int = compat.MAX_DEPTH) -> None:
        """Append one value. Raises Unencodable."""
        out = self._out
        kind = compat.exact_type(value)
        if kind is str:
            write_text(out, value)
        elif value is None:
            out.append(0xF6)
        elif kind is bool:
            out.append(0xF5 if value else 0xF4)
        elif kind is int:
            if 0 <= value < 24:
                out.append(value)
            else:
                self._integer(value)
        elif kind is float:
            compat.check_finite(value)
            out.append(0xFB)
            out += _DOUBLE.pack(value)
        elif kind is dict:
            self._map(value, depth)
        elif kind is list or kind is tuple:
            self._array(value, depth)
        elif kind is bytes:
            self._bytes(value)
        elif kind is Undefined:
            out += _UNDEFINED_ITEM if self._markers else b"\xf7"
        elif kind is set or kind is frozenset:
            self._set(value, depth)
        elif kind is datetime:
            self._date(value)
        else:
            self.write(compat.simplified(value), depth)

    def _integer(self, value: int) -> None:
        out = self._out
        if 0 <= value < 0x100000000:
            write_head(out, 0x00, value)
        elif -0x100000000 <= value < 0:
            write_head(out, 0x20, ~value)
        elif -MAX_SAFE_INTEGER <= value <= MAX_SAFE_INTEGER:
            out.append(0xFB)
            out += _DOUBLE.pack(value)
        elif self._markers:
            compat.check_integer(value)
            out += _BIGINT_HEAD
            write_text(out, str(value))
        else:
            compat.check_integer(value)
            magnitude = value if value >= 0 else ~value
            if magnitude < 0x10000000000000000:
                write_head(out, 0x00 if value >= 0 else 0x20, magnitude)
            else:
                out.append(0xC2 if value >= 0 else 0xC3)
                data = magnitude.to_bytes((magnitude.bit_length() + 7) // 8, "big")
                write_head(out, 0x40, len(data))
                out += data

    def _map(self, value: dict[object, object], depth: int) -> None:
        if depth == 0:
            raise compat.Unencodable(compat.TOO_DEEP)
        out = self._out
        size = len(value)
        if not self._wide_maps:
            write_head(out, 0xA0, size)
        elif size < 0x10000:
            out += _HEAD_16.pack(0xB9, size)
        else:
            out += _HEAD_32.pack(0xBA, size)
        key: object = None
        try:
            for key, item in value.items():
                if not isinstance(key, str):
                    compat.refuse_key(key)
                write_text(out, key)
                self.write(item, depth - 1)
        except compat.Unencodable as error:
            error.places.append(compat.place(key))
            raise

    def _array(self, value: list[object] | tuple[object, ...], depth: int) -> None:
        if depth == 0:
            raise compat.Unencodable(compat.TOO_DEEP)
        write_head(self._out, 0x80, len(value))
        index = 0
        try:
            if self._markers and len(value) == 2:
                first = value[0]
                if isinstance(first, str) and first[:1] == "$":
                    write_text(self._out, "$" + first)
                    index = 1
                    self.write(value[1], depth - 1)
                    return
            for item in value:
                self.write(item, depth - 1)
                index += 1
        except compat.Unencodable as error:
            error.places.append(f"[{index}]")
            raise

    def _set(self, value: AbstractSet[object], depth: int) -> None:
        if depth == 0:
            raise compat.Unencodable(compat.TOO_DEEP)
        # The members of a marker are no array of their own: they are not escaped, whatever they are.
        self._out += _SET_HEAD if self._markers else b"\xd9\x01\x02"
        write_head(self._out, 0x80, len(value))
        member: object = None
        try:
            for member in value:
                self.write(member, depth - 1)
        except compat.Unencodable as error:
            error.places.append(f".member({ascii(member)[:40]})")
            raise

    def _bytes(self, value: bytes) -> None:
        if self._markers:
            self._out += _BYTES_HEAD
            write_text(self._out, base64.b64encode(value).decode())
        else:
            self._out += b"\xd8\x40"
            write_head(self._out, 0x40, len(value))
            self._out += value

    def _date(self, value: datetime) -> None:
        self._out.append(0xC1)
        seconds, rest = divmod(compat.microseconds(value), 1_000_000)
        if rest == 0:
            self._integer(seconds)
        else:
            self._out.append(0xFB)
            self._out += _DOUBLE.pack(seconds + rest / 1_000_000)


def encode(value: object, *, markers: bool, wide_maps: bool, root: str = "value") -> bytes:
    """One value as one item. Raises EncodeError, in whose message `root` stands for the whole value."""
    out = bytearray()
    try:
        Writer(out, markers=markers, wide_maps=wide_maps).write(value)
    except compat.Unencodable as error:
        raise error.error(root) from None
    return bytes(out)


class _Reader:
    """Walks over `data` from `position`. IndexError means that it ended early, UnicodeDecodeError what it says."""

    __slots__ = ("_data", "_markers", "position")

    def __init__(self, data: bytes, *, markers: bool) -> None:
        self._data = data
        self._markers = markers
        self.position: int = 0

    def read(self, depth: int) -> Value:
        data = self._data
        position = self.position
        initial = data[position]
        if 0x60 <= initial < 0x78:
            # A short text, by far the most frequent item, costs no further call.
            end = position + initial - 0x5F
            if end > len(data):
                raise IndexError
            self.position = end
            return data[position + 1 : end].decode()
        if initial < 24:
            self.position = position + 1
            return initial
        if 0x80 <= initial < 0x98 and depth:
            self.position = position + 1
            return self._array(initial - 0x80, depth - 1)
        major = initial >> 5
        if major == 3:
            return self._take(self._argument(initial)).decode()
        if major == 7:
            return self._simple(initial)
        argument = self._argument(initial)
        if major == 0:
            return argument
        if major == 1:
            return ~argument
        if major == 2:
            return self._take(argument)
        if depth == 0:
            raise DecodeError("CBOR nested too deeply")
        if major == 4:
            return self._array(argument, depth - 1)
        if major == 5:
            return self._map(argument, depth - 1)
        return self._tagged(argument, depth - 1)

    def _argument(self, initial: int) -> int:
        """The argument of an initial byte at the position, which moves behind both."""
        info = initial & 0x1F
        position = self.position + 1
        if info < 24:
            self.position = position
            return info
        if info > 27:
            raise DecodeError("CBOR of indefinite length, or a reserved form")
        end = position + (1 << (info - 24))
        if end > len(self._data):
            raise IndexError
        self.position = end
        return int.from_bytes(self._data[position:end], "big")

    def _take(self, size: int) -> bytes:
        start = self.position
        end = start + size
        if end > len(self._data):
            raise IndexError
        self.position = end
        return self._data[start:end]

    def _simple(self, initial: int) -> Value:
        if initial == 0xFB:
            value = _DOUBLE.unpack(self._take(9)[1:])[0]
        elif initial == 0xFA:
            value = _SINGLE.unpack(self._take(5)[1:])[0]
        elif initial == 0xF9:
            value = _HALF.unpack(self._take(3)[1:])[0]
        else:
            if initial not in _SIMPLE:
                raise DecodeError(f"CBOR simple value {initial:#x}")
            self.position += 1
            return _SIMPLE[initial]
        return compat.number(value)

    def _check_room(self, least: int) -> None:
        """Every item takes a byte, so that a claimed length is checked before anything is allocated."""
        if least > len(self._data) - self.position:
            raise IndexError

    def _array(self, size: int, depth: int) -> Value:
        if size == 2 and self._markers and self._data[self.position] >> 5 == 3:
            first = self.read(depth)
            if isinstance(first, str) and first[:1] == "$":
                return self._marked(first, depth)
            return [first, self.read(depth)]
        return self._items(size, depth)

    def _marked(self, marker: str, depth: int) -> Value:
        if marker[:2] == "$$":
            return [marker[1:], self.read(depth)]
        if marker != compat.SET_MARKER:
            return compat.revive_leaf(marker, self.read(depth))
        initial = self._data[self.position]
        if initial >> 5 != 4:
            raise DecodeError("$Set needs an array")
        return compat.make_set(self._items(self._argument(initial), depth))

    def _items(self, size: int, depth: int) -> list[Value]:
        """The items of an array that cannot be a marker."""
        self._check_room(size)
        items: list[Value] = []
        data = self._data
        position = self.position
        for _ in range(size):
            # A hostile message is all items of one byte: they cost no further call.
            initial = data[position]
            if initial < 24:
                items.append(initial)
                position += 1
            elif initial == 0x80 and depth:
                items.append([])
                position += 1
            elif initial == 0xA0 and depth:
                items.append({})
                position += 1
            elif initial in _SIMPLE:
                items.append(_SIMPLE[initial])
                position += 1
            else:
                self.position = position
                items.append(self.read(depth))
                position = self.position
        self.position = position
        return items

    def _map(self, size: int, depth: int) -> dict[str, Value]:
        self._check_room(2 * size)
        result: dict[str, Value] = {}
        data = self._data
        for _ in range(size):
            key = self.read(depth)
            if not isinstance(key, str):
                if type(key) is not int:
                    raise DecodeError(f"a CBOR map key of type {type(key).__name__}")
                key = str(key)
            initial = data[self.position]
            if initial in _SIMPLE:
                result[key] = _SIMPLE[initial]
                self.position += 1
            else:
                result[key] = self.read(depth)
        return result

    def _tagged(self, tag: int, depth: int) -> Value:
        if tag == SET_TAG:
            initial = self._data[self.position]
            if initial >> 5 != 4:
                raise DecodeError("CBOR tag 258 needs an array")
            return compat.make_set(self._items(self._argument(initial), depth))
        if tag == MAP_TAG:
            initial = self._data[self.position]
            if initial >> 5 != 5:
                raise DecodeError("CBOR tag 259 needs a map")
            return self._map(self._argument(initial), depth)
        if tag == 0:
            return date_of_text(self.read(depth))
        if tag == 1:
            return date_of_seconds(self.read(depth))
        if tag not in BYTE_STRING_TAGS:
            raise DecodeError(f"CBOR tag {tag}")
        initial = self._data[self.position]
        if initial >> 5 != 2:
            raise DecodeError(f"CBOR tag {tag} needs a byte string")
        data = self._take(self._argument(initial))
        if tag == 2 or tag == 3:
            return big_integer(data, negative=tag == 3)
        if tag == 64:
            return data
        return typed_array(data, TYPED_ARRAYS[tag])


def decode(data: bytes, *, markers: bool) -> Value:
    """The value of one item that fills `data`; `markers` are revived or left alone. Raises DecodeError."""
    reader = _Reader(data, markers=markers)
    try:
        value = reader.read(_WIRE_DEPTH)
    except IndexError:
        raise DecodeError("CBOR that ends early") from None
    except UnicodeDecodeError:
        raise DecodeError("a CBOR text that is not UTF-8") from None
    if reader.position != len(data):
        raise DecodeError(f"{len(data) - reader.position} bytes after the CBOR item")
    return value
