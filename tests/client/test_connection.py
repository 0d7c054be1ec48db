"""Connections: admission, calls, events, and what ends them."""

from typing import Any

import pytest
import trio
import trio.lowlevel
from trio.testing import MockClock

from tests.client.fake import CutShort, StreamEnded, open_world, soon
from trivet.client import Closed
from trivet.errors import ActorError, ConnectionEnded, ConnectionLost, EncodeError, Lagged
from trivet.limits import Limits
from trivet.protocol.messages import ActionResponse, Error, Event, Init
from trivet.protocol.values import UNDEFINED


async def test_connecting_does_nothing_before_it_is_entered(autojump_clock: MockClock) -> None:
    async with open_world() as world:
        connection = world.handle.connect()
        assert connection.status == "idle"
        assert connection.actor_id is None
        await trio.sleep(10)
        assert world.server.dials == 0
        with pytest.raises(RuntimeError, match="enter the connection"):
            await connection.call("ping")


@pytest.mark.parametrize("encoding", ["bare", "cbor", "json"])
async def test_a_call_is_answered_in_every_encoding(encoding: str, autojump_clock: MockClock) -> None:
    async with open_world(encoding=encoding) as world, world.room() as (room, peer), trio.open_nursery() as nursery:
        assert peer.subprotocols == ["rivet", f"rivet_encoding.{encoding}", "trivet.1"]

        @nursery.start_soon
        async def _serve() -> None:
            call = await peer.call()
            assert (call.name, list(call.args)) == ("sendMessage", ["bob", {"text": "hi", "n": [1, None]}])
            await peer.answer(call, {"ok": True})

        assert await room.call("sendMessage", "bob", {"text": "hi", "n": [1, None]}) == {"ok": True}
        assert (room.actor_id, room.conn_id, room.status) == ("actor-1", "conn-1", "connected")


async def test_a_result_that_is_not_there_is_none(autojump_clock: MockClock) -> None:
    async with open_world() as world, world.room() as (room, peer), trio.open_nursery() as nursery:

        @nursery.start_soon
        async def _serve() -> None:
            await peer.answer(await peer.call(), UNDEFINED)

        assert await room.call("quiet") is None


async def test_answers_may_come_in_any_order(autojump_clock: MockClock) -> None:
    async with open_world() as world, world.room() as (room, peer), trio.open_nursery() as nursery:
        results: dict[str, Any] = {}

        async def call(name: str) -> None:
            results[name] = await room.call(name)

        for name in "abc":
            nursery.start_soon(call, name)
        calls = [await peer.call() for _ in range(3)]
        assert len({call.id for call in calls}) == 3
        for one in reversed(calls):
            await peer.answer(one, one.name.upper())
        await soon(lambda: len(results) == 3)
        assert results == {"a": "A", "b": "B", "c": "C"}


async def test_an_error_of_a_call_reaches_its_caller_and_nobody_else(autojump_clock: MockClock) -> None:
    async with open_world() as world, world.room() as (room, peer), trio.open_nursery() as nursery:

        @nursery.start_soon
        async def _serve() -> None:
            call = await peer.call()
            await peer.send(Error("user", "full", "the room is full", {"seats": 2}, action_id=call.id))
            await peer.answer(await peer.call(), 2)

        with pytest.raises(ActorError) as caught:
            await room.call("join")
        assert (caught.value.group, caught.value.code, caught.value.message) == ("user", "full", "the room is full")
        assert caught.value.metadata == {"seats": 2}
        assert await room.call("count") == 2


async def test_an_answer_that_nobody_waits_for_is_ignored(autojump_clock: MockClock) -> None:
    async with open_world() as world, world.room() as (room, peer), trio.open_nursery() as nursery:
        await peer.send(ActionResponse(99, "?"), Error("user", "late", "", action_id=98))

        @nursery.start_soon
        async def _serve() -> None:
            await peer.answer(await peer.call(), 1)

        assert await room.call("ping") == 1


# -- admission ---------------------------------------------------------------------------------------------------------


