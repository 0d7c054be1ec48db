"""Those who get the same share a list and a loop, and nobody can tell: every client gets what it would get alone.

The reference is the same runtime in which no outbox ever joins its audience, so that each has a queue of its own.
"""

import re
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import attrs
import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.runtime.support import FORMAT, REQUEST, FakeTransport, actor_of, settled
from trivet import Actor, Conn, Event, Limits, Registry, action
from trivet.event import latest
from trivet.protocol import extension
from trivet.protocol.messages import ActionRequest, SubscriptionRequest
from trivet.protocol.values import UNDEFINED
from trivet.runtime import audience, flush
from trivet.runtime.host import Host, open_host
from trivet.runtime.instance import Instance
from trivet.runtime.outbox import Outbox
from trivet.runtime.session import Session

LIMITS = Limits(
    outbox_soft_messages=6, outbox_soft_bytes=2000, outbox_hard_messages=40, resume_window=1e6, outbox_soft_time=1e6
)


class Room(Actor):
    tick = Event(int)
    tock = Event(int)
    oldest = Event(int, overflow="drop_oldest")
    newest = Event(int, overflow="drop_newest")
    cursor = Event(int, overflow=latest(lambda n: n % 2))

    def __init__(self) -> None:
        self.expected: dict[str, list[int]] = {}
        """What each connection is to get, in the order of emission."""

    def tell(self, name: str, n: int, unless: Callable[[str], bool] = lambda conn_id: False, **choice: Any) -> None:
        for conn in self.conns.values():
            assert conn._session is not None
            if name in conn._session.subscriptions and not unless(conn.id):
                self.expected.setdefault(conn.id, []).append(n)
        self.broadcast(name, n, **choice)

    @action
    def emit(self, name: str, first: int, count: int) -> int:
        for n in range(first, first + count):
            self.tell(name, n)
        return first

    @action
    async def emit_slowly(self, first: int, count: int) -> None:
        for n in range(first, first + count):
            self.tell("tick", n)
            await trio.lowlevel.checkpoint()


class Client:
    """One that reads as much as it is let, and may lose its transport."""

    def __init__(self, host: Host, instance: Instance, *, extended: bool) -> None:
        self.host = host
        self.transport = FakeTransport()
        self.session: Session = instance.open_session(
            self.transport, FORMAT, params=UNDEFINED, request=REQUEST, extended=extended
        )
        self.seen = b""
        self.counted = 0
        self.acknowledged = 0
        self._ids = 0

    def act(self, name: str, *args: Any) -> None:
        self._ids += 1
        self.session.receive(ActionRequest(self._ids, name, list(args)))

    def take(self) -> None:
        """Read all whole frames; a part of one is lost with its transport."""
        received = self.transport.received
        end = received.rfind(b"\n") + 1
        for line in received[:end].splitlines():
            if line.startswith(b"+"):
                if not extension.decode_to_client(line[1:].decode()).counted:
                    continue
            elif b'"tag":"Init"' in line or line.startswith(b"close "):
                continue
            self.counted += 1
        # Random, and so different in each world.
        self.seen += received[:end].replace(self.session.token.encode() or b"\0", b"token")
        del received[:end]

    async def come_back(self) -> None:
        self.take()
        await self.session.leave(self.transport)
        self.transport = FakeTransport()
        session = self.host.sessions.get(self.session.token)
        if session is not None and not session.ended:
            assert session.resume(self.transport, FORMAT, self.counted)
            self.acknowledged = self.counted

    def acknowledge(self) -> None:
        self.take()
        self.acknowledged = self.counted
        self.session.receive_extension(extension.Ack(self.counted))


@asynccontextmanager
async def world(limits: Limits, extended: list[bool]) -> AsyncGenerator[tuple[Instance, list[Client]]]:
    async with open_host(Registry(Room), limits) as host:
        instance, _ = await host.get_or_create("default", "room", ())
        clients = [Client(host, instance, extended=each) for each in extended]
        for client in clients:
            await client.session.__aenter__()
            for name in ("tick", "oldest", "newest", "cursor"):
                client.session.receive(SubscriptionRequest(name, True))
        await settled()
        for client in clients:
            client.take()
            client.seen = b""
        yield instance, clients
        for client in clients:
            client.transport.room = float("inf")
            client.session.end(1000, "")
            await client.session.leave(client.session.outbox.transport)


