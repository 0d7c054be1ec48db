"""What the user's own code raises comes out as it was raised, not in an ExceptionGroup."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

import pytest
import trio

from tests.faults.support import LOCALHOST, REGISTRY, Room, running
from trivet import Client, Server, open_client, open_local, serve

World: TypeAlias = Callable[[], Any]


class Mine(Exception):
    """The user's own."""


@asynccontextmanager
async def local() -> AsyncGenerator[Client]:
    async with open_local(REGISTRY) as client:
        yield client


@asynccontextmanager
async def network() -> AsyncGenerator[Client]:
    async with running() as server, open_client(server.url) as client:
        yield client


async def in_the_client(world: World) -> None:
    async with world():
        raise Mine


async def in_a_connection(world: World) -> None:
    async with world() as client, client.get_or_create(Room, "k").connect() as room:
        await room.call(Room.echo, "x")
        raise Mine


async def in_a_connection_that_has_events(world: World) -> None:
    async with world() as client, client.get_or_create(Room, "k").connect() as room:
        await room.call(Room.echo, "x")
        async with room.events(Room.ticked):
            raise Mine


async def while_iterating(world: World) -> None:
    async with world() as client, client.get_or_create(Room, "k").connect() as room:
        async with room.events(Room.ticked) as events:
            await room.call(Room.tick, 0, 10)
            async for _ in events:
                raise Mine


async def with_listeners(world: World) -> None:
    async def slow(_: int) -> None:
        await trio.sleep_forever()

    async with world() as client, client.get_or_create(Room, "k").connect() as room:
        room.on(Room.ticked, slow)
        await room.call(Room.tick, 0, 10)
        raise Mine


async def in_a_websocket(world: World) -> None:
    async with world() as client, client.get_or_create(Room, "k").websocket() as websocket:
        await websocket.send("x")
        assert await websocket.receive() == "x"
        raise Mine


async def in_get_params(world: World) -> None:
    def params() -> object:
        raise Mine

    async with world() as client:
        await client.get_or_create(Room, "k", get_params=params).call(Room.echo, "x")


async def from_another_task(world: World) -> None:
    """A nursery of the user's own is the user's own affair: its group, and no further one."""

    async def fail() -> None:
        raise Mine

    try:
        async with world() as client, client.get_or_create(Room, "k").connect():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(fail)
    except ExceptionGroup as group:
        (error,) = group.exceptions
        raise error from None


@pytest.mark.parametrize("world", [local, network])
@pytest.mark.parametrize(
    "scenario",
    [
        in_the_client,
        in_a_connection,
        in_a_connection_that_has_events,
        while_iterating,
        with_listeners,
        in_a_websocket,
        in_get_params,
        from_another_task,
    ],
)
async def test_the_users_error_comes_out_alone(world: World, scenario: Callable[[World], Awaitable[None]]) -> None:
    # `running` is this folder's own and has a nursery: the group that it makes is taken off again here.
    with pytest.RaisesExc(Mine) if world is local else pytest.RaisesGroup(Mine):
        await scenario(world)


async def test_an_error_next_to_serve_comes_with_nothing_of_serves() -> None:
    with pytest.RaisesGroup(Mine):  # of the nursery that the user opened
        async with trio.open_nursery() as nursery:
            server: Server = await nursery.start(_serve)
            async with open_client(server.url) as client:
                await client.get_or_create(Room, "k").call(Room.echo, "x")
            raise Mine


async def _serve(*, task_status: trio.TaskStatus[Server]) -> None:
    await serve(REGISTRY, LOCALHOST, 0, task_status=task_status)


async def test_what_serve_raises_it_raises_alone() -> None:
    class Started:
        def started(self, _: object = None) -> None:
            raise Mine

    status: Any = Started()
    with pytest.raises(Mine):
        await serve(REGISTRY, LOCALHOST, 0, task_status=status)


async def test_what_the_client_cannot_do_is_one_plain_error() -> None:
    nobody = trio.socket.socket()  # listens there, and nobody else can while it is bound
    await nobody.bind((LOCALHOST, 0))
    with nobody:
        port = nobody.getsockname()[1]
        await _try_everything(f"http://{LOCALHOST}:{port}")


async def _try_everything(url: str) -> None:
    async with open_client(url) as client:
        handle = client.get_or_create(Room, "k")
        with pytest.RaisesExc(trio.TooSlowError):
            with trio.fail_after(0.3):
                await handle.call(Room.echo, "x")
        with pytest.RaisesExc(trio.TooSlowError):
            with trio.fail_after(0.3):
                async with handle.connect():
                    pass
        with pytest.RaisesExc(trio.TooSlowError):
            with trio.fail_after(0.3):
                async with handle.websocket():
                    pass
