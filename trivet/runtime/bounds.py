"""What an outbox holds, what others need to know of that, and the bounds that it is held to."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import attrs
import trio

from trivet.runtime.backlog import Backlog
from trivet.runtime.flush import Flusher
from trivet.runtime.frames import Control
from trivet.runtime.queue import FrameQueue
from trivet.runtime.retained import Retained
from trivet.runtime.timers import TimerHandle, Timers
from trivet.runtime.transport import Transport

if TYPE_CHECKING:
    from trivet.runtime.audience import Audience


@attrs.frozen
class OutboxStatistics:
    """`queued_*` wait in this process; what the kernel holds is not counted. `sent_messages` were taken by it whole.

    `unacknowledged` were sent and are kept until a resumable session's client has them; `dropped` events gave way to
    later ones by their overflow policy.
    """

    queued_messages: int
    queued_bytes: int
    sent_messages: int
    unacknowledged: int = 0
    dropped: int = 0


class BoundedQueue(FrameQueue):
    """What waits, and where it is `resumable` what was sent and is not acknowledged; both within their bounds.

    A part of both may be with its audience, of which it is then told.
    """

    __slots__ = (
        "__weakref__",
        "_on_too_slow",
        "_retained",
        "_room",
        "_sent",
        "_slow_timer",
        "_timers",
        "_transport",
        "audience",
        "backlog",
        "joined",
        "joined_bytes",
        "slot",
    )

    def __init__(
        self,
        transport: Transport,
        *,
        flusher: Flusher,
        backlog: Backlog,
        timers: Timers,
        on_too_slow: Callable[[], None],
        dropped_frame: Callable[[str, int], bytes],
        resumable: bool,
    ) -> None:
        super().__init__(flusher, backlog, dropped_frame)
        self.backlog = 0
        """Bytes that waited after the last flush."""
        self.audience: Audience | None = None
        self.slot = -1
        """Its place among those together with its audience; -1 while it goes alone."""
        self.joined = self.joined_bytes = 0
        """What the audience had sent when it joined, and what of the rest is acknowledged."""
        self._transport: Transport | None = transport
        self._timers = timers
        self._on_too_slow = on_too_slow
        self._sent = 0
        self._slow_timer: TimerHandle | None = None
        self._room: trio.Event | None = None
        self._retained = Retained(backlog) if resumable else None
        if resumable:
            backlog.resumable.add(self)

    def _part(self) -> None:
        """Go on alone, where it is together with its audience."""
        raise NotImplementedError

    def break_(self) -> None:
        """Drop everything, and end the transport at once."""
        raise NotImplementedError

    @property
    def closing(self) -> bool:
        """Whether nothing more can be put."""
        return self._closing

    @property
    def full(self) -> bool:
        """Whether the soft bound is reached."""
        if self.slot >= 0:
            assert self.audience is not None
            return self.audience.full
        return len(self._queue) > self._soft_messages or self._queued_bytes > self._soft_bytes

    async def wait_for_room(self) -> None:
        """Wait until the outbox is below its soft bound, or ending."""
        if self.full:
            self._part()  # so that its own flush tells
        while self.full and not self._closing:
            if self._room is None:
                self._room = trio.Event()
            await self._room.wait()

    # -- what it holds -------------------------------------------------------------------------------------------------

    def _note_backlog(self) -> None:
        self._hold()
        if self._queued_bytes != self.backlog:
            self.backlog = self._queued_bytes
            if self.backlog:
                self._backlog.outboxes[self] = None
            else:
                self._backlog.outboxes.pop(self, None)
        self._backlog.judge()

    def held(self) -> tuple[list[bytes], float]:
        """The frames that count for it in the backlog, and its part of what its audience keeps, in bytes."""
        frames = self._queue[: self._held]
        if self._retained is not None:
            frames += self._retained.frames
        return frames, 0.0 if self.slot < 0 or self.audience is None else self.audience.share_of(self)

    def statistics(self) -> OutboxStatistics:
        """What waits now, and what was sent and dropped so far."""
        messages, size, sent = len(self._queue), self._queued_bytes, self._sent
        if self.slot >= 0:
            assert self.audience is not None
            messages, size = self.audience.waiting_for(self)
            sent += self.audience.sent_to(self)
        return OutboxStatistics(messages, size, sent, self.kept[0], self._dropped)

    # -- what is not acknowledged --------------------------------------------------------------------------------------

    @property
    def resumable(self) -> bool:
        """Whether it keeps what is not acknowledged."""
        return self._retained is not None

    @property
    def kept(self) -> tuple[int, int]:
        """How many frames, and bytes, were sent and are not acknowledged."""
        if self._retained is None:
            return 0, 0
        messages, size = len(self._retained.frames), self._retained.size
        if self.slot >= 0:
            assert self.audience is not None
            messages += self.audience.sent_to(self)
            size += self.audience.sent_bytes_to(self)
        return messages, size

    @property
    def _perhaps_received(self) -> int:
        # While away, the client counts on from what it has, which is known when it returns: what it may have stays.
        retained = self._retained
        return 0 if retained is None or self._transport is not None else retained.ever_sent - retained.acknowledged

    def acknowledge(self, received: int) -> bool:
        """The client has so many counted frames in all. False when it cannot have."""
        retained = self._retained
        if retained is None or not retained.acknowledged <= received <= self._most_received():
            return False
        together = retained.claim(received)
        if together and self.slot >= 0:
            assert self.audience is not None
            self._sent += together
            retained.begin_with(received)
            self.audience.acknowledged(self, together)
        return True

    def _most_received(self) -> int:
        """How many counted frames the client can have: also those of a send that has not returned."""
        retained = self._retained
        assert retained is not None
        if self.slot >= 0:
            assert self.audience is not None
            on_their_way = self.audience.sent_to(self)
        else:
            on_their_way = sum(frame.__class__ is not Control for frame in self._begun())
        return retained.acknowledged + len(retained.frames) + on_their_way

    def _forget_retained(self) -> None:
        """Nobody will go on with it."""
        if self._retained is not None:
            self._retained.take_all()
            self._retained = None
            self._backlog.resumable.discard(self)

    # -- bounds --------------------------------------------------------------------------------------------------------

    def judge(self) -> None:
        """After a flush: hold it to its bounds."""
        if self._closing:
            return
        limits = self._limits
        messages, size = self.kept
        messages += len(self._queue)
        size += self._queued_bytes
        if messages > limits.outbox_hard_messages or size > limits.outbox_hard_bytes:
            self.too_slow()
        elif not self.full:
            self._cancel_slow_timer()
            self._wake_senders()
        elif self._slow_timer is None and self._transport is not None:
            self._slow_timer = self._timers.call_later(limits.outbox_soft_time, self.too_slow)

    def _cancel_slow_timer(self) -> None:
        if self._slow_timer is not None:
            self._slow_timer.cancel()
            self._slow_timer = None

    def _wake_senders(self) -> None:
        if self._room is not None:
            self._room.set()
            self._room = None

    def too_slow(self) -> None:
        """End the connection for its slowness."""
        if not self._closing:
            self._backlog.ended += 1
            self._on_too_slow()