async def test_a_refused_admission_is_raised_alone_by_entering(autojump_clock: MockClock) -> None:
    async with open_world() as world, trio.open_nursery() as nursery:

        @nursery.start_soon
        async def _serve() -> None:
            peer = await world.server.accept()
            await peer.send(Error("user", "banned", "go away", {"until": "never"}))
            await peer.close(1011, "user.banned")
            await peer.gone()

        with pytest.raises(ActorError) as caught:
            async with world.handle.connect():
                raise AssertionError("a refused connection was entered")
        assert (caught.value.code, caught.value.message, caught.value.metadata) == (
            "banned",
            "go away",
            {"until": "never"},
        )
        assert world.server.dials == 2  # one for the metadata, one for the connection, and no second attempt


async def test_a_close_alone_refuses_too(autojump_clock: MockClock) -> None:
    async with open_world() as world, trio.open_nursery() as nursery:

        @nursery.start_soon
        async def _serve() -> None:
            peer = await world.server.accept()
            await peer.close(1011, "namespace.not_found#ray7")
            await peer.gone()

        with pytest.raises(ActorError) as caught:
            async with world.handle.connect():
                pass
        assert (caught.value.group, caught.value.code, caught.value.ray_id) == ("namespace", "not_found", "ray7")


async def test_a_missing_actor_is_an_answer_for_a_get_handle(autojump_clock: MockClock) -> None:
    async with open_world() as world, trio.open_nursery() as nursery:

        @nursery.start_soon
        async def _serve() -> None:
            peer = await world.server.accept()
            await peer.close(1011, "actor.not_found#r")
            await peer.gone()

        with pytest.raises(ActorError, match="not_found"):
            async with world.client.get("chatRoom", "x").connect():
                pass


async def test_an_actor_that_is_just_starting_is_waited_for(autojump_clock: MockClock) -> None:
    async with open_world() as world, trio.open_nursery() as nursery:

        @nursery.start_soon
        async def _serve() -> None:
            for reason in ("actor.starting", "actor.not_found#r", "guard.service_unavailable"):
                peer = await world.server.accept()
                await peer.close(1011, reason)
                await peer.gone()
            await (await world.server.admit()).gone()

        async with world.handle.connect() as room:
            assert room.status == "connected"


async def test_entering_raises_connection_lost_when_nobody_answers_in_time(autojump_clock: MockClock) -> None:
    async with open_world() as world:
        world.server.refusing = True
        start = trio.current_time()
        with pytest.raises(ConnectionLost) as caught:
            async with world.handle.connect():
                pass
        assert not caught.value.maybe_executed
        assert trio.current_time() - start <= Limits().connect_timeout
        assert world.server.dials > 3


async def test_without_reconnect_there_is_one_attempt(autojump_clock: MockClock) -> None:
    async with open_world() as world, trio.open_nursery() as nursery:

        @nursery.start_soon
        async def _serve() -> None:
            await (await world.server.accept()).drop()

        with pytest.raises(ConnectionLost):
            async with world.handle.connect(reconnect=False):
                pass
        assert world.server.dials == 2


async def test_a_server_that_never_admits_is_given_up(autojump_clock: MockClock) -> None:
    async with open_world() as world, trio.open_nursery() as nursery:

        @nursery.start_soon
        async def _serve() -> None:
            peer = await world.server.accept()
            with trio.move_on_after(300):
                while True:  # alive, but not answering
                    await trio.sleep(10)
                    await peer.event("tick")
            raise AssertionError("the client did not give up")

        with pytest.raises(ConnectionLost, match="did not answer in time"):
            async with world.handle.connect(reconnect=False):
                pass
        nursery.cancel_scope.cancel()


async def test_parameters_are_asked_for_each_time_and_sent(autojump_clock: MockClock) -> None:
    count = 0

    async def get_params() -> object:
        nonlocal count
        count += 1
        await trio.sleep(1)
        return {"n": count}

    async with open_world() as world, trio.open_nursery() as nursery:
        handle = world.client.get("chatRoom", "a", get_params=get_params)

        @nursery.start_soon
        async def _serve() -> None:
            for n in (1, 2):
                peer = await world.server.admit()
                assert peer.subprotocols[-2] == f"rivet_conn_params.%7B%22n%22%3A{n}%7D"
                await peer.gone()

        for _ in range(2):
            async with handle.connect():
                pass


