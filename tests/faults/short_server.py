"""The program that the tests of processes start: short limits, and as many open files as it is told.

python -m tests.faults.short_server FILES
"""

import resource
import sys
from typing import overload

import trio

from trivet import Actor, Event, Limits, Registry, Server, action, serve

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


class _Announcement:
    @overload
    def started(self: trio.TaskStatus[None]) -> None: ...
    @overload
    def started(self, value: Server) -> None: ...
    def started(self, value: Server | None = None) -> None:
        assert value is not None
        print(value.port, flush=True)


async def main() -> None:
    await serve(Registry(Counter), port=0, limits=LIMITS, handle_signals=True, task_status=_Announcement())


if __name__ == "__main__":
    files = int(sys.argv[1])
    if files:
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
    trio.run(main)
