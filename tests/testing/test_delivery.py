"""The checker says nothing of what is right, and names the rule that a planted bug breaks, in words."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing

from tests.testing.support import REGISTRY, Counter
from trivet import ActorError, Connection, Dropped, Limits
from trivet.nurseries import open_quiet_nursery
from trivet.protocol.messages import ActionRequest, ToServer
from trivet.runtime import emit, membership, ordering
from trivet.runtime.beside import start_concurrent
from trivet.runtime.calls import ActionJob
from trivet.runtime.connection import Conn
from trivet.runtime.emit import Emitter
from trivet.runtime.instance import Instance
from trivet.runtime.ordering import Incoming
from trivet.runtime.session import Session
from trivet.testing import DeliveryChecker, Violation, World
from trivet.testing.rules import RULES

Scene = tuple[World, DeliveryChecker, Connection[Counter], Connection[Counter]]


@asynccontextmanager
async def two_in_a_world(limits: Limits | None = None) -> AsyncGenerator[Scene]:
    """Ann and bob, connected to one counter."""
    async with World(REGISTRY, limits=limits) as world:
        checker = world.check_delivery()
        handles = [(await world.client(name)).get_or_create(Counter, "a") for name in ("ann", "bob")]
        async with handles[0].connect() as ann, handles[1].connect() as bob:
            yield world, checker, ann, bob


def report_of(caught: pytest.ExceptionInfo[Violation]) -> str:
    """What the violation says, without the text of the rule, which comes last."""
    message, _, rule = str(caught.value).rpartition("\n")
    assert rule == f"({RULES[caught.value.rule]})"
    return message


def ignore(*_: object) -> None:
    pass


async def subscribed(connection: Connection[Counter]) -> Callable[[], None]:
    """Once this returns, the subscriptions are in force."""
    unsubscribe = connection.on(Counter.counted, ignore)
    connection.on(Counter.said, ignore)
    await connection.call(Counter.get_count)
    return unsubscribe


async def wait(connection: Connection[Counter], seconds: float) -> None:
    await connection.call(Counter.wait, seconds)


async def say(connection: Connection[Counter], text: str) -> None:
    await connection.call(Counter.say, text)


async def test_what_is_right_passes(autojump_clock: trio.testing.MockClock) -> None:
    async with two_in_a_world() as (world, checker, ann, bob):
        unsubscribe = await subscribed(ann)
        await subscribed(bob)
        await bob.call(Counter.increment, 3)
        await bob.call(Counter.tell_others, "hello")
        await ann.call(Counter.whisper, "to myself")
        await ann.call(Counter.say_patiently, "when there is room")
        ann.on(Counter.flagged, ignore)
        await ann.call(Counter.flag_me)
        assert checker.events_seen == 3 + 3 + 1 + 1 + 3 + 1
        world.links[0].delay(1)
        async with trio.open_nursery() as nursery:
            for text in ("same", "same", "other"):
                nursery.start_soon(say, ann, text)
        unsubscribe()
        await bob.call(Counter.increment)
        with pytest.raises(ActorError, match="no"):
            await ann.call(Counter.fail)
        await ann.sync()
        await checker.settle()
        checker.verify()
        assert checker.events_seen == 12 + 3 + 3 + 2  # the end of her subscription was still on its way


async def test_a_refused_subscription_breaks_no_rule(autojump_clock: trio.testing.MockClock) -> None:
    async with two_in_a_world() as (_, checker, ann, _bob):
        errors: list[Exception] = []
        ann.on_error(errors.append)
        ann.on(Counter.secret, ignore)
        await ann.call(Counter.tell_secret)
        await checker.settle()
        checker.verify()
        assert [str(error) for error in errors] == ["auth.forbidden: Forbidden"]
        assert checker.events_seen == 0


async def test_sync_waits_for_no_subscription_and_settle_does(autojump_clock: trio.testing.MockClock) -> None:
    async with two_in_a_world() as (_, checker, ann, bob):
        seen: list[int] = []
        ann.on(Counter.slow, seen.append)  # it is granted 2 s later
        await ann.sync()
        await bob.call(Counter.tell_slowly, 1)
        await ann.sync()
        assert seen == []
        await checker.settle()
        await bob.call(Counter.tell_slowly, 2)
        await ann.sync()
        assert seen == [2]
        checker.verify()


async def test_settle_says_what_is_going_on(autojump_clock: trio.testing.MockClock) -> None:
    async with two_in_a_world() as (_, checker, ann, bob), trio.open_nursery() as nursery:
        nursery.start_soon(wait, ann, 30.0)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(say, bob, "hello")
        with pytest.raises(trio.TooSlowError) as caught:
            await checker.settle(patience=5)
        assert str(caught.value) == (
            "after 5 s the world is not quiet: wait is running; ann waits for the answer to wait;"
            " bob waits for the answer to say"
        )


async def test_settle_waits_for_what_is_on_its_way(autojump_clock: trio.testing.MockClock) -> None:
    async with two_in_a_world() as (world, checker, ann, bob):
        await subscribed(ann)
        world.links[0].delay(100)
        await bob.call(Counter.increment)
        with pytest.raises(trio.TooSlowError, match="after 5 s the world is not quiet: something is on its way"):
            await checker.settle(patience=5)
        await checker.settle(patience=200)
        checker.verify()


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


# -- planted bugs between the network and ann --------------------------------------------------------------------------

Event = tuple[str, list[Any]]


class Plant:
    """Changes what arrives at ann's connection, after what a bug in the client would change, before her listeners."""

    def __init__(self, connection: Connection[Any]) -> None:
        self._listeners: Any = connection._listeners
        self._dispatch: Callable[[str, list[Any]], None] = self._listeners.dispatch
        self._mark: Callable[..., bool] = self._listeners.mark
        self._held: list[Event] = []
        self._marks: list[tuple[Any, ...]] = []

    def change(self, change: Callable[[list[Event]], list[Event]], count: int = 1) -> None:
        """Each `count` events become what `change` makes of them."""

        def changed(name: str, payload: list[Any]) -> None:
            self._held.append((name, payload))
            if len(self._held) == count:
                held, self._held = self._held, []
                for event in change(held):
                    self._dispatch(*event)

        self._listeners.dispatch = changed

    def hold_events(self) -> None:
        """Until `release`."""
        self.change(lambda events: events, 1000)

    def hold_marks(self) -> None:
        """The news of missing events is held until `release`."""

        def held(*args: Any) -> bool:
            self._marks.append(args)
            return True

        self._listeners.mark = held

    def release(self) -> None:
        for event in self._held:
            self._dispatch(*event)
        for mark in self._marks:
            self._mark(*mark)
        self._held, self._marks = [], []

    def dispatch(self, name: str, payload: list[Any]) -> None:
        """An event comes out of nowhere."""
        self._dispatch(name, payload)

    def mark(self, *args: Any) -> None:
        """The news of missing events come out of nowhere."""
        self._mark(*args)


