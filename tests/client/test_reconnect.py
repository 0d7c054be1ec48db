"""Reconnecting: what is kept, what is settled, and how long it waits."""

import random
from collections.abc import Callable
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from tests.client.fake import Peer, open_world, soon
from trivet.client.retry import Backoff, is_passing, retry_delay
from trivet.errors import ActorError, ConnectionEnded, ConnectionLost
from trivet.limits import Limits
from trivet.protocol.messages import Init


def named(name: str) -> ActorError:
    group, _, code = name.partition(".")
    return ActorError(group, code, "")


def test_backoff_grows_with_full_jitter_to_its_longest() -> None:
    backoff = Backoff(rng=random.Random(1))
    for attempt in range(50):
        assert 0 <= backoff.next() <= min(30.0, 0.25 * 2**attempt)
    waits = [Backoff(rng=random.Random(seed), attempts=40).next() for seed in range(200)]
    assert min(waits) < 3
    assert max(waits) > 27
    backoff.reset()
    assert backoff.next() <= 0.25


@pytest.mark.parametrize(
    ("code", "name", "admitted", "passing"),
    [
        (1006, None, True, True),
        (1001, "ws.going_away", True, True),
        (1000, "actor.stopped", True, True),
        (1011, "actor.stopping", False, True),
        (1011, "actor.destroyed_while_waiting", False, True),
        (1013, "connection.too_slow", True, True),
        (1011, "message.outgoing_too_long", True, True),
        (1011, "message.outgoing_too_long", False, False),
        (1011, "actor.not_found", True, False),
        (1011, None, True, True),
        (1011, "user.banned", True, False),
        (1000, None, True, False),
        (4000, None, True, False),
    ],
)
def test_which_ends_are_passing(code: int, name: str | None, admitted: bool, passing: bool) -> None:
    error = None if name is None else named(name)
    assert is_passing(code, error, admitted=admitted, creates=False) is passing


def test_stateless_calls_are_repeated_on_lifecycle_codes_only() -> None:
    def delays(name: str, *, by_key: bool = True, creates: bool = True, action: str = "x") -> list[float]:
        error = named(name)
        found: list[float] = []
        while True:
            delay = retry_delay(error, by_key=by_key, creates=creates, action=action, attempt=len(found) + 1)
            if delay is None:
                return found
            found.append(delay)

    assert delays("actor.starting") == [0.1] * 59
    assert delays("actor.starting", creates=False) == [0.1] * 23
    assert delays("actor.starting", by_key=False) == []
    assert delays("actor.not_found") == [0.1] * 59
    assert delays("actor.not_found", creates=False) == []
    assert delays("actor.restarting", by_key=False) == [0.025, 0.05, 0.1, 0.2]
    assert delays("actor.restarting", action="destroy") == []
    assert delays("guard.actor_ready_timeout", creates=False) == [0.1] * 23
    assert delays("user.nope") == []
    assert delays("actor.action_timed_out") == []


async def _close(peer: Peer) -> None:
    await peer.close(1001, "ws.going_away")
    await peer.gone()


async def _drop(peer: Peer) -> None:
    await peer.drop()


@pytest.mark.parametrize("end", [_close, _drop])
async def test_a_lost_connection_comes_back_and_subscribes_again_first(
    end: Callable[[Peer], Any], autojump_clock: MockClock
) -> None:
    async with open_world() as world:
        story: list[Any] = []
        connection = world.handle.connect()
        connection.on_open(lambda: story.append("open"))
        connection.on_close(lambda closed: story.append(closed.reconnects))
        async with world.room(connection) as (room, first):
            room.on("a", story.append)
            room.on("b", story.append)
            gone = room.on("c", story.append)
            gone()
            for name in "ab":
                assert await first.subscription() == (name, True)
            await end(first)
            await soon(lambda: room.status != "connected")
            async with trio.open_nursery() as nursery:
                queued: list[Any] = []

                async def call() -> None:
                    queued.append(await room.call("queued"))

                nursery.start_soon(call)
                second = await world.server.admit("conn-2")
                assert [await second.subscription() for _ in range(2)] == [("a", True), ("b", True)]
                await second.answer(await second.call(), 7)
            assert queued == [7]
            assert room.conn_id == "conn-2"
            await second.event("a", "again")
            await soon(lambda: "again" in story)
        assert story == ["open", True, "open", "again", False]


async def test_a_call_made_in_on_open_follows_the_subscriptions_and_the_queued_calls(
    autojump_clock: MockClock,
) -> None:
    async with open_world() as world, trio.open_nursery() as nursery:
        connection = world.handle.connect()
        connection.on("a", print)
        async with world.room(connection) as (room, first):
            assert await first.subscription() == ("a", True)
            await first.drop()
            await soon(lambda: room.status != "connected")

            async def call(name: str) -> None:
                with pytest.raises(ConnectionEnded):
                    await room.call(name)

            nursery.start_soon(call, "queued")
            await trio.testing.wait_all_tasks_blocked()
            room.on_open(lambda: nursery.start_soon(call, "from on_open"))
            second = await world.server.admit("conn-2")
            assert await second.subscription() == ("a", True)
            assert [(await second.call()).name for _ in range(2)] == ["queued", "from on_open"]


async def test_calls_on_their_way_are_lost_and_never_repeated(autojump_clock: MockClock) -> None:
    async with open_world() as world, world.room() as (room, first), trio.open_nursery() as nursery:

        async def lost() -> None:
            with pytest.raises(ConnectionLost) as caught:
                await room.call("once")
            assert caught.value.maybe_executed

        nursery.start_soon(lost)
        await first.call()
        await first.drop()
        second = await world.server.admit()
        nursery.start_soon(room.call, "next")
        call = await second.call()
        assert call.name == "next"
        await second.answer(call)


