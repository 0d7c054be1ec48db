"""Calls that reach an actor while it starts: they wait in its inbox, and nothing overtakes what was there first."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, ClassVar

import attrs
import pytest
import trio

from tests.runtime.support import REQUEST, connected, settled
from trivet import Actor, Conn, Limits, Options, PublicError, Registry, UserError, action
from trivet.protocol.values import Value
from trivet.runtime import ending
from trivet.runtime.host import Host, open_host
from trivet.runtime.instance import Instance
from trivet.runtime.lifecycle import Goal, Phase
from trivet.store import MemoryStore, Stored, StoreError


@attrs.define
class Log:
    lines: list[str] = attrs.field(factory=list[str])


class Writer(Actor[Log]):
    options = Options(sleep_with_connections=True)

    @action
    def write(self, line: str) -> list[str]:
        self.state.lines.append(line)
        return self.state.lines

    @action(concurrent=True)
    async def write_beside(self, line: str) -> list[str]:
        return self.write(line)

    @action(readonly=True)
    def look(self) -> int:
        return len(self.state.lines)


class Polite(Writer):
    name = "polite"

    def on_disconnect(self, conn: Conn) -> None:
        if conn.kind == "events":
            self.state.lines.append("on_disconnect")


class Careful(Writer):
    name = "careful"

    def on_before_connect(self, params: Any) -> None:
        self.state.lines.append("on_before_connect")


class Running(Writer):
    name = "running"

    async def run(self) -> None:
        self.state.lines.append("run")
        await trio.sleep_forever()


class Expiring(Writer):
    """Destroys itself when it wakes: the next one who asks for it has a new one."""

    name = "expiring"

    def on_wake(self) -> None:
        if self.state.lines:
            self.destroy()


class Unwilling(Writer):
    name = "unwilling"
    may_begin: ClassVar[trio.Event]

    async def on_create(self, _: object) -> None:
        await self.may_begin.wait()
        raise UserError("It does not want to.", code="no")


REGISTRY = Registry(Writer, Polite, Careful, Running, Expiring, Unwilling)


class SlowStore(MemoryStore):
    """Reads the state of an actor when the test lets it."""

    def __init__(self) -> None:
        super().__init__(durable=True)
        self.may_read = trio.Event()
        self.may_read.set()
        self.fails = False

    async def load(self, actor_id: str) -> Stored | None:
        await self.may_read.wait()
        if self.fails:
            raise StoreError("it cannot be read")
        return await super().load(actor_id)


class Calls:
    """Calls made in tasks of their own, each as soon as its actor is about to be awake."""

    def __init__(self, host: Host, store: SlowStore, nursery: trio.Nursery) -> None:
        self.host = host
        self.store = store
        self._nursery = nursery
        self.answers: list[Value | PublicError] = []

    async def asleep(self, name: str = "writer") -> Instance:
        """There is one, which somebody keeps in memory. From now on it wakes when it may."""
        instance, _ = await self.host.get_or_create("default", name, ("k",))
        instance.visitors += 1
        await instance.sleep()
        assert instance.phase is Phase.ASLEEP
        self.store.may_read = trio.Event()
        return instance

    async def make(self, line: str, name: str = "writer", action: str = "write") -> trio.CancelScope:
        scope = trio.CancelScope()
        self._nursery.start_soon(self._call, name, action, line, scope)
        await settled()
        return scope

    async def wake(self) -> None:
        self.store.may_read.set()
        await settled()

    def lines(self) -> Value:
        """What the last of them has seen. Which of them is told first is not said."""
        return max((answer for answer in self.answers if isinstance(answer, list)), key=len)

    async def _call(self, name: str, action: str, line: str, scope: trio.CancelScope) -> None:
        with scope:
            try:
                instance, _ = await self.host.get_or_create("default", name, ("k",), soon=True)
                self.answers.append(await instance.call(action, [line], request=REQUEST))
            except PublicError as error:
                self.answers.append(error)


@asynccontextmanager
async def calling(limits: Limits | None = None) -> AsyncGenerator[Calls]:
    store = SlowStore()
    async with open_host(REGISTRY, limits, store=store) as host, trio.open_nursery() as nursery:
        with trio.fail_after(5):
            yield Calls(host, store, nursery)


async def test_calls_wait_in_the_inbox_in_their_order() -> None:
    async with calling() as calls:
        instance = await calls.asleep()
        for line in ("a", "b", "c"):
            await calls.make(line)
        assert instance.phase is Phase.STARTING
        assert instance.statistics().waiting_calls == 3
        assert calls.answers == []
        await calls.wake()
        assert calls.lines() == ["a", "b", "c"]


async def test_the_inbox_has_its_bound_before_the_start_too() -> None:
    async with calling(Limits(inbox=2)) as calls:
        await calls.asleep()
        for line in ("a", "b", "c"):
            await calls.make(line)
        [refused] = list(calls.answers)
        assert isinstance(refused, PublicError)
        assert refused.code == "overloaded"
        await calls.wake()
        assert calls.lines() == ["a", "b"]


async def test_on_disconnect_of_who_left_meanwhile_runs_first() -> None:
    async with calling() as calls:
        instance, _ = await calls.host.get_or_create("default", "polite", ("k",))
        async with connected(instance):
            await calls.asleep("polite")
        await calls.make("a", "polite")
        assert instance.statistics().waiting_calls == 1
        await calls.wake()
        assert calls.answers == [["on_disconnect", "a"]]


async def test_a_start_that_fails_is_told_to_those_who_wait() -> None:
    async with calling() as calls:
        await calls.asleep()
        await calls.make("a")
        calls.store.fails = True
        await calls.wake()
        [error] = calls.answers
        assert isinstance(error, PublicError)
        assert error.code == "internal_error"
        calls.store.fails = False
        await calls.make("b")
        assert calls.answers[1:] == [["b"]]


async def test_a_call_that_is_cancelled_before_the_start_never_runs() -> None:
    async with calling() as calls:
        await calls.asleep()
        scope = await calls.make("a")
        await calls.make("b")
        scope.cancel()
        await settled()
        await calls.wake()
        assert calls.answers == [["b"]]


@pytest.mark.parametrize("goal", [Goal.SLEEP, Goal.STOP, Goal.DESTROY])
async def test_what_arrives_once_the_life_shall_end_is_for_the_next_one(goal: Goal) -> None:
    """What had arrived before is answered by this one."""
    async with calling() as calls:
        instance = await calls.asleep()
        await calls.make("a")
        ending.request(instance, goal)
        await calls.make("b")
        assert instance.statistics().waiting_calls == 1
        instance.leave()
        await calls.wake()
        assert calls.answers[0] == ["a"]
        assert calls.answers[1] == (["b"] if goal is Goal.DESTROY else ["a", "b"])


async def test_a_message_that_waits_already_comes_first() -> None:
    async with calling() as calls:
        instance, _ = await calls.host.get_or_create("default", "writer", ("k",))
        async with connected(instance) as peer:
            await calls.asleep()
            peer.act("write", "a")
            await settled()
            await calls.make("b")
            assert instance.phase is Phase.STARTING
            await calls.wake()
            assert calls.answers == [["a", "b"]]


@pytest.mark.parametrize(("name", "before"), [("careful", "on_before_connect"), ("running", "run")])
async def test_what_begins_before_a_first_call_does_so_still(name: str, before: str) -> None:
    async with calling() as calls:
        for _ in range(8):  # Trio's scheduler has no order
            instance = await calls.asleep(name)
            await calls.make("a", name)
            assert instance.statistics().waiting_calls == 0
            await calls.wake()
            lines = calls.lines()
            assert isinstance(lines, list)
            assert lines[-2:] == [before, "a"]


async def test_one_that_ends_as_it_wakes_takes_nothing_with_it() -> None:
    async with calling() as calls:
        instance = await calls.asleep("expiring")
        calls.store.may_read.set()
        assert await instance.call("write", ["a"], request=REQUEST) == ["a"]
        await instance.sleep()
        instance.leave()
        await calls.make("b", "expiring")
        await calls.make("c", "expiring")
        assert calls.answers == [["b"], ["b", "c"]]


async def test_a_concurrent_call_wakes_it_too() -> None:
    async with calling() as calls:
        instance = await calls.asleep()
        await calls.make("a", action="writeBeside")
        assert instance.statistics().waiting_calls == 0
        await calls.wake()
        assert calls.answers == [["a"]]


async def test_of_one_that_does_not_come_to_be_its_creator_alone_learns_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Unwilling, "may_begin", trio.Event(), raising=False)
    async with calling() as calls, trio.open_nursery() as nursery:
        await calls.make("a", "unwilling")
        found: list[str] = []

        async def get() -> None:
            try:
                await calls.host.get("default", "unwilling", ("k",), soon=True)
            except PublicError as error:
                found.append(error.code)

        nursery.start_soon(get)
        await settled()
        assert found == calls.answers == []
        Unwilling.may_begin.set()
        await settled()
        [error] = calls.answers
        assert isinstance(error, PublicError)
        assert (error.code, found) == ("no", ["not_found"])


class Passes(trio.abc.Instrument):
    """Counts how often Trio's scheduler goes round."""

    def __init__(self) -> None:
        self.count = 0

    def before_io_wait(self, timeout: float) -> None:
        self.count += 1


async def test_a_call_that_wakes_takes_no_more_passes_of_the_scheduler_than_a_call() -> None:
    async with open_host(REGISTRY, store=MemoryStore(durable=True)) as host:

        async def passes() -> int:
            instrument = Passes()
            trio.lowlevel.add_instrument(instrument)
            try:
                instance, _ = await host.get_or_create("default", "writer", ("k",), soon=True)
                assert await instance.call("look", [], request=REQUEST) == 0
            finally:
                trio.lowlevel.remove_instrument(instrument)
            return instrument.count

        instance, _ = await host.get_or_create("default", "writer", ("k",))
        await settled()
        warm = await passes()
        await instance.sleep()
        await settled()
        assert await passes() == warm == 2
