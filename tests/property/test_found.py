"""What the search has found, each in as few steps as it takes."""

import trio
import trio.testing

from tests.runtime.support import settled
from tests.runtime.test_sessions import Returning
from trivet import Actor, Conn, Event, Limits, Registry, action
from trivet.protocol.messages import ActionRequest, SubscriptionRequest
from trivet.runtime import ending
from trivet.runtime.host import open_host
from trivet.runtime.lifecycle import Goal

LIMITS = Limits(outbox_soft_messages=7)


class Feed(Actor):
    oldest = Event(int, overflow="drop_oldest")
    newest = Event(int, overflow="drop_newest")
    slow = Event(int)

    def __init__(self) -> None:
        self.left: list[str] = []

    @slow.can_subscribe
    async def take_your_time(self, conn: Conn) -> bool:
        await trio.sleep(1)
        return True

    def on_disconnect(self, conn: Conn) -> None:
        self.left.append(conn.id)

    @action
    def emit(self, first: int, last: int) -> None:
        for n in range(first, last + 1):
            self.broadcast(self.oldest, n)


async def test_what_a_client_may_have_does_not_give_way_while_it_is_away() -> None:
    """It says how many messages it has: with others in their place that would be a different many."""
    async with open_host(Registry(Feed), LIMITS) as host:
        instance, _ = await host.get_or_create("default", "feed", ())
        client = Returning(host, instance)
        await client.open()
        client.session.receive(SubscriptionRequest("oldest", True))
        client.act("emit", 0, 2)
        await settled()
        await client.lose()  # it has those three, and the server has not heard so
        instance.actor.emit(3, 8)  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
        assert await client.back()
        client.take()
        assert client.events == [0, 1, 2, 7, 8]
        assert '+["dropped","oldest",4]' in client.seen
        client.session.end(1000, "")


async def test_an_actor_that_stops_waits_for_a_subscription_that_is_being_decided(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Its connection leaves when nothing of it is under way, and the actor had ended by then, without on_disconnect."""
    async with open_host(Registry(Feed), LIMITS) as host:
        instance, _ = await host.get_or_create("default", "feed", ())
        client = Returning(host, instance)
        await client.open()
        client.session.receive(SubscriptionRequest("slow", True))
        ending.request(instance, Goal.STOP)
        await instance.ended.wait()
        assert isinstance(instance.actor, Feed)
        assert instance.actor.left == [client.session.conn.id]


async def test_the_mark_of_what_was_dropped_moves_to_the_first_of_it() -> None:
    """One did not get in, then an earlier one had to make room: the client is told before it sees what came between."""
    async with open_host(Registry(Feed), LIMITS) as host:
        instance, _ = await host.get_or_create("default", "feed", ())
        client = Returning(host, instance)
        await client.open()
        client.session.receive(SubscriptionRequest("newest", True))
        await client.lose()
        assert isinstance(instance.actor, Feed)
        for n in range(8):
            instance.actor.broadcast(Feed.newest, n)
        for n in range(2):
            client.session.receive(ActionRequest(n, "nothing", []))
        assert await client.back()
        client.take()
        assert client.seen[0] == '+["dropped","newest",4]'
        assert client.events == [3, 4, 5, 6]
        client.session.end(1000, "")
