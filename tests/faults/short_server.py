"""The program that the tests of processes start: short limits, and as many open files as it is told.

python -m tests.faults.short_server FILES
"""

import resource
import sys

import trio

from tests.faults.announced import serve_announced
from trivet import Actor, Event, Limits, Registry, action

LIMITS = Limits(ping_interval=1.0, ping_timeout=4.0, close_timeout=1.0, resume_window=30.0, handshake_timeout=5.0)


class Counter(Actor):
    """Counts, and tells of it."""

    counted = Event(int)

    def __init__(self) -> None:
        self.count = 0

    @action
    def add(self, expected: int) -> int:
        self.count += 1
        self.broadcast(self.counted, self.count)
        return expected


async def main() -> None:
    await serve_announced(Registry(Counter), LIMITS)


if __name__ == "__main__":
    files = int(sys.argv[1])
    if files:
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
    trio.run(main)
