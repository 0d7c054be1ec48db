"""Turns: which code excludes which, in which order it starts, and what ends it."""

import logging
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial

import attrs
import pytest
import trio

from tests.runtime.support import REQUEST, actor_of, connected, settled
from trivet import Actor, Event, Limits, PublicError, Registry, UserError, action
from trivet.protocol.messages import Error
from trivet.runtime.host import Host, open_host
from trivet.runtime.instance import Instance


@attrs.define
class Log:
    entries: list[str] = attrs.field(factory=list[str])


class Worker(Actor[Log]):
    """Actions that start, wait for `gate` to be opened under their name, and finish."""

    progress = Event(str)

    def __init__(self) -> None:
        self.gates: dict[str, trio.Event] = {}

    def gate(self, name: str) -> trio.Event:
        return self.gates.setdefault(name, trio.Event())

    async def _work(self, name: str) -> str:
        self.state.entries.append(f"start {name}")
        await self.gate(name).wait()
        self.state.entries.append(f"end {name}")
        return name

    @action
    async def serial(self, name: str) -> str:
        return await self._work(name)

    @action(concurrent=True)
    async def parallel(self, name: str) -> str:
        return await self._work(name)

    @action
    def instant(self, name: str) -> str:
        self.state.entries.append(name)
        self.broadcast(self.progress, name)
        return name

    @action(concurrent=True)
    def open(self, name: str) -> None:
        self.gate(name).set()

    @action(timeout=1)
    async def forever(self) -> None:
        await trio.sleep_forever()

    @action(timeout=1)
    async def stubborn(self) -> None:
        with trio.CancelScope(shield=True):
            await self.gate("stubborn").wait()

    @action(concurrent=True)
    async def with_turn(self, name: str) -> None:
        async with self.turn():
            await self._work(name)

    @action
    async def turn_within_turn(self) -> None:
        async with self.turn():
            pass

    @action
    async def group(self) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._refuse)

    async def _refuse(self) -> None:
        raise UserError("from a nursery", code="nested")


@asynccontextmanager
async def worker(limits: Limits | None = None) -> AsyncGenerator[tuple[Host, Instance]]:
    async with open_host(Registry(Worker), limits) as host:
        instance, _ = await host.get_or_create("default", "worker", ("w",))
        yield host, instance
        for gate in actor_of(instance, Worker).gates.values():
            gate.set()


def log_of(instance: Instance) -> list[str]:
    entries: list[str] = instance.read_state().entries
    return entries


async def test_serial_actions_run_one_at_a_time_in_arrival_order() -> None:
    async with worker() as (_, instance), connected(instance) as one, connected(instance) as two:
        one.act("serial", "a")
        two.act("serial", "b")
        one.act("instant", "c")
        await settled()
        assert log_of(instance) == ["start a"]
        async with connected(instance) as three:
            await three.call("open", "b")
            await three.call("open", "a")
        await settled()
        assert log_of(instance) == ["start a", "end a", "start b", "end b", "c"]


async def test_a_concurrent_action_neither_takes_nor_waits_for_the_turn() -> None:
    async with worker() as (_, instance), connected(instance) as one, connected(instance) as two:
        one.act("serial", "a")
        await settled()
        two.act("parallel", "b")
        two.act("parallel", "c")
        await settled()
        assert log_of(instance) == ["start a", "start b", "start c"]
        await two.call("open", "c")
        await settled()
        assert log_of(instance)[-1] == "end c"


async def test_actions_of_one_connection_start_in_the_order_sent() -> None:
    async with worker() as (_, instance), connected(instance) as one, connected(instance) as two:
        await two.call("open", "b")
        one.act("serial", "a")
        two.act("serial", "b")
        two.act("parallel", "c")  # waits for b to start, which waits for a
        await settled()
        assert log_of(instance) == ["start a"]
        await one.call("open", "a")
        await settled()
        entries = log_of(instance)
        assert entries.index("start b") < entries.index("start c")


@pytest.mark.parametrize("round_", range(10))
async def test_concurrent_actions_of_one_connection_start_in_the_order_sent(round_: int) -> None:
    names = [f"{round_}.{index}" for index in range(6)]
    async with worker() as (_, instance), connected(instance) as peer:
        for name in names:
            peer.act("parallel", name)
        await settled()
        assert log_of(instance) == [f"start {name}" for name in names]


async def test_an_async_action_over_its_timeout_is_cancelled_and_answered(autojump_clock: trio.abc.Clock) -> None:
    async with worker() as (_, instance), connected(instance) as peer:
        began = trio.current_time()
        answer = await peer.call("forever")
        assert (answer.group, answer.code) == ("actor", "action_timed_out")
        assert trio.current_time() - began == pytest.approx(1)
        assert await peer.call("instant", "next") == "next"


