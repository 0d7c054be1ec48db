"""Sessions: what a connection keeps when its transport breaks, and what it says when it could not."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from tests.client.fake import Peer, World, open_world, soon
from trivet.client import Connection
from trivet.client.outgoing import MAX_UNACKNOWLEDGED
from trivet.errors import ActorError, ConnectionEnded, ConnectionLost, Dropped, Gap, Unsupported
from trivet.limits import Limits
from trivet.protocol import extension
from trivet.protocol.extension import Ack, Bye, Cancel, Refused, Resumed, Subscribe, Subscribed, Sync, Synced, Timeout
from trivet.protocol.messages import ActionResponse, Error, Event, SubscriptionRequest
from trivet.protocol.subprotocols import SessionClaim


async def outcome(call: Callable[[], Awaitable[Any]], into: list[Any]) -> None:
    try:
        into.append(await call())
    except (ActorError, ConnectionLost, ConnectionEnded, Unsupported) as error:
        into.append(error)


async def grant(peer: Peer) -> str:
    """The next message, which must be a subscription; it is granted."""
    message = await peer.hear()
    assert isinstance(message, Subscribe), message
    await peer.say(Subscribed(message.id))
    return message.event


async def reconnect(world: World, received: int | None) -> Peer:
    """The next transport; the session is resumed with that count, or a new one begins."""
    peer = await world.server.accept()
    if received is None:
        await peer.init("conn-2")
    else:
        await peer.say(Resumed(received))
    return peer


async def test_the_session_goes_on_over_another_transport(autojump_clock: MockClock) -> None:
    async with open_world(extended=True) as world, trio.open_nursery() as nursery:
        story: list[Any] = []
        connection = world.handle.connect()
        connection.on_status_change(story.append)
        connection.on_open(lambda: story.append("open"))
        connection.on_close(lambda closed: story.append(closed.reconnects))
        async with world.room(connection) as (room, first):
            room.on("news", story.append)
            assert await grant(first) == "news"
            results: list[Any] = []
            nursery.start_soon(outcome, lambda: room.call("one"), results)
            nursery.start_soon(outcome, lambda: room.call("two"), results)
            calls = [await first.hear_call() for _ in range(2)]
            await first.event("news", 1)
            await soon(lambda: 1 in story)
            await first.drop()
            second = await world.server.accept()
            # The answer to the subscription and an event have come; of the client's three messages two are there.
            assert second.claim == SessionClaim("token-of-conn-1", 2)
            await second.say(Resumed(2))
            await second.event("news", 2)
            again = await second.hear_call()
            assert again == calls[1]
            await second.answer(calls[0], "first")
            await second.answer(again, "second")
            await soon(lambda: len(results) == 2)
            assert results == ["first", "second"]
            assert room.conn_id == "conn-1"
        assert story == [
            *("connecting", "connected", "open", 1, True, "disconnected"),
            *("connecting", "connected", "open", 2, "closed", False),
        ]


async def test_what_was_asked_while_disconnected_is_said_after_the_replay(autojump_clock: MockClock) -> None:
    async with open_world(extended=True) as world, world.room() as (room, first), trio.open_nursery() as nursery:
        results: list[Any] = []
        nursery.start_soon(outcome, lambda: room.call("sent"), results)
        await first.hear_call()
        await first.drop()
        await soon(lambda: room.status != "connected")
        room.on("late", print)
        nursery.start_soon(outcome, lambda: room.call("queued"), results)
        second = await reconnect(world, 0)
        assert (await second.hear_call()).name == "sent"
        assert await grant(second) == "late"
        assert (await second.hear_call()).name == "queued"
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("encoding", ["json", "cbor", "bare"])
async def test_extension_frames_have_the_other_opcode(encoding: str, autojump_clock: MockClock) -> None:
    async with open_world(extended=True, encoding=encoding) as world, world.room() as (room, peer):
        room.on("a", print)
        data = await peer.receive_data()
        assert isinstance(data, str) == peer.codec.binary
        assert isinstance(extension.decode_to_server(data), Subscribe)


async def test_a_refused_token_begins_a_new_session_with_a_gap(autojump_clock: MockClock) -> None:
    async with open_world(extended=True) as world, world.room() as (room, first), trio.open_nursery() as nursery:
        heard: list[Any] = []
        room.on("a", heard.append, on_gap=heard.append)
        await grant(first)
        results: list[Any] = []
        nursery.start_soon(outcome, lambda: room.call("sent"), results)
        await first.hear_call()
        await first.drop()
        await soon(lambda: room.status != "connected")
        assert results == []
        nursery.start_soon(outcome, lambda: room.call("queued"), results)
        second = await reconnect(world, None)
        assert await grant(second) == "a"
        await second.answer(await second.hear_call(), "new")
        await second.event("a", 1)
        await soon(lambda: len(results) == 2 and len(heard) == 2)
        lost, queued = results
        assert isinstance(lost, ConnectionLost)
        assert lost.maybe_executed
        assert queued == "new"
        assert isinstance(heard[0], Gap)
        assert heard[1] == 1
        assert room.conn_id == "conn-2"


async def test_a_message_before_init_belongs_to_the_new_session_and_follows_the_gap(autojump_clock: MockClock) -> None:
    async with open_world(extended=True) as world, world.room() as (room, first):
        heard: list[Any] = []
        room.on("a", heard.append, on_gap=heard.append)
        await grant(first)
        await first.drop()
        second = await world.server.accept()
        await second.event("a", "early")
        await second.init("conn-2")
        await soon(lambda: len(heard) == 2)
        assert isinstance(heard[0], Gap)
        assert heard[1] == "early"
        await grant(second)
        await second.drop()
        third = await world.server.accept()
        assert third.claim == SessionClaim("token-of-conn-2", 2)
        await third.say(Resumed(1))


async def test_calls_are_settled_when_the_window_has_passed(autojump_clock: MockClock) -> None:
    async with open_world(extended=True) as world, trio.open_nursery() as nursery:
        async with world.room() as (room, first):
            room.on("a", print)
            gaps: list[Any] = []
            room.on_gap(gaps.append)
            await grant(first)
            results: list[Any] = []
            nursery.start_soon(outcome, lambda: room.call("sent"), results)
            await first.hear_call()
            await first.drop()
            broken = trio.current_time()
            world.server.refusing = True
            await soon(lambda: bool(results))
            assert trio.current_time() - broken == pytest.approx(30, abs=0.1)
            assert isinstance(results[0], ConnectionLost)
            world.server.refusing = False
            second = await world.server.accept()
            assert second.claim is None
            await second.init("conn-2")
            await soon(lambda: bool(gaps))
            assert await grant(second) == "a"
            assert len(gaps) == 1


async def test_while_the_session_can_be_resumed_attempts_are_close(autojump_clock: MockClock) -> None:
    async with open_world(extended=True) as world, world.room() as (room, first):
        await first.drop()
        world.server.refusing = True
        await soon(lambda: room.status != "connected")
        dials = world.server.dials
        await trio.sleep(29)
        assert world.server.dials - dials >= 7
        world.server.refusing = False
        await world.server.admit()


@pytest.mark.parametrize(
    ("code", "reason"), [(1013, "connection.too_slow"), (1001, "ws.going_away"), (1000, "actor.stopped")]
)
async def test_a_close_by_the_server_ends_the_session_at_once(
    code: int, reason: str, autojump_clock: MockClock
) -> None:
    async with open_world(extended=True) as world, world.room() as (room, first), trio.open_nursery() as nursery:
        results: list[Any] = []
        nursery.start_soon(outcome, lambda: room.call("sent"), results)
        await first.hear_call()
        await first.close(code, reason)
        await soon(lambda: bool(results))
        assert isinstance(results[0], ConnectionLost)
        second = await world.server.accept()
        assert second.claim is None
        await second.init("conn-2")


async def test_who_was_replaced_does_not_take_the_session_back(autojump_clock: MockClock) -> None:
    async with open_world(extended=True) as world, world.room() as (room, first):
        gaps: list[Any] = []
        room.on_gap(gaps.append)
        room.on("a", print)
        await grant(first)
        await first.close(1012, "connection.replaced")
        await first.gone()
        second = await world.server.accept()
        assert second.claim is None
        await second.init("conn-2")
        await soon(lambda: bool(gaps))


async def test_a_kick_that_waited_for_the_client_is_final(autojump_clock: MockClock) -> None:
    async with open_world(extended=True) as world, trio.open_nursery() as nursery:
        results: list[Any] = []
        async with world.room() as (room, first):
            nursery.start_soon(outcome, lambda: room.call("sent"), results)
            await first.hear_call()
            await first.drop()
            second = await world.server.accept()
            await second.close(1000, "kicked")
            await soon(lambda: room.status == "closed")
        assert isinstance(results[0], ConnectionEnded)


async def test_counts_that_cannot_be_begin_a_new_session(autojump_clock: MockClock) -> None:
    async with open_world(extended=True) as world, world.room() as (room, first), trio.open_nursery() as nursery:
        results: list[Any] = []
        nursery.start_soon(outcome, lambda: room.call("sent"), results)
        await first.hear_call()
        await first.drop()
        await reconnect(world, 7)
        third = await world.server.accept()
        assert third.claim is None
        await third.init("conn-3")
        await soon(lambda: room.conn_id == "conn-3")
        assert isinstance(results[0], ConnectionLost)


async def test_without_reconnecting_nothing_is_resumed(autojump_clock: MockClock) -> None:
    async with open_world(extended=True) as world, trio.open_nursery() as nursery:
        results: list[Any] = []
        async with world.room(world.handle.connect(reconnect=False)) as (room, first):
            nursery.start_soon(outcome, lambda: room.call("sent"), results)
            await first.hear_call()
            await first.drop()
            await soon(lambda: room.status == "closed")
        assert isinstance(results[0], ConnectionLost)
        assert world.server.dials == 2


async def test_leaving_says_goodbye(autojump_clock: MockClock) -> None:
    async with open_world(extended=True) as world, trio.open_nursery() as nursery:

        @nursery.start_soon
        async def _serve() -> None:
            peer = await world.server.admit()
            assert await peer.hear() == Bye()
            assert await peer.gone() == 1000

        async with world.handle.connect():
            pass


# -- acknowledgements -------------------------------------------------------------------------------------------------


async def test_few_messages_are_acknowledged_in_time_and_many_at_once(autojump_clock: MockClock) -> None:
    async with open_world(extended=True) as world, world.room() as (_, peer), trio.open_nursery() as nursery:
        nursery.start_soon(peer.hear)
        await peer.event("x")
        await trio.sleep(4.9)
        assert peer.acks == []
        await trio.sleep(0.2)
        assert peer.acks == [1]
        await peer.send(*[Event("x", []) for _ in range(512)])
        await trio.sleep(0.01)
        assert peer.acks == [1, 513]
        await peer.send(Event("x", ["y" * 140_000]))
        await trio.sleep(0.01)
        assert peer.acks == [1, 513, 514]
        await trio.sleep(30)
        assert peer.acks == [1, 513, 514]
        nursery.cancel_scope.cancel()


async def test_at_most_so_many_messages_are_not_acknowledged(autojump_clock: MockClock) -> None:
    limits = Limits(inbox=5000)
    async with (
        open_world(extended=True, limits=limits) as world,
        world.room() as (room, peer),
        trio.open_nursery() as nursery,
    ):
        results: list[Any] = []
        for n in range(MAX_UNACKNOWLEDGED + 10):
            nursery.start_soon(outcome, lambda n=n: room.call("x", n), results)
        heard: list[Any] = []

        @nursery.start_soon
        async def _listen() -> None:
            while True:
                heard.append(await peer.hear())

        await soon(lambda: len(heard) == MAX_UNACKNOWLEDGED)
        with trio.move_on_after(5) as scope:  # a call that waits for room can be cancelled, and is never sent
            await room.call("given up")
        assert scope.cancelled_caught
        assert len(heard) == MAX_UNACKNOWLEDGED
        await peer.say(Ack(4))
        await soon(lambda: len(heard) == MAX_UNACKNOWLEDGED + 4)
        await peer.say(Ack(100))
        await trio.sleep(5)
        assert len(heard) == MAX_UNACKNOWLEDGED + 10
        assert all(message.name == "x" for message in heard)
        nursery.cancel_scope.cancel()


async def test_a_mebibyte_may_be_unacknowledged(autojump_clock: MockClock) -> None:
    async with open_world(extended=True) as world, world.room() as (room, peer), trio.open_nursery() as nursery:
        results: list[Any] = []
        heard: list[Any] = []

        @nursery.start_soon
        async def _listen() -> None:
            while True:
                heard.append(await peer.hear())

        for _ in range(30):
            nursery.start_soon(outcome, lambda: room.call("x", "y" * 60_000), results)
        await trio.sleep(5)
        assert len(heard) == 17
        await peer.say(Ack(17))
        await trio.sleep(5)
        assert len(heard) == 30
        nursery.cancel_scope.cancel()


async def test_what_is_too_large_is_never_sent_nor_replayed(autojump_clock: MockClock) -> None:
    async with open_world(extended=True) as world, world.room() as (room, first):
        with pytest.raises(ActorError, match="incoming_too_long"):
            await room.call("x", "y" * 70_000)
        await first.drop()
        second = await reconnect(world, 0)
        room.on("a", print)
        assert await grant(second) == "a"


# -- cancelling and deadlines -----------------------------------------------------------------------------------------


async def test_a_cancelled_call_is_cancelled_there_if_it_was_sent(autojump_clock: MockClock) -> None:
    async with open_world(extended=True) as world, world.room() as (room, peer), trio.open_nursery() as nursery:
        with trio.CancelScope() as scope:

            @nursery.start_soon
            async def _serve() -> None:
                call = await peer.hear_call()
                scope.cancel()
                assert await peer.hear() == Cancel(call.id)
                await peer.send(Error("actor", "aborted", "The call was cancelled", action_id=call.id))
                await peer.answer(await peer.hear_call(), "next")

            await room.call("slow")
        assert scope.cancelled_caught
        assert await room.call("next") == "next"


async def test_a_call_that_was_not_sent_is_withdrawn_without_a_word(autojump_clock: MockClock) -> None:
    async with open_world(extended=True) as world, world.room() as (room, first):
        await first.drop()
        await soon(lambda: room.status != "connected")
        with trio.move_on_after(0):
            await room.call("never")
        second = await reconnect(world, 0)
        room.on("a", print)
        assert await grant(second) == "a"


async def test_a_call_that_is_cancelled_while_disconnected_is_cancelled_after_its_replay(
    autojump_clock: MockClock,
) -> None:
    async with open_world(extended=True) as world, world.room() as (room, first), trio.open_nursery() as nursery:
        with trio.CancelScope() as scope:

            @nursery.start_soon
            async def _serve() -> None:
                await first.hear_call()
                await first.drop()
                await soon(lambda: room.status != "connected")
                scope.cancel()

            await room.call("slow")
        second = await reconnect(world, 0)
        call = await second.hear_call()
        assert await second.hear() == Cancel(call.id)


async def test_a_near_deadline_travels_with_the_call(autojump_clock: MockClock) -> None:
    async with open_world(extended=True) as world, world.room() as (room, peer), trio.open_nursery() as nursery:

        @nursery.start_soon
        async def _serve() -> None:
            timeout = await peer.hear()
            call = await peer.hear_call()
            assert isinstance(timeout, Timeout)
            assert timeout.call_id == call.id
            assert timeout.seconds == pytest.approx(7, abs=0.5)
            await peer.answer(call)
            for _ in range(2):
                await peer.answer(await peer.hear_call())  # without a Timeout

        with trio.fail_after(7):
            await room.call("near")
        with trio.fail_after(70):
            await room.call("far")
        await room.call("none")


async def test_a_plain_server_hears_of_neither(autojump_clock: MockClock) -> None:
    async with open_world() as world, world.room() as (room, peer), trio.open_nursery() as nursery:

        @nursery.start_soon
        async def _serve() -> None:
            assert (await peer.hear_call()).name == "slow"
            await peer.answer(await peer.hear_call())

        with trio.move_on_after(3):
            await room.call("slow")
        await room.call("next")


# -- subscriptions ----------------------------------------------------------------------------------------------------


async def test_entering_a_stream_waits_until_it_is_in_force(autojump_clock: MockClock) -> None:
    async with open_world(extended=True) as world, world.room() as (room, peer), trio.open_nursery() as nursery:
        entered = trio.Event()

        @nursery.start_soon
        async def _listen() -> None:
            async with room.events("a") as events:
                entered.set()
                async for event in events:
                    assert event == 1
                    break

        message = await peer.hear()
        assert isinstance(message, Subscribe)
        await trio.sleep(5)
        assert not entered.is_set()
        await peer.say(Subscribed(message.id))
        await entered.wait()
        await peer.event("a", 1)
        assert await peer.hear() == SubscriptionRequest("a", False)


@pytest.mark.parametrize("kicked", [True, False])
async def test_on_a_connection_that_is_over_nothing_waits_for_an_answer(
    kicked: bool, autojump_clock: MockClock
) -> None:
    async with open_world(extended=True) as world:
        async with world.room() as (room, peer):
            if kicked:
                await peer.close(1000, "kicked")
                await soon(lambda: room.status == "closed")
        with trio.fail_after(1):
            async with room.events("a") as events:
                if kicked:
                    with pytest.raises(ConnectionEnded):
                        await anext(events)
                else:
                    assert [event async for event in events] == []
            unsubscribe = room.on("b", trio.sleep)
            unsubscribe()


async def test_a_refused_stream_raises_on_entering_and_the_connection_lives(autojump_clock: MockClock) -> None:
    async with open_world(extended=True) as world, world.room() as (room, peer), trio.open_nursery() as nursery:
        errors: list[Any] = []
        room.on_error(errors.append)

        @nursery.start_soon
        async def _serve() -> None:
            message = await peer.hear()
            assert isinstance(message, Subscribe)
            await peer.say(Refused(message.id, "auth", "forbidden", "Forbidden", {"who": "bob"}))
            await peer.answer(await peer.hear_call(), "alive")
            assert await grant(peer) == "secret"  # it may be asked for again

        with pytest.raises(ActorError, match="forbidden") as caught:
            async with room.events("secret"):
                pytest.fail("not reached")
        assert caught.value.metadata == {"who": "bob"}
        assert await room.call("x") == "alive"
        assert errors == []
        async with room.events("secret"):
            pass


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_a_refused_callback_is_reported_and_gone(asynchronous: bool, autojump_clock: MockClock) -> None:
    async with open_world(extended=True) as world, world.room() as (room, peer):
        errors: list[Any] = []
        room.on_error(errors.append)

        async def later(*args: object) -> None:
            pytest.fail("not reached")

        def at_once(*args: object) -> None:
            pytest.fail("not reached")

        unsubscribe = room.on("secret", later if asynchronous else at_once)
        message = await peer.hear()
        assert isinstance(message, Subscribe)
        await peer.say(Refused(message.id, "auth", "forbidden", "Forbidden"))
        await soon(lambda: bool(errors))
        assert str(errors[0]) == "auth.forbidden: Forbidden"
        await peer.event("secret", 1)
        unsubscribe()
        room.on("other", print)
        assert await grant(peer) == "other"  # and no unsubscription before it
        assert len(errors) == 1


async def test_a_refusal_of_what_nobody_wants_any_more_says_nothing(autojump_clock: MockClock) -> None:
    async with open_world(extended=True) as world, world.room() as (room, peer):
        errors: list[Any] = []
        room.on_error(errors.append)
        room.on("a", print)()
        unsubscribe = room.on("b", print)
        message = await peer.hear()
        assert isinstance(message, Subscribe)
        unsubscribe()
        assert await peer.hear() == SubscriptionRequest("b", False)
        room.on("b", print)
        await peer.say(Refused(message.id, "auth", "forbidden", "Forbidden"))
        assert await grant(peer) == "b"
        assert errors == []


async def test_a_stream_waits_through_a_break_for_its_subscription(autojump_clock: MockClock) -> None:
    for resumed in (True, False):
        async with open_world(extended=True) as world, world.room() as (room, first), trio.open_nursery() as nursery:
            entered = trio.Event()

            async def listen(room: Connection[Any], entered: trio.Event) -> None:
                async with room.events("a"):
                    entered.set()

            nursery.start_soon(listen, room, entered)
            await first.hear()
            await first.drop()
            second = await reconnect(world, 0 if resumed else None)
            await trio.sleep(1)
            assert not entered.is_set()
            assert await grant(second) == "a"
            await entered.wait()


async def test_a_stream_that_a_later_session_is_refused_ends(autojump_clock: MockClock) -> None:
    async with open_world(extended=True) as world, world.room() as (room, first), trio.open_nursery() as nursery:
        nursery.start_soon(grant, first)
        async with room.events("a") as events:
            await first.drop()
            second = await reconnect(world, None)
            message = await second.hear()
            assert isinstance(message, Subscribe)
            await second.say(Refused(message.id, "auth", "forbidden", "Forbidden"))
            with pytest.raises(Gap):
                await anext(events)
            with pytest.raises(ActorError, match="forbidden"):
                await anext(events)


async def test_sync_waits_for_its_mark(autojump_clock: MockClock) -> None:
    async with open_world(extended=True) as world, world.room() as (room, peer), trio.open_nursery() as nursery:
        heard: list[Any] = []
        room.on("a", heard.append)
        await grant(peer)

        @nursery.start_soon
        async def _serve() -> None:
            message = await peer.hear()
            assert isinstance(message, Sync)
            await trio.sleep(3)
            await peer.event("a", 1)
            await peer.say(Synced(message.id))

        await room.sync()
        assert heard == [1]


async def test_sync_says_that_a_plain_server_has_none(autojump_clock: MockClock) -> None:
    async with open_world() as world, world.room() as (room, _):
        with pytest.raises(Unsupported):
            await room.sync()


# -- what is missing --------------------------------------------------------------------------------------------------


async def test_a_stream_raises_a_gap_once_at_its_place_and_goes_on(autojump_clock: MockClock) -> None:
    async with open_world(extended=True) as world, world.room() as (room, first), trio.open_nursery() as nursery:
        nursery.start_soon(grant, first)
        async with room.events("a") as events:
            await first.event("a", 1)
            await trio.sleep(1)
            await first.drop()
            second = await reconnect(world, None)
            await grant(second)
            await second.event("a", 2)
            await second.say(extension.Dropped("a", 3))
            await second.event("a", 3)
            await trio.sleep(1)
            assert await anext(events) == 1
            with pytest.raises(Gap):
                await anext(events)
            assert await anext(events) == 2
            with pytest.raises(Dropped) as caught:
                await anext(events)
            assert (caught.value.event, caught.value.count) == ("a", 3)
            assert await anext(events) == 3


async def test_marks_take_no_room_and_neighbours_are_one(autojump_clock: MockClock) -> None:
    async with open_world(extended=True) as world, world.room() as (room, peer), trio.open_nursery() as nursery:
        nursery.start_soon(grant, peer)
        async with room.events("a", buffer=1, overflow="drop_oldest") as events:
            await peer.say(extension.Dropped("a", 1))
            await peer.event("a", 1)
            await peer.say(extension.Dropped("a", 2))
            await peer.event("a", 2)
            await trio.sleep(1)
            with pytest.raises(Dropped) as caught:
                await anext(events)
            assert caught.value.count == 3
            assert await anext(events) == 2


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_a_callback_is_told_of_what_was_dropped_between_its_events(
    asynchronous: bool, autojump_clock: MockClock
) -> None:
    async with open_world(extended=True) as world, world.room() as (room, peer):
        heard: list[Any] = []

        async def later(event: object) -> None:
            heard.append(event)

        callback: Any = later if asynchronous else heard.append
        room.on("a", callback, on_gap=callback)
        room.on("b", heard.append, on_gap=heard.append)
        for _ in "ab":
            await grant(peer)
        await peer.send_raw(
            peer.framed(Event("a", [1]))
            + peer.framed_extension(extension.Dropped("a", 9))
            + peer.framed(Event("a", [2]))
        )
        await soon(lambda: len(heard) == 3)
        assert heard[0] == 1
        assert isinstance(heard[1], Dropped)
        assert heard[2] == 2


async def test_what_nobody_listens_to_is_an_error_of_the_connection(autojump_clock: MockClock) -> None:
    async with open_world(extended=True) as world, world.room() as (room, peer):
        errors: list[Any] = []
        room.on_error(errors.append)
        room.on("a", print)
        await grant(peer)
        await peer.say(extension.Dropped("a", 9))
        await soon(lambda: len(errors) == 1)
        gaps: list[Any] = []
        room.on_gap(gaps.append)
        await peer.say(extension.Dropped("a", 9))
        await soon(lambda: len(gaps) == 1)
        assert len(errors) == 1


async def test_a_plain_connection_is_told_by_an_event(autojump_clock: MockClock) -> None:
    async with open_world() as world, world.room() as (room, peer):
        async with room.events("a") as events:
            await peer.event("trivet.dropped", {"event": "a", "count": 4})
            await peer.event("trivet.dropped", "something of the actor's own")
            await peer.event("a", 1)
            with pytest.raises(Dropped, match="4 events"):
                await anext(events)
            assert await anext(events) == 1


async def test_a_plain_connection_has_no_gaps(autojump_clock: MockClock) -> None:
    async with open_world() as world, world.room() as (room, first):
        gaps: list[Any] = []
        room.on("a", print, on_gap=gaps.append)
        await first.subscription()
        await first.drop()
        second = await world.server.admit("conn-2")
        assert second.claim is None
        await second.subscription()
        await trio.sleep(1)
        assert gaps == []


async def test_an_extended_session_may_be_followed_by_a_plain_one(autojump_clock: MockClock) -> None:
    async with open_world(extended=True) as world, world.room() as (room, first), trio.open_nursery() as nursery:
        results: list[Any] = []
        gaps: list[Any] = []
        room.on("a", print, on_gap=gaps.append)
        await grant(first)
        nursery.start_soon(outcome, lambda: room.call("sent"), results)
        await first.hear_call()
        nursery.start_soon(outcome, room.sync, results)
        assert isinstance(await first.hear(), Sync)
        world.server.extended = False
        await first.drop()
        second = await world.server.admit("conn-2")
        assert await second.subscription() == ("a", True)
        await soon(lambda: len(results) == 2)
        assert all(isinstance(result, ConnectionLost) for result in results)
        assert len(gaps) == 1


# -- snapshots --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("extended", [True, False])
async def test_a_snapshot_is_followed_by_the_events_after_it(extended: bool, autojump_clock: MockClock) -> None:
    async with (
        open_world(extended=extended) as world,
        world.room() as (room, peer),
        trio.open_nursery() as nursery,
    ):

        @nursery.start_soon
        async def _serve() -> None:
            if extended:
                await grant(peer)
            else:
                await peer.subscription()
            call = await peer.hear_call()
            await peer.event("added", 1)
            await peer.send(Event("added", [2]), ActionResponse(call.id, [1, 2]), Event("added", [3]))

        async with room.snapshot("added", "list") as (value, events):
            assert value == [1, 2]
            assert await anext(events) == 3


async def test_a_snapshot_that_fails_leaves_no_subscription(autojump_clock: MockClock) -> None:
    async with open_world(extended=True) as world, world.room() as (room, peer), trio.open_nursery() as nursery:

        @nursery.start_soon
        async def _serve() -> None:
            await grant(peer)
            await peer.refuse(await peer.hear_call(), "user", "no")
            assert await peer.hear() == SubscriptionRequest("added", False)

        with pytest.raises(ActorError, match=r"user\.no"):
            async with room.snapshot("added", "list"):
                pytest.fail("not reached")


async def test_undecodable_frames_are_reported_and_counted_where_that_is_known(autojump_clock: MockClock) -> None:
    async with open_world(extended=True) as world, world.room() as (room, first):
        errors: list[Any] = []
        room.on_error(errors.append)
        await first.send_raw(b"\x82\x01\xff")
        await soon(lambda: len(errors) == 1)
        await first.drop()
        second = await world.server.accept()
        assert second.claim == SessionClaim("token-of-conn-1", 1)
        await second.say(Resumed(0))
        await second.send_raw(b"\x81\x02[]")
        await soon(lambda: len(errors) == 2)
        await second.drop()
        third = await world.server.accept()
        assert third.claim is None
        await third.init("conn-3")
        await soon(lambda: room.conn_id == "conn-3")
