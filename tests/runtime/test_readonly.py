"""Actions that promise to change nothing: nobody looks for a change, and what they tell is saved all the same."""

import itertools
import json
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any, ClassVar

import attrs
import pytest
import trio

from tests.runtime.support import REQUEST, Peer, connected, settled
from trivet import Actor, Conn, Event, Options, Registry, action
from trivet.raw import Request, Response
from trivet.runtime.host import Host, open_host
from trivet.runtime.instance import Instance
from trivet.runtime.state import State
from trivet.store import Changes, MemoryStore
from trivet.testing.store import FaultyStore


@attrs.define
class Sum:
    value: int = 0
    parts: list[int] = attrs.field(factory=list[int])


class Summing(Actor[Sum]):
    options = Options(durability="gated")

    @action(readonly=True)
    def look(self) -> int:
        return self.state.value

    @action(readonly=True, concurrent=True)
    async def look_beside(self) -> int:
        await trio.lowlevel.checkpoint()
        return self.state.value

    @action
    def add(self) -> int:
        self.state.value += 1
        return self.state.value


class Ways(Summing):
    """All code that may change the state beside an action of its own. It goes on when the test lets it."""

    name = "ways"
    asked = Event(int)
    go_on: ClassVar[trio.Event]
    application: ClassVar[trio.Nursery]
    kept: ClassVar[list[Callable[[], None]]]

    def add_one(self) -> None:
        self.state.value += 1

    async def work(self) -> None:
        await self.go_on.wait()
        self.add_one()

    async def work_with_what_it_has(self) -> None:
        state = self.state
        await self.go_on.wait()
        state.value += 1

    async def work_and_save(self) -> None:
        await self.work_with_what_it_has()
        await self.save()

    async def work_in_turn(self) -> None:
        async with self.turn():
            await self.work_with_what_it_has()

    async def work_awake(self) -> None:
        with self.keep_awake():
            await self.work_with_what_it_has()

    @action
    def begin(self, way: str) -> None:
        match way:
            case "background":
                self.start_soon(self.work_with_what_it_has)
            case "wait_until":
                self.wait_until(self.work_with_what_it_has)
            case "turn":
                self.start_soon(self.work_in_turn)
            case "keep_awake":
                self.application.start_soon(self.work_awake)
            case "a task of the application's that saves it":
                self.application.start_soon(self.work_and_save)
            case "a task of the application's":
                self.application.start_soon(self.work)
            case "a function that the application has":
                self.kept.append(self.add_one)
            case _:
                raise AssertionError(way)

    @action(readonly=True)
    def leave_behind(self) -> None:
        self.application.start_soon(self.work)

    @action
    async def slowly(self) -> None:
        await self.work_with_what_it_has()

    @action(concurrent=True)
    async def beside(self) -> None:
        await self.work_with_what_it_has()

    async def on_request(self, request: Request) -> Response:
        await self.work_with_what_it_has()
        return Response()

    @asked.can_subscribe
    async def may_ask(self, conn: Conn) -> bool:
        await self.work_with_what_it_has()
        return True


class Planning(Actor[Sum, dict[str, int]]):
    """What is saved beside the state."""

    options = Options(durability="gated")
    go_on: ClassVar[trio.Event]

    def create_conn_state(self, params: object) -> dict[str, int]:
        return {"marks": 0}

    def on_disconnect(self, conn: Conn[dict[str, int]]) -> None: ...

    @action(readonly=True)
    def plan(self) -> None:
        self.schedule.after(60, Planning.plan)

    @action
    def mark(self) -> None:
        self.conn.state["marks"] += 1

    @action(concurrent=True)
    async def mark_beside(self) -> None:
        self.mark()

    @action(concurrent=True)
    async def mark_slowly(self) -> None:
        await self.go_on.wait()
        self.mark()

    @action(readonly=True)
    def marks(self) -> int:
        return self.conn.state["marks"]


class Greeting(Summing):
    name = "greeting"

    def on_connect(self, conn: Conn) -> None:
        if conn.kind == "call":
            self.state.value += 1


class Checking(Summing):
    name = "checking"
    options = Options(durability="gated", sleep_with_connections=True)
    go_on: ClassVar[trio.Event]
    and_on: ClassVar[trio.Event]

    async def on_before_connect(self, params: Any) -> None:
        if params == "slowly":
            await self.go_on.wait()
            state = self.state
            await self.and_on.wait()
            state.value += 1
            await trio.sleep_forever()


class Waker(Summing):
    name = "waker"

    def on_wake(self) -> None:
        self.state.value += 1