async def test_what_get_params_raises_first_is_raised_by_entering(autojump_clock: MockClock) -> None:
    def get_params() -> object:
        raise LookupError("no token")

    async with open_world() as world:
        with pytest.raises(LookupError, match="no token"):
            async with world.client.get("chatRoom", get_params=get_params).connect():
                pass


# -- events ------------------------------------------------------------------------------------------------------------


async def test_listeners_added_before_entering_get_the_first_events_of_all(autojump_clock: MockClock) -> None:
    async with open_world() as world, trio.open_nursery() as nursery:
        got: list[Any] = []
        connection = world.handle.connect()
        connection.on("news", lambda *args: got.append(args))

        @nursery.start_soon
        async def _serve() -> None:
            peer = await world.server.accept()
            # Before the admission, with it, and right after it, in one segment.
            await peer.send(Event("news", [1]), Init("actor-1", "c"), Event("news", [2]), Event("news", [3, "x"]))
            assert await peer.subscription() == ("news", True)
            await peer.gone()

        async with connection:
            await soon(lambda: len(got) == 3)
        assert got == [(1,), (2,), (3, "x")]


async def test_a_subscription_is_sent_before_any_later_message(autojump_clock: MockClock) -> None:
    async with open_world() as world, world.room() as (room, peer), trio.open_nursery() as nursery:
        room.on("a", print)
        nursery.start_soon(room.call, "one")
        assert await peer.subscription() == ("a", True)
        first = await peer.call()
        async with room.events("b"):
            nursery.start_soon(room.call, "two")
            assert await peer.subscription() == ("b", True)
            second = await peer.call()
        assert await peer.subscription() == ("b", False)
        await peer.answer(first)
        await peer.answer(second)


async def test_events_reach_sync_listeners_in_order_and_before_the_answer(autojump_clock: MockClock) -> None:
    async with open_world() as world, world.room() as (room, peer), trio.open_nursery() as nursery:
        got: list[Any] = []
        room.on("a", lambda *args: got.append(("first", *args)))
        room.on("b", lambda *args: got.append(("b", *args)))
        room.on("a", lambda *args: got.append(("second", *args)))

        @nursery.start_soon
        async def _serve() -> None:
            for _ in range(2):
                await peer.subscription()
            call = await peer.call()
            await peer.send(Event("a", [1]), Event("b", [2]), Event("a", [3]), ActionResponse(call.id, None))

        await room.call("go")
        assert got == [("first", 1), ("second", 1), ("b", 2), ("first", 3), ("second", 3)]


