"""What waits in one outbox, and what of it gives way when there is too much."""

from collections.abc import Callable, Iterator
from typing import Final

from trivet.limits import KIB
from trivet.runtime.backlog import Backlog
from trivet.runtime.flush import Flusher
from trivet.runtime.frames import Control, Droppable, Dropped
from trivet.runtime.places import Places

# One send carries at most about so much: more would hold the loop in the kernel, less would cost system calls.
CHUNK: Final = 256 * KIB


class FrameQueue:
    """Frames in order, of which the first may have been sent in part.

    What is droppable gives way at the soft bound (see `frames.py`), and `dropped_frame` tells the client where and how
    many. Nothing gives way of which a byte may have left.
    """

    __slots__ = (
        "_backlog",
        "_closing",
        "_dirty",
        "_droppable",
        "_dropped",
        "_dropped_frame",
        "_flusher",
        "_head_sent",
        "_held",
        "_in_flight",
        "_in_flight_frames",
        "_limits",
        "_places",
        "_queue",
        "_queued_bytes",
        "_soft_bytes",
        "_soft_messages",
        "_unflushed",
    )

    def __init__(self, flusher: Flusher, backlog: Backlog, dropped_frame: Callable[[str, int], bytes]) -> None:
        self._flusher = flusher
        self._backlog = backlog
        self._limits = backlog.limits
        self._soft_messages = self._limits.outbox_soft_messages
        self._soft_bytes = self._limits.outbox_soft_bytes
        self._dropped_frame = dropped_frame
        self._queue: list[bytes] = []  # mostly empty, and an empty deque is 15 times as large
        self._queued_bytes = 0
        self._head_sent = 0
        self._held = 0  # how many of the first count in the backlog
        self._in_flight = 0  # bytes that a writer task is sending
        self._in_flight_frames = 0
        self._places: Places | None = None  # while something gives way
        self._unflushed = 0
        self._dirty = False
        self._droppable = 0  # queued frames that may give way
        self._closing = False
        self._dropped = 0

    # -- what a flusher needs -----------------------------------------------------------------------------------------

    def flush(self) -> bool:
        """Hand over what is queued."""
        raise NotImplementedError

    def unmark(self) -> None:
        """The flusher has taken it off its list."""
        self._dirty = False

    def _mark(self) -> None:
        if not self._dirty:
            self._dirty = True
            self._flusher.add(self)

    # -- overflow policies --------------------------------------------------------------------------------------------

    @property
    def _perhaps_received(self) -> int:
        """How many of the first frames the client may have already."""
        return 0

    def _evict_for(self, frame: bytes) -> bool:
        """Let droppable events give way to a frame. False when the frame itself has to."""
        droppable = frame if isinstance(frame, Droppable) else None
        if droppable is not None and droppable.key is not None and self._droppable:
            self._replace(droppable)
        evicts = not isinstance(frame, Control) and (droppable is None or droppable.policy != "drop_newest")
        evicts = evicts and self._droppable > 0  # most queues hold none, and are not searched
        while len(self._queue) >= self._soft_messages or self._queued_bytes >= self._soft_bytes:
            # The first eviction leaves a marker in its place, so that it takes another to make room.
            victim = self._first_droppable() if evicts else None
            if victim is not None:
                self._drop(victim)
            elif droppable is not None:
                self._tell_dropped(droppable.event)
                return False
            else:
                return True
        return True

    @property
    def _first_free(self) -> int:
        """The first place of a frame that may give way: nothing of it has been sent."""
        begun = self._in_flight_frames if self._in_flight else int(self._head_sent > 0)
        return max(begun, self._perhaps_received)

    def _first_droppable(self) -> int | None:
        queue = self._queue
        for index in range(self._first_free, len(queue)):
            if queue[index].__class__ is Droppable:
                return index
        return None

    def _look(self) -> Places:
        if self._places is None:
            self._places = Places()
        self._places.catch_up(self._queue)
        return self._places

    def _replace(self, frame: Droppable) -> None:
        """Drop the queued event that this one makes out of date."""
        same = self._look().find_latest(frame)
        if same is not None and same >= self._first_free:
            self._drop(same)

    def _drop(self, index: int) -> None:
        victim = self._queue[index]
        assert isinstance(victim, Droppable)
        self._queued_bytes -= len(victim)
        self._droppable -= 1
        self._look().forget(victim, index)
        self._tell_dropped(victim.event, index)

    def _tell_dropped(self, event: str, index: int | None = None) -> None:
        """Count one more into the marker that stands where the first dropped one of that event stood.

        `index` is the place of one that has just given way; without it, what was not queued would have been the last.
        """
        self._dropped += 1
        self._backlog.dropped += 1
        places, queue = self._look(), self._queue
        before = 0
        at = places.find_marker(event)
        if at is not None and at < self._first_free:
            at = None
        if at is not None:
            old = queue[at]
            assert isinstance(old, Dropped)
            before = old.times
            self._queued_bytes -= len(old)
        marker = Dropped(self._dropped_frame(event, before + 1), event, before + 1)
        self._queued_bytes += len(marker)
        self._mark()
        if index is None or at is None:
            first = at if index is None else index
        else:
            first = min(index, at)  # what is dropped later may have stood before
            other = max(index, at)
            if other < self._held:
                self._held -= 1
                self._backlog.release(queue[other : other + 1])
            del queue[other]
            places.remove(other)
        if first is None:
            queue.append(marker)
            return
        if first < self._held:
            self._backlog.release(queue[first : first + 1])
            self._backlog.hold((marker,))
        queue[first] = marker
        places.mark(event, first)

    # -- what counts in the backlog -----------------------------------------------------------------------------------

    def _hold(self) -> None:
        """All that is queued counts from now on."""
        if self._held < len(self._queue):
            frames = self._queue[self._held :]
            self._backlog.hold(frames)
            if self._closing:
                self._backlog.closing.hold(frames)
            self._held = len(self._queue)

    def _release(self, count: int) -> None:
        """So many of the first are about to leave the queue."""
        count = min(count, self._held)
        if count:
            frames = self._queue[:count]
            self._backlog.release(frames)
            if self._closing:
                self._backlog.closing.release(frames)
            self._held -= count

    def _hold_closing(self) -> None:
        """From now on it closes, and what it holds counts there, too."""
        assert not self._closing
        self._closing = True
        self._backlog.closing.hold(self._queue[: self._held])

    # -- on the way out -----------------------------------------------------------------------------------------------

    def _begun(self) -> Iterator[bytes]:
        """The queued frames of which something has been sent, or is being sent."""
        begun = self._head_sent + self._in_flight
        size = 0
        for frame in self._queue:
            if size >= begun:
                return
            yield frame
            size += len(frame)

    def _chunk(self) -> bytes:
        """What to send next, and note how many frames it ends."""
        queue = self._queue
        if self._queued_bytes <= CHUNK:
            self._in_flight_frames = len(queue)
            data = b"".join(queue) if len(queue) > 1 else queue[0]
            return data[self._head_sent :] if self._head_sent else data
        frames: list[bytes] = []
        size = 0
        for frame in queue:
            frames.append(frame)
            size += len(frame)
            if size >= CHUNK:
                break
        self._in_flight_frames = len(frames)
        data = b"".join(frames)
        return data[self._head_sent :] if self._head_sent else data