class Migrating(Summing):
    name = "migrating"

    def on_migrate(self, is_new: bool) -> None:
        if self.stored is not None and self.stored.value is not None:
            self.stored.value["value"] += 1


class Answering(Summing):
    name = "answering"

    def on_before_action_response(self, name: str, args: list[Any], output: Any) -> Any:
        self.state.value += 1
        return self.state.value


def _numbers() -> Iterator[int]:
    return itertools.count(1)


@attrs.define
class Made:
    """What is not stored is made up anew by each life."""

    numbers: ClassVar[Iterator[int]]
    value: int = attrs.field(factory=lambda: next(Made.numbers))


class Making(Actor[Made]):
    options = Options(durability="gated")

    @action(readonly=True)
    def look(self) -> int:
        return self.state.value


REGISTRY = Registry(Summing, Ways, Planning, Greeting, Checking, Waker, Migrating, Answering, Making)


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[State]:
    """Of which state anybody has looked for a change."""
    looked: list[State] = []
    encode = State.encode

    def encode_and_note(self: State) -> bytes | None:
        looked.append(self)
        return encode(self)

    monkeypatch.setattr(State, "encode", encode_and_note)
    return looked


async def the(name: str, host: Host) -> Instance:
    return (await host.get_or_create("default", name, ("k",)))[0]


async def test_nobody_looks_for_a_change(looks: list[State]) -> None:
    async with open_host(REGISTRY, store=MemoryStore(durable=True)) as host:
        instance = await the("summing", host)
        assert await instance.call("add", [], request=REQUEST) == 1
        async with connected(instance) as peer:
            await settled()
            looks.clear()
            assert [await instance.call("look", [], request=REQUEST), await peer.call("look")] == [1, 1]
            assert await instance.call("lookBeside", [], request=REQUEST) == 1
            assert looks == []
            assert await peer.call("add") == 2
            assert len(looks) == 1
            assert await peer.call("look") == 2
            assert len(looks) == 1


async def test_nor_in_a_life_that_has_only_just_begun(looks: list[State]) -> None:
    async with open_host(REGISTRY, store=MemoryStore(durable=True)) as host:
        await (await the("summing", host)).sleep()
        looks.clear()
        assert await (await the("summing", host)).call("look", [], request=REQUEST) == 0
        assert looks == []


class Looker:
    """A client that looks, of an actor whose store keeps nothing from now on until it is asked to."""

    def __init__(self, store: FaultyStore, instance: Instance, peer: Peer) -> None:
        self.instance = instance
        self._store = store
        self._peer = peer

    async def sees_nothing_new(self) -> None:
        """And from now on nobody has reason to look for a change, as far as is known."""
        assert await self._peer.call("look") == 0

    def hold(self) -> None:
        """From now on nothing is stored."""
        self._store.hold()

    async def is_told_what_is_saved(self) -> None:
        """Of a change: not before it is stored."""
        call = self._peer.act("look")
        await settled()
        with pytest.raises(LookupError):
            self._peer.answer(call)
        self._store.release()
        await settled()
        assert self._peer.answer(call) == 1
        await self.finds_stored(1)

    async def finds_stored(self, value: int) -> None:
        stored = await self._store.inner.load(self.instance.actor_id)
        assert stored is not None
        assert json.loads(stored.state or b"{}")["value"] == value


@asynccontextmanager
async def looking(name: str) -> AsyncGenerator[Looker]:
    store = FaultyStore(MemoryStore(durable=True))
    async with open_host(REGISTRY, store=store) as host:
        instance = await the(name, host)
        async with connected(instance) as peer:
            await settled()
            looker = Looker(store, instance, peer)
            if name != "answering":
                await looker.sees_nothing_new()
            yield looker


