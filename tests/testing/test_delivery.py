"""The checker says nothing of what is right, and names the rule that a planted bug breaks, in words."""

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing

from tests.testing.support import REGISTRY, Counter
from trivet import Connection, Limits
from trivet.runtime import emit
from trivet.runtime.calls import ActionJob
from trivet.runtime.connection import Conn
from trivet.runtime.emit import Emitter
from trivet.runtime.instance import Instance
from trivet.runtime.session import Session
from trivet.testing import DeliveryChecker, Violation, World
from trivet.testing.delivery import RULES

Pair = tuple[World, DeliveryChecker, Connection[Counter], Connection[Counter]]


@asynccontextmanager
async def two_in_a_world(limits: Limits | None = None) -> AsyncGenerator[Pair]:
    """Ann and bob, connected to one counter."""
    async with World(REGISTRY, limits=limits) as world:
        checker = world.check_delivery()
        handles = [(await world.client(name)).get_or_create(Counter, "a") for name in ("ann", "bob")]
        async with handles[0].connect() as ann, handles[1].connect() as bob:
            yield world, checker, ann, bob


def ignore(*_: object) -> None:
    pass


async def subscribed(connection: Connection[Counter]) -> Callable[[], None]:
    """Once this returns, the subscriptions are in force."""
    unsubscribe = connection.on(Counter.counted, ignore)
    connection.on(Counter.said, ignore)
    await connection.call(Counter.get_count)
    return unsubscribe


async def say(connection: Connection[Counter], text: str) -> None:
    await connection.call(Counter.say, text)


async def test_what_is_right_passes(autojump_clock: trio.testing.MockClock) -> None:
    async with two_in_a_world() as (world, checker, ann, bob):
        unsubscribe = await subscribed(ann)
        await subscribed(bob)
        await bob.call(Counter.increment, 3)
        await bob.call(Counter.tell_others, "hello")
        await ann.call(Counter.whisper, "to myself")
        world.links[0].delay(1)
        async with trio.open_nursery() as nursery:
            for text in ("same", "same", "other"):
                nursery.start_soon(say, ann, text)
        unsubscribe()
        await bob.call(Counter.increment)
        with pytest.raises(Exception, match="no"):
            await ann.call(Counter.fail)
        await checker.settle()
        checker.verify()
        assert checker.events_seen >= 15


@pytest.mark.parametrize("fault", ["break_", "half_open", "crash", "stop"])
async def test_networks_and_servers_that_fail_break_no_rule(fault: str, autojump_clock: trio.testing.MockClock) -> None:
    async with two_in_a_world() as (world, checker, ann, bob):
        await subscribed(ann)
        await subscribed(bob)
        await bob.call(Counter.increment)
        if fault == "crash":
            await world.crash_server()
        if fault in ("crash", "stop"):
            await world.restart_server()
        else:
            getattr(world.links[0], fault)()
        await trio.sleep(1)
        await bob.call(Counter.increment)
        await trio.sleep(120)
        await ann.call(Counter.increment)
        await checker.settle(patience=300)
        checker.verify()


# -- planted bugs -----------------------------------------------------------------------------------------------------


class EventPlant:
    """Changes what the nth arrival of events at ann's connection is, between the network and her."""

    def __init__(self, connection: Connection[Any]) -> None:
        self._listeners: Any = connection._listeners
        self._dispatch: Callable[..., None] = self._listeners.dispatch
        self.held: list[tuple[Any, ...]] = []

    def plant(self, change: "Callable[[EventPlant, tuple[Any, ...]], list[tuple[Any, ...]]]") -> None:
        def changed(*event: Any) -> None:
            for one in change(self, event):
                self._dispatch(*one)

        self._listeners.dispatch = changed

    def release(self) -> None:
        for event in self.held:
            self._dispatch(*event)


def hold_back(plant: EventPlant, event: tuple[Any, ...]) -> list[tuple[Any, ...]]:
    plant.held.append(event)
    return []


def swap(plant: EventPlant, event: tuple[Any, ...]) -> list[tuple[Any, ...]]:
    plant.held.append(event)
    if len(plant.held) < 2:
        return []
    swapped, plant.held = plant.held[::-1], []
    return swapped


def drop_second(plant: EventPlant, event: tuple[Any, ...]) -> list[tuple[Any, ...]]:
    plant.held.append(event)
    return [] if len(plant.held) == 2 else [event]


