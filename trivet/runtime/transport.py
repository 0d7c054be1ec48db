"""What the runtime needs of the outside: how messages become frames, and what carries these."""

from collections.abc import Callable
from typing import Final, Protocol

import trio

from trivet.protocol.codec import Codec

BROKEN: Final = (trio.BrokenResourceError, OSError, ValueError)
"""What `Transport.send_nowait` raises when the peer is gone, or the transport closed (a closed file: ValueError)."""


class Format(Protocol):
    """How messages become the frames of one kind of transport. One shared instance for each kind and encoding."""

    @property
    def codec(self) -> Codec:
        """The encoding of its messages."""
        ...

    def frame(self, payload: bytes) -> bytes:
        """A complete frame around one encoded message, the same for every recipient."""
        ...

    def extension_frame(self, payload: bytes) -> bytes:
        """A complete frame around one message of trivet's extension."""
        ...

    def close_frame(self, code: int, reason: str) -> bytes:
        """The frame that begins or answers a close handshake."""
        ...


class Transport(Protocol):
    """What carries the bytes of one connection."""

    @property
    def send_nowait(self) -> Callable[[bytes], int | None]:
        """Sends what can be sent without waiting, and returns how many bytes; None is 0. Raises one of `BROKEN`.

        It is taken once and called for every flush as long as the transport lives, so it should be a bare function,
        and must be harmless once the transport is closed.
        """
        ...

    async def send_all(self, data: bytes) -> None:
        """Send all of it. Only one call at a time, never beside `send_nowait`. Raises trio.BrokenResourceError."""
        ...

    def finish(self) -> None:
        """The close frame is out: wait for the peer's within `Limits.close_timeout`, then end."""
        ...

    def abort(self) -> None:
        """End at once."""
        ...
