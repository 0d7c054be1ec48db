"""What all outboxes of a host hold together."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final
from weakref import WeakSet

from trivet.limits import Limits

if TYPE_CHECKING:
    from trivet.runtime.bounds import BoundedQueue

# A frame costs each that holds it a reference, also where the frame itself is shared.
_REFERENCE: Final = 8
# What is looked at of an outbox, to estimate how much its end would free.
_SAMPLE: Final = 64


class Holdings:
    """Frames that several hold: each counts once for all who hold it, with a reference for each."""

    def __init__(self) -> None:
        self.bytes = 0
        """What all of it takes."""
        self._holders: dict[int, int] = {}  # how many hold a frame, by its id, which is its own as long as it is held

    def hold(self, frames: Sequence[bytes]) -> None:
        """Somebody holds these from now on, and calls `release` with them once."""
        holders, size = self._holders, len(frames) * _REFERENCE
        for frame in frames:
            key = id(frame)
            others = holders.get(key, 0)
            holders[key] = others + 1
            if not others:
                size += len(frame)
        self.bytes += size

    def release(self, frames: Iterable[bytes]) -> None:
        """One who held these holds them no longer."""
        holders, size = self._holders, 0
        for frame in frames:
            key = id(frame)
            others = holders[key] - 1
            size += _REFERENCE
            if others:
                holders[key] = others
            else:
                del holders[key]
                size += len(frame)
        self.bytes -= size


class Backlog(Holdings):
    """The frames that all outboxes of a host hold: what waits after their flushes, and what is not acknowledged.

    Those that close keep a frame that was begun, and what is still sent before the close frame. Above the limit they
    are broken until an eighth of it is left to those that go on, of whom else all would be ended, to no avail.
    """

    def __init__(self, limits: Limits) -> None:
        super().__init__()
        self.limits = limits
        self.closing = Holdings()
        """What of it those hold that close."""
        self.outboxes: dict[BoundedQueue, None] = {}
        """Those in which something waits."""
        self.resumable: WeakSet[BoundedQueue] = WeakSet()
        """Those that keep what is not acknowledged."""
        self.dropped = 0
        """Events that were dropped by their policy, since the start."""
        self.ended = 0
        """Connections that were ended for their slowness, since the start."""
        self._limit = limits.outbox_total_bytes
        self._closing_limit = self._limit - self._limit // 8
        self._relieving = False

    def judge(self) -> None:
        """Above the limit, end the connections whose ends free most until it holds again."""
        if self.bytes <= self._limit or self._relieving:
            return
        self._relieving = True
        try:
            self._break_the_largest()
            if self.bytes > self._limit:
                self._end_the_largest()
        finally:
            self._relieving = False

    def _end_the_largest(self) -> None:
        boxes = dict.fromkeys([*self.outboxes, *self.resumable])
        for audience in {box.audience for box in boxes}:
            if audience is not None:
                audience.trim()
        shares = {box: self._share(box) for box in boxes if not box.closing}
        for box in sorted(shares, key=shares.__getitem__, reverse=True):
            if self.bytes <= self._limit or not shares[box]:
                return
            audience = box.audience
            box.too_slow()
            if audience is not None:
                audience.trim()
            self._break_the_largest()

    def _break_the_largest(self) -> None:
        """What those keep that close is not freed by the end of others: a part of the limit is not theirs."""
        while self.bytes > self._limit and self.closing.bytes > self._closing_limit:
            largest = max((box for box in self.outboxes if box.closing), key=lambda box: box.backlog, default=None)
            if largest is None:
                return
            largest.break_()

    def _share(self, box: "BoundedQueue") -> float:
        """About what its end would free: of a frame that others hold too, a part."""
        frames, shared = box.held()
        step = len(frames) // _SAMPLE + 1
        sample = frames[::step]
        parts = sum(len(frame) / self._holders.get(id(frame), 1) for frame in sample)
        return shared + (parts / len(sample) + _REFERENCE) * len(frames) if sample else shared
