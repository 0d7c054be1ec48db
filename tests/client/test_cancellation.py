"""Cancelling anything at any await: nothing hangs, nothing is left behind, and the rest goes on."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
import trio.lowlevel
from trio.testing import MockClock

from tests.client.fake import CutShort, HttpAnswer, HttpRequest, Peer, StreamEnded, World, open_world, soon
from trivet.client import Connection
from trivet.errors import ConnectionEnded, ConnectionLost
from trivet.protocol.messages import ActionRequest, ActionResponse, Init, SubscriptionRequest

SCHEDULES = 40
"""No operation here has more awaits than this; the last runs are not cancelled at all."""


async def _answer_everything(peer: Peer) -> None:
    """A well-behaved actor, for as long as its client talks."""
    try:
        await peer.init()
        while True:
            message = await peer.receive()
            if isinstance(message, ActionRequest):
                await peer.send(ActionResponse(message.id, message.name))
            elif message == SubscriptionRequest("a", True):
                await peer.event("a", 1)
    except StreamEnded:
        if peer.close_code is not None:
            try:
                await peer.close(peer.close_code)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                pass
        await peer.drop()
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        pass
    except CutShort as error:
        raise AssertionError("half a frame, with more to come") from error


async def _serve(world: World, nursery: trio.Nursery) -> None:
    async def http(request: HttpRequest) -> HttpAnswer:
        await trio.lowlevel.checkpoint()
        return HttpAnswer(body=b"{}" if "/metadata" in request.target else b'{"output":1}')

    world.server.handler = http
    while True:
        nursery.start_soon(_answer_everything, await world.server.accept())


async def _ticks(count: int, scope: trio.CancelScope) -> None:
    """Cancel after so many rounds of the scheduler."""
    for _ in range(count):
        await trio.lowlevel.checkpoint()
    scope.cancel()


async def _connect(world: World, room: Connection[Any]) -> None:
    async with world.handle.connect() as other:
        await other.call("x")


async def _call(world: World, room: Connection[Any]) -> None:
    await room.call("x", "y" * 10_000)


async def _iterate(world: World, room: Connection[Any]) -> None:
    async with room.events("a") as stream:
        assert await anext(stream) == 1


async def _stateless(world: World, room: Connection[Any]) -> None:
    await world.handle.call("x")


async def _fetch(world: World, room: Connection[Any]) -> None:
    await world.handle.fetch("/")


async def _websocket(world: World, room: Connection[Any]) -> None:
    async with world.handle.websocket() as websocket:
        await websocket.receive()


@pytest.mark.parametrize("ticks", range(SCHEDULES))
@pytest.mark.parametrize("operation", [_connect, _call, _iterate, _stateless, _fetch, _websocket])
async def test_cancelling_an_operation(
    operation: Callable[[World, Connection[Any]], Awaitable[None]], ticks: int, autojump_clock: MockClock
) -> None:
    async with trio.open_nursery() as nursery:
        async with open_world(encoding="json") as world:
            nursery.start_soon(_serve, world, nursery)
            async with world.handle.connect() as room:
                await world.handle.call("warm up")
                with trio.fail_after(30), trio.CancelScope() as scope:
                    async with trio.open_nursery() as canceller:
                        canceller.start_soon(_ticks, ticks, scope)
                        await operation(world, room)
                        canceller.cancel_scope.cancel()
                # Whatever was cancelled, this connection and the client are as good as before.
                assert await room.call("still") == "still"
                assert await world.handle.call("still") == 1
                assert room.status == "connected"
            # Every connection that is not kept for another call is closed.
            await trio.sleep(1)
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("ticks", range(SCHEDULES))
async def test_cancelling_a_connection_as_a_whole(ticks: int, autojump_clock: MockClock) -> None:
    settled: list[str] = []
    async with trio.open_nursery() as nursery:
        async with open_world() as world:
            nursery.start_soon(_serve, world, nursery)
            connection = world.handle.connect()

            async def outside() -> None:
                """A caller that is not inside the connection's block, and not cancelled with it."""
                try:
                    while True:
                        if connection.status == "idle":
                            await trio.lowlevel.checkpoint()
                            continue
                        await connection.call("x")
                        settled.append("answered")
                except (ConnectionEnded, ConnectionLost):
                    settled.append("ended")

            nursery.start_soon(outside)
            start = trio.current_time()
            with trio.CancelScope() as scope:
                nursery.start_soon(_ticks, ticks, scope)
                async with connection:
                    async with connection.events("a") as stream:
                        await anext(stream)
                        await anext(stream)
            assert scope.cancelled_caught
            assert trio.current_time() - start <= 1
            with trio.fail_after(1):
                await soon(lambda: connection.status == "idle" or settled[-1:] == ["ended"])
        nursery.cancel_scope.cancel()


async def test_a_cancelled_connection_says_goodbye(autojump_clock: MockClock) -> None:
    async with open_world() as world, trio.open_nursery() as nursery:
        codes: list[int | None] = []

        @nursery.start_soon
        async def _serve() -> None:
            peer = await world.server.admit()
            codes.append(await peer.gone(echo=False))

        with trio.move_on_after(1):
            async with world.handle.connect():
                await trio.sleep_forever()
        assert trio.current_time()
        await trio.sleep(1)
        assert codes == [1000]


async def test_the_error_of_the_body_survives_a_cancellation_on_the_way_out(autojump_clock: MockClock) -> None:
    async with open_world() as world, trio.open_nursery() as nursery:

        @nursery.start_soon
        async def _serve() -> None:
            peer = await world.server.accept()
            await peer.send(Init("a", "c"))  # and no answer to the closing handshake

        with trio.move_on_after(1):
            with pytest.raises(KeyError):
                async with world.handle.connect():
                    raise KeyError("mine")


async def test_a_call_cancelled_before_it_was_sent_is_not_sent(autojump_clock: MockClock) -> None:
    async with open_world() as world, world.room() as (room, peer), trio.open_nursery() as nursery:
        with trio.CancelScope() as scope:
            scope.cancel()
            await room.call("cancelled")
        nursery.start_soon(room.call, "next")
        call = await peer.call()
        assert call.name == "next"
        await peer.answer(call)
