"""Waking actors that sleep when something of theirs is due."""

from typing import TYPE_CHECKING, Final

import trio

from trivet.errors import PublicError
from trivet.runtime.logs import logger
from trivet.store import StoreError

if TYPE_CHECKING:
    from trivet.runtime.host import Host

# So many are looked up at once. The store is asked again after so many seconds at the latest, since the clock on the
# wall may be set; and at the earliest, since an actor that is awake sees to its own alarm, and saves that later.
_AT_ONCE: Final = 100
_LOOK_AGAIN: Final = 60.0
_AT_THE_EARLIEST: Final = 1.0


class AlarmClock:
    """One task for all actors that sleep. Those that are awake have timers of their own."""

    def __init__(self, host: "Host") -> None:
        self._host = host
        self._next = float("inf")
        self._changed = trio.Event()

    def note(self, alarm: float | None) -> None:
        """An actor goes to sleep until then, in seconds since 1970."""
        if alarm is not None and alarm < self._next:
            self._next = alarm
            self._changed.set()

    async def run(self) -> None:
        """Runs until cancelled."""
        while True:
            try:
                await self._wake_due()
            except StoreError as error:
                logger.error("no actor can be woken for its schedules: %s", error)
            await self._wait()

    async def _wait(self) -> None:
        delay = min(max(self._next - self._host.wall_clock(), 0.0), _LOOK_AGAIN) if self._next < float("inf") else None
        self._changed = trio.Event()
        with trio.move_on_after(float("inf") if delay is None else delay):
            await self._changed.wait()

    async def _wake_due(self) -> None:
        host = self._host
        now = host.wall_clock()
        for row, _ in await host.store.due(now, _AT_ONCE):
            if host.stopping or row.name not in host.registry:
                continue
            try:
                await host.by_id(row.actor_id)
            except PublicError as error:
                logger.error("%s could not be woken for a schedule: %s", row.actor_id, error)
        alarm = await host.store.next_alarm()
        self._next = float("inf") if alarm is None else max(alarm, now + _AT_THE_EARLIEST)
