"""One structure for every timeout of a host: a heap and one task, however many connections and actors there are."""

import heapq
from collections.abc import Callable
from itertools import count

import trio

from trivet.runtime.logs import logger


class TimerHandle:
    """A timer that has not fired. `cancel` is idempotent, and harmless once it has."""

    __slots__ = ("_timers", "fn", "when")

    def __init__(self, timers: "Timers", when: float, fn: Callable[[], None]) -> None:
        self._timers = timers
        self.when = when
        self.fn: Callable[[], None] | None = fn

    def cancel(self) -> None:
        """The function will not be called any more."""
        if self.fn is not None:
            self.fn = None
            self._timers.forget_one()


class Timers:
    """Calls functions at points of Trio's time. A function must not block; what it raises is logged."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, TimerHandle]] = []
        self._order = count()
        self._cancelled = 0
        self._wake = trio.Event()
        self._next = float("inf")

    def call_at(self, when: float, fn: Callable[[], None]) -> TimerHandle:
        """Call `fn` at `when` (of `trio.current_time()`)."""
        handle = TimerHandle(self, when, fn)
        heapq.heappush(self._heap, (when, next(self._order), handle))
        if when < self._next:
            self._wake.set()
        return handle

    def call_later(self, seconds: float, fn: Callable[[], None]) -> TimerHandle:
        """Call `fn` after so many seconds."""
        return self.call_at(trio.current_time() + seconds, fn)

    def forget_one(self) -> None:
        """Note that one handle was cancelled; when most are, they are swept out together."""
        self._cancelled += 1
        if self._cancelled > 64 and self._cancelled * 2 > len(self._heap):
            self._heap = [entry for entry in self._heap if entry[2].fn is not None]
            heapq.heapify(self._heap)
            self._cancelled = 0

    async def run(self) -> None:
        """Runs until cancelled."""
        while True:
            self._fire()
            self._next = self._heap[0][0] if self._heap else float("inf")
            self._wake = trio.Event()
            with trio.move_on_at(self._next):
                await self._wake.wait()

    def _fire(self) -> None:
        while self._heap and self._heap[0][0] <= trio.current_time():
            handle = heapq.heappop(self._heap)[2]
            fn, handle.fn = handle.fn, None
            if fn is None:
                self._cancelled -= 1
                continue
            try:
                fn()
            except Exception:
                logger.exception("a timer failed")

    def __len__(self) -> int:
        return len(self._heap) - self._cancelled