@attrs.frozen
class Step:
    """One thing that happens."""

    what: str
    who: int = 0
    name: str = "tick"
    count: int = 1
    chosen: frozenset[int] = frozenset()


WHO = st.integers(0, 3)
NAME = st.sampled_from(["tick", "tick", "tock", "oldest", "newest", "cursor"])
HOW_MANY = st.sampled_from([1, 1, 2, 3, 5, 9])
EMIT = st.builds(Step, st.just("all"), name=NAME, count=HOW_MANY)
STEPS = st.lists(
    EMIT
    | EMIT
    | st.builds(Step, st.sampled_from(["others", "one", "read", "acknowledge", "come back"]), WHO)
    | st.builds(Step, st.just("where"), chosen=st.frozensets(WHO))
    | st.builds(Step, st.just("call"), WHO, NAME, HOW_MANY)
    | st.builds(Step, st.just("call slowly"), WHO, count=HOW_MANY)
    | st.builds(Step, st.just("room"), WHO, count=st.sampled_from([0, 1, 30, 60, 200]))
    | st.builds(Step, st.sampled_from(["subscribe", "unsubscribe"]), WHO, st.sampled_from(["tick", "tock"]))
    | st.builds(Step, st.sampled_from(["checkpoint", "settle", "settle"])),
    min_size=10,
    max_size=40,
)


@attrs.define
class Story:
    """The same steps in one of the two worlds; what is to be the same in both is written down."""

    instance: Instance
    clients: list[Client]
    calm: bool
    """Whether all tasks wait when a step is taken that may wake some, so that their order makes no difference."""
    emitted: int = 0
    written: list[object] = attrs.field(factory=list[object])
    together: int = 0
    apart: int = 0

    async def take(self, step: Step) -> None:
        actor, client = actor_of(self.instance, Room), self.clients[step.who]
        conn, transport = client.session.conn, client.transport
        returns = client.session.extended and not client.session.ended
        if self.calm and step.what not in ("all", "others", "where", "one"):
            await settled()
        match step.what:
            case "all":
                actor.emit(step.name, self._next(step.count), step.count)
            case "others":
                actor.tell("tick", self._next(1), lambda conn_id: conn_id == conn.id, exclude=conn)
            case "where":
                ids = {self.clients[who].session.conn.id for who in step.chosen}
                actor.tell("tick", self._next(1), lambda conn_id: conn_id not in ids, where=chosen_of(ids))
            case "one":
                actor.expected.setdefault(conn.id, []).append(self.emitted)
                conn.send("tick", self._next(1))
            case "call":
                client.act("emit", step.name, self._next(step.count), step.count)
            case "call slowly" if not self.calm:
                client.act("emitSlowly", self._next(step.count), step.count)
            case "room":
                transport.room = step.count
                transport.read(0)
            case "read":
                transport.read()
            case "acknowledge" if returns:
                client.acknowledge()
            case "come back" if returns:
                await client.come_back()
            case "subscribe" | "unsubscribe":
                client.session.receive(SubscriptionRequest(step.name, step.what == "subscribe"))
            case "checkpoint":
                await trio.lowlevel.checkpoint()
            case "settle":
                await self.settle()
            case _:
                pass

    def _next(self, count: int) -> int:
        self.emitted += count
        return self.emitted - count

    async def settle(self) -> None:
        await settled()
        for client in self.clients:
            client.take()
            box = client.session.outbox
            self.together += box.slot >= 0
            self.apart += box.slot < 0
            self.written.append((client.seen, bytes(client.transport.received), box.statistics(), box.closing))
            if box.slot >= 0:
                assert not box._queue
        self.count_the_backlog()

    def count_the_backlog(self) -> None:
        """What counts is what is held: each frame once, and a reference for each that holds it."""
        boxes = [client.session.outbox for client in self.clients]
        held = [frame for box in boxes for frame in box.held()[0]]
        held += [frame for shared in {box.audience for box in boxes} if shared for frame in shared._log]
        expected = sum(map(len, {id(frame): frame for frame in held}.values())) + 8 * len(held)
        assert boxes[0]._backlog.bytes == expected
        kept = [frame for box in boxes if box.closing for frame in box.held()[0]]
        expected = sum(map(len, {id(frame): frame for frame in kept}.values())) + 8 * len(kept)
        assert boxes[0]._backlog.closing.bytes == expected

    async def finish(self) -> None:
        for client in self.clients:
            client.transport.read()
        await self.settle()
        for client in self.clients:
            if client.session.extended and not client.session.ended:
                client.acknowledge()
                assert client.session.outbox.statistics().unacknowledged == 0
        await self.settle()