Story = Callable[[World, Connection[Counter], Connection[Counter]], Awaitable[None]]


async def events_that_are_swapped(world: World, ann: Connection[Counter], bob: Connection[Counter]) -> None:
    Plant(ann).change(lambda events: events[::-1], 2)
    await ann.call(Counter.increment, 4)


async def equal_events_that_are_swapped(world: World, ann: Connection[Counter], bob: Connection[Counter]) -> None:
    Plant(ann).change(lambda events: events[::-1], 2)
    for text in ("a", "b", "a", "b"):
        await bob.call(Counter.say, text)


async def an_event_that_comes_twice(world: World, ann: Connection[Counter], bob: Connection[Counter]) -> None:
    Plant(ann).change(lambda events: events * 2)
    await ann.call(Counter.increment)


async def equal_events_that_come_twice(world: World, ann: Connection[Counter], bob: Connection[Counter]) -> None:
    Plant(ann).change(lambda events: events * 2)
    for _ in range(2):
        await ann.call(Counter.say, "again")


async def an_event_that_nobody_emitted(world: World, ann: Connection[Counter], bob: Connection[Counter]) -> None:
    Plant(ann).change(lambda events: [("counted", [99])])
    await ann.call(Counter.increment)


async def an_event_without_a_subscription(world: World, ann: Connection[Counter], bob: Connection[Counter]) -> None:
    await bob.call(Counter.flag, [1])
    Plant(ann).dispatch("flagged", [1])


