"""The client's half of a session: what it received and acknowledged, and whether it can be gone on with."""

import math
from typing import Final

import trio

from trivet.client.outgoing import Outgoing, extension_frame
from trivet.limits import KIB
from trivet.protocol.extension import Ack, SessionOpened
from trivet.protocol.subprotocols import SessionClaim

ACKNOWLEDGE_EVERY: Final = 512
ACKNOWLEDGE_EVERY_BYTES: Final = 128 * KIB
"""So many counted messages, or bytes of them, are acknowledged as soon as they have come.

To read an acknowledgement costs a server as much as to send some ten events, and nothing waits for one but memory:
half of the soft bound of an outbox for messages, an eighth of that for bytes.
"""
ACKNOWLEDGE_AFTER: Final = 5.0
"""Fewer are acknowledged within so many seconds."""


class Session:
    """One session, from its first counted message to its loss; it may have several transports, one after the other.

    Without the extension it lives as long as its transport, and nothing is counted or acknowledged.
    """

    def __init__(self, outgoing: Outgoing, extended: bool) -> None:
        self.extended = extended
        self.expires = math.inf
        """When the server forgets it, while it has no transport."""
        self.waiting = trio.CancelScope()
        """Around whoever waits for that."""
        self._outgoing = outgoing
        self._token: str | None = None
        self._window = 0.0
        self._received = 0
        self._acknowledged = 0
        self._bytes = 0
        self._unacknowledged = trio.Event()

    # -- what is received ---------------------------------------------------------------------------------------------

    def count(self, size: int) -> None:
        """A counted message of so many bytes has come, and will be handled before anything else happens."""
        if not self.extended:
            return
        self._received += 1
        self._bytes += size
        self._unacknowledged.set()
        if self._received - self._acknowledged >= ACKNOWLEDGE_EVERY or self._bytes >= ACKNOWLEDGE_EVERY_BYTES:
            self._acknowledge()

    def _acknowledge(self) -> None:
        if self._received == self._acknowledged:
            return
        self._note_acknowledged()
        self._outgoing.put_control(extension_frame(Ack(self._received)))

    def _note_acknowledged(self) -> None:
        self._acknowledged = self._received
        self._bytes = 0
        self._unacknowledged = trio.Event()

    async def acknowledge(self) -> None:
        """Acknowledge in time what comes in small numbers. Runs as long as a transport."""
        while True:
            await self._unacknowledged.wait()
            await trio.sleep(ACKNOWLEDGE_AFTER)
            self._acknowledge()

    # -- transports ---------------------------------------------------------------------------------------------------

    def opened(self, message: SessionOpened) -> None:
        """The server can go on with it."""
        self._token = message.token
        self._window = message.window

    def forget_token(self) -> None:
        """It cannot be gone on with: the counts of the two sides may differ, or it belongs to somebody else."""
        self._token = None

    @property
    def resumable(self) -> bool:
        """Whether it may outlive its transport."""
        return self._token is not None

    @property
    def patience(self) -> float:
        """The longest time between two attempts to go on with it, in seconds."""
        return max(1.0, self._window / 8)

    def broken(self) -> None:
        """Its transport broke."""
        self.expires = trio.current_time() + self._window
        self.waiting = trio.CancelScope()

    def resumed(self) -> None:
        """It does not wait for a transport any more: it has one, or is lost."""
        self.expires = math.inf
        self.waiting.cancel()

    def claim(self) -> SessionClaim | None:
        """What asks the server to go on with it, or None where it cannot. The count in it acknowledges."""
        if self._token is None:
            return None
        self._note_acknowledged()
        return SessionClaim(self._token, self._received)
