"""A trivet server with one kind of actor, as a user would write it."""

import os
import sys
from functools import partial

import attrs
import trio

from trivet.actor import Actor, action
from trivet.event import Event
from trivet.limits import Limits
from trivet.registry import Registry
from trivet.server import serve


@attrs.frozen
class Message:
    """What is broadcast."""

    id: str
    text: str


class Room(Actor):
    """Every message goes to every subscriber."""

    message = Event(Message)

    @action
    def post(self, id: str, text: str) -> None:
        """Broadcast a message."""
        self.broadcast(self.message, Message(id, text))

    @action
    def ready(self) -> None:
        """Nothing: its response says that what was sent before it is done."""

    @action
    def echo(self, text: str) -> str:
        """What came."""
        return text


# As many as the largest run has, with its controller.
LIMITS = Limits(connections=10_100)


async def main(room: type[Room] = Room) -> None:
    """Serve until standard input ends."""
    async with trio.open_nursery() as nursery:
        server = await nursery.start(partial(serve, Registry(room), port=0, limits=LIMITS))
        print(server.port, flush=True)
        async with trio.lowlevel.FdStream(os.dup(sys.stdin.fileno())) as parent:
            while await parent.receive_some(1024):
                pass
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main)