async def and_then_one_with_it(world: World, ann: Connection[Counter], bob: Connection[Counter]) -> None:
    await an_event_without_a_subscription(world, ann, bob)
    await bob.call(Counter.say, "hello")


async def the_second_event_is_lost(world: World, ann: Connection[Counter], bob: Connection[Counter]) -> None:
    Plant(ann).change(lambda events: events[:1], 2)
    await ann.call(Counter.increment, 2)


async def the_second_of_equal_events_is_lost(world: World, ann: Connection[Counter], bob: Connection[Counter]) -> None:
    Plant(ann).change(lambda events: events[:1], 2)
    await bob.call(Counter.say, "again")
    await bob.call(Counter.say, "again")


async def a_long_event_is_lost(world: World, ann: Connection[Counter], bob: Connection[Counter]) -> None:
    Plant(ann).change(lambda events: [event for event in events if event[1] == ["short"]])
    await ann.call(Counter.say, "short")
    await ann.call(Counter.say, "long " * 100)


async def every_event_is_lost(world: World, ann: Connection[Counter], bob: Connection[Counter]) -> None:
    Plant(ann).change(lambda events: [])
    await ann.call(Counter.increment)


async def the_answer_comes_first(world: World, ann: Connection[Counter], bob: Connection[Counter]) -> None:
    plant = Plant(ann)
    plant.hold_events()
    await ann.call(Counter.increment)
    plant.release()


async def sync_comes_first(world: World, ann: Connection[Counter], bob: Connection[Counter]) -> None:
    plant = Plant(ann)
    plant.hold_events()
    await bob.call(Counter.increment)
    await ann.sync()
    plant.release()


async def no_gap(world: World, ann: Connection[Counter], bob: Connection[Counter]) -> None:
    Plant(ann).hold_marks()
    await world.restart_server()
    await ann.call(Counter.get_count)


async def a_gap_after_events(world: World, ann: Connection[Counter], bob: Connection[Counter]) -> None:
    plant = Plant(ann)
    plant.hold_marks()
    await world.restart_server()
    await ann.call(Counter.increment)
    plant.release()


async def more_than_waits(world: World, ann: Connection[Counter], bob: Connection[Counter]) -> None:
    """While she is away some of her events are dropped: only 8 messages may wait for her."""
    ann.on(Counter.flagged, ignore)
    await ann.call(Counter.get_count)
    world.links[0].down()
    await bob.call(Counter.flag, list(range(1, 13)))
    world.links[0].up()
    await trio.sleep(30)
    await ann.call(Counter.get_count)


async def dropped_and_nobody_told(world: World, ann: Connection[Counter], bob: Connection[Counter]) -> None:
    Plant(ann).hold_marks()
    await more_than_waits(world, ann, bob)


async def told_too_late(world: World, ann: Connection[Counter], bob: Connection[Counter]) -> None:
    plant = Plant(ann)
    plant.hold_marks()
    await more_than_waits(world, ann, bob)
    await bob.call(Counter.flag, [13])
    await ann.sync()
    plant.release()


async def told_too_early(world: World, ann: Connection[Counter], bob: Connection[Counter]) -> None:
    plant = Plant(ann)
    plant.hold_events()
    ann.on_gap(lambda _: plant.release())
    await more_than_waits(world, ann, bob)


async def told_of_nothing(world: World, ann: Connection[Counter], bob: Connection[Counter]) -> None:
    Plant(ann).mark([], Dropped("counted", 2))


