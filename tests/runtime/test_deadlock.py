"""Calls between actors: they may chain, and a chain that would wait for itself fails at once."""

import contextlib
import gc
import weakref
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest
import trio

import trivet
from tests.runtime.support import settled
from trivet import Actor, ActorError, Client, Conn, Connection, ConnectionEnded, Registry, UserError, action
from trivet.runtime.stateless import StatelessJob


class Node(Actor):
    """Calls along a path of other nodes: `pass_on(["b", "c"])` calls b, which calls c."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.gate = trio.Event()

    async def _next(self, name: str, path: list[str]) -> str:
        if not path:
            return self.key[0]
        node = self.client().get_or_create(Node, path[0])
        try:
            result: str = await node.call(name, path[1:])
        except ActorError as error:
            return f"{error.code}: {error.message}"
        return f"{self.key[0]} {result}"

    @action
    async def pass_on(self, path: list[str]) -> str:
        return await self._next("passOn", path)

    @action(concurrent=True)
    async def pass_freely(self, path: list[str]) -> str:
        return await self._next("passFreely", path)

    @action
    async def into_free(self, path: list[str]) -> str:
        return await self._next("outOfFree", path)

    @action(concurrent=True)
    async def out_of_free(self, path: list[str]) -> str:
        return await self._next("passOn", path)

    @action
    async def wait_then_call(self, other: str) -> str:
        await self.gate.wait()
        return await self._next("passOn", [other])

    @action(concurrent=True)
    def open_gate(self) -> None:
        self.gate.set()

    @action
    async def give_up(self, other: str) -> None:
        node = self.client().get_or_create(Node, other)
        with trio.move_on_after(1):
            await node.call(Node.pass_on, [])
        await node.call(Node.open_gate)
        await trio.sleep(1)

    @action
    async def leave_running(self, other: str, path: list[str], connected: bool) -> None:
        """Call another, which calls along the path; give that up once it runs, and let the last one go on then."""
        node = self.client().get_or_create(Node, other)
        if connected:
            async with trio.open_nursery() as nursery, node.connect() as connection:
                nursery.start_soon(self._ask, connection, path)
                await trio.sleep(1)
        else:
            with trio.move_on_after(1):
                await node.call(Node.wait_along, path)
        await self.client().get_or_create(Node, [other, *path][-2]).call(Node.open_gate)
        await trio.sleep(1)

    async def _ask(self, connection: "Connection[Node]", path: list[str]) -> None:
        with contextlib.suppress(ConnectionEnded):
            await connection.call(Node.wait_along, path)

    @action
    async def wait_along(self, path: list[str]) -> None:
        if len(path) == 1:
            await self.gate.wait()
            self.seen.append(await self._next("passOn", path))
        else:
            await self.client().get_or_create(Node, path[0]).call(Node.wait_along, path[1:])

    @action
    async def over_connection(self, other: str) -> str:
        async with self.client().get_or_create(Node, other).connect() as node:
            try:
                return await node.call(Node.pass_on, [self.key[0]])
            except ActorError as error:
                return error.code

    @action
    async def leave_behind(self, other: str) -> None:
        self.start_soon(self._call_later, other)

    async def _call_later(self, other: str) -> None:
        await self.gate.wait()
        node = self.client().get_or_create(Node, other)
        self.seen.append(await node.call(Node.pass_on, []))

    @action(concurrent=True)
    def seen_behind(self) -> list[str]:
        return self.seen


class Greeter(Actor):
    """Its `on_connect` takes the turn."""

    async def on_connect(self, conn: Conn) -> None:
        await trio.lowlevel.checkpoint()

    @action
    async def connect_to_self(self) -> str:
        try:
            async with self.client().get_or_create(Greeter, self.key).connect():
                return "connected"
        except ActorError as error:
            return error.code


class Caller(Actor):
    """Calls a `Callee`, and may hold its own turn longer than it waits."""

    @action
    def ping(self) -> str:
        return "pong"

    @action
    async def call(self, name: str, rest: float) -> object:
        try:
            result: object = await self.client().get_or_create(Callee, "a").call(name)
        except ActorError as error:
            result = error.code
        await trio.sleep(rest)
        return result

    @action
    async def leave_calls(self, name: str) -> None:
        """Connect, leave two calls that take their time, and one behind them that calls back, and go on."""
        async with trio.open_nursery() as nursery:
            async with self.client().get_or_create(Callee, "a").connect() as callee:
                for called in ("slow", "slow", name):
                    nursery.start_soon(self._ask, callee, called)
                    await settled()
        await trio.sleep(3)

    async def _ask(self, callee: "Connection[Callee]", name: str) -> None:
        with contextlib.suppress(ConnectionEnded):
            await callee.call(name)

    @action
    async def give_up_connecting(self) -> None:
        with trio.move_on_after(0.5):
            await self.client().get_or_create(Callee, "a").call(Callee.connect_to_door)
        await trio.sleep(5)


class Callee(Actor):
    """Calls `Caller.ping` back, at several moments of its calls, and notes what came of it."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    async def _call_back(self) -> None:
        try:
            self.seen.append(await self.client().get_or_create(Caller, "a").call(Caller.ping))
        except ActorError as error:
            self.seen.append(error.code)

    async def _call_back_later(self) -> None:
        await trio.sleep(1)
        await self._call_back()

    @action
    async def slow(self) -> None:
        await trio.sleep(1)

    @action
    async def serial(self) -> None:
        await self._call_back()

    @action(concurrent=True)
    async def free(self) -> None:
        await self._call_back()

    @action
    async def leave_behind(self) -> None:
        self.start_soon(self._call_back_later)

    @action(concurrent=True)
    async def leave_behind_freely(self) -> None:
        self.start_soon(self._call_back_later)

    @action(timeout=1)
    async def unwind_for_long(self) -> None:
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(deadline=trio.current_time() + 60, shield=True):
                await trio.sleep(8)
                await self._call_back()

    @action
    async def connect_to_door(self) -> None:
        async with self.client().get_or_create(Door, "a").connect():
            self.seen.append("connected")

    @action
    def stay(self) -> str:
        self.start_soon(trio.sleep_forever)
        return "an output"

    @action(concurrent=True)
    def seen_so_far(self) -> list[str]:
        return self.seen