def tell(steps: list[Step], limits: Limits, *, calm: bool) -> Story:
    async def run() -> Story:
        async with world(limits, [False, True, True, False]) as (instance, clients):
            story = Story(instance, clients, calm)
            for step in steps:
                await story.take(step)
            await story.finish()
            return story

    return trio.run(run, clock=trio.testing.MockClock(autojump_threshold=0))


def chosen_of(ids: set[str]) -> Callable[[Conn[Any, Any]], bool]:
    return lambda conn: conn.id in ids


def stay_alone(box: Outbox) -> None:
    """In place of `Outbox.rejoin`."""


@contextmanager
def each_alone() -> Generator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Outbox, "rejoin", stay_alone)
        yield


@settings(max_examples=60, deadline=None, derandomize=True)
@given(STEPS)
def test_every_client_gets_the_same_bytes_at_the_same_time_as_alone(steps: list[Step]) -> None:
    shared = tell(steps, LIMITS, calm=True)
    with each_alone():
        alone = tell(steps, LIMITS, calm=True)
    assert alone.together == 0
    assert shared.written == alone.written


@settings(max_examples=50, deadline=None, derandomize=True)
@given(STEPS)
def test_other_tasks_may_run_between_any_two_sends(steps: list[Step]) -> None:
    steps = [step for step in steps if step.name in ("tick", "tock")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(audience, "_AT_ONCE", 1)
        patch.setattr(flush, "_YIELD_AFTER", -1.0)
        story = tell(steps, Limits(), calm=False)
    for client in story.clients:
        numbers = [int(number) for number in re.findall(rb'"t[io]ck","args":\[(\d+)\]', client.seen)]
        assert numbers == actor_of(story.instance, Room).expected.get(client.session.conn.id, [])


def test_the_search_comes_to_both() -> None:
    together = apart = 0

    @settings(max_examples=15, deadline=None, derandomize=True, database=None)
    @given(STEPS)
    def search(steps: list[Step]) -> None:
        nonlocal together, apart
        story = tell(steps, LIMITS, calm=True)
        together += story.together
        apart += story.apart

    search()
    assert together > 20
    assert apart > 20


async def bring_together(instance: Instance, clients: list[Client]) -> audience.Audience:
    """A first event, which each gets alone because of what greeted it."""
    actor_of(instance, Room).tell("tick", -1)
    await settled()
    for client in clients:
        if client.session.extended:
            client.acknowledge()
        assert client.session.outbox.slot >= 0
    shared = clients[0].session.outbox.audience
    assert shared is not None
    return shared


async def test_who_acknowledges_stays_together_and_what_all_have_is_kept_no_longer() -> None:
    async with world(Limits(), [True, True]) as (instance, clients):
        shared = await bring_together(instance, clients)
        first, second = (client.session.outbox for client in clients)
        for n in range(5):
            actor_of(instance, Room).tell("tick", n)
            await settled()
        clients[0].acknowledge()
        assert first.slot >= 0
        assert second.slot >= 0
        assert (first.statistics().unacknowledged, second.statistics().unacknowledged) == (0, 5)
        assert len(shared._log) == 5
        clients[1].acknowledge()
        assert first.slot >= 0
        assert second.slot >= 0
        assert shared._log == []


async def test_an_acknowledgement_may_come_while_others_are_still_sent_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audience, "_AT_ONCE", 1)
    async with world(Limits(), [True, True, True]) as (instance, clients):
        shared = await bring_together(instance, clients)
        actor_of(instance, Room).tell("tick", 1)
        by_slot = sorted(clients, key=lambda client: client.session.outbox.slot)
        assert shared.flush()  # to the first alone
        by_slot[0].acknowledge()
        assert [client.session.outbox.kept[0] for client in by_slot] == [0, 0, 0]
        # Nothing has been sent to the second: it cannot have the event.
        by_slot[1].counted += 1
        by_slot[1].acknowledge()
        assert by_slot[1].session.ended
        await settled()
        assert [client.session.outbox.kept[0] for client in by_slot[::2]] == [0, 1]
        await by_slot[0].come_back()
        await by_slot[2].come_back()
        await settled()
        by_slot[2].take()
        assert [client.seen.count(b'"tick","args":[1]') for client in by_slot[::2]] == [1, 1]


