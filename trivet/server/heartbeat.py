"""Finding out that a peer is gone though its connection is not: pings, on the host's timers."""

from collections.abc import Callable
from typing import final

import trio

from trivet.limits import Limits
from trivet.runtime.timers import Timers


def _nothing() -> None:
    pass


@final
class Heartbeat:
    """Pings a peer that was silent for `ping_interval`, and gives it up when it was for `ping_timeout`.

    Any byte counts as a sign of life, and time in which this process did not run as none of silence. `ping` and `dead`
    must not block. An idle connection costs one timer and no task.
    """

    __slots__ = ("_dead", "_handle", "_heard_at", "_interval", "_ping", "_timeout", "_timers")

    def __init__(self, timers: Timers, limits: Limits, *, ping: Callable[[], None], dead: Callable[[], None]) -> None:
        self._timers = timers
        self._interval = limits.ping_interval
        self._timeout = limits.ping_timeout
        self._ping = ping
        self._dead = dead
        self._heard_at = trio.current_time()
        self._handle = timers.call_at(self._heard_at + self._interval, self._check)

    def heard(self) -> None:
        """Something came from the peer."""
        self._heard_at = trio.current_time()

    def stop(self) -> None:
        """No more pings, no verdict. Idempotent."""
        self._handle.cancel()
        # Whoever is asked to ping has this too: a circle, which would keep what was received until it is collected.
        self._ping = self._dead = _nothing

    def _check(self) -> None:
        now = trio.current_time()
        if now - self._handle.when > self._interval / 2:
            # This process was held up, as by SIGSTOP or a blocked loop, and has not heard what may have come meanwhile.
            self._heard_at = max(self._heard_at, now - self._interval)
        if now >= self._heard_at + self._timeout:
            self._dead()
            return
        when = self._heard_at + self._interval
        if now >= when:
            self._ping()
            when = min(now + self._interval, self._heard_at + self._timeout)
        self._handle = self._timers.call_at(when, self._check)
