"""What a resumable connection was sent, and its client has not acknowledged yet."""

from collections.abc import Sequence
from typing import final

from trivet.runtime.backlog import Backlog
from trivet.runtime.frames import Control


@final
class Retained:
    """Counted frames in the order in which they were sent, kept until the client has them."""

    __slots__ = ("_backlog", "_claimed", "acknowledged", "ever_sent", "frames", "size")

    def __init__(self, backlog: Backlog) -> None:
        self._backlog = backlog
        self.frames: list[bytes] = []
        self.size = 0
        self.acknowledged = 0
        """How many counted frames before these the client has."""
        self.ever_sent = 0
        """While there is no transport: how many the client may have, since they were sent to it."""
        self._claimed = 0  # what it says that it has may be ahead of what a send that has not returned has sent

    def add(self, sent: Sequence[bytes]) -> None:
        """These were sent."""
        kept = [frame for frame in sent if frame.__class__ is not Control]
        self.extend(kept, sum(map(len, kept)))
        if self._claimed > self.acknowledged:
            self._forget_claimed()

    def extend(self, kept: list[bytes], size: int) -> None:
        """These counted ones, of so many bytes, were sent."""
        self.frames += kept
        self.size += size
        self._backlog.hold(kept)

    def claim(self, received: int) -> int:
        """The client says that it has so many in all. Returns how many of them were not here."""
        self._claimed = received
        self._forget_claimed()
        return received - self.acknowledged

    def _forget_claimed(self) -> None:
        count = min(self._claimed - self.acknowledged, len(self.frames))
        gone = self.frames[:count]
        del self.frames[:count]
        self.size -= sum(map(len, gone))
        self.acknowledged += count
        self._backlog.release(gone)

    def begin_with(self, received: int) -> None:
        """The client has so many in all, and nothing was sent to it since."""
        self.acknowledged = self._claimed = received

    def take_all(self) -> list[bytes]:
        """They are kept elsewhere from now on, or by nobody."""
        frames, self.frames = self.frames, []
        self.size = 0
        self._backlog.release(frames)
        return frames
