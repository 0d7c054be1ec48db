"""WebSocket frames from a server to its clients (RFC 6455 section 5.2).

A server's frames are not masked, so the bytes of one frame are the same for every recipient: a header of two, four or
ten bytes before the payload. They are built once and shared, which is what makes a broadcast cheap.
"""

from collections.abc import Mapping
from struct import pack
from types import MappingProxyType
from typing import Final, final

from trivet.protocol.codec import ENCODINGS, Codec, codec_for

_TEXT: Final = 0x81
_BINARY: Final = 0x82
_CLOSE: Final = 0x88
_PING: Final = 0x89
_PONG: Final = 0x8A

_MAX_CONTROL_PAYLOAD: Final = 125
_NO_STATUS: Final = 1005


def _frame(opcode: int, payload: bytes) -> bytes:
    size = len(payload)
    if size < 126:
        return pack("!BB", opcode, size) + payload
    if size < 1 << 16:
        return pack("!BBH", opcode, 126, size) + payload
    return pack("!BBQ", opcode, 127, size) + payload


def message_frame(data: str | bytes) -> bytes:
    """One whole message: text for str, binary for bytes."""
    return _frame(_TEXT, data.encode()) if isinstance(data, str) else _frame(_BINARY, data)


def close_frame(code: int, reason: str = "") -> bytes:
    """A close frame. 1005 is the code of a frame without one; a long reason is cut at a character."""
    if code == _NO_STATUS:
        return _frame(_CLOSE, b"")
    text = reason.encode()[: _MAX_CONTROL_PAYLOAD - 2].decode(errors="ignore")
    return _frame(_CLOSE, pack("!H", code) + text.encode())


def pong_frame(payload: bytes) -> bytes:
    """The answer to a ping. The payload is the ping's, at most 125 bytes."""
    return _frame(_PONG, payload)


PING_FRAME: Final = _frame(_PING, b"")


@final
class FrameFormat:
    """How the messages of one encoding become WebSocket frames."""

    __slots__ = ("_extension_opcode", "_opcode", "codec")

    def __init__(self, codec: Codec) -> None:
        self.codec: Final = codec
        self._opcode: Final = _BINARY if codec.binary else _TEXT
        self._extension_opcode: Final = _TEXT if codec.binary else _BINARY

    def frame(self, payload: bytes) -> bytes:
        """A complete frame around one encoded message."""
        return _frame(self._opcode, payload)

    def extension_frame(self, payload: bytes) -> bytes:
        """A complete frame around one message of trivet's extension: of the opcode that messages do not have."""
        return _frame(self._extension_opcode, payload)

    def close_frame(self, code: int, reason: str) -> bytes:
        """A close frame; a reason over 123 bytes is cut."""
        return close_frame(code, reason)


def _formats() -> Mapping[str, FrameFormat]:
    codecs = ((name, codec_for(name)) for name in ENCODINGS)
    return MappingProxyType({name: FrameFormat(codec) for name, codec in codecs if codec is not None})


FORMATS: Final = _formats()
"""One format for each encoding, by its name. Recipients of a broadcast are grouped by these very objects."""