async def test_a_timed_out_action_that_does_not_unwind_is_answered_and_keeps_its_turn(
    autojump_clock: trio.abc.Clock,
) -> None:
    async with worker() as (_, instance), connected(instance) as peer:
        began = trio.current_time()
        answer = await peer.call("stubborn")
        assert answer.code == "action_timed_out"
        assert trio.current_time() - began == pytest.approx(6)
        waiting = peer.act("instant", "next")
        await trio.sleep(10)
        with pytest.raises(LookupError):
            peer.answer(waiting)
        actor_of(instance, Worker).gate("stubborn").set()
        await settled()
        assert peer.answer(waiting) == "next"


async def test_the_turn_can_be_taken_from_outside_and_queues_with_the_rest() -> None:
    async with worker() as (_, instance), connected(instance) as peer:
        peer.act("withTurn", "outside")
        await settled()
        waiting = peer.act("instant", "inside")
        await settled()
        with pytest.raises(LookupError):
            peer.answer(waiting)
        actor_of(instance, Worker).gate("outside").set()
        await settled()
        assert log_of(instance) == ["start outside", "end outside", "inside"]


async def test_taking_the_turn_within_the_turn_is_a_deadlock(caplog: pytest.LogCaptureFixture) -> None:
    async with worker() as (_, instance), connected(instance) as peer:
        answer = await peer.call("turnWithinTurn")
        assert (answer.group, answer.code) == ("actor", "deadlock")
        assert answer.metadata == {"chain": ["worker[w]", "worker[w]"]}


async def test_a_full_inbox_answers_overloaded_at_once_and_refuses_nothing_else() -> None:
    async with worker(Limits(inbox=2)) as (_, instance), connected(instance) as one, connected(instance) as two:
        one.act("serial", "a")
        await settled()
        accepted = [two.act("instant", str(index)) for index in range(2)]
        refused = two.act("instant", "2")
        await settled()
        assert two.answer(refused).code == "overloaded"
        with pytest.raises(PublicError, match="overloaded"):
            await instance.call("instant", ["3"], request=REQUEST)
        async with connected(instance) as three:
            await three.call("open", "a")
        await settled()
        assert [two.answer(action_id) for action_id in accepted] == ["0", "1"]


async def test_one_connection_has_a_bound_on_unanswered_calls() -> None:
    async with worker(Limits(unanswered_calls=3)) as (_, instance), connected(instance) as peer:
        ids = [peer.act("parallel", str(index)) for index in range(4)]
        await settled()
        answer = peer.answer(ids[3])
        assert (answer.group, answer.code) == ("actor", "overloaded")
        assert peer.session.statistics().unanswered_calls == 3


async def test_a_user_error_from_a_nursery_reaches_the_client_as_itself() -> None:
    async with worker() as (_, instance), connected(instance) as peer:
        answer = await peer.call("group")
        assert isinstance(answer, Error)
        assert (answer.group, answer.code, answer.message) == ("user", "nested", "from a nursery")


async def test_a_stateless_call_that_is_cancelled_before_its_turn_never_runs() -> None:
    async with worker() as (_, instance), connected(instance) as peer:
        peer.act("serial", "a")
        await settled()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(instance.call, "instant", ["never"], request=REQUEST))
            await settled()
            nursery.cancel_scope.cancel()
        await peer.call("open", "a")
        await settled()
        assert log_of(instance) == ["start a", "end a"]


async def test_a_cancelled_wait_for_the_turn_passes_it_on() -> None:
    async with worker() as (_, instance), connected(instance) as peer:
        peer.act("serial", "a")
        await settled()

        async def wait() -> None:
            async with instance.turn():
                raise AssertionError("the turn was not to come")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await settled()
            nursery.cancel_scope.cancel()
        await peer.call("open", "a")
        assert await peer.call("instant", "b") == "b"


class Blocker(Actor):
    @action
    def block(self) -> None:
        time.sleep(0.11)  # what is tested


async def test_a_sync_action_that_blocks_the_loop_is_named_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    async with open_host(Registry(Blocker)) as host:
        instance, _ = await host.get_or_create("default", "blocker", ())
        with caplog.at_level(logging.WARNING, "trivet"):
            await instance.call("block", [], request=REQUEST)
    assert "block blocked the loop for 0.1" in caplog.text


async def test_a_stop_waits_for_concurrent_actions_too() -> None:
    async with worker() as (host, instance), connected(instance) as peer:
        running = peer.act("parallel", "a")
        await settled()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(host.stop)
            await settled()
            with pytest.raises(LookupError):
                peer.answer(running)
            actor_of(instance, Worker).gate("a").set()
        await settled()
        assert peer.answer(running) == "a"
        assert peer.closed_with == "1001 ws.going_away"


async def test_a_concurrent_action_that_is_refused_does_not_hold_up_what_is_behind_it() -> None:
    async with worker(Limits(inbox=2)) as (_, instance), connected(instance) as one, connected(instance) as two:
        for name in ("a", "b"):
            one.act("parallel", name)
        await settled()
        refused = two.act("parallel", "c")
        behind = two.act("instant", "d")
        await settled()
        assert two.answer(refused).code == "overloaded"
        assert two.answer(behind) == "d"
        for name in ("a", "b"):
            actor_of(instance, Worker).gate(name).set()
