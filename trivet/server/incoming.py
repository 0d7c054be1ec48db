"""Whole messages from a client's WebSocket frames, within a limit of size. wsproto does what parsing is not simple."""

from collections.abc import Iterator
from typing import Final, TypeAlias, final

import attrs
from wsproto.frame_protocol import Frame, FrameProtocol, Opcode, ParseFailed

INVALID_UTF8: Final = 1007

_WHOLE_TEXT: Final = 0x81
_WHOLE: Final = frozenset({_WHOLE_TEXT, 0x82})
_PONG: Final = 0x8A
_MASKED: Final = 0x80
_LONGEST_SHORT: Final = 125
_LENGTH_IN_2: Final = 126
_SHORTEST_HEAD: Final = 2
_SHORT_HEAD: Final = 6  # of a client's frame of up to 125 bytes
_LONG_HEAD: Final = 8  # of one of up to 65,535


@attrs.frozen
class PingReceived:
    """The peer asks for a pong with this payload."""

    payload: bytes


@attrs.frozen
class CloseReceived:
    """The peer closes, or answers a close. 1005 when it gave no code."""

    code: int
    reason: str


@attrs.frozen
class ProtocolViolated:
    """The peer broke RFC 6455: close with this code (1002, or 1007 for bad UTF-8). No further byte has a meaning."""

    code: int
    reason: str


@attrs.frozen
class MessageTooLong:
    """A message went over the limit. It and every further message are thrown away."""


Incoming: TypeAlias = str | bytes | PingReceived | CloseReceived | ProtocolViolated | MessageTooLong | None
"""A whole message, or something else that happened. None is a frame that changes nothing: a pong, a fragment."""


@final
class IncomingMessages:
    """What a client sends, as whole messages. Holds at most one message within the limit, and one received piece.

    A message in one small frame, which nearly all are, is read here, in a seventh of the time, and so is a pong; every
    other frame, and all that is wrong, is wsproto's, which gets it from its first byte to its last.
    """

    __slots__ = ("_data", "_deaf", "_fragmented", "_frames", "_gathered", "_ignoring", "_limit", "_theirs", "closed")

    def __init__(self, limit: int, trailing_data: bytes = b"") -> None:
        self._frames: FrameProtocol | None = None  # from the first frame on that is for it: most connections have none
        self._limit = limit
        # What has come and was not looked at: nothing but a part of a frame, once `events` is through.
        self._data: bytes | bytearray = trailing_data
        self._theirs = 0  # bytes of the present frame that are still to go to wsproto
        self._fragmented = False  # whether a message has begun that is not finished
        # Fragments may be of one byte, or empty, so each is added at once to what came before it.
        self._gathered = bytearray()
        self._ignoring = False
        self._deaf = False
        self.closed = False
        """Whether the peer's close frame has come."""

    @property
    def deaf(self) -> bool:
        """Whether no further byte has a meaning: after a violation or a close frame."""
        return self._deaf

    @property
    def held(self) -> int:
        """Bytes of what is not a whole message yet."""
        return len(self._data) + len(self._gathered)

    def ignore(self) -> None:
        """Throw every further message away, and what is here of the present one."""
        self._ignoring = True
        self._gathered = bytearray()

    def feed(self, data: bytes) -> None:
        """Take what was received; `events` says what it was."""
        if self._deaf:
            return
        if not self._data:
            self._data = data
        elif isinstance(self._data, bytearray):
            self._data += data
        else:
            self._data = bytearray(self._data) + data

    def events(self) -> Iterator[Incoming]:
        """What was received since, in order."""
        data, at, end = self._data, 0, len(self._data)
        while not self._deaf:
            if self._theirs:
                piece = bytes(data[at : at + self._theirs])
                if not piece:
                    break
                at += len(piece)
                self._theirs -= len(piece)
                yield from self._parsed(piece)
                continue
            # RFC 6455 section 5.2: flags and opcode, mask bit and length, a longer length, the mask, the payload.
            if end - at < _SHORTEST_HEAD:
                break
            first, second = data[at], data[at + 1]
            length, start = second & 127, at + 2
            if length > _LONGEST_SHORT:
                start += 2 if length == _LENGTH_IN_2 else 8
                if end < start:
                    break
                length = int.from_bytes(data[at + 2 : start])
            start += 4 if second & _MASKED else 0
            stop = start + length
            # Only masked frames have heads of these sizes.
            short, long = start - at == _SHORT_HEAD, start - at == _LONG_HEAD and length > _LONGEST_SHORT
            if (
                ((first in _WHOLE and (short or long)) or (first == _PONG and short))
                and length <= self._limit
                and not (self._fragmented or self._ignoring)
            ):
                if end < stop:
                    break
                message: str | bytes | None = None
                if first != _PONG:
                    message = _unmasked(data[start - 4 : start], data[start:stop])
                    if first == _WHOLE_TEXT:
                        try:
                            message = message.decode()
                        except UnicodeDecodeError:
                            self._theirs = stop - at
                            continue
                at = stop
                yield message
            else:
                self._theirs = stop - at
        if at and not self._deaf:  # or a frame that comes byte by byte would be copied for each
            self._data = data[at:]

    def _parsed(self, data: bytes) -> Iterator[Incoming]:
        if self._frames is None:
            self._frames = FrameProtocol(client=False, extensions=[])
        self._frames.receive_bytes(data)
        try:
            for frame in self._frames.received_frames():
                if frame.opcode is Opcode.TEXT or frame.opcode is Opcode.BINARY:
                    self._fragmented = not frame.message_finished
                    yield None if self._ignoring else self._gather(frame)
                elif frame.opcode is Opcode.PING:
                    assert isinstance(frame.payload, (bytes, bytearray))
                    yield PingReceived(bytes(frame.payload))
                elif frame.opcode is Opcode.CLOSE:
                    self._end()
                    self.closed = True
                    assert isinstance(frame.payload, tuple)
                    code, reason = frame.payload
                    yield CloseReceived(int(code), reason or "")
                    return
                else:
                    yield None
        except ParseFailed as error:
            self._end()
            code = int(error.code)
            yield ProtocolViolated(code, "invalid UTF-8" if code == INVALID_UTF8 else str(error))

    def _end(self) -> None:
        self._deaf = True
        self._data = b""
        self._gathered = bytearray()

    def _gather(self, frame: Frame) -> str | bytes | MessageTooLong | None:
        assert not isinstance(frame.payload, tuple)
        data = frame.payload if isinstance(frame.payload, str) else bytes(frame.payload)
        # wsproto has decoded it, and has checked that it is UTF-8.
        encoded = data.encode() if isinstance(data, str) and not data.isascii() else data
        if len(self._gathered) + len(encoded) > self._limit:
            self.ignore()
            return MessageTooLong()
        if frame.message_finished and not self._gathered:
            return data
        self._gathered += encoded.encode() if isinstance(encoded, str) else encoded
        if not frame.message_finished:
            return None
        gathered, self._gathered = self._gathered, bytearray()
        return gathered.decode() if isinstance(data, str) else bytes(gathered)


def _unmasked(mask: bytes | bytearray, payload: bytes | bytearray) -> bytes:
    """RFC 6455 section 5.3, for all bytes at once."""
    length = len(payload)
    key = (mask * (length // 4 + 1))[:length]
    return (int.from_bytes(payload) ^ int.from_bytes(key)).to_bytes(length)
