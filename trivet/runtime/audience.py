"""Outboxes that get the same broadcasts, and so may share one list of what waits for them, and one send loop.

A broadcast costs an append for an audience instead of one for each recipient, and its flush joins the frames once and
goes through bare functions in one loop. That is for outboxes that have nothing else to send and whose transports take
all of it: they are *together*. One that differs (a response or an event for it alone, a slow or broken transport, a
client that is away, an end) *parts* from the others with what has gathered for it, goes on by its own queue, and joins
them again when nothing tells it from them any more.
"""

from collections.abc import Callable, Collection
from itertools import accumulate
from typing import TYPE_CHECKING, Final

from trivet.limits import KIB
from trivet.runtime.backlog import Backlog
from trivet.runtime.flush import Flusher
from trivet.runtime.transport import BROKEN, Format

if TYPE_CHECKING:
    from trivet.runtime.bounds import BoundedQueue
    from trivet.runtime.outbox import Outbox
    from trivet.runtime.session import Session

# Sends between two looks at the clock.
_AT_ONCE: Final = 32
# Bytes that gather in the middle of a turn before they are flushed.
FLUSH_AT: Final = 64 * KIB
# After so much has been sent, those who keep what is not acknowledged are looked at, if no bound is nearer.
_SWEEP_FRAMES: Final = 256
_SWEEP_BYTES: Final = 256 * KIB


