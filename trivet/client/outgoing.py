"""What a connection has to send, in order."""

from collections.abc import Iterable

import attrs
import trio


@attrs.define(eq=False)
class Outbound:
    """One encoded message. Until it is `taken` it can be withdrawn; from then on bytes of it may be on their way."""

    payload: bytes
    context: object = None
    taken: bool = False

    def on_taken(self) -> None:
        """Called once, when the writer takes it."""


class Outgoing:
    """A queue that outlives transports, has one taker, and lets its items be withdrawn.

    It is paused while there is no transport that is ready for messages. It has no bound of its own: each call in it
    has a task that waits for it, and there is at most one subscription for each event name.
    """

    def __init__(self) -> None:
        self._items: dict[Outbound, None] = {}
        self._paused = True
        self._closed = False
        self._taker = trio.lowlevel.ParkingLot()

    def put(self, item: Outbound) -> None:
        """Add at the end."""
        self._items[item] = None
        self._taker.unpark_all()

    def withdraw(self, item: Outbound) -> bool:
        """Take an item back. False when it was taken already."""
        return self._items.pop(item, item) is None

    def pause(self) -> None:
        """Nothing is taken until `resume`."""
        self._paused = True

    def resume(self, first: Iterable[Outbound]) -> None:
        """Go on, with `first` before everything that waits."""
        self._items = dict.fromkeys([*first, *self._items])
        self._paused = False
        self._taker.unpark_all()

    def close(self) -> None:
        """Drop everything; the taker gets None."""
        self._items.clear()
        self._closed = True
        self._taker.unpark_all()

    async def take(self) -> Outbound | None:
        """The next item, once there is one and the queue is not paused. None after `close`."""
        await trio.lowlevel.checkpoint_if_cancelled()
        while not self._closed:
            if self._items and not self._paused:
                item = next(iter(self._items))
                del self._items[item]
                item.taken = True
                item.on_taken()
                await trio.lowlevel.cancel_shielded_checkpoint()
                return item
            await self._taker.park()
        return None
