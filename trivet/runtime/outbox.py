"""The bounded, ordered way out of one connection.

Events, responses and control frames of a connection go through its one outbox, in the order in which they were put
there. Frames are complete and shared: an event is encoded and framed once for each `Format`, and the same bytes are
queued for every recipient. Nothing is written until the emitter is about to wait; then each connection gets all that
gathered for it in one non-blocking send, and a writer task is started only for what the transport did not take.
"""

from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

import attrs
import trio
from trio.abc import SendChannel

from trivet.limits import KIB, Limits
from trivet.protocol.codec import Codec
from trivet.runtime.flush import Flusher
from trivet.runtime.logs import logger
from trivet.runtime.scope import TaskScope
from trivet.runtime.timers import TimerHandle, Timers

# One send carries at most about so much: more would hold the loop in the kernel, less would cost system calls.
_CHUNK: Final = 256 * KIB
# Unflushed bytes of one connection that are flushed in the middle of a turn.
_FLUSH_AT: Final = 64 * KIB


class Format(Protocol):
    """How messages become the frames of one kind of transport. One shared instance for each kind and encoding."""

    @property
    def codec(self) -> Codec:
        """The encoding of its messages."""
        ...

    def frame(self, payload: bytes) -> bytes:
        """A complete frame around one encoded message, the same for every recipient."""
        ...

    def close_frame(self, code: int, reason: str) -> bytes:
        """The frame that begins or answers a close handshake."""
        ...


class Transport(Protocol):
    """What carries the bytes of one connection."""

    def send_nowait(self, data: bytes) -> int:
        """Send what can be sent without waiting; returns how many bytes. Raises trio.BrokenResourceError."""
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


@attrs.frozen
class OutboxStatistics:
    """`queued_*` wait in this process; what the kernel holds is not counted. `sent_messages` were taken by it whole."""

    queued_messages: int
    queued_bytes: int
    sent_messages: int


