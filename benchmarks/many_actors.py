"""Many live actors in one process: `many_actors trivet | bare COUNT`. Prints what each of them took, as JSON.

Each is called once and then stays, idle. `bare` is what any actor in Trio is made of: a task with a nursery, that
receives from a memory channel.
"""

import gc
import json
import math
import os
import sys
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeAlias

import trio

from trivet.actor import Actor, action
from trivet.bench.processes import resident_bytes
from trivet.limits import Limits
from trivet.local import open_local
from trivet.options import Options
from trivet.registry import Registry

_WARM_UP = 100
_Start: TypeAlias = Callable[[int], Awaitable[None]]


class Room(Actor):
    """Nothing but an action. It stays awake, however long the others take to start."""

    options = Options(sleep_after=math.inf)

    @action
    def ready(self) -> bool:
        """An answer."""
        return True


@asynccontextmanager
async def _trivet(count: int) -> AsyncGenerator[_Start]:
    async with open_local(Registry(Room), limits=Limits(actors=count + _WARM_UP)) as client:

        async def start(number: int) -> None:
            assert await client.get_or_create(Room, str(number)).call(Room.ready)

        yield start


_Channel: TypeAlias = trio.MemoryReceiveChannel[trio.MemorySendChannel[bool]]


async def _task(inbox: _Channel) -> None:
    async with trio.open_nursery():
        async for answer in inbox:
            await answer.send(True)


@asynccontextmanager
async def _bare(count: int) -> AsyncGenerator[_Start]:
    inboxes: list[trio.MemorySendChannel[trio.MemorySendChannel[bool]]] = []
    async with trio.open_nursery() as nursery:

        async def start(number: int) -> None:
            send, receive = trio.open_memory_channel[trio.MemorySendChannel[bool]](1024)
            inboxes.append(send)
            nursery.start_soon(_task, receive)
            answer_to, answer = trio.open_memory_channel[bool](1)
            await send.send(answer_to)
            assert await answer.receive()

        yield start
        nursery.cancel_scope.cancel()


def _live(kind: str) -> int:
    """Counted, not assumed: an actor that sleeps is no longer an object, and a task that ended no task."""
    if kind == "trivet":
        return sum(isinstance(found, Room) for found in gc.get_objects())
    task = trio.lowlevel.current_task()
    return sum(len(nursery.child_tasks) for nursery in task.child_nurseries)


async def main(kind: str, count: int) -> None:
    """Measure."""
    async with (_trivet if kind == "trivet" else _bare)(count) as start:
        for number in range(_WARM_UP):
            await start(-number - 1)  # what is made once, and not for each
        gc.collect()
        memory, cpu, began = resident_bytes(os.getpid()), time.process_time(), time.perf_counter()
        for number in range(count):
            await start(number)
        cpu, wall = time.process_time() - cpu, time.perf_counter() - began
        gc.collect()
        memory = resident_bytes(os.getpid()) - memory
        live = _live(kind) - _WARM_UP
        if live < count:
            sys.exit(f"{live} of {count} are alive: their memory is not that of live ones")
        figures = {"actor_kib": memory / count / 1024, "cpu_us": cpu / count * 1e6, "wall_us": wall / count * 1e6}
        print(json.dumps(figures | {"live": live}), flush=True)
        os._exit(0)  # ending a hundred thousand tasks is not measured


if __name__ == "__main__":
    trio.run(main, sys.argv[1], int(sys.argv[2]))
