"""Whole messages from a client's WebSocket frames, within a limit of size. wsproto does the parsing."""

from collections.abc import Iterator
from typing import Final, TypeAlias, final

import attrs
from wsproto.connection import SERVER, Connection, ConnectionState
from wsproto.events import BytesMessage, CloseConnection, Ping, TextMessage

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

    __slots__ = ("_connection", "_deaf", "_gathered", "_ignoring", "_limit", "closed")

    def __init__(self, limit: int, trailing_data: bytes = b"") -> None:
        self._connection = Connection(SERVER, trailing_data=trailing_data)
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
            self._connection.receive_data(data)

    def events(self) -> Iterator[Incoming]:
        """What was received since, in order."""
        if self._deaf:
            return
        for event in self._connection.events():
            if isinstance(event, (TextMessage, BytesMessage)):
                yield None if self._ignoring else self._gather(event)
            elif isinstance(event, Ping):
                yield PingReceived(bytes(event.payload))
            elif isinstance(event, CloseConnection):
                self._deaf = True
                self._gathered = bytearray()
                code, reason = int(event.code), event.reason or ""
                # wsproto reports its own verdict like the peer's close frame, and differs only in its state.
                if self._connection.state is ConnectionState.OPEN:
                    yield ProtocolViolated(code, "invalid UTF-8" if code == INVALID_UTF8 else reason)
                else:
                    self.closed = True
                    yield CloseReceived(code, reason)
                return
            else:
                yield None

    def _gather(self, event: TextMessage | BytesMessage) -> str | bytes | MessageTooLong | None:
        data = event.data if isinstance(event, TextMessage) else bytes(event.data)
        # wsproto has decoded it, and has checked that it is UTF-8.
        encoded = data.encode() if isinstance(data, str) and not data.isascii() else data
        if len(self._gathered) + len(encoded) > self._limit:
            self._ignoring = True
            self._gathered = bytearray()
            return MessageTooLong()
        if event.message_finished and not self._gathered:
            return data
        self._gathered += encoded.encode() if isinstance(encoded, str) else encoded
        if not event.message_finished:
            return None
        gathered, self._gathered = self._gathered, bytearray()
        return gathered.decode() if isinstance(data, str) else bytes(gathered)
