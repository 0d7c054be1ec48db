"""Calls that reach an actor while it starts: they wait in its inbox, and nothing overtakes what was there first."""

from typing import Any, ClassVar

import attrs
import pytest
import trio

from tests.runtime.support import REQUEST, connected, settled
from trivet import Actor, Conn, Limits, Options, PublicError, Registry, UserError, action
from trivet.protocol.values import Value
from trivet.runtime.host import Host, open_host
from trivet.runtime.instance import Instance
from trivet.runtime.lifecycle import Goal, Phase
from trivet.store import MemoryStore


@attrs.define
class Log:
    lines: list[str] = attrs.field(factory=list[str])


class Sleeper(Actor[Log]):
    """Wakes when the test lets it."""

    options = Options(sleep_with_connections=True)
    may_wake: ClassVar[trio.Event]
    fails: ClassVar[bool] = False

    async def on_wake(self) -> None:
        await self.may_wake.wait()
        if self.fails:
            raise UserError("It does not want to.", code="no")
        self.state.lines.append("on_wake")

    @action
    def write(self, line: str) -> list[str]:
        self.state.lines.append(line)
        return self.state.lines


class Polite(Sleeper):
    name = "polite"

    def on_disconnect(self, conn: Conn) -> None:
        if conn.kind == "events":
            self.state.lines.append("on_disconnect")


class Careful(Sleeper):
    name = "careful"

    def on_before_connect(self, params: Any) -> None:
        self.state.lines.append("on_before_connect")


class Running(Sleeper):
    name = "running"

    async def run(self) -> None:
        self.state.lines.append("run")
        await trio.sleep_forever()


class Plain(Actor[Log]):
    @action(readonly=True)
    def look(self) -> int:
        return len(self.state.lines)


REGISTRY = Registry(Sleeper, Polite, Careful, Running, Plain)


@pytest.fixture(autouse=True)
def awake_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Sleeper, "may_wake", trio.Event(), raising=False)
    monkeypatch.setattr(Sleeper, "fails", False)
    Sleeper.may_wake.set()


async def asleep(host: Host, name: str) -> None:
    """There is one, and from now on it wakes when it may."""
    instance, _ = await host.get_or_create("default", name, ("k",))
    await instance.sleep()
    Sleeper.may_wake = trio.Event()


class Calls:
    """Calls made in tasks of their own, each as soon as its actor is about to be awake."""

    def __init__(self, host: Host, nursery: trio.Nursery) -> None:
        self._host = host
        self._nursery = nursery
        self.answers: list[Value | PublicError] = []

    async def make(self, name: str, line: str) -> tuple[Instance, trio.CancelScope]:
        instance, created = await self._host.get_or_create("default", name, ("k",), soon=True)
        assert not created
        scope = trio.CancelScope()
        self._nursery.start_soon(self._call, instance, line, scope)
        await settled()
        return instance, scope

    def lines(self) -> Value:
        """What the last of them has seen. Which of them is told first is not said."""
        return max((answer for answer in self.answers if isinstance(answer, list)), key=len)

    async def _call(self, instance: Instance, line: str, scope: trio.CancelScope) -> None:
        with scope:
            try:
                self.answers.append(await instance.call("write", [line], request=REQUEST))
            except PublicError as error:
                self.answers.append(error)


async def test_calls_wait_in_the_inbox_in_their_order() -> None:
    async with open_host(REGISTRY) as host, trio.open_nursery() as nursery:
        await asleep(host, "sleeper")
        calls = Calls(host, nursery)
        for line in ("a", "b", "c"):
            instance, _ = await calls.make("sleeper", line)
        assert instance.phase is Phase.STARTING
        assert instance.statistics().waiting_calls == 3
        assert calls.answers == []
        Sleeper.may_wake.set()
        await settled()
        assert calls.lines() == ["on_wake", "on_wake", "a", "b", "c"]