@pytest.mark.parametrize(
    ("story", "words"),
    [
        (events_that_are_swapped, "order: connection ann saw counted #2 before counted #1"),
        (equal_events_that_are_swapped, "order: connection ann saw said #2 before said #1"),
        (an_event_that_comes_twice, "once: connection ann saw counted #1 twice"),
        (equal_events_that_come_twice, "once: connection ann saw said #2 3 times, and it was emitted 2 times"),
        (an_event_that_nobody_emitted, "stray: connection ann saw counted (99), which was never emitted"),
        (
            an_event_without_a_subscription,
            "unsubscribed: connection ann saw flagged #1 (1), and was not subscribed to it",
        ),
        (and_then_one_with_it, "unsubscribed: connection ann saw flagged #1 (1), and was not subscribed to it"),
        (the_second_event_is_lost, "lost: connection ann never saw counted #2 (2)"),
        (the_second_of_equal_events_is_lost, "lost: connection ann never saw said #2 ('again')"),
        (
            a_long_event_is_lost,
            f"lost: connection ann never saw said #2 ('{('long ' * 16)[:76]}...)",
        ),
        (
            every_event_is_lost,
            "subscribe: connection ann never saw counted #1 (1), though it had subscribed and then called",
        ),
        (the_answer_comes_first, "cause: connection ann got the answer to increment before counted #1"),
        (sync_comes_first, "sync: connection ann got the answer to sync() before counted #1"),
        (no_gap, "gap: connection ann was not told that counted may be missing: its session was lost"),
        (a_gap_after_events, "gap: connection ann was not told that counted may be missing: its session was lost"),
        (dropped_and_nobody_told, "lost: connection ann never saw flagged #4 (4)"),
        (told_too_late, "lost: connection ann never saw flagged #4 (4)"),
        (told_too_early, "lost: connection ann was told that flagged #1 was dropped, and saw it after that"),
        (told_of_nothing, "lost: connection ann was told that 2 counted were dropped, and they were not"),
    ],
)
async def test_wrong_arrivals_are_found(story: Story, words: str, autojump_clock: trio.testing.MockClock) -> None:
    with pytest.raises(Violation) as caught:  # noqa: PT012  # where it raises is the checker's to say
        async with two_in_a_world(Limits(outbox_soft_messages=8)) as (world, checker, ann, bob):
            await subscribed(ann)
            await story(world, ann, bob)
            await checker.settle()
            checker.verify()
    assert report_of(caught) == words


async def test_events_that_give_way_to_others_are_no_loss(autojump_clock: trio.testing.MockClock) -> None:
    async with two_in_a_world(Limits(outbox_soft_messages=8)) as (world, checker, ann, bob):
        told: list[object] = []
        ann.on_gap(told.append)
        await more_than_waits(world, ann, bob)
        await checker.settle()
        checker.verify()
        assert [type(one) for one in told] == [Dropped]


# -- planted bugs in the runtime ---------------------------------------------------------------------------------------

post = ordering._post
receive = Session.receive
answer = Session.answer
subscribe = Emitter.subscribe
post_disconnect = membership.post_disconnect
perform = ActionJob._perform


def keep_subscribed(self: Emitter, session: Session, name: str) -> None:
    pass


def subscribe_soon(self: Emitter, session: Session, name: str) -> None:
    async def another_task() -> None:
        await trio.sleep(1)
        subscribe(self, session, name)

    session._scope.start_soon(another_task)


def exclude_nobody(exclude: object) -> set[str]:
    return set()


def disconnect_twice(instance: Instance, conn: Conn[Any, Any]) -> None:
    post_disconnect(instance, conn)
    post_disconnect(instance, conn)


def never_disconnect(instance: Instance, conn: Conn[Any, Any]) -> None:
    membership.expel(instance, conn)


def disconnect_at_once(self: Emitter, session: Session, name: str) -> None:
    subscribe(self, session, name)
    post_disconnect(session.instance, session.conn)


def overtake(self: Session, message: ToServer, **kwargs: Any) -> None:
    if isinstance(message, ActionRequest) and message.name == "beside":
        ordering.charge(self, 1, 1)
        start_concurrent(self.instance, ActionJob(self, message, self.instance.definition.actions["beside"], (), 1))
    else:
        receive(self, message, **kwargs)