class Door(Actor):
    """Connecting takes a while outside the turn, and then the turn."""

    async def on_before_connect(self, params: object) -> None:
        await trio.sleep(2)

    async def on_connect(self, conn: Conn) -> None:
        await trio.lowlevel.checkpoint()

    @action
    async def hold(self) -> str:
        await trio.sleep(1)
        return await self.client().get_or_create(Caller, "a").call(Caller.ping)


class Curious(Actor):
    """Its `on_connect` asks its visitor, who asks back."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    async def on_connect(self, conn: Conn) -> None:
        if conn.kind == "events":
            try:
                await self.client().get_or_create(Visitor, "a").call(Visitor.visit)
            except ActorError as error:
                self.seen.append(error.code)

    @action
    def ask(self) -> list[str]:
        return self.seen


class Usher(Actor):
    """Its `on_disconnect` takes the turn, and may ask its visitor."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    async def on_disconnect(self, conn: Conn) -> None:
        if self.key == ("chatty",):
            self.seen.append(await self.client().get_or_create(Visitor, "a").call(Visitor.ping))

    @action(concurrent=True)
    def free(self) -> str:
        return "free"

    @action
    async def serial(self) -> str:
        return await self.client().get_or_create(Visitor, "a").call(Visitor.visit_freely, self.key[0])


class Visitor(Actor):
    """Calls the other two."""

    @action
    def ping(self) -> str:
        return "pong"

    @action
    async def visit(self) -> None:
        try:
            await self.client().get_or_create(Curious, "a").call(Curious.ask)
        except ActorError as error:
            raise UserError(error.message, code=error.code) from None

    @action
    async def visit_freely(self, key: str) -> str:
        return await self.client().get_or_create(Usher, key).call(Usher.free)


@asynccontextmanager
async def world() -> AsyncGenerator[Client]:
    async with trivet.open_local(Registry(Node, Greeter, Caller, Callee, Door, Curious, Usher, Visitor)) as client:
        yield client


async def test_a_chain_of_calls_goes_through() -> None:
    async with world() as client:
        assert await client.get_or_create(Node, "a").call(Node.pass_on, ["b", "c"]) == "a b c"


@pytest.mark.parametrize("path", [["a"], ["b", "a"], ["b", "c", "b"]])
async def test_a_chain_that_leads_back_to_a_turn_it_holds_fails_at_once_naming_itself(path: list[str]) -> None:
    async with world() as client:
        answer = await client.get_or_create(Node, "a").call(Node.pass_on, path)
        assert "deadlock: This call would wait for itself: " in answer
        names = answer.split("itself: ")[1].split(" -> ")
        assert names[-1] in names[:-1]


async def test_actions_that_hold_no_turn_may_lead_back() -> None:
    async with world() as client:
        assert await client.get_or_create(Node, "a").call(Node.pass_freely, ["b", "a"]) == "a b a"


async def test_a_turn_held_above_a_concurrent_action_is_seen_through_it() -> None:
    async with world() as client:
        answer = await client.get_or_create(Node, "a").call(Node.into_free, ["b", "a"])
        assert "deadlock" in answer


async def test_two_chains_that_wait_for_each_other_are_found_when_the_circle_closes() -> None:
    async with world() as client:
        a, b = client.get_or_create(Node, "a"), client.get_or_create(Node, "b")
        answers: dict[str, str] = {}

        async def call(name: str, other: str) -> None:
            answers[name] = await client.get_or_create(Node, name).call(Node.wait_then_call, other)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(call, "a", "b")
            nursery.start_soon(call, "b", "a")
            await settled()
            await a.call(Node.open_gate)
            await settled()
            assert answers == {}
            await b.call(Node.open_gate)
        assert answers["b"].startswith("deadlock")
        assert answers["a"] == "a b"


async def test_a_call_over_a_connection_is_seen_too() -> None:
    async with world() as client:
        answer = await client.get_or_create(Node, "a").call(Node.over_connection, "b")
        assert "deadlock" in answer


