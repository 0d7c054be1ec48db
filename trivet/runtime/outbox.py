"""The bounded, ordered way out of one connection.

Events, responses and control frames of a connection go through its one outbox, in the order in which they were put
there. Frames are complete and shared: an event is encoded and framed once for each `Format`, and the same bytes are
queued for every recipient. Nothing is written until the emitter is about to wait; then each connection gets all that
gathered for it in one non-blocking send, and a writer task is started only for what the transport did not take.
"""

from collections.abc import Callable

import trio
from trio.abc import SendChannel

from trivet.runtime.audience import FLUSH_AT
from trivet.runtime.backlog import Backlog
from trivet.runtime.bounds import BoundedQueue, OutboxStatistics
from trivet.runtime.flush import Flusher
from trivet.runtime.frames import Control, Droppable
from trivet.runtime.logs import logger
from trivet.runtime.queue import CHUNK
from trivet.runtime.scope import TaskScope
from trivet.runtime.timers import Timers
from trivet.runtime.transport import BROKEN, Format, Transport


class Outbox(BoundedQueue, SendChannel[bytes]):
    """A bounded send channel of complete frames.

    `put` never waits and never fails for a live connection; the bounds are judged after a flush, so that a burst
    hurts nobody who reads. Over the hard bound, or over the soft one for `outbox_soft_time` without falling below,
    `on_too_slow` is called. At the soft bound, what is droppable gives way (see `frames.py`), and `dropped_frame` tells
    the client where and how many.

    A `resumable` outbox keeps what was sent until it is acknowledged. When its transport breaks it calls `on_broken`
    and goes on without one; `attach` gives it another, beginning with what that client does not have.
    """

    __slots__ = ("_on_broken", "_own", "_scope", "_writing", "format")

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
        dropped_frame: Callable[[str, int], bytes],
        on_broken: Callable[[], None] | None = None,
    ) -> None:
        super().__init__(
            transport,
            flusher=flusher,
            backlog=backlog,
            timers=timers,
            on_too_slow=on_too_slow,
            dropped_frame=dropped_frame,
            resumable=on_broken is not None,
        )
        self.format = format
        self._scope = scope
        self._on_broken = on_broken
        self._own = False  # whether something was put since the last flush that is not its audience's
        self._writing = False

    # -- in -----------------------------------------------------------------------------------------------------------

    def put(self, frame: bytes) -> bool:
        """Queue one frame for the next flush. False when the connection is ending: the frame goes nowhere."""
        if self._closing:
            return False
        self._part()
        self._own = True
        return self.append(frame)

    def append(self, frame: bytes) -> bool:
        """`put`, for its audience while it is not together with it."""
        if self._closing:
            return False
        queue = self._queue
        if len(queue) >= self._soft_messages or self._queued_bytes >= self._soft_bytes or frame.__class__ is Droppable:
            if not self._make_room(frame):
                return not self._closing
            queue = self._queue
            self._droppable += frame.__class__ is Droppable
        queue.append(frame)
        size = len(frame)
        self._queued_bytes += size
        self._unflushed += size
        if not self._dirty:
            self._dirty = True
            self._flusher.add(self)
        elif self._unflushed > FLUSH_AT:
            self._flush()
        return True

    def put_control(self, frame: bytes) -> None:
        """Queue a frame of the transport's own: not counted, and forgotten while there is no transport."""
        if self._transport is not None:
            self.put(Control(frame))

    def put_first(self, frame: bytes) -> None:
        """Queue a frame of the transport's own before all others, and see to a flush."""
        self._part()
        self._places = None
        self._release(len(self._queue))
        self._queue.insert(0, Control(frame))
        self._queued_bytes += len(frame)
        self._mark()

    def send_nowait(self, value: bytes) -> None:
        """Queue one frame. Raises trio.ClosedResourceError when ending, trio.WouldBlock above the soft bound."""
        if self._closing:
            raise trio.ClosedResourceError
        if self.full:
            raise trio.WouldBlock
        self.put(value)

    async def send(self, value: bytes) -> None:
        """Queue one frame, waiting while the soft bound is reached. Raises trio.ClosedResourceError when ending."""
        await trio.lowlevel.checkpoint_if_cancelled()
        await self.wait_for_room()
        self.send_nowait(value)
        await trio.lowlevel.cancel_shielded_checkpoint()

    async def aclose(self) -> None:
        """Drop what is queued and end the transport at once."""
        self.break_()
        await trio.lowlevel.checkpoint()

    # -- its audience -------------------------------------------------------------------------------------------------

    def rejoin(self) -> None:
        """Go together with its audience, when nothing tells them apart."""
        audience, transport = self.audience, self._transport
        if (
            audience is not None
            and self.slot < 0
            and audience.idle
            and transport is not None
            and not (self._queue or self._writing or self._closing or self.backlog)
            and (
                self._retained is None
                or (len(self._retained.frames) <= self._soft_messages and self._retained.size <= self._soft_bytes)
            )
        ):
            audience.join(self, transport.send_nowait)

    def _part(self) -> None:
        if self.slot >= 0:
            assert self.audience is not None
            self.audience.part(self)

    def go_alone(self, sent: int, kept: list[bytes], size: int, waiting: list[bytes]) -> None:
        """Its audience parts from it, having sent so many frames to it; `waiting` have not been sent."""
        self.slot = -1
        self._sent += sent
        if self._retained is not None:
            self._retained.extend(kept, size)
        if waiting:
            self._queue.extend(waiting)
            size = sum(map(len, waiting))
            self._queued_bytes += size
            self._unflushed += size
            self._droppable += sum(frame.__class__ is Droppable for frame in waiting)
            self._mark()

    def stumbled(self, taken: int) -> None:
        """Of what waits its transport has just taken a part alone; -1: it is broken."""
        transport = self._transport
        assert transport is not None
        if taken < 0:
            self._broken(transport)
            return
        self._consume(taken)
        self._writing = True
        self._scope.start_soon(self._write, transport)
        self._note_backlog()
        self.judge()

    # -- overflow policies --------------------------------------------------------------------------------------------

    def _make_room(self, frame: bytes) -> bool:
        """Let droppable events give way. False when the frame itself has to."""
        if not (self._writing or self._transport is None):
            if len(self._queue) < self._soft_messages and self._queued_bytes < self._soft_bytes:
                return True
            self._flush()  # a burst to a client that reads: nothing has to give way
        if self._closing:
            return False
        return self._evict_for(frame)

    # -- sessions -----------------------------------------------------------------------------------------------------

    @property
    def detached(self) -> bool:
        """Whether it waits for another transport."""
        return self._transport is None

    @property
    def transport(self) -> Transport | None:
        """What carries it now."""
        return self._transport

    def detach(self) -> None:
        """Go on without a transport. What was sent and not acknowledged is queued again, in its place."""
        retained = self._retained
        assert retained is not None
        self._part()
        retained.ever_sent = self._most_received()
        transport, self._transport = self._transport, None
        self._writing = False  # who writes to the old transport finds that it is no longer the one
        self._cancel_slow_timer()
        self._release(len(self._queue))
        unsent = [frame for frame in self._queue if not isinstance(frame, Control)]
        self._queue = [*retained.take_all(), *unsent]
        self._places = None
        self._droppable = sum(frame.__class__ is Droppable for frame in self._queue)
        self._queued_bytes = sum(map(len, self._queue))
        self._head_sent = self._in_flight = 0
        if transport is not None:
            transport.abort()
        self._note_backlog()
        self.judge()

    def attach(self, transport: Transport, received: int) -> bool:
        """Go on with another transport, after the `received` first counted frames. False when that cannot be."""
        retained = self._retained
        self._part()
        if retained is None or self._closing:
            return False
        most = retained.ever_sent if self._transport is None else self._most_received()
        if not retained.acknowledged <= received <= most:
            return False
        if self._transport is not None:
            self.detach()
        count = received - retained.acknowledged
        self._release(count)
        for frame in self._queue[:count]:
            self._queued_bytes -= len(frame)
            self._droppable -= frame.__class__ is Droppable
        del self._queue[:count]
        self._places = None
        retained.begin_with(received)
        self._transport = transport
        self._note_backlog()
        return True

    # -- ends ---------------------------------------------------------------------------------------------------------

    def close(self, close_frame: bytes) -> None:
        """Send what is queued, then the close frame, then finish the transport; abort it if that takes too long."""
        if self._closing:
            return
        if self._transport is None:
            self.break_()
            return
        self.put(Control(close_frame))
        if self.detached:  # it has just been found broken
            self.break_()
        elif not self._closing:
            self._begin_close()

    def abandon(self, close_frame: bytes) -> None:
        """Drop every frame that was not begun, send the close frame after the one that was, and finish."""
        if self._closing:
            return
        if self._transport is None:
            self.break_()
            return
        self._part()
        self._release(len(self._queue))
        self._queue = [*self._begun(), Control(close_frame)]
        self._places = None
        self._droppable = sum(frame.__class__ is Droppable for frame in self._queue)
        self._queued_bytes = sum(map(len, self._queue)) - self._head_sent
        self._begin_close()  # before the backlog is judged, which may not end it again
        self._note_backlog()
        self._mark()

    def _begin_close(self) -> None:
        self._hold_closing()
        self._forget_retained()
        self._cancel_slow_timer()
        self._wake_senders()
        self._slow_timer = self._timers.call_later(self._limits.close_timeout, self._abort)

    def break_(self) -> None:
        """The transport is gone for good: drop everything."""
        self._part()
        self._release(len(self._queue))
        self._closing = True
        self._queue.clear()
        self._places = None
        self._forget_retained()
        self._droppable = self._queued_bytes = self._unflushed = self._head_sent = 0
        self._note_backlog()
        self._cancel_slow_timer()
        self._wake_senders()
        self._abort()

    def _abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def _broken(self, transport: Transport) -> None:
        """A send has failed. A resumable outbox waits for another transport, unless it was ending."""
        if transport is not self._transport:
            return
        if self._on_broken is None or self._closing:
            self.break_()
        else:
            self.detach()
            self._on_broken()

    # -- out ----------------------------------------------------------------------------------------------------------

    def flush(self) -> bool:
        """Give the transport what it takes without waiting; a writer task sees to the rest. False. Never raises."""
        self._flush()
        if self._own:
            self._own = False  # perhaps there will be more of it: next time
        elif self.audience is not None:
            self.rejoin()
        if self._retained is not None:
            self._backlog.judge()
        return False

    def _flush(self) -> None:
        self._unflushed = 0
        transport = self._transport
        if transport is None or self._writing:
            self._note_backlog()
            self.judge()
            return
        queue = self._queue
        if not queue:
            return
        try:
            if not self._head_sent and self._queued_bytes <= CHUNK:
                # Nearly every flush: one send that takes it all.
                taken = transport.send_nowait(b"".join(queue) if len(queue) > 1 else queue[0]) or 0
                all_taken = taken == self._queued_bytes
                self._consume(taken)
                if all_taken and not self._closing:
                    retained = self._retained
                    if (
                        self.backlog
                        or self._room is not None
                        or (
                            retained is not None
                            and (len(retained.frames) > self._soft_messages or retained.size > self._soft_bytes)
                        )
                    ):
                        self._note_backlog()
                        self.judge()
                    return
                if not all_taken:
                    self._writing = True
                    self._scope.start_soon(self._write, transport)
            while self._queue and not self._writing:
                data = self._chunk()
                taken = transport.send_nowait(data) or 0
                self._consume(taken)
                if taken < len(data):
                    self._writing = True
                    self._scope.start_soon(self._write, transport)
        except BROKEN:
            self._broken(transport)
            return
        if self._closing and not self._queue:
            self._finished(transport)
        elif self._writing or self.backlog or self._retained is not None:
            self._note_backlog()
            self.judge()

    def _consume(self, taken: int) -> None:
        queue = self._queue
        if taken == self._queued_bytes:
            self._sent += len(queue)
            if self._retained is not None:
                self._retained.add(queue)
            if self._held:
                self._release(len(queue))
            queue.clear()
            self._places = None
            self._queued_bytes = self._head_sent = self._droppable = 0
            return
        self._queued_bytes -= taken
        taken += self._head_sent
        count = 0
        for frame in queue:
            if taken < len(frame):
                break
            taken -= len(frame)
            count += 1
            self._droppable -= frame.__class__ is Droppable
        if self._retained is not None:
            self._retained.add(queue[:count])
        self._release(count)
        del queue[:count]
        if self._places is not None:
            self._places.remove(0, count)
        self._sent += count
        self._head_sent = taken

    async def _write(self, transport: Transport) -> None:
        try:
            while self._queue and transport is self._transport:
                data = self._chunk()
                self._in_flight = len(data)
                await transport.send_all(data)
                if transport is not self._transport:
                    return
                self._in_flight = 0
                if self._queue:  # it may have been broken meanwhile
                    self._consume(len(data))
                    self._note_backlog()
                    self.judge()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self._broken(transport)
        finally:
            if transport is self._transport:
                self._writing = False
        if self._closing and not self._queue and transport is self._transport:
            self._finished(transport)

    def _finished(self, transport: Transport) -> None:
        self._note_backlog()
        self._cancel_slow_timer()
        transport.finish()


def log_too_slow(conn_id: str, statistics: OutboxStatistics) -> None:
    """Say that a connection was ended for its slowness."""
    logger.warning(
        "connection %s ended: too slow, with %d messages (%d bytes) waiting",
        conn_id,
        statistics.queued_messages,
        statistics.queued_bytes,
    )
