"""What happens to events whose recipient is slow, and what each client is told of it."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from tests.runtime.support import FORMAT, REQUEST, FakeTransport, Peer, actor_of, connected, settled
from trivet import Actor, DefinitionError, Event, Limits, Registry, action
from trivet.event import latest
from trivet.protocol import extension
from trivet.protocol.messages import ActionResponse, SubscriptionRequest
from trivet.protocol.messages import Event as EventMessage
from trivet.protocol.values import UNDEFINED
from trivet.runtime.emit import BroadcastResult
from trivet.runtime.host import open_host
from trivet.runtime.instance import Instance

LIMITS = Limits(outbox_soft_messages=5, outbox_soft_time=5, outbox_hard_messages=20)


class Feed(Actor):
    needed = Event(int)
    oldest = Event(int, overflow="drop_oldest")
    newest = Event(int, overflow="drop_newest")
    cursor = Event(str, int, overflow=latest(lambda who, _: who))
    gentle = Event(int, overflow="block")

    def __init__(self) -> None:
        self.results: list[BroadcastResult] = []

    @action
    def emit(self, event: str, first: int, count: int) -> None:
        for n in range(first, first + count):
            self.results.append(self.broadcast(event, n))

    @action
    def move(self, who: str, to: int) -> None:
        self.results.append(self.broadcast(self.cursor, who, to))

    @action(concurrent=True)
    async def gently(self, n: int, timeout: float) -> str:
        try:
            await self.publish(self.gentle, n, timeout=timeout)
        except trio.TooSlowError:
            return "too slow"
        return "published"

    @action(concurrent=True)
    async def gently_to_all(self, n: int) -> int:
        return sum([await conn.publish(self.gentle, n) for conn in self.conns.values() if conn.kind == "events"])

    @action
    def roughly(self) -> str:
        try:
            self.broadcast(self.gentle, 1)
        except TypeError as error:
            return str(error)
        return "emitted"


@asynccontextmanager
async def feed(limits: Limits = LIMITS) -> AsyncGenerator[Instance]:
    async with open_host(Registry(Feed), limits) as host:
        yield (await host.get_or_create("default", "feed", ()))[0]


async def emit(instance: Instance, event: str, first: int, count: int) -> None:
    await instance.call("emit", [event, first, count], request=REQUEST)
    await settled()


def stopped(peer: Peer, *events: str) -> None:
    """Subscribe, and read no more."""
    for event in events:
        peer.subscribe(event)
    peer.transport.room = 0


def seen(peer: Peer) -> list[Any]:
    """Events as (name, payload), what was dropped as (name, {count})."""
    found: list[Any] = []
    for name, args in peer.events:
        found.append((args[0]["event"], {args[0]["count"]}) if name == "trivet.dropped" else (name, *args))
    return found


async def read_all(peer: Peer) -> list[Any]:
    peer.transport.read()
    await settled()
    return seen(peer)


async def test_a_client_that_reads_gets_all_of_them_whatever_the_policy() -> None:
    async with feed() as instance, connected(instance) as peer:
        for event in ("oldest", "newest"):
            peer.subscribe(event)
            await emit(instance, event, 0, 50)
        assert seen(peer) == [("oldest", n) for n in range(50)] + [("newest", n) for n in range(50)]
        assert peer.session.statistics().dropped == 0


async def test_the_oldest_give_way_and_the_client_is_told_in_their_place() -> None:
    async with feed() as instance, connected(instance) as peer:
        stopped(peer, "oldest")
        await emit(instance, "oldest", 0, 8)
        assert peer.session.statistics().dropped == 4
        assert await read_all(peer) == [("oldest", {4}), *[("oldest", n) for n in (4, 5, 6, 7)]]
        assert peer.closed_with is None


async def test_the_newest_do_not_get_in_and_the_client_is_told_in_their_place() -> None:
    async with feed() as instance, connected(instance) as peer:
        stopped(peer, "newest")
        await emit(instance, "newest", 0, 8)
        first = await read_all(peer)
        assert first == [*[("newest", n) for n in range(5)], ("newest", {3})]
        await emit(instance, "newest", 8, 1)
        assert seen(peer)[-1] == ("newest", 8)


async def test_of_each_key_the_latest_is_left_and_keeps_its_order() -> None:
    async with feed() as instance, connected(instance) as peer:
        stopped(peer, "cursor")
        for who, to in (("ann", 1), ("bob", 1), ("ann", 2), ("bob", 2), ("ann", 3)):
            await instance.call("move", [who, to], request=REQUEST)
            await settled()
        arrived = await read_all(peer)
        cursors = [event for event in arrived if len(event) == 3]
        assert cursors == [("cursor", "ann", 1), ("cursor", "bob", 2), ("cursor", "ann", 3)]
        assert sum(next(iter(event[1])) for event in arrived if isinstance(event[1], set)) == 2


async def test_what_needs_room_evicts_droppable_events_and_nothing_else() -> None:
    async with feed() as instance, connected(instance) as peer:
        stopped(peer, "oldest", "needed")
        await emit(instance, "needed", 0, 2)
        await emit(instance, "oldest", 0, 3)
        await emit(instance, "needed", 2, 2)
        call = peer.act("roughly")
        await settled()
        arrived = await read_all(peer)
        assert [event for event in arrived if event[0] == "needed"] == [("needed", n) for n in range(4)]
        assert ("oldest", {2}) in arrived or ("oldest", {3}) in arrived
        assert "publish" in peer.answer(call)
        assert peer.closed_with is None


async def test_a_slow_client_of_a_needed_event_ends_and_the_emitter_is_told(autojump_clock: trio.abc.Clock) -> None:
    async with feed() as instance, connected(instance) as slow, connected(instance) as fast:
        fast.subscribe("needed")
        stopped(slow, "needed")
        await emit(instance, "needed", 0, 8)
        await trio.sleep(6)
        assert slow.session.ended
        assert seen(fast) == [("needed", n) for n in range(8)]
        assert actor_of(instance, Feed).results[0] == BroadcastResult(2, 0, 0)
        assert instance.host.backlog.ended == 1


async def test_broadcast_tells_how_many_got_it_and_how_many_events_gave_way() -> None:
    async with feed() as instance, connected(instance) as slow, connected(instance) as fast:
        fast.subscribe("oldest")
        stopped(slow, "oldest")
        await emit(instance, "oldest", 0, 8)
        results = actor_of(instance, Feed).results
        assert results[0] == BroadcastResult(2, 0, 0)
        assert results[-1] == BroadcastResult(2, 1, 0)
        assert instance.statistics().dropped_events == 4
        assert instance.statistics().emitted_events == 8


async def test_policies_go_on_while_a_session_is_away_and_its_client_is_told_when_it_returns() -> None:
    async with feed() as instance:
        transport = FakeTransport()
        session = instance.open_session(transport, FORMAT, params=UNDEFINED, request=REQUEST, extended=True)
        await session.__aenter__()
        session.receive(SubscriptionRequest("oldest", True))
        await settled()
        await session.leave(transport)
        await emit(instance, "oldest", 0, 9)
        back = FakeTransport()
        assert session.resume(back, FORMAT, 0)
        await settled()
        told, *events = [line for line in back.lines if '"resumed"' not in line]
        assert extension.decode_to_client(told[1:]) == extension.Dropped("oldest", 5)
        assert [FORMAT.codec.decode_to_client(line) for line in events] == [
            EventMessage("oldest", [n]) for n in (5, 6, 7, 8)
        ]
        session.end(1000, "")
        await session.leave(back)


async def test_a_blocking_event_waits_for_room_at_every_recipient(autojump_clock: trio.abc.Clock) -> None:
    async with feed() as instance, connected(instance) as slow, connected(instance) as fast:
        fast.subscribe("gentle")
        stopped(slow, "gentle", "needed")
        await emit(instance, "needed", 0, 6)
        call = fast.act("gently", 1, 3.0)
        await settled()
        assert seen(fast) == []
        slow.transport.read()
        await settled()
        assert fast.answer(call) == "published"
        assert seen(fast) == [("gentle", 1)]
        assert seen(slow)[-1] == ("gentle", 1)


async def test_a_blocking_event_that_waits_too_long_is_emitted_to_nobody(autojump_clock: trio.abc.Clock) -> None:
    async with feed(Limits(outbox_soft_messages=5, outbox_soft_time=60)) as instance:
        async with connected(instance) as slow, connected(instance) as fast:
            fast.subscribe("gentle")
            stopped(slow, "gentle", "needed")
            await emit(instance, "needed", 0, 6)
            assert await fast.call("gently", 1, 2.0) == "too slow"
            assert seen(fast) == []


async def test_a_blocking_event_to_one_connection() -> None:
    async with feed() as instance, connected(instance) as peer:
        assert await peer.call("gentlyToAll", 4) == 1
        assert seen(peer) == [("gentle", 4)]


async def test_a_blocking_event_cannot_be_emitted_without_waiting() -> None:
    async with feed() as instance, connected(instance) as peer:
        answer = await peer.call("roughly")
        assert answer.startswith("gentle blocks: emit it with `await self.publish")
        assert any(isinstance(message, ActionResponse) for message in peer.messages)


def test_a_policy_that_is_none_is_refused() -> None:
    with pytest.raises(DefinitionError, match="drop_oldest"):
        Event(int, overflow="drop_some")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