async def test_background_work_left_by_a_turn_holds_it_no_more() -> None:
    async with world() as client:
        a = client.get_or_create(Node, "a")
        await a.call(Node.leave_behind, "a")
        await a.call(Node.open_gate)
        await settled()
        assert await a.call(Node.seen_behind) == ["a"]


async def test_connecting_to_oneself_where_on_connect_takes_the_turn_is_a_deadlock() -> None:
    async with world() as client:
        assert await client.get_or_create(Greeter, "a").call(Greeter.connect_to_self) == "deadlock"


async def test_who_has_given_up_waiting_waits_no_more(autojump_clock: trio.abc.Clock) -> None:
    """Its call waits in the other's inbox still, and will not run."""
    async with world() as client:
        answers: list[str] = []

        async def call_back() -> None:
            answers.append(await client.get_or_create(Node, "b").call(Node.wait_then_call, "a"))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(call_back)
            await settled()
            await client.get_or_create(Node, "a").call(Node.give_up, "b")
        assert answers == ["b a"]


@pytest.mark.parametrize("connected", [False, True], ids=["stateless", "over a connection"])
@pytest.mark.parametrize("path", [["a"], ["c", "a"]], ids=["direct", "through another"])
async def test_what_goes_on_for_nobody_may_lead_back(
    path: list[str], connected: bool, autojump_clock: trio.abc.Clock
) -> None:
    """Its caller has gone on with its own turn: to wait for that is no circle."""
    async with world() as client:
        await client.get_or_create(Node, "a").call(Node.leave_running, "b", path, connected)
        last = ["b", *path][-2]
        await settled()
        assert await client.get_or_create(Node, last).call(Node.seen_behind) == [f"{last} a"]


@pytest.mark.parametrize("name", ["leaveBehind", "leaveBehindFreely"])
async def test_background_work_of_a_call_that_is_over_may_lead_back(name: str, autojump_clock: trio.abc.Clock) -> None:
    """The caller has its answer, and goes on with its own turn."""
    async with world() as client:
        await client.get_or_create(Caller, "a").call(Caller.call, name, 3)
        await settled()
        assert await client.get_or_create(Callee, "a").call(Callee.seen_so_far) == ["pong"]


async def test_a_call_that_was_answered_while_it_unwinds_may_lead_back(autojump_clock: trio.abc.Clock) -> None:
    async with world() as client:
        told = await client.get_or_create(Caller, "a").call(Caller.call, "unwindForLong", 10)
        assert told == "action_timed_out"
        await settled()
        assert await client.get_or_create(Callee, "a").call(Callee.seen_so_far) == ["pong"]


@pytest.mark.parametrize("name", ["serial", "free"])
async def test_what_was_sent_before_its_caller_left_may_lead_back(name: str, autojump_clock: trio.abc.Clock) -> None:
    """Also what is released only after that."""
    async with world() as client:
        await client.get_or_create(Caller, "a").call(Caller.leave_calls, name)
        await settled()
        assert await client.get_or_create(Callee, "a").call(Callee.seen_so_far) == ["pong"]


async def test_a_connection_of_a_call_that_was_given_up_waits_for_nobodys_sake(
    autojump_clock: trio.abc.Clock,
) -> None:
    """The door's turn waits for the caller, who waits for its own call no more: that is no circle."""
    async with world() as client:
        answers: list[str] = []
        async with client.get_or_create(Door, "a").connect() as door, trio.open_nursery() as nursery:

            async def hold() -> None:
                answers.append(await door.call(Door.hold))

            nursery.start_soon(hold)
            await client.get_or_create(Caller, "a").call(Caller.give_up_connecting)
        await trio.sleep(10)
        assert answers == ["pong"]
        assert await client.get_or_create(Callee, "a").call(Callee.seen_so_far) == ["connected"]


async def test_background_work_keeps_nothing_of_the_call_that_began_it() -> None:
    def calls() -> list[StatelessJob]:
        gc.collect()
        return [thing for thing in gc.get_objects() if isinstance(thing, StatelessJob)]

    before = weakref.WeakSet(calls())  # of other tests
    async with world() as client:
        assert await client.get_or_create(Caller, "a").call(Caller.call, "stay", 0) == "an output"
        await settled()
        assert not [call for call in calls() if call not in before]


async def test_on_connect_holds_the_turn(autojump_clock: trio.abc.Clock) -> None:
    """What it calls, and what that calls, may not wait for it."""
    async with world() as client, client.get_or_create(Curious, "a").connect() as curious:
        assert await curious.call(Curious.ask) == ["deadlock"]


@pytest.mark.parametrize("key", ["quiet", "chatty"])
async def test_nobody_waits_for_an_on_disconnect_that_waits_for_them(key: str, autojump_clock: trio.abc.Clock) -> None:
    """A concurrent call is answered after `on_disconnect` of its connection, unless that would be a circle."""
    async with world() as client:
        began = trio.current_time()
        assert await client.get_or_create(Usher, key).call(Usher.serial) == "free"
        assert await client.get_or_create(Visitor, "a").call(Visitor.visit_freely, key) == "free"
        await settled()
        assert trio.current_time() == began
