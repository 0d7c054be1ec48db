"""Rest: an actor that has had nothing to do for some time is put to sleep."""

from typing import TYPE_CHECKING

import trio

from trivet.runtime import ending
from trivet.runtime.lifecycle import Goal, Phase
from trivet.runtime.timers import TimerHandle

if TYPE_CHECKING:
    from trivet.runtime.instance import Instance


class Rest:
    """Asks one actor to sleep once it has been idle for its `sleep_after` seconds. A timer runs while it is idle."""

    __slots__ = ("_active_at", "_after", "_instance", "_timer")

    def __init__(self, instance: "Instance") -> None:
        own = instance.definition.options.sleep_after
        self._instance = instance
        self._after = instance.host.limits.sleep_after if own is None else own
        self._timer: TimerHandle | None = None
        self._active_at = 0.0

    @property
    def _is_idle(self) -> bool:
        """Whether nothing would be lost or cut off by sleep."""
        instance = self._instance
        work = instance.work
        if instance.phase is not Phase.RUNNING or work is None or work.keeps_awake or instance.visitors:
            return False
        if instance.turn_hold is not None or not instance.inbox.empty:
            return False
        if instance.gate is not None and instance.gate.waiting:
            return False
        return not instance.conns or bool(instance.definition.options.sleep_with_connections)

    def note(self) -> None:
        """There is nothing to do for the moment: from now on it may be idle."""
        self._active_at = now = trio.current_time()
        if self._timer is None and self._after < float("inf") and self._is_idle:
            self._timer = self._instance.host.timers.call_at(now + self._after, self._sleep_if_idle)

    def disarm(self) -> None:
        """The life is over."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _sleep_if_idle(self) -> None:
        self._timer = None
        if not self._is_idle:
            return  # whatever ends notes it again
        due = self._active_at + self._after
        if trio.current_time() < due:  # not by the difference, which may be too small to be added to the time
            self._timer = self._instance.host.timers.call_at(due, self._sleep_if_idle)
        else:
            ending.request(self._instance, Goal.SLEEP)