class Audience:
    """The sessions of one actor that have the same subscriptions and frames of the same format.

    Of those who are together the audience knows only a function that sends. A flush that has begun, but let other
    tasks run, has a `_batch`: those before `_at` have got it, the others have not.
    """

    __slots__ = (
        "_acknowledgements",
        "_at",
        "_backlog",
        "_batch",
        "_boxes",
        "_data",
        "_dirty",
        "_ends",
        "_everybody",
        "_flusher",
        "_frames",
        "_free",
        "_limits",
        "_log",
        "_resumable",
        "_sends",
        "_size",
        "_sweep_at",
        "_sweep_at_bytes",
        "apart",
        "format",
        "members",
        "names",
        "sent",
        "sent_bytes",
    )

    def __init__(self, format: Format, names: frozenset[str], flusher: Flusher, backlog: Backlog) -> None:
        self.format = format
        self.names = names
        self.members: dict[str, Session] = {}
        """By the id of their connection."""
        self.apart: dict[Outbox, None] = {}
        self._everybody: tuple[Outbox, ...] | None = None
        self.sent = 0
        """Frames that all who are together have got."""
        self.sent_bytes = 0
        self._flusher = flusher
        self._backlog = backlog
        self._limits = backlog.limits
        self._dirty = False
        # What has gathered since the last flush began.
        self._frames: list[bytes] = []
        self._size = 0
        self._batch: list[bytes] | None = None
        self._data = b""
        self._at: int = 0
        # Those together, by their slot. In a free slot is a function that takes everything and sends nothing: `len`.
        self._boxes: list[Outbox | None] = []
        self._sends: list[Callable[[bytes], int | None]] = []
        self._free: list[int] = []
        # The last of what was sent, or is being sent, as far as anybody who is together and resumable has to keep it,
        # and where each of these frames ends in all that was sent.
        self._log: list[bytes] = []
        self._ends: list[int] = []
        self._resumable = 0
        self._acknowledgements = 0  # since the last sweep
        self._sweep_at = self._sweep_at_bytes = 0

    # -- who ----------------------------------------------------------------------------------------------------------

    def add(self, session: "Session") -> None:
        """A new member."""
        box = session.outbox
        self.members[session.conn.id] = session
        self._everybody = None
        self.apart[box] = None
        box.audience = self
        box.rejoin()

    def remove(self, session: "Session") -> None:
        """A member leaves, with what has gathered for it."""
        box = self.members.pop(session.conn.id).outbox
        self._everybody = None
        if box.slot >= 0:
            self.part(box)
        del self.apart[box]
        box.audience = None

    @property
    def everybody(self) -> tuple["Outbox", ...]:
        """The outboxes of all members: another tuple whenever they have changed."""
        if self._everybody is None:
            self._everybody = tuple(session.outbox for session in self.members.values())
        return self._everybody

    @property
    def idle(self) -> bool:
        """Whether nothing waits for those who are together."""
        return not self._frames and self._batch is None

    def join(self, box: "Outbox", send: Callable[[bytes], int | None]) -> None:
        """It has nothing of its own to send, nor has the audience: from now on they are together."""
        assert self.idle
        del self.apart[box]
        if self._free:
            slot = self._free.pop()
            self._boxes[slot], self._sends[slot] = box, send
        else:
            slot = len(self._boxes)
            self._boxes.append(box)
            self._sends.append(send)
        box.slot = slot
        box.joined, box.joined_bytes = self.sent, self.sent_bytes
        if box.resumable:
            if not self._resumable:
                self._sweep_at, self._sweep_at_bytes = self.sent + _SWEEP_FRAMES, self.sent_bytes + _SWEEP_BYTES
            self._resumable += 1
            self._sweep_before(*box.kept)

    def part(self, box: "Outbox") -> None:
        """It goes on alone, with what is on its way to it."""
        slot = box.slot
        sent, size = self.sent_to(box), self.sent_bytes_to(box)
        kept: list[bytes] = []
        if box.resumable:
            first = self._index(box.joined)
            kept = self._log[first : first + sent]
        waiting = self._frames
        if self._batch is not None and slot >= self._at:
            waiting = self._batch + self._frames
        self._boxes[slot], self._sends[slot] = None, len
        self._free.append(slot)
        self.apart[box] = None
        if box.resumable:
            self._resumable -= 1
            if not self._resumable:
                self._forget(len(self._log))
        box.go_alone(sent, kept, size, waiting)

    def waiting_for(self, box: "BoundedQueue") -> tuple[int, int]:
        """How many frames, and bytes, have gathered for one who is together."""
        if self._batch is not None and box.slot >= self._at:
            return len(self._frames) + len(self._batch), self._size + len(self._data)
        return len(self._frames), self._size

    def sent_to(self, box: "BoundedQueue") -> int:
        """How many frames one who is together has got since it joined."""
        has = len(self._batch) if self._batch is not None and box.slot < self._at else 0
        return self.sent + has - box.joined

    def sent_bytes_to(self, box: "BoundedQueue") -> int:
        """How many bytes of them."""
        has = len(self._data) if self._batch is not None and box.slot < self._at else 0
        return self.sent_bytes + has - box.joined_bytes

    # -- in and out ---------------------------------------------------------------------------------------------------

    def put(self, frame: bytes, without: "Collection[Outbox]" = ()) -> None:
        """Queue one frame for all members but a few. Never waits."""
        for box in without:
            if box.slot >= 0:
                self.part(box)
        together = len(self._free) < len(self._boxes)
        if together and (
            len(self._frames) >= self._limits.outbox_soft_messages or self._size >= self._limits.outbox_soft_bytes
        ):
            self.flush_all()  # a burst to clients that read
        alone = tuple(self.apart)  # who parts from now on takes this frame along
        if together:
            self._frames.append(frame)
            self._size += len(frame)
            if not self._dirty:  # before those alone are: they can join again when the audience has been flushed
                self._dirty = True
                self._flusher.add(self)
        for box in alone:
            if box not in without:
                box.append(frame)
        if self._size > FLUSH_AT:
            self.flush_all()

    @property
    def full(self) -> bool:
        """Whether more than a soft bound has gathered."""
        return len(self._frames) > self._limits.outbox_soft_messages or self._size > self._limits.outbox_soft_bytes

    def unmark(self) -> None:
        """The flusher has taken this audience off its list."""
        self._dirty = False

    def flush(self) -> bool:
        """Send what has gathered to the next few of those together. True when there is more to do. Never raises."""
        if self._batch is None:
            if not self._frames:
                return False
            self._batch, self._frames, self._size = self._frames, [], 0
            self._data = b"".join(self._batch) if len(self._batch) > 1 else self._batch[0]
            self._at = 0
            if self._resumable:
                self._log += self._batch
                self._backlog.hold(self._batch)
                self._ends += accumulate(map(len, self._batch), initial=self.sent_bytes)
                del self._ends[-len(self._batch) - 1]  # where the first of them begins
        data, size = self._data, len(self._data)
        first, end = self._at, self._at + _AT_ONCE
        at = first
        taken: int | None = size
        try:
            for at, send in enumerate(self._sends[first:end], first):  # noqa: B007 - where it stopped
                taken = send(data)
                if taken != size:
                    break
        except BROKEN:
            taken = -1
        if taken == size:
            self._at = end
        else:
            self._at = at
            self._stumble(at, taken or 0)
        if self._at < len(self._sends):
            return True
        self._complete()
        return bool(self._frames)

    def flush_all(self) -> None:
        """Send everything that has gathered. Never raises."""
        while self.flush():
            pass

    def _stumble(self, slot: int, taken: int) -> None:
        """A transport has taken only a part, or broken (-1)."""
        box = self._boxes[slot]
        assert box is not None
        self.part(box)
        self._at += 1
        box.stumbled(taken)

    def _complete(self) -> None:
        assert self._batch is not None
        self.sent += len(self._batch)
        self.sent_bytes += len(self._data)
        self._batch, self._data = None, b""
        if self._resumable and (self.sent >= self._sweep_at or self.sent_bytes >= self._sweep_at_bytes):
            self._sweep()
        if len(self._free) > 64 and len(self._free) * 2 > len(self._boxes):
            self._close_up()
        self._backlog.judge()

    # -- what is not acknowledged -------------------------------------------------------------------------------------

    def acknowledged(self, box: "BoundedQueue", count: int) -> None:
        """One who is together and resumable need not keep the first so many of what it got since it joined."""
        box.joined += count
        box.joined_bytes = self._ends[self._index(box.joined) - 1]
        # What the last of them has acknowledged can go. That is looked at once for as many as there are, so that it
        # costs little for each.
        self._acknowledgements += 1
        if self._acknowledgements >= self._resumable:
            if self._batch is None:
                self._sweep()
            else:
                self._sweep_at = self.sent

    def _index(self, number: int) -> int:
        """Where the frame of this number is in the log."""
        on_their_way = 0 if self._batch is None else len(self._batch)
        return len(self._log) - (self.sent + on_their_way - number)

    def _sweep(self) -> None:
        """Part from those who have not acknowledged much, and forget what nobody keeps any more."""
        self._acknowledgements = 0
        self._sweep_at, self._sweep_at_bytes = self.sent + _SWEEP_FRAMES, self.sent_bytes + _SWEEP_BYTES
        first = self.sent
        parted: list[Outbox] = []
        soft_messages, soft_bytes = self._limits.outbox_soft_messages, self._limits.outbox_soft_bytes
        for box in self._boxes:
            if box is not None and box.resumable:
                messages, size = box.kept
                if messages > soft_messages or size > soft_bytes:
                    self.part(box)
                    parted.append(box)
                else:
                    first = min(first, box.joined)
                    self._sweep_before(messages, size)
        self._forget(self._index(first))
        for box in parted:  # last: the end of one may lead to another sweep
            box.judge()

    def _forget(self, count: int) -> None:
        """Keep the first so many no longer."""
        self._backlog.release(self._log[:count])
        del self._log[:count], self._ends[:count]

    def trim(self) -> None:
        """Keep only what somebody has to."""
        if self._resumable and self._batch is None:
            self._sweep()

    def share_of(self, box: "BoundedQueue") -> float:
        """A part of what is kept for it and others."""
        return self.sent_bytes_to(box) / self._resumable if box.resumable else 0.0

    def _sweep_before(self, messages: int, size: int) -> None:
        """See to a sweep before one who keeps so much is over its hard bound."""
        self._sweep_at = min(self._sweep_at, self.sent + self._limits.outbox_hard_messages - messages)
        self._sweep_at_bytes = min(self._sweep_at_bytes, self.sent_bytes + self._limits.outbox_hard_bytes - size)

    def _close_up(self) -> None:
        """Move those together into the first slots."""
        together = [(box, send) for box, send in zip(self._boxes, self._sends, strict=True) if box is not None]
        self._boxes = [box for box, _ in together]
        self._sends = [send for _, send in together]
        self._free = []
        for slot, (box, _) in enumerate(together):
            box.slot = slot