async def test_a_call_that_gave_up_while_disconnected_is_never_sent(autojump_clock: MockClock) -> None:
    async with open_world(limits=Limits(action_timeout=5)) as world, world.room() as (room, first):
        world.server.refusing = True
        await first.drop()
        await soon(lambda: room.status != "connected")
        start = trio.current_time()
        with pytest.raises(ConnectionLost) as caught:
            await room.call("too late")
        assert not caught.value.maybe_executed
        assert trio.current_time() - start == pytest.approx(5)
        with trio.move_on_after(1) as scope:
            await room.call("cancelled")
        assert scope.cancelled_caught
        world.server.refusing = False
        async with trio.open_nursery() as nursery:
            second = await world.server.admit()
            nursery.start_soon(room.call, "in time")
            call = await second.call()
            assert call.name == "in time"
            await second.answer(call)


async def test_a_long_call_that_was_sent_waits_for_its_answer(autojump_clock: MockClock) -> None:
    limits = Limits(action_timeout=5)
    async with open_world(limits=limits) as world, world.room() as (room, peer), trio.open_nursery() as nursery:

        @nursery.start_soon
        async def _serve() -> None:
            call = await peer.call()
            for _ in range(10):
                await trio.sleep(15)
                await peer.event("still busy")
            await peer.answer(call, "done")

        assert await room.call("slow") == "done"


async def test_the_queue_of_calls_is_bounded(autojump_clock: MockClock) -> None:
    limits = Limits(inbox=2, action_timeout=5)
    async with open_world(limits=limits) as world, world.room() as (room, first):
        world.server.refusing = True
        await first.drop()
        await soon(lambda: room.status != "connected")
        errors: list[str] = []

        async def call(n: int) -> None:
            with pytest.raises(ConnectionLost) as caught:
                await room.call("x", n)
            errors.append(str(caught.value))

        async with trio.open_nursery() as nursery:
            for n in range(3):
                nursery.start_soon(call, n)
        assert len(errors) == 3


async def test_attempts_back_off_and_start_afresh_after_a_stable_time(autojump_clock: MockClock) -> None:
    async with open_world() as world, world.room() as (room, first):
        world.server.refusing = True
        await first.drop()
        before = world.server.dials
        await trio.sleep(300)
        attempts = world.server.dials - before
        assert 300 / 30 - 1 <= attempts < 60  # at most one each 250 ms at first, and about one each 15 s later
        assert room.status in ("connecting", "disconnected")
        world.server.refusing = False
        second = await world.server.admit()
        await trio.sleep(10)
        start = trio.current_time()
        await second.drop()
        await world.server.admit()
        assert trio.current_time() - start <= 0.25


async def test_without_reconnect_a_lost_connection_is_over(autojump_clock: MockClock) -> None:
    async with open_world() as world, world.room(world.handle.connect(reconnect=False)) as (room, peer):
        async with trio.open_nursery() as nursery, room.events("a") as stream:

            async def lost() -> None:
                with pytest.raises(ConnectionLost) as caught:
                    await room.call("x")
                assert caught.value.maybe_executed

            nursery.start_soon(lost)
            await peer.subscription()
            await peer.call()
            await peer.drop()
            with pytest.raises(ConnectionEnded):
                await anext(stream)
        assert room.status == "closed"
        with pytest.raises(ConnectionEnded):
            await room.call("y")


async def test_a_kick_ends_calls_that_wait_for_the_network(autojump_clock: MockClock) -> None:
    async with open_world() as world, world.room() as (room, first), trio.open_nursery() as nursery:
        await first.drop()
        await soon(lambda: room.status != "connected")

        async def refused() -> None:
            with pytest.raises(ActorError, match="banned"):
                await room.call("x")

        nursery.start_soon(refused)
        second = await world.server.accept()
        await second.close(1011, "user.banned")
        await second.gone()


async def test_parameters_that_cannot_be_had_are_asked_for_again_when_reconnecting(autojump_clock: MockClock) -> None:
    asked = 0

    def get_params() -> object:
        nonlocal asked
        asked += 1
        if asked == 2:
            raise LookupError("no token right now")
        return {"asked": asked}

    async with open_world() as world:
        errors: list[Exception] = []
        connection = world.client.get("chatRoom", get_params=get_params).connect()
        connection.on_error(errors.append)
        async with world.room(connection) as (_, first):
            await first.drop()
            second = await world.server.admit()
            assert second.subprotocols[-2] == "rivet_conn_params.%7B%22asked%22%3A3%7D"
        assert [type(error) for error in errors] == [LookupError]


async def test_leaving_while_disconnected_is_immediate(autojump_clock: MockClock) -> None:
    async with open_world() as world, trio.open_nursery() as nursery:

        @nursery.start_soon
        async def _serve() -> None:
            peer = await world.server.admit()
            world.server.refusing = True
            await peer.drop()

        async with world.handle.connect() as room:
            await trio.sleep(100)
            start = trio.current_time()
        assert trio.current_time() == start
        assert room.status == "closed"


async def test_a_second_init_changes_nothing(autojump_clock: MockClock) -> None:
    async with open_world() as world, world.room() as (room, peer):
        await peer.send(Init("other", "other"))
        await trio.sleep(1)
        assert (room.actor_id, room.conn_id) == ("actor-1", "conn-1")
