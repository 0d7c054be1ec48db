"""Whole messages from a client's WebSocket frames, within a limit of size. wsproto does the parsing."""

from collections.abc import Iterator
from typing import Final, TypeAlias, final

import attrs
from wsproto.frame_protocol import Frame, FrameProtocol, Opcode, ParseFailed

INVALID_UTF8: Final = 1007


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
    """What a client sends, as whole messages. Holds at most one message within the limit, and one received piece."""

    __slots__ = ("_deaf", "_frames", "_gathered", "_ignoring", "_limit", "closed")

    def __init__(self, limit: int, trailing_data: bytes = b"") -> None:
        self._frames = FrameProtocol(client=False, extensions=[])
        self._frames.receive_bytes(trailing_data)
        self._limit = limit
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

    def feed(self, data: bytes) -> None:
        """Take what was received; `events` says what it was."""
        if not self._deaf:
            self._frames.receive_bytes(data)

    def events(self) -> Iterator[Incoming]:
        """What was received since, in order."""
        if self._deaf:
            return
        try:
            for frame in self._frames.received_frames():
                if frame.opcode is Opcode.TEXT or frame.opcode is Opcode.BINARY:
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
        self._gathered = bytearray()

    def _gather(self, frame: Frame) -> str | bytes | MessageTooLong | None:
        assert not isinstance(frame.payload, tuple)
        data = frame.payload if isinstance(frame.payload, str) else bytes(frame.payload)
        # wsproto has decoded it, and has checked that it is UTF-8.
        encoded = data.encode() if isinstance(data, str) and not data.isascii() else data
        if len(self._gathered) + len(encoded) > self._limit:
            self._ignoring = True
            self._gathered = bytearray()
            return MessageTooLong()
        if frame.message_finished and not self._gathered:
            return data
        self._gathered += encoded.encode() if isinstance(encoded, str) else encoded
        if not frame.message_finished:
            return None
        gathered, self._gathered = self._gathered, bytearray()
        return gathered.decode() if isinstance(data, str) else bytes(gathered)
