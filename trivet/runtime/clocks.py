"""The clock on the wall, by which schedules go."""

import time
from collections.abc import Callable
from typing import Final

import trio

_EPOCH: Final = 1_893_456_000.0  # the beginning of 2030


def virtual_wall_clock() -> float:
    """Seconds since 1970 of a day on which Trio's time began with 2030: for runs in virtual time."""
    return _EPOCH + trio.current_time()


def default_wall_clock() -> Callable[[], float]:
    """`time.time`; where Trio's time does not pass as the machine's does, `virtual_wall_clock`.

    Under a clock that jumps, a schedule by the real time would be asked for again and again until it is due.
    """
    clock = trio.lowlevel.current_clock()
    # How long one waits for the next second of Trio's time: a clock that a test moves has it take for ever.
    second = clock.deadline_to_sleep_time(clock.current_time() + 1)
    return time.time if 0.5 < second < 1.5 else virtual_wall_clock