async def test_a_listener_that_raises_is_reported_and_the_others_still_run(autojump_clock: MockClock) -> None:
    async with open_world() as world, world.room() as (room, peer):
        got: list[int] = []
        errors: list[Exception] = []

        def divide(n: int) -> None:
            got.append(-(1 // n))

        room.on_error(errors.append)
        room.on("a", divide)
        room.on("a", got.append)
        await peer.event("a", 0)
        await peer.event("a", 1)
        await soon(lambda: len(got) == 3)
        assert got == [0, -1, 1]
        assert [type(error) for error in errors] == [ZeroDivisionError]


async def test_without_an_error_callback_errors_are_logged(
    caplog: pytest.LogCaptureFixture, autojump_clock: MockClock
) -> None:
    async with open_world() as world, world.room() as (room, peer):

        def listener(n: int) -> None:
            raise ValueError(f"cannot bear {n}")

        room.on("a", listener)
        await peer.event("a", 7)
        await soon(lambda: "cannot bear 7" in caplog.text)


async def test_a_sync_listener_that_returns_a_coroutine_is_told_why_it_did_nothing(autojump_clock: MockClock) -> None:
    async def callback(n: int) -> None:
        raise AssertionError("never awaited")

    async with open_world() as world, world.room() as (room, peer):
        errors: list[Exception] = []
        room.on_error(errors.append)
        room.on("a", lambda *args: callback(*args))
        await peer.event("a", 7)
        await soon(lambda: bool(errors))
        assert "must be an async function" in str(errors[0])


async def test_an_async_observer_is_told_that_nobody_awaits_it(autojump_clock: MockClock) -> None:
    async def callback() -> None:
        raise AssertionError("never awaited")

    async with open_world() as world:
        connection = world.handle.connect()
        errors: list[Exception] = []
        connection.on_error(errors.append)
        connection.on_open(callback)
        async with world.room(connection):
            assert "nobody awaits it" in str(errors[0])


async def test_unsubscribing_ends_the_subscription_with_the_last_listener(autojump_clock: MockClock) -> None:
    async with open_world() as world, world.room() as (room, peer):
        got: list[str] = []
        first = room.on("a", lambda: got.append("first"))
        second = room.on("a", lambda: got.append("second"))
        assert await peer.subscription() == ("a", True)
        first()
        await peer.event("a")
        await soon(lambda: got == ["second"])
        second()
        second()
        first()
        assert await peer.subscription() == ("a", False)
        await peer.event("a")
        await trio.sleep(1)
        third = room.on("a", lambda: got.append("third"))
        assert await peer.subscription() == ("a", True)
        third()
        assert await peer.subscription() == ("a", False)
        assert got == ["second"]


async def test_a_listener_can_remove_another_before_it_runs(autojump_clock: MockClock) -> None:
    async with open_world() as world, world.room() as (room, peer):
        got: list[str] = []

        def first() -> None:
            got.append("first")
            remove()

        room.on("a", first)
        remove = room.on("a", lambda: got.append("removed"))
        await peer.event("a")
        await peer.event("a")
        await soon(lambda: len(got) == 2)
        assert got == ["first", "first"]


async def test_a_subscription_that_is_taken_back_before_it_was_sent_is_not_sent(autojump_clock: MockClock) -> None:
    async with open_world() as world, world.room() as (room, peer), trio.open_nursery() as nursery:
        for _ in range(1000):
            room.on("a", print)()
        room.on("b", print)
        assert await peer.subscription() == ("b", True)
        del nursery


async def test_once_runs_once_and_unsubscribes(autojump_clock: MockClock) -> None:
    async with open_world() as world, world.room() as (room, peer):
        got: list[int] = []
        room.once("a", got.append)
        assert await peer.subscription() == ("a", True)
        await peer.event("a", 1)
        await peer.event("a", 2)
        assert await peer.subscription() == ("a", False)
        await trio.sleep(1)
        assert got == [1]


async def test_once_that_was_taken_back_does_not_run(autojump_clock: MockClock) -> None:
    async with open_world() as world, world.room() as (room, peer):
        got: list[int] = []
        room.once("a", got.append)()
        await peer.event("a", 1)
        await trio.sleep(1)
        assert got == []


async def test_an_async_listener_may_call_actions(autojump_clock: MockClock) -> None:
    async with open_world() as world, world.room() as (room, peer), trio.open_nursery() as nursery:
        answers: list[Any] = []

        async def listener(n: int) -> None:
            answers.append(await room.call("double", n))

        room.on("a", listener)
        await peer.event("a", 1)
        await peer.event("a", 2)

        @nursery.start_soon
        async def _serve() -> None:
            assert await peer.subscription() == ("a", True)
            for _ in range(2):
                call = await peer.call()
                await peer.answer(call, [2 * int(str(arg)) for arg in call.args])

        await soon(lambda: len(answers) == 2)
        assert answers == [[2], [4]]


async def test_an_async_listener_added_before_entering_runs_too_and_its_errors_are_reported(
    autojump_clock: MockClock,
) -> None:
    async with open_world() as world:
        connection = world.handle.connect()
        errors: list[Exception] = []
        connection.on_error(errors.append)

        async def listener(n: int) -> None:
            await trio.sleep(1)
            raise ValueError(n)

        connection.on("a", listener)
        async with world.room(connection) as (_, peer):
            await peer.event("a", 1)
            await peer.event("a", 2)
            await soon(lambda: len(errors) == 2)
        assert [error.args for error in errors] == [(1,), (2,)]


async def test_no_run_of_an_async_listener_begins_after_unsubscribing(autojump_clock: MockClock) -> None:
    async with open_world() as world, world.room() as (room, peer):
        got: list[int] = []

        async def listener(n: int) -> None:
            got.append(n)
            await trio.sleep(1)

        unsubscribe = room.on("a", listener)
        for n in range(5):
            await peer.event("a", n)
        await soon(lambda: bool(got))
        unsubscribe()
        await trio.sleep(30)
        assert got == [0]


async def test_an_async_once_listener_runs_unless_it_is_taken_back_in_time(autojump_clock: MockClock) -> None:
    async with open_world() as world, world.room() as (room, peer):
        got: list[str] = []

        async def listener(name: str) -> None:
            got.append(name)

        room.once("kept", listener)
        remove = room.once("removed", listener)
        room.on("removed", lambda *args: remove())  # fires after the once listener was chosen, before its task ran
        await peer.send(Event("kept", ["kept"]), Event("removed", ["removed"]), Event("kept", ["again"]))
        await trio.sleep(1)
        assert got == ["kept"]


async def test_a_slow_async_listener_is_told_what_it_missed(autojump_clock: MockClock) -> None:
    async with open_world() as world, world.room() as (room, peer):
        errors: list[Exception] = []
        got: list[int] = []
        room.on_error(errors.append)

        async def listener(n: int) -> None:
            await trio.sleep(0.01)
            got.append(n)

        room.on("a", listener)
        await peer.send(*[Event("a", [n]) for n in range(1100)])
        await trio.sleep(30)
        await peer.event("a", 5000)
        await soon(lambda: got[-1] == 5000)
        (lagged,) = errors
        assert isinstance(lagged, Lagged)
        assert len(got) + lagged.count == 1101
        assert got == [*range(len(got) - 1), 5000]


# -- streams -----------------------------------------------------------------------------------------------------------


async def test_a_stream_gives_payloads(autojump_clock: MockClock) -> None:
    async with open_world() as world, world.room() as (room, peer):
        async with room.events("a") as stream:
            await peer.event("a")
            await peer.event("a", 1)
            await peer.event("a", 1, 2)
            assert [await anext(stream) for _ in range(3)] == [None, 1, (1, 2)]


async def test_a_slow_consumer_does_not_stop_the_reader_and_learns_what_it_missed(autojump_clock: MockClock) -> None:
    async with open_world() as world, world.room() as (room, peer), trio.open_nursery() as nursery:
        async with room.events("a", buffer=3) as stream:
            await peer.send(*[Event("a", [n]) for n in range(10)])

            @nursery.start_soon
            async def _serve() -> None:
                await peer.subscription()
                await peer.answer(await peer.call(), "alive")

            assert await room.call("ping") == "alive"
            got = [await anext(stream) for _ in range(3)]
            with pytest.raises(Lagged) as caught:
                await anext(stream)
            assert (got, caught.value.count, stream.dropped) == ([0, 1, 2], 7, 7)
            await peer.event("a", 10)
            assert await anext(stream) == 10


async def test_drop_oldest_keeps_the_newest(autojump_clock: MockClock) -> None:
    async with open_world() as world, world.room() as (room, peer):
        async with room.events("a", buffer=3, overflow="drop_oldest") as stream:
            await peer.send(*[Event("a", [n]) for n in range(10)])
            await soon(lambda: stream.dropped == 7)
            assert [await anext(stream) for _ in range(3)] == [7, 8, 9]


async def test_a_stream_ends_when_the_connection_is_closed_here(autojump_clock: MockClock) -> None:
    async with open_world() as world:
        got: list[Any] = []
        async with trio.open_nursery() as nursery:
            async with world.room() as (room, peer):
                ready = trio.Event()

                @nursery.start_soon
                async def _consume() -> None:
                    async with room.events("a") as stream:
                        ready.set()
                        got.extend([event async for event in stream])

                await ready.wait()
                await peer.event("a", 1)
                await peer.event("a", 2)
                await trio.sleep(1)
        assert got == [1, 2]


async def test_misuse_of_a_stream_is_an_error(autojump_clock: MockClock) -> None:
    async with open_world() as world, world.room() as (room, _):
        stream = room.events("a")
        with pytest.raises(RuntimeError, match="enter the event stream"):
            await anext(stream)
        async with stream:
            pass
        with pytest.raises(RuntimeError, match="entered once"):
            async with stream:
                pass
        with pytest.raises(ValueError, match="at least one"):
            room.events("a", buffer=0)
        with pytest.raises(ValueError, match="drop_oldest"):
            room.events("a", overflow="explode")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]


# -- limits and bad input ----------------------------------------------------------------------------------------------


async def test_a_call_that_is_too_large_is_refused_here_and_the_connection_lives(autojump_clock: MockClock) -> None:
    async with open_world() as world, world.room() as (room, peer), trio.open_nursery() as nursery:
        with pytest.raises(ActorError) as caught:
            await room.call("big", "x" * 65_536)
        assert (caught.value.group, caught.value.code) == ("message", "incoming_too_long")

        @nursery.start_soon
        async def _serve() -> None:
            call = await peer.call()
            assert call.name == "small"
            await peer.answer(call, "x" * 900_000)

        assert len(await room.call("small", "x" * 65_000)) == 900_000


async def test_an_argument_that_cannot_travel_is_refused_here(autojump_clock: MockClock) -> None:
    async with open_world() as world, world.room() as (room, _):
        for argument in (object(), float("nan")):
            with pytest.raises(EncodeError):
                await room.call("x", argument)


async def test_too_many_subscriptions_and_bad_names_are_refused_here(autojump_clock: MockClock) -> None:
    async with open_world(limits=Limits(subscriptions=2)) as world:
        connection = world.handle.connect()
        connection.on("a", print)
        connection.on("b", print)
        connection.on("b", print)
        with pytest.raises(ActorError, match="too_many_subscriptions"):
            connection.on("c", print)
        for name in ("", "x" * 257):
            with pytest.raises(ValueError, match="event name"):
                connection.on(name, print)


async def test_frames_that_cannot_be_read_are_reported_and_skipped(autojump_clock: MockClock) -> None:
    async with open_world(encoding="json") as world, world.room() as (room, peer):
        errors: list[Exception] = []
        got: list[int] = []
        room.on_error(errors.append)
        room.on("a", got.append)
        await peer.send_raw(b"\x81\x03{,}")
        await peer.event("a", 1)
        await soon(lambda: got == [1])
        assert len(errors) == 1


# -- ends --------------------------------------------------------------------------------------------------------------


async def test_leaving_closes_with_1000_and_waits_for_the_answer(autojump_clock: MockClock) -> None:
    async with open_world() as world, trio.open_nursery() as nursery:
        connection = world.handle.connect()
        codes: list[int | None] = []

        @nursery.start_soon
        async def _serve() -> None:
            peer = await world.server.admit()
            codes.append(await peer.gone())

        async with connection:
            pass
        assert codes == [1000]
        assert connection.status == "closed"
        with pytest.raises(ConnectionEnded):
            await connection.call("ping")
        with pytest.raises(RuntimeError, match="entered once"):
            async with connection:
                pass


async def test_leaving_does_not_hang_on_a_server_that_does_not_answer(autojump_clock: MockClock) -> None:
    async with open_world() as world, trio.open_nursery() as nursery:
        nursery.start_soon(world.server.admit)
        async with world.handle.connect():
            start = trio.current_time()
        assert trio.current_time() - start == pytest.approx(Limits().close_timeout)


async def test_what_the_body_raises_comes_out_alone(autojump_clock: MockClock) -> None:
    async with open_world() as world:
        with pytest.raises(KeyError) as caught:
            async with world.room():
                raise KeyError("mine")
        assert caught.value.__context__ is None


async def test_a_group_that_the_body_raises_stays_a_group(autojump_clock: MockClock) -> None:
    async with open_world() as world:
        with pytest.RaisesGroup(KeyError):
            async with world.room():
                raise ExceptionGroup("mine", [KeyError()])


@pytest.mark.parametrize(
    ("code", "reason", "error"),
    [
        (1000, "kicked", ConnectionEnded),
        (1000, "", ConnectionEnded),
        (1000, "user.banned", ConnectionEnded),
        (1011, "user.banned", ActorError),
        (1011, "auth.forbidden#ray", ActorError),
        (1011, "rivetkit.internal_error", ActorError),
        (1011, "connection.too_many_subscriptions", ActorError),
        (1003, "actor.unsupported_websocket_encoding", ActorError),
        (1002, "", ConnectionEnded),
        (1008, "", ConnectionEnded),
        (4001, "bye", ConnectionEnded),
    ],
)
async def test_an_end_on_purpose_is_final(
    code: int, reason: str, error: type[Exception], autojump_clock: MockClock
) -> None:
    async with open_world() as world, world.room() as (room, peer):
        closed: list[Closed] = []
        raised: list[BaseException] = []
        room.on_close(closed.append)

        async def waiting() -> None:
            with pytest.raises(error) as caught:
                await room.call("unanswered")
            raised.append(caught.value)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(waiting)
            async with room.events("a") as stream:
                await peer.subscription()
                await peer.call()
                await peer.event("a", 1)
                await peer.close(code, reason)
                assert await anext(stream) == 1
                for _ in range(2):
                    with pytest.raises(error):
                        await anext(stream)
        with pytest.raises(error) as caught:
            await room.call("later")
        if isinstance(caught.value, ConnectionEnded):
            assert (caught.value.code, caught.value.reason) == (code, reason)
        assert closed == [Closed(code, reason, reconnects=False)]
        assert room.status == "closed"
        assert len(raised) == 1
        await trio.sleep(100)
        assert world.server.dials == 2
        await peer.gone()


async def test_an_error_of_the_connection_gives_its_text_to_the_close_that_follows(autojump_clock: MockClock) -> None:
    async with open_world() as world, world.room() as (room, peer):
        errors: list[Exception] = []
        room.on_error(errors.append)
        await peer.send(Error("auth", "forbidden", "not for you", {"event": "secret"}))
        await peer.close(1011, "auth.forbidden")
        await soon(lambda: room.status == "closed")
        with pytest.raises(ActorError) as caught:
            await room.call("x")
        assert (caught.value.message, caught.value.metadata) == ("not for you", {"event": "secret"})
        assert [str(error) for error in errors] == ["auth.forbidden: not for you"]
        await peer.gone()


async def test_an_error_of_an_open_connection_fails_the_calls_on_their_way(autojump_clock: MockClock) -> None:
    async with open_world() as world, world.room() as (room, peer), trio.open_nursery() as nursery:
        room.on_error(lambda error: None)

        @nursery.start_soon
        async def _serve() -> None:
            await peer.call()
            await peer.send(Error("actor", "overloaded", "too much"))
            await peer.answer(await peer.call(), "still here")

        with pytest.raises(ActorError, match="overloaded"):
            await room.call("x")
        assert await room.call("y") == "still here"


async def test_status_and_callbacks_tell_the_story(autojump_clock: MockClock) -> None:
    async with open_world() as world:
        story: list[Any] = []
        connection = world.handle.connect()
        connection.on_status_change(story.append)
        connection.on_open(lambda: story.append("opened"))
        connection.on_close(lambda closed: story.append((closed.code, closed.reconnects)))
        removed = connection.on_open(lambda: story.append("never"))
        removed()
        removed()
        connection.on_open(lambda: 1 // 0)
        errors: list[Exception] = []
        connection.on_error(errors.append)
        async with world.room(connection):
            pass
        assert story == ["connecting", "connected", "opened", "closed", (1000, False)]
        assert [type(error) for error in errors] == [ZeroDivisionError]


async def test_a_frame_is_never_cut_short(autojump_clock: MockClock) -> None:
    """A caller may be cancelled at any time: what it was sending is sent whole, or not begun."""
    async with open_world() as world, world.room() as (room, peer), trio.open_nursery() as nursery:
        calls: list[str] = []

        @nursery.start_soon
        async def _serve() -> None:
            try:
                while True:
                    calls.append((await peer.call()).name)
            except StreamEnded:
                pass
            except CutShort as error:
                raise AssertionError from error

        for n in range(100):
            with trio.move_on_after(0):
                await room.call("x", "y" * n * 500)
            await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("listening", [False, True])
async def test_an_end_that_nobody_listens_for_is_logged(
    listening: bool, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_world() as world, world.room() as (room, peer):
        if listening:
            room.on_close(lambda _: None)
        await peer.close(1011, "auth.forbidden")
        await trio.testing.wait_all_tasks_blocked()
        assert room.status == "closed"
    logged = [record.getMessage() for record in caplog.records]
    message = f"the connection to {room._target} is over: The connection was ended (1011 auth.forbidden)"
    assert logged == ([] if listening else [message])
