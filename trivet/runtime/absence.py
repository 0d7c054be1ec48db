"""The time in which a session waits for its client to come back."""

from collections.abc import Callable
from typing import final

from trivet.runtime.timers import TimerHandle, Timers


@final
class Absence:
    """Begins when the transport breaks. It ends with the window, or before that by `end`."""

    __slots__ = ("_over", "_timer", "_timers", "_window")

    def __init__(self, timers: Timers, window: float) -> None:
        self._timers = timers
        self._window = window
        self._timer: TimerHandle | None = None
        self._over: Callable[[], None] | None = None

    def begin(self, expire: Callable[[], None]) -> None:
        """Call `expire` at the end of the window, unless it ends before. Idempotent."""
        if self._timer is None:
            self._timer = self._timers.call_later(self._window, expire)

    def on_end(self, over: Callable[[], None]) -> None:
        """Call this, in place of what was given before, when it ends."""
        self._tell()
        self._over = over

    def end(self) -> None:
        """The client is back, or not waited for any more. Idempotent."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._tell()

    def _tell(self) -> None:
        if self._over is not None:
            over, self._over = self._over, None
            over()
