"""A client that is cancelled, at whatever step: nothing of it is left, and the contract holds for the others."""

import trio

from tests.faults.steps import CancelAfter, at_every_step
from tests.property.model import Emit, Mark
from tests.property.room import LIMITS, REGISTRY, Book, Op, Room
from trivet.testing import World

SAY: list[Op] = [["all", "alpha"], ["one", 0, "oldest"]]
PAUSE: list[Op] = [["all", "alpha"], ["pause", 5], ["publish", 20], ["all", "alpha"]]


async def use(world: World) -> None:
    """Everything that waits: connecting, subscribing, calling, streams, coming back, and leaving."""
    client = await world.client("ann again")
    async with client.get_or_create(Room, "general", params={"label": 0, "ops": SAY}).connect() as room:
        stop = room.on(Room.alpha, lambda number, key: None)
        async with room.events(Room.oldest) as stream, trio.open_nursery() as nursery:
            nursery.start_soon(room.call, "actAsync", 0, PAUSE)
            nursery.start_soon(room.call, "actBeside", 1, PAUSE)
            await room.call("act", 2, SAY)
            await anext(stream)
            client.link.break_()
            await room.call("act", 3, SAY)
        stop()
        await room.sync()


async def scenario(canceller: CancelAfter) -> None:
    book = Room.book = Book()
    seen: list[int] = []
    async with World(REGISTRY, limits=LIMITS) as world:
        checker = world.check_delivery()
        bob = await world.client("bob")
        async with bob.get_or_create(Room, "general", params={"label": 1, "ops": []}).connect() as room:
            room.on(Room.alpha, lambda number, key: seen.append(number))
            await room.call("act", 10, [])
            with canceller.armed():
                await use(world)
            await room.call("act", 11, SAY)
            await trio.sleep(LIMITS.resume_window + 1)
            await checker.settle()
            checker.verify()
            (instance,) = world.server.host.instances()
            assert list(instance.conns) == [room.conn_id]
            assert seen == [entry.id for entry in book.journal if isinstance(entry, Emit) and entry.event == "alpha"]
            marks = [entry for entry in book.journal if isinstance(entry, Mark)]
            ran = [mark.call for mark in marks if mark.what == "call"]
            assert len(ran) == len(set(ran))
            assert len(ran) == sum(mark.what == "return" for mark in marks)
            came = {mark.conn for mark in marks if mark.what == "admitted"} - {room.conn_id}
            assert sorted(mark.conn for mark in marks if mark.what == "disconnect") == sorted(came)


def test_a_client_may_be_cancelled_at_every_step() -> None:
    assert at_every_step(scenario) > 100