class Backlog:
    """What all outboxes of a host hold back after their flushes, and who holds most of it."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.bytes = 0
        self.outboxes: dict[Outbox, None] = {}

    def update(self, outbox: "Outbox", change: int) -> None:
        """Account for a change; above the limit, end the largest connections until it holds again."""
        self.bytes += change
        while self.bytes > self.limits.outbox_total_bytes:
            # Those that end already keep only what could not be dropped.
            live = [box for box in self.outboxes if not box.closing]
            if not live:
                break
            max(live, key=lambda box: box.backlog).too_slow()


class Outbox(SendChannel[bytes]):
    """A bounded send channel of complete frames.

    `put` never waits and never fails for a live connection; the bounds are judged after a flush, so that a burst
    hurts nobody who reads. Over the hard bound, or over the soft one for `outbox_soft_time` without falling below,
    `on_too_slow` is called.
    """

    __slots__ = (
        "__weakref__",
        "_backlog",
        "_closing",
        "_dirty",
        "_flusher",
        "_head_sent",
        "_in_flight",
        "_limits",
        "_on_too_slow",
        "_queue",
        "_queued_bytes",
        "_room",
        "_scope",
        "_sent",
        "_slow_timer",
        "_timers",
        "_unflushed",
        "_writing",
        "backlog",
        "format",
        "transport",
    )

    def __init__(
        self,
        transport: Transport,
        format: Format,
        *,
        flusher: Flusher,
        backlog: Backlog,
        timers: Timers,
        scope: TaskScope,
        on_too_slow: Callable[[], None],
    ) -> None:
        self.transport = transport
        self.format = format
        self.backlog = 0
        self._flusher = flusher
        self._backlog = backlog
        self._limits = backlog.limits
        self._timers = timers
        self._scope = scope
        self._on_too_slow = on_too_slow
        self._queue: deque[bytes] = deque()
        self._queued_bytes = 0
        self._head_sent = 0
        self._in_flight = 0
        self._unflushed = 0
        self._dirty = False
        self._writing = False
        self._closing = False
        self._sent = 0
        self._slow_timer: TimerHandle | None = None
        self._room: trio.Event | None = None

    # -- in -----------------------------------------------------------------------------------------------------------

    def put(self, frame: bytes) -> bool:
        """Queue one frame for the next flush. False when the connection is ending: the frame goes nowhere."""
        if self._closing:
            return False
        self._queue.append(frame)
        size = len(frame)
        self._queued_bytes += size
        self._unflushed += size
        if not self._dirty:
            self._dirty = True
            self._flusher.add(self)
        elif self._unflushed > _FLUSH_AT:
            self.flush()
        return True

    def send_nowait(self, value: bytes) -> None:
        """Queue one frame. Raises trio.ClosedResourceError when ending, trio.WouldBlock above the soft bound."""
        if self._closing:
            raise trio.ClosedResourceError
        if self._over_soft():
            raise trio.WouldBlock
        self.put(value)

    async def send(self, value: bytes) -> None:
        """Queue one frame, waiting while the soft bound is reached. Raises trio.ClosedResourceError when ending."""
        await trio.lowlevel.checkpoint_if_cancelled()
        while self._over_soft() and not self._closing:
            if self._room is None:
                self._room = trio.Event()
            await self._room.wait()
        self.send_nowait(value)
        await trio.lowlevel.cancel_shielded_checkpoint()

    async def aclose(self) -> None:
        """Drop what is queued and end the transport at once."""
        self.break_()
        await trio.lowlevel.checkpoint()

    # -- ends ---------------------------------------------------------------------------------------------------------

    @property
    def closing(self) -> bool:
        """Whether nothing more can be put."""
        return self._closing

    def close(self, close_frame: bytes) -> None:
        """Send what is queued, then the close frame, then finish the transport; abort it if that takes too long."""
        if self._closing:
            return
        self.put(close_frame)
        self._begin_close()

    def abandon(self, close_frame: bytes) -> None:
        """Drop every frame that was not begun, send the close frame after the one that was, and finish."""
        if self._closing:
            return
        begun = self._head_sent + self._in_flight
        kept: list[bytes] = []
        size = 0
        for frame in self._queue:
            if size >= begun:
                break
            kept.append(frame)
            size += len(frame)
        self._queue = deque(kept)
        self._queued_bytes = size - self._head_sent if kept else 0
        self._note_backlog()
        self.put(close_frame)
        self._begin_close()

    def _begin_close(self) -> None:
        self._closing = True
        self._cancel_slow_timer()
        self._wake_senders()
        self._slow_timer = self._timers.call_later(self._limits.close_timeout, self.transport.abort)

    def break_(self) -> None:
        """The transport is gone: drop everything."""
        self._closing = True
        self._queue.clear()
        self._queued_bytes = self._unflushed = self._head_sent = 0
        self._note_backlog()
        self._cancel_slow_timer()
        self._wake_senders()
        self.transport.abort()

    def too_slow(self) -> None:
        """End the connection for its slowness."""
        if not self._closing:
            self._on_too_slow()

    # -- out ----------------------------------------------------------------------------------------------------------

    def flush(self) -> None:
        """Give the transport what it takes without waiting; a writer task sees to the rest. Never raises."""
        self._unflushed = 0
        if self._writing:
            # The writer may wait for ever: the bounds are judged here too, or a client that never reads has none.
            self._note_backlog()
            self._judge()
            return
        if not self._queue:
            return
        try:
            while self._queue:
                data = self._chunk()
                taken = self.transport.send_nowait(data)
                self._consume(taken)
                if taken < len(data):
                    self._writing = True
                    self._scope.start_soon(self._write)
                    break
        except trio.BrokenResourceError:
            self.break_()
            return
        if self._closing and not self._queue:
            self._finished()
        elif self._writing or self.backlog:
            self._note_backlog()
            self._judge()

    def unmark(self) -> None:
        """The flusher has taken this outbox off its list."""
        self._dirty = False

    def _chunk(self) -> bytes:
        queue = self._queue
        if self._queued_bytes <= _CHUNK:
            data = b"".join(queue) if len(queue) > 1 else queue[0]
            return data[self._head_sent :] if self._head_sent else data
        frames: list[bytes] = []
        size = 0
        for frame in queue:
            frames.append(frame)
            size += len(frame)
            if size >= _CHUNK:
                break
        data = b"".join(frames)
        return data[self._head_sent :] if self._head_sent else data

    def _consume(self, taken: int) -> None:
        queue = self._queue
        if taken == self._queued_bytes:
            self._sent += len(queue)
            queue.clear()
            self._queued_bytes = self._head_sent = 0
            return
        self._queued_bytes -= taken
        taken += self._head_sent
        while queue and taken >= len(queue[0]):
            taken -= len(queue.popleft())
            self._sent += 1
        self._head_sent = taken

    async def _write(self) -> None:
        try:
            while self._queue:
                data = self._chunk()
                self._in_flight = len(data)
                await self.transport.send_all(data)
                self._in_flight = 0
                if self._queue:  # it may have been broken meanwhile
                    self._consume(len(data))
                    self._note_backlog()
                    self._judge()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self.break_()
        finally:
            self._writing = False
        if self._closing and not self._queue:
            self._finished()

    def _finished(self) -> None:
        self._note_backlog()
        self._cancel_slow_timer()
        self.transport.finish()

    # -- bounds -------------------------------------------------------------------------------------------------------

    def _note_backlog(self) -> None:
        change = self._queued_bytes - self.backlog
        if change:
            self.backlog = self._queued_bytes
            if self.backlog:
                self._backlog.outboxes[self] = None
            else:
                self._backlog.outboxes.pop(self, None)
            self._backlog.update(self, change)

    def _over_soft(self) -> bool:
        limits = self._limits
        return len(self._queue) > limits.outbox_soft_messages or self._queued_bytes > limits.outbox_soft_bytes

    def _judge(self) -> None:
        if self._closing:
            return
        limits = self._limits
        if len(self._queue) > limits.outbox_hard_messages or self._queued_bytes > limits.outbox_hard_bytes:
            self.too_slow()
        elif not self._over_soft():
            self._cancel_slow_timer()
            self._wake_senders()
        elif self._slow_timer is None:
            self._slow_timer = self._timers.call_later(limits.outbox_soft_time, self.too_slow)

    def _cancel_slow_timer(self) -> None:
        if self._slow_timer is not None:
            self._slow_timer.cancel()
            self._slow_timer = None

    def _wake_senders(self) -> None:
        if self._room is not None:
            self._room.set()
            self._room = None

    def statistics(self) -> OutboxStatistics:
        """What waits now and what was sent so far."""
        return OutboxStatistics(len(self._queue), self._queued_bytes, self._sent)


def log_too_slow(conn_id: str, statistics: OutboxStatistics) -> None:
    """Say that a connection was ended for its slowness."""
    logger.warning(
        "connection %s ended: too slow, with %d messages (%d bytes) waiting",
        conn_id,
        statistics.queued_messages,
        statistics.queued_bytes,
    )
