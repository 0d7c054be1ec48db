"""A trivet server that counts the calls of functions in it, Python's and C's: no other load of the machine matters.

Prints its port, serves until standard input ends. An action tells the count so far.
"""

import sys
from types import FrameType

import trio

from benchmarks.peers.trivet_server import Room, main
from trivet.actor import action

_counted = 0


def _count(_frame: FrameType, event: str, _arg: object) -> None:
    global _counted
    if event in ("call", "c_call"):
        _counted += 1


class CountingRoom(Room):
    """The benchmark's room, and the count."""

    name = "room"

    @action
    def counted(self) -> int:
        """Calls of functions so far."""
        return _counted


if __name__ == "__main__":
    sys.setprofile(_count)
    trio.run(main, CountingRoom)
