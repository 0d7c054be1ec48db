"""What a connection has to send, in order, and what it sent and may have to send again."""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Final

import attrs
import trio

from trivet.limits import KIB
from trivet.protocol import extension

MAX_UNACKNOWLEDGED: Final = 1024
MAX_UNACKNOWLEDGED_BYTES: Final = 1024 * KIB
"""More than either waits until the server has acknowledged what was sent."""


@attrs.frozen(eq=False)
class Frame:
    """One encoded message, of RivetKit's protocol or of the extension. `context` is the sender's."""

    payload: bytes
    context: object = None
    extension: bool = False


def extension_frame(message: extension.ExtensionToServer, context: object = None) -> Frame:
    """The frame of a message of the extension."""
    return Frame(extension.encode(message), context, extension=True)


@attrs.define(eq=False)
class Outbound(ABC):
    """One thing to send. Until it is `taken` it can be withdrawn; from then on bytes of it may be on their way."""

    taken: bool = attrs.field(default=False, init=False)

    @abstractmethod
    def frames(self, extended: bool) -> Sequence[Frame]:
        """How it is said, with the extension or without. All of them count."""

    def on_taken(self, extended: bool) -> None:  # noqa: B027 - most need not know
        """Called once, when the writer takes it."""


@attrs.define(eq=False)
class ExtensionMessage(Outbound):
    """A message that only the extension has. Without it nothing is sent."""

    message: extension.ExtensionToServer

    def frames(self, extended: bool) -> Sequence[Frame]:
        return [extension_frame(self.message)] if extended else []


class Outgoing:
    """A queue that outlives transports, has one taker, and lets its items be withdrawn.

    It is paused while there is no transport that is ready for messages. What waits has no bound of its own: each call
    in it has a task that waits for it, and there is at most one subscription for each event name.

    With the extension, what was taken is kept until the server has acknowledged it, within bounds: when they are
    reached, items wait, and can be withdrawn, until there is room.
    """

    def __init__(self) -> None:
        self._items: dict[Outbound, None] = {}
        self._urgent: dict[Outbound, None] = {}
        self._paused = True
        self._closed = False
        self._extended = False
        self._control: deque[Frame] = deque()
        self._acknowledged = 0
        self._unacknowledged: deque[Frame] = deque()
        self._unacknowledged_bytes = 0
        self._again: deque[Frame] = deque()
        self._taker = trio.lowlevel.ParkingLot()

    # -- what is to be sent -------------------------------------------------------------------------------------------

    def put(self, item: Outbound) -> None:
        """Add at the end."""
        self._items[item] = None
        self._taker.unpark_all()

    def put_urgent(self, item: Outbound) -> None:
        """Send it before everything that waits, whether there is room or not. A new session forgets it."""
        self._urgent[item] = None
        self._taker.unpark_all()

    def put_control(self, frame: Frame) -> None:
        """Send a frame that is not counted, on this transport or never."""
        self._control.append(frame)
        self._taker.unpark_all()

    def withdraw(self, item: Outbound) -> bool:
        """Take an item back. False when it was taken already."""
        return self._items.pop(item, item) is None

    # -- transports and sessions --------------------------------------------------------------------------------------

    @property
    def extended(self) -> bool:
        """Whether the current session, or the last one, speaks the extension."""
        return self._extended

    def pause(self) -> None:
        """Nothing is taken until `begin` or `resume`."""
        self._paused = True
        self._control.clear()

    def begin(self, first: Iterable[Outbound], extended: bool) -> None:
        """Go on in a new session, with `first` before everything that waits. What was sent before is forgotten."""
        self._items = dict.fromkeys([*first, *self._items])
        self._urgent.clear()
        self._again.clear()
        self._unacknowledged.clear()
        self._acknowledged = self._unacknowledged_bytes = 0
        self._extended = extended
        self._go_on()

    def resume(self, received: int) -> bool:
        """Go on in the same session: first again what the server lacks. False when its count cannot be."""
        if received < self._acknowledged or not self.acknowledge(received):
            return False
        self._again = deque(self._unacknowledged)
        self._go_on()
        return True

    def acknowledge(self, received: int) -> bool:
        """The server has so many. False when that is more than were sent."""
        if received > self._acknowledged + len(self._unacknowledged):
            return False
        while self._acknowledged < received:
            self._acknowledged += 1
            self._unacknowledged_bytes -= len(self._unacknowledged.popleft().payload)
        self._taker.unpark_all()
        return True

    def _go_on(self) -> None:
        self._paused = False
        self._taker.unpark_all()

    def close(self) -> None:
        """Drop everything; the taker gets None."""
        self._items.clear()
        self._urgent.clear()
        self._closed = True
        self._taker.unpark_all()

    # -- the taker ----------------------------------------------------------------------------------------------------

    async def take(self) -> Sequence[Frame] | None:
        """What to send next, once there is something and the queue is not paused. None after `close`."""
        await trio.lowlevel.checkpoint_if_cancelled()
        while not self._closed:
            frames = None if self._paused else self._next()
            if frames is not None:
                await trio.lowlevel.cancel_shielded_checkpoint()
                return frames
            await self._taker.park()
        return None

    def _next(self) -> Sequence[Frame] | None:
        if self._control:
            return [self._control.popleft()]
        if self._again:
            return [self._again.popleft()]
        queue = self._urgent or self._items
        if not queue:
            return None
        item = next(iter(queue))
        frames = item.frames(self._extended)
        if queue is self._items and not self._has_room(frames):
            return None
        del queue[item]
        if self._extended:
            self._unacknowledged.extend(frames)
            self._unacknowledged_bytes += sum(len(frame.payload) for frame in frames)
        item.taken = True
        item.on_taken(self._extended)
        return frames

    def _has_room(self, frames: Sequence[Frame]) -> bool:
        if not self._unacknowledged:
            return True
        size = sum(len(frame.payload) for frame in frames)
        return (
            len(self._unacknowledged) + len(frames) <= MAX_UNACKNOWLEDGED
            and self._unacknowledged_bytes + size <= MAX_UNACKNOWLEDGED_BYTES
        )