async def test_the_inbox_has_its_bound_before_the_start_too() -> None:
    async with open_host(REGISTRY, Limits(inbox=2)) as host, trio.open_nursery() as nursery:
        await asleep(host, "sleeper")
        calls = Calls(host, nursery)
        for line in ("a", "b", "c"):
            await calls.make("sleeper", line)
        [refused] = list(calls.answers)
        assert isinstance(refused, PublicError)
        assert refused.code == "overloaded"
        Sleeper.may_wake.set()
        await settled()
        assert calls.lines() == ["on_wake", "on_wake", "a", "b"]


async def test_on_disconnect_of_who_left_meanwhile_runs_first() -> None:
    async with open_host(REGISTRY) as host, trio.open_nursery() as nursery:
        instance, _ = await host.get_or_create("default", "polite", ("k",))
        async with connected(instance):
            await asleep(host, "polite")
        assert instance.phase is Phase.ASLEEP
        calls = Calls(host, nursery)
        await calls.make("polite", "a")
        Sleeper.may_wake.set()
        await settled()
        assert calls.answers == [["on_wake", "on_wake", "on_disconnect", "a"]]


async def test_a_start_that_fails_is_told_to_those_who_wait() -> None:
    async with open_host(REGISTRY) as host, trio.open_nursery() as nursery:
        await asleep(host, "sleeper")
        calls = Calls(host, nursery)
        await calls.make("sleeper", "a")
        Sleeper.fails = True
        Sleeper.may_wake.set()
        await settled()
        [error] = calls.answers
        assert isinstance(error, PublicError)
        assert (error.group, error.code) == ("user", "no")
        Sleeper.fails = False
        await calls.make("sleeper", "b")
        assert calls.answers[1:] == [["on_wake", "on_wake", "b"]]


async def test_a_call_that_is_cancelled_before_the_start_never_runs() -> None:
    async with open_host(REGISTRY) as host, trio.open_nursery() as nursery:
        await asleep(host, "sleeper")
        calls = Calls(host, nursery)
        _, scope = await calls.make("sleeper", "a")
        await calls.make("sleeper", "b")
        scope.cancel()
        await settled()
        Sleeper.may_wake.set()
        await settled()
        assert calls.answers == [["on_wake", "on_wake", "b"]]


@pytest.mark.parametrize("goal", [Goal.SLEEP, Goal.STOP, Goal.DESTROY])
async def test_a_life_that_shall_end_as_it_starts_answers_what_had_arrived(goal: Goal) -> None:
    async with open_host(REGISTRY) as host, trio.open_nursery() as nursery:
        await asleep(host, "sleeper")
        calls = Calls(host, nursery)
        instance, _ = await calls.make("sleeper", "a")
        instance.request_end(goal)
        Sleeper.may_wake.set()
        await settled()
        assert calls.answers == [["on_wake", "on_wake", "a"]]
        assert instance.phase is Phase.GONE


async def test_code_that_runs_before_the_turn_finds_an_actor_that_is_awake() -> None:
    async with open_host(REGISTRY) as host, trio.open_nursery() as nursery:
        await asleep(host, "careful")
        calls = Calls(host, nursery)
        instance, _ = await calls.make("careful", "a")
        assert instance.statistics().waiting_calls == 0
        Sleeper.may_wake.set()
        await settled()
        assert calls.answers == [["on_wake", "on_wake", "on_before_connect", "a"]]


async def test_run_has_begun_before_the_first_call() -> None:
    async with open_host(REGISTRY) as host, trio.open_nursery() as nursery:
        for _ in range(8):  # Trio's scheduler has no order
            await asleep(host, "running")
            calls = Calls(host, nursery)
            await calls.make("running", "a")
            Sleeper.may_wake.set()
            await settled()
            lines = calls.lines()
            assert isinstance(lines, list)
            assert lines[-3:] == ["on_wake", "run", "a"]


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
                instance, _ = await host.get_or_create("default", "plain", ("k",), soon=True)
                assert await instance.call("look", [], request=REQUEST) == 0
            finally:
                trio.lowlevel.remove_instrument(instrument)
            return instrument.count

        instance, _ = await host.get_or_create("default", "plain", ("k",))
        await settled()
        warm = await passes()
        await instance.sleep()
        await settled()
        assert await passes() == warm == 2
