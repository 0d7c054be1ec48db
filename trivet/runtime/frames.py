"""What an outbox must know of a frame beyond its bytes. All others are plain bytes."""

from collections.abc import Hashable
from typing import final

from trivet.event import OverflowPolicy


@final
class Control(bytes):
    """The transport's own: pings, acknowledgements, close frames. Not counted, never sent again."""


@final
class Droppable(bytes):
    """An event that may give way when its recipient is slow. One object for all recipients.

    `key` tells events of which a later one makes an earlier one out of date.
    """

    event: str
    policy: OverflowPolicy
    key: Hashable | None

    def __new__(cls, frame: bytes, event: str, policy: OverflowPolicy, key: Hashable | None) -> "Droppable":
        self = super().__new__(cls, frame)
        self.event = event
        self.policy = policy
        self.key = key
        return self


@final
class Dropped(bytes):
    """Tells a client, where the first of them stood, how many events gave way."""

    event: str
    times: int

    def __new__(cls, frame: bytes, event: str, times: int) -> "Dropped":
        self = super().__new__(cls, frame)
        self.event = event
        self.times = times
        return self
