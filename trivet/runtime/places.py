"""Where in a queue of frames those stand that are looked for again and again."""

from bisect import bisect_left
from collections.abc import Hashable
from typing import final

from trivet.runtime.frames import Droppable, Dropped


@final
class Places:
    """Numbers the frames of a queue, and remembers the last event of each key and the marker of each event's drops.

    It is made when a queue is first looked through, and is told what leaves that queue; what was appended since the
    last time it finds out when it is asked. So each frame costs it one look, and each question a bisection.
    """

    __slots__ = ("_latest", "_markers", "_next", "_numbers")

    def __init__(self) -> None:
        self._next = 0
        self._numbers: list[int] = []  # of the frames in the queue, ascending
        self._latest: dict[tuple[str, Hashable], int] = {}
        self._markers: dict[str, int] = {}

    def catch_up(self, queue: list[bytes]) -> None:
        """See what was appended."""
        numbers = self._numbers
        for index in range(len(numbers), len(queue)):
            frame = queue[index]
            if isinstance(frame, Droppable):
                if frame.key is not None:
                    self._latest[frame.event, frame.key] = self._next
            elif isinstance(frame, Dropped):
                self._markers[frame.event] = self._next
            numbers.append(self._next)
            self._next += 1
        if len(self._latest) + len(self._markers) > 2 * len(numbers) + 64:  # most of them were sent
            first = numbers[0] if numbers else self._next
            self._latest = {key: number for key, number in self._latest.items() if number >= first}
            self._markers = {event: number for event, number in self._markers.items() if number >= first}

    def find_latest(self, frame: Droppable) -> int | None:
        """Where the last event stands that this one makes out of date."""
        return self._find(self._latest.get((frame.event, frame.key)))

    def find_marker(self, event: str) -> int | None:
        """Where a client is told that events of this name gave way: at its last such place."""
        return self._find(self._markers.get(event))

    def _find(self, number: int | None) -> int | None:
        if number is None:
            return None
        index = bisect_left(self._numbers, number)
        return index if index < len(self._numbers) and self._numbers[index] == number else None

    def forget(self, frame: Droppable, index: int) -> None:
        """The event at this place is about to give way."""
        key = frame.event, frame.key
        if self._latest.get(key) == self._numbers[index]:
            del self._latest[key]

    def mark(self, event: str, index: int) -> None:
        """The frame at this place was replaced by the marker of that event."""
        self._markers[event] = self._numbers[index]

    def remove(self, first: int, count: int = 1) -> None:
        """So many frames from this place on have left the queue."""
        del self._numbers[first : first + count]
