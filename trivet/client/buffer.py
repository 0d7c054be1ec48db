"""The events that wait for one consumer."""

from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, Literal, TypeAlias

import attrs
import trio

from trivet.errors import Dropped, Gap, Lagged
from trivet.protocol.values import Value

Overflow: TypeAlias = Literal["raise", "drop_oldest"]
Payload: TypeAlias = Sequence[Value]
Missing: TypeAlias = Gap | Dropped
"""What a subscription is told at the place where events are, or may be, missing."""

DEFAULT_BUFFER: Final = 1024


@attrs.define
class _Hole:
    """A place where events of one name are missing, and why. Neighbours are one, so there are no more than events."""

    reasons: list[Missing | Lagged] = attrs.field(factory=list[Missing | Lagged])

    def add(self, reason: Missing | Lagged) -> None:
        for index, old in enumerate(self.reasons):
            if isinstance(old, Gap) and isinstance(reason, Gap):
                return
            if isinstance(old, Lagged) and isinstance(reason, Lagged):
                self.reasons[index] = Lagged(old.count + reason.count)
                return
            if isinstance(old, Dropped) and isinstance(reason, Dropped):
                self.reasons[index] = Dropped(old.event, old.count + reason.count)
                return
        self.reasons.append(reason)


class EventBuffer:
    """The events that wait for one consumer, in order, at most `size` of them.

    Full, it either leaves out what comes, and marks the place with the exact count (`"raise"`), or the oldest.
    """

    def __init__(self, size: int = DEFAULT_BUFFER, overflow: Overflow = "raise") -> None:
        if size < 1:
            raise ValueError("an event buffer has room for at least one event")
        if overflow not in ("raise", "drop_oldest"):
            raise ValueError(f"overflow is 'raise' or 'drop_oldest', not {overflow!r}")
        self.dropped = 0
        self._size = size
        self._overflow = overflow
        self._items: deque[Payload | _Hole] = deque()
        self._events = 0
        self._end: Callable[[], Exception | None] | None = None
        self._waiters = trio.lowlevel.ParkingLot()

    def put(self, payload: Payload) -> None:
        """Add an event, or account for its loss. Never waits."""
        if self._end is not None:
            return
        if self._events < self._size:
            self._events += 1
            self._items.append(payload)
        elif self._overflow == "drop_oldest":
            self.dropped += 1
            self._drop_oldest()
            self._items.append(payload)
        else:
            self.dropped += 1
            self.mark(Lagged(1))
        self._waiters.unpark()

    def mark(self, reason: Missing | Lagged) -> None:
        """Events are missing here. Takes no room."""
        if self._end is not None:
            return
        last = self._items[-1] if self._items else None
        if not isinstance(last, _Hole):
            self._items.append(last := _Hole())
        last.add(reason)
        self._waiters.unpark()

    def _drop_oldest(self) -> None:
        """The oldest event goes, what is said of missing ones stays."""
        first = self._items.popleft()
        if isinstance(first, _Hole):
            self._items.popleft()
            following = self._items[0] if self._items else None
            if isinstance(following, _Hole):
                for reason in following.reasons:
                    first.add(reason)
                self._items.popleft()
            self._items.appendleft(first)

    def restart(self) -> None:
        """Forget what waits."""
        self.dropped = 0
        self._items.clear()
        self._events = 0

    def finish(self, end: Callable[[], Exception | None], *, drop: bool = False) -> None:
        """No more will come. Once the rest is consumed `get` raises what `end` makes, or returns None."""
        if self._end is None:
            self._end = end
        if drop:
            self._items.clear()
            self._events = 0
        self._waiters.unpark_all()

    async def get(self) -> Payload | None:
        """The next event; None at a regular end. Raises Lagged, Gap or Dropped, once, where events are missing.

        Cancelling loses nothing.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        while not self._items:
            if self._end is not None:
                error = self._end()
                if error is not None:
                    raise error
                await trio.lowlevel.cancel_shielded_checkpoint()
                return None
            await self._waiters.park()
        item = self._items[0]
        if isinstance(item, _Hole):
            reason = item.reasons.pop(0)
            if not item.reasons:
                self._items.popleft()
            await trio.lowlevel.cancel_shielded_checkpoint()
            raise reason
        self._items.popleft()
        self._events -= 1
        await trio.lowlevel.cancel_shielded_checkpoint()
        return item