def drop_all(plant: EventPlant, event: tuple[Any, ...]) -> list[tuple[Any, ...]]:
    return []


def double(plant: EventPlant, event: tuple[Any, ...]) -> list[tuple[Any, ...]]:
    return [event, event]


def falsify(plant: EventPlant, event: tuple[Any, ...]) -> list[tuple[Any, ...]]:
    return [("counted", [99])]


@pytest.mark.parametrize(
    ("change", "rule", "words"),
    [
        (swap, "order", "connection ann saw counted #2 before counted #1"),
        (drop_second, "cause", "connection ann got the answer to increment before|never saw counted #2"),
        (drop_all, "subscribe", r"connection ann never saw counted #1 \(1\): it had subscribed"),
        (double, "once", "connection ann saw counted #1 twice"),
        (falsify, "stray", r"connection ann saw counted \(99\), which was never emitted"),
    ],
)
async def test_wrong_arrivals_are_found(
    change: Any, rule: str, words: str, autojump_clock: trio.testing.MockClock
) -> None:
    with pytest.raises(Violation, match=words) as caught:  # noqa: PT012  # where it raises is the checker's to say
        async with two_in_a_world() as (_, checker, ann, _bob):
            await subscribed(ann)
            EventPlant(ann).plant(change)
            await ann.call(Counter.increment, 4)
            await checker.settle()
            checker.verify()
    assert caught.value.rule in (rule, "lost")
    assert caught.value.rule in RULES


async def test_an_answer_before_its_events_is_found(autojump_clock: trio.testing.MockClock) -> None:
    with pytest.raises(Violation, match="connection ann got the answer to increment before counted #1") as caught:  # noqa: PT012
        async with two_in_a_world() as (_, checker, ann, _bob):
            await subscribed(ann)
            plant = EventPlant(ann)
            plant.plant(hold_back)
            await ann.call(Counter.increment)
            plant.release()
            await checker.settle()
            checker.verify()
    assert caught.value.rule == "cause"


put_unsubscribe = Emitter.unsubscribe
post_disconnect = Instance.post_disconnect
run_job = ActionJob.run


def keep_subscribed(self: Emitter, session: Session, name: str) -> None:
    pass


def exclude_nobody(exclude: object) -> set[str]:
    return set()


def disconnect_twice(self: Instance, conn: Conn[Any, Any]) -> None:
    post_disconnect(self, conn)
    post_disconnect(self, conn)


def never_disconnect(self: Instance, conn: Conn[Any, Any]) -> None:
    self.expel(conn)


async def take_no_turn(self: ActionJob) -> None:
    self._session.instance.run_outside(run_job, self)


async def use_everything(world: World, checker: DeliveryChecker, ann: Any, bob: Any) -> None:
    unsubscribe = await subscribed(ann)
    await subscribed(bob)
    await bob.call(Counter.tell_others, "hello")
    unsubscribe()
    await ann.call(Counter.get_count)
    await bob.call(Counter.increment)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ann.call, Counter.wait, 1.0)
        nursery.start_soon(bob.call, Counter.wait, 1.0)
    await checker.settle()
    checker.verify()


@pytest.mark.parametrize(
    ("target", "name", "plant", "rule"),
    [
        (Emitter, "unsubscribe", keep_subscribed, "unsubscribed"),
        (emit, "_ids", exclude_nobody, "stray"),
        (Instance, "post_disconnect", disconnect_twice, "on_disconnect"),
        (Instance, "post_disconnect", never_disconnect, "on_disconnect"),
    ],
    ids=["keep_subscribed", "exclude_nobody", "disconnect_twice", "never_disconnect"],
)
async def test_a_runtime_with_a_bug_is_found_out(
    target: Any,
    name: str,
    plant: Any,
    rule: str,
    monkeypatch: pytest.MonkeyPatch,
    autojump_clock: trio.testing.MockClock,
) -> None:
    monkeypatch.setattr(target, name, plant)
    with pytest.raises(Violation) as caught:
        async with two_in_a_world() as world:
            await use_everything(*world)
    assert caught.value.rule == rule


async def test_without_a_bug_the_same_passes(autojump_clock: trio.testing.MockClock) -> None:
    async with two_in_a_world() as world:
        await use_everything(*world)