async def test_who_had_something_of_its_own_joins_again_while_events_go_on() -> None:
    async with world(Limits(), [False, False, False]) as (instance, clients):
        await bring_together(instance, clients)
        box = clients[0].session.outbox
        clients[0].session.send_control(b"ping\n")
        assert box.slot < 0
        for n in range(3):
            actor_of(instance, Room).tell("tick", n)
            await settled()
        assert box.slot >= 0


async def test_one_that_does_not_acknowledge_is_held_to_its_bounds_alone() -> None:
    limits = attrs.evolve(LIMITS, outbox_soft_messages=10, outbox_hard_messages=30)
    async with world(limits, [True, True]) as (instance, clients):
        for n in range(40):
            actor_of(instance, Room).tell("tick", n)
            await settled()
            clients[0].acknowledge()
        assert not clients[0].session.ended
        assert clients[1].session.ended


async def test_an_end_that_leads_to_another_sweep_takes_nothing_from_those_who_stay() -> None:
    limits = Limits(outbox_soft_messages=20, outbox_hard_messages=20, resume_window=1e6, outbox_soft_time=1e6)
    async with world(limits, [True] * 4) as (instance, clients):
        shared = await bring_together(instance, clients)
        backlog = instance.host.backlog
        before = [client.counted for client in clients]
        for n in range(10, 30):
            actor_of(instance, Room).tell("tick", n)
            await settled()
        # The second has acknowledged nothing, and is over its hard bound with the next event. That is kept for it alone
        # then, which is over the limit of all; the first, which has acknowledged next to nothing, goes with it.
        for client, count in zip(clients, [1, 0, 10, 20], strict=True):
            if count:
                client.session.receive_extension(extension.Ack(before[clients.index(client)] + count))
        assert len(shared._log) == 20
        backlog._limit = backlog.bytes + 5
        actor_of(instance, Room).tell("tick", 10**14)
        await settled()
        assert [client.session.ended for client in clients] == [True, True, False, False]
        assert backlog.ended == 2
        backlog._limit = 10**9
        third = clients[2].session.outbox
        assert third.kept[0] == 11
        # Its client has lost what it did not acknowledge, and gets all of it again.
        await clients[2].session.leave(clients[2].transport)
        clients[2].transport = FakeTransport()
        assert clients[2].session.resume(clients[2].transport, FORMAT, before[2] + 10)
        await settled()
        again = re.findall(rb'"tick","args":\[(\d+)\]', clients[2].transport.received)
        assert [int(number) for number in again] == [*range(20, 30), 10**14]


async def test_what_ends_while_all_hold_too_much_ends_once() -> None:
    limits = Limits(outbox_soft_messages=20, outbox_hard_messages=20, resume_window=1e6, outbox_soft_time=1e6)
    async with world(limits, [True, True]) as (instance, clients):
        await bring_together(instance, clients)
        backlog = instance.host.backlog
        for n in range(20):
            actor_of(instance, Room).tell("tick", n)
            await settled()
            clients[0].acknowledge()
        backlog._limit = backlog.bytes + 5
        actor_of(instance, Room).tell("tick", 10**14)
        await settled()
        assert [client.session.ended for client in clients] == [False, True]
        assert backlog.ended == 1