@pytest.mark.parametrize(
    "way",
    [
        "background",
        "wait_until",
        "turn",
        "keep_awake",
        "a task of the application's",
        "a task of the application's that saves it",
        "a function that the application has",
        "slowly",
        "beside",
        "leaveBehind",
        "a request",
        "can_subscribe",
    ],
)
@pytest.mark.parametrize("between", [False, True])
async def test_what_other_code_has_changed_is_saved_first(
    way: str, between: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`between`: somebody has looked while that code ran, and nothing had changed yet."""
    monkeypatch.setattr(Ways, "go_on", trio.Event(), raising=False)
    monkeypatch.setattr(Ways, "kept", [], raising=False)
    async with trio.open_nursery() as application, looking("ways") as looker:
        monkeypatch.setattr(Ways, "application", application, raising=False)
        instance = looker.instance
        async with connected(instance) as other:
            await settled()
            await looker.sees_nothing_new()
            if way in ("slowly", "beside", "leaveBehind"):
                other.act(way)
            elif way == "a request":
                application.start_soon(instance.fetch, REQUEST)
            elif way == "can_subscribe":
                other.subscribe("asked")
            else:
                other.act("begin", way)
            await settled()
            if between and way not in ("slowly", "turn"):  # which have the turn
                await looker.sees_nothing_new()
            looker.hold()
            Ways.go_on.set()
            for function in Ways.kept:
                function()
            await settled()
            await looker.is_told_what_is_saved()


async def test_what_a_reader_has_planned_is_saved_before_its_answer() -> None:
    store = MemoryStore(durable=True)
    async with open_host(REGISTRY, store=store) as host:
        instance = await the("planning", host)
        async with connected(instance) as peer:
            await settled()
            for number in (1, 2):
                await peer.call("plan")
                stored = await store.load(instance.actor_id)
                assert stored is not None
                assert len(stored.schedules) == number


@pytest.mark.parametrize("way", ["mark", "markBeside"])
async def test_what_has_changed_of_a_connection_is_saved_first(way: str) -> None:
    store = FaultyStore(MemoryStore(durable=True))
    async with open_host(REGISTRY, store=store) as host:
        instance = await the("planning", host)
        async with connected(instance) as peer:
            await settled()
            store.hold()
            peer.act(way)
            await settled()
            call = peer.act("marks")
            await settled()
            with pytest.raises(LookupError):
                peer.answer(call)
            store.release()
            await settled()
            assert peer.answer(call) == 1
            stored = await store.inner.load(instance.actor_id)
            assert stored is not None
            [row] = stored.connections.values()
            assert json.loads(row)["state"] == {"marks": 1}


async def test_a_connection_that_has_left_is_not_kept_by_what_it_has_called(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Planning, "go_on", trio.Event(), raising=False)
    store = MemoryStore(durable=True)
    async with open_host(REGISTRY, store=store) as host:
        instance = await the("planning", host)
        async with connected(instance) as peer:
            peer.act("markSlowly")
            await settled()
        await settled()
        Planning.go_on.set()
        await settled()
        await instance.save()
        stored = await store.load(instance.actor_id)
        assert stored is not None
        assert stored.connections == {}


async def test_what_a_hook_has_changed_for_a_call_is_saved_before_its_answer() -> None:
    async with looking("greeting") as looker:
        assert await looker.instance.call("look", [], request=REQUEST) == 1
        await looker.finds_stored(1)


async def test_what_is_changed_as_an_answer_is_made_is_saved_before_it() -> None:
    async with looking("answering") as looker:
        for number in (1, 2):
            assert await looker.instance.call("look", [], request=REQUEST) == number
            await looker.finds_stored(number)


async def test_code_that_runs_on_into_the_next_life_is_not_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    for event in ("go_on", "and_on"):
        monkeypatch.setattr(Checking, event, trio.Event(), raising=False)
    async with trio.open_nursery() as nursery, looking("checking") as looker:

        async def connect_slowly() -> None:
            async with connected(looker.instance, params="slowly"):
                await trio.sleep_forever()

        nursery.start_soon(connect_slowly)
        await settled()
        await looker.instance.sleep()
        await looker.sees_nothing_new()
        Checking.go_on.set()
        await settled()
        await looker.sees_nothing_new()
        looker.hold()
        Checking.and_on.set()
        await settled()
        await looker.is_told_what_is_saved()
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(("name", "value"), [("waker", 2), ("migrating", 1)])
async def test_what_a_start_has_changed_is_saved_first(name: str, value: int) -> None:
    store = FaultyStore(MemoryStore(durable=True))
    async with open_host(REGISTRY, store=store) as host:
        await (await the(name, host)).sleep()
        store.hold()
        instance, answers = await the(name, host), list[Any]()

        async def look() -> None:
            answers.append(await instance.call("look", [], request=REQUEST))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(look)
            await settled()
            assert answers == []
            store.release()
        assert answers == [value]


async def test_what_was_made_up_as_the_state_was_loaded_is_saved_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Made, "numbers", _numbers(), raising=False)
    store = FaultyStore(MemoryStore(durable=True))
    async with open_host(REGISTRY, store=store) as host:
        instance = await the("making", host)
        await instance.sleep()
        await store.commit(instance.actor_id, 1, Changes(b"{}", 1))  # as an earlier class has stored it
    seen: list[Any] = []
    for _ in range(2):
        with trio.CancelScope() as process:
            async with open_host(REGISTRY, store=store) as host:
                seen.append(await (await the("making", host)).call("look", [], request=REQUEST))
                process.cancel()
                await trio.lowlevel.checkpoint()
    assert seen[0] == seen[1] > 1
