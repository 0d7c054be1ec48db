"""The primitives of BARE (draft-devault-bare) that the protocol uses."""

from typing import Final

from trivet.errors import DecodeError
from trivet.protocol import compat

MAX_UINT: Final = 2**64 - 1


def write_uint(out: bytearray, value: int) -> None:
    """A uint: LEB128, at most 64 bits."""
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)


def write_data(out: bytearray, data: bytes) -> None:
    """Bytes behind their number."""
    write_uint(out, len(data))
    out += data


def write_str(out: bytearray, text: str) -> None:
    """A text in UTF-8 behind its number of bytes. Raises Unencodable where it has no UTF-8 form."""
    try:
        data = text.encode()
    except UnicodeEncodeError:
        raise compat.Unencodable(compat.LONE_SURROGATE) from None
    write_data(out, data)


class Reader:
    """Walks over `data`. Every method raises DecodeError for what it does not find."""

    __slots__ = ("_data", "_position")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._position = 0

    def take(self, size: int) -> bytes:
        """The next `size` bytes."""
        start = self._position
        end = start + size
        if end > len(self._data):
            raise DecodeError("BARE that ends early")
        self._position = end
        return self._data[start:end]

    def u8(self) -> int:
        """The next byte."""
        return self.take(1)[0]

    def u16(self) -> int:
        """The next two bytes, little end first."""
        return int.from_bytes(self.take(2), "little")

    def uint(self) -> int:
        """A uint of at most 64 bits, in its only valid form: the shortest."""
        value = 0
        for shift in range(0, 64, 7):
            byte = self.u8()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                if (byte == 0 and shift) or value > MAX_UINT:
                    break
                return value
        raise DecodeError("a BARE uint that is longer than it need be, or than 64 bits")

    def data(self) -> bytes:
        """Bytes behind their number."""
        return self.take(self.uint())

    def str(self) -> str:
        """A text behind its number of bytes."""
        try:
            return self.data().decode()
        except UnicodeDecodeError:
            raise DecodeError("a BARE text that is not UTF-8") from None

    def bool(self) -> bool:
        """A bool, or whether an optional is there."""
        byte = self.u8()
        if byte > 1:
            raise DecodeError(f"the BARE bool {byte}")
        return byte == 1

    def end(self) -> None:
        """Raise DecodeError if anything is left."""
        left = len(self._data) - self._position
        if left:
            raise DecodeError(f"{left} bytes after the BARE message")