def take_no_turn(session: Session, incoming: Incoming, message: ActionRequest, action: Any) -> None:
    session.posted += 1
    start_concurrent(session.instance, ActionJob(session, message, action, incoming.chain, incoming.size))


def mistake_the_action(session: Session, incoming: Incoming, message: ActionRequest, action: Any) -> None:
    actions = session.instance.definition.actions
    post(session, incoming, message, actions["say"] if action is actions["tellOthers"] else action)


async def perform_twice(self: ActionJob, *args: Any, **kwargs: Any) -> None:
    await perform(self, *args, **kwargs)
    await perform(self, *args, **kwargs)


def answer_twice(self: Session, job: ActionJob, output: Any) -> None:
    answer(self, job, output)
    ordering.charge(self, 1, job.size)
    answer(self, job, output)


def forget_the_answer(self: Session, job: ActionJob, output: Any) -> None:
    if job.action.name != "wait":
        answer(self, job, output)


async def use_everything(world: World, checker: DeliveryChecker, ann: Any, bob: Any) -> None:
    unsubscribe = await subscribed(ann)
    await subscribed(bob)
    await bob.call(Counter.tell_others, "hello")
    unsubscribe()
    await ann.call(Counter.get_count)
    await bob.call(Counter.increment)
    async with open_quiet_nursery() as nursery:  # so that a Violation comes out alone
        nursery.start_soon(wait, ann, 1.0)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(wait, bob, 1.0)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(ann.call, Counter.increment)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(ann.call, Counter.beside)
        await checker.settle()
        checker.verify()


@pytest.mark.parametrize(
    ("target", "name", "plant", "words"),
    [
        (
            Emitter,
            "unsubscribe",
            keep_subscribed,
            "unsubscribed: connection ann saw counted #2 (1), and was not subscribed to it",
        ),
        (
            Emitter,
            "subscribe",
            subscribe_soon,
            "subscribe: connection ann never saw said #1 ('hello'), though it had subscribed and then called",
        ),
        (emit, "_ids", exclude_nobody, "stray: connection bob saw said #1, which was not meant for it"),
        (membership, "post_disconnect", disconnect_twice, "on_disconnect: ran 2 times for bob"),
        (membership, "post_disconnect", never_disconnect, "on_disconnect: never ran for ann, which has left"),
        (Emitter, "subscribe", disconnect_at_once, "on_disconnect: ran for ann, which is connected"),
        (Session, "receive", overtake, "start order: increment of ann began after beside, which it had sent later"),
        (ordering, "_post", mistake_the_action, "start order: say ran for bob, which had not called it"),
        (ActionJob, "_perform", perform_twice, "start order: wait ran again for ann, or after a later call of it"),
        (ordering, "_post", take_no_turn, "turns: wait began while wait was running"),
        (Session, "answer", answer_twice, "answers: ann got 2 answers to getCount"),
        (Session, "answer", forget_the_answer, "answers: ann never got an answer to wait"),
    ],
    ids=lambda value: value.__name__ if callable(value) and not isinstance(value, type) else "",
)
async def test_a_runtime_with_a_bug_is_found_out(
    target: Any,
    name: str,
    plant: Any,
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    autojump_clock: trio.testing.MockClock,
) -> None:
    monkeypatch.setattr(target, name, plant)
    with pytest.raises(Violation) as caught:
        async with two_in_a_world() as scene:
            await use_everything(*scene)
    assert report_of(caught) == words


async def test_without_a_bug_the_same_passes(autojump_clock: trio.testing.MockClock) -> None:
    async with two_in_a_world() as scene:
        await use_everything(*scene)


def test_there_is_a_planted_bug_for_every_rule() -> None:
    plants = [
        *pytestmarks(test_wrong_arrivals_are_found),
        *pytestmarks(test_a_runtime_with_a_bug_is_found_out),
    ]
    assert {words.partition(":")[0] for *_, words in plants} == set(RULES)


def pytestmarks(test: Any) -> list[tuple[Any, ...]]:
    (mark,) = [one for one in test.pytestmark if one.name == "parametrize"]
    rows: list[tuple[Any, ...]] = mark.args[1]
    return rows
