"""What a resumable session has received, and how its client comes to know of it."""

from typing import Final

from trivet.protocol import extension
from trivet.runtime.replies import Replies
from trivet.runtime.timers import TimerHandle, Timers

# A client is told of its messages that have arrived after so many of them, or so many seconds.
ACKNOWLEDGE_AFTER: Final = 64
ACKNOWLEDGE_WITHIN: Final = 1.0


class Received:
    """Counts the counted messages of a client."""

    __slots__ = ("_count", "_replies", "_timer", "_timers", "_told")

    def __init__(self, timers: Timers, replies: Replies) -> None:
        self._timers = timers
        self._replies = replies
        self._count = 0
        self._told = 0
        self._timer: TimerHandle | None = None

    def note(self, *, more: bool) -> None:
        """One more is here. The client is told now and then, as long as there may be `more`."""
        self._count += 1
        if not more:
            return
        if self._count - self._told >= ACKNOWLEDGE_AFTER:
            self._acknowledge()
        elif self._timer is None:
            self._timer = self._timers.call_later(ACKNOWLEDGE_WITHIN, self._acknowledge)

    def told_now(self) -> int:
        """How many have come, which the caller tells the client."""
        self._told = self._count
        return self._count

    def stop(self) -> None:
        """There is nobody to tell."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _acknowledge(self) -> None:
        self.stop()
        if not self._replies.outbox.detached:
            self._replies.control(extension.Ack(self.told_now()))
