"""Sleep: when an actor goes to sleep, what it leaves, who wakes it, and what its connections see of that."""

import math
from collections.abc import AsyncGenerator, Awaitable
from contextlib import asynccontextmanager
from functools import partial
from typing import ClassVar

import attrs
import pytest
import trio

from tests.runtime.support import REQUEST, actor_of, connected, settled
from trivet import Actor, Conn, Event, Limits, Options, PublicError, Registry, action
from trivet.raw import Request, Response
from trivet.runtime.host import Host, open_host
from trivet.runtime.instance import Instance
from trivet.runtime.lifecycle import TRANSITIONS, Lifecycle, Phase
from trivet.store import MemoryStore, Store


@attrs.define
class Counts:
    wakes: int = 0
    sleeps: int = 0
    value: int = 0
    left: list[str] = attrs.field(factory=list[str])


class Sleeper(Actor[Counts, dict[str, int]]):
    options = Options(sleep_after=10)
    changed = Event(int)
    sleeping = Event()
    alive: ClassVar[list["Sleeper"]] = []

    def __init__(self) -> None:
        self.variable = 0
        self.may_sleep = trio.Event()
        self.may_end = trio.Event()
        self.alive.append(self)

    def create_conn_state(self, params: object) -> dict[str, int]:
        return {"connects": 0}

    def on_connect(self, conn: Conn[dict[str, int]]) -> None:
        conn.state["connects"] += 1

    def on_disconnect(self, conn: Conn[dict[str, int]]) -> None:
        if conn.kind == "events":
            self.state.left.append(f"{conn.id} {conn.state['connects']} in life {self.state.wakes}")

    def on_wake(self) -> None:
        self.state.wakes += 1

    async def on_sleep(self) -> None:
        self.state.sleeps += 1
        self.broadcast(self.sleeping)
        if self.state.value < 0:
            await self.may_sleep.wait()

    def on_request(self, request: Request) -> Response:
        return Response(str(self.state.wakes))

    @action
    def counts(self) -> list[int]:
        return [self.state.wakes, self.state.sleeps]

    @action
    def left(self) -> list[str]:
        return self.state.left

    @action
    def set(self, value: int) -> int:
        self.state.value = value
        self.variable = value
        self.broadcast(self.changed, value)
        return value

    @action
    def both(self) -> list[int]:
        return [self.state.value, self.variable]

    @action
    def go_to_sleep(self) -> str:
        self.sleep()
        return "asking"

    @action
    def bump(self) -> int:
        self.conn.state["bumps"] = self.conn.state.get("bumps", 0) + 1
        return self.conn.state["bumps"]

    @action
    async def watch(self, seconds: float) -> None:
        self.start_soon(self._watch, seconds)

    async def _watch(self, seconds: float) -> None:
        with self.keep_awake():
            await trio.sleep(seconds)

    @action
    def finish_before_sleep(self, seconds: float) -> None:
        self.wait_until(self._finish, seconds)
        self.sleep()

    async def _finish(self, seconds: float) -> None:
        await trio.sleep(seconds)
        self.state.value = 7

    @action(concurrent=True)
    async def long(self, seconds: float) -> str:
        await trio.sleep(seconds)
        return "done"


class Busy(Actor):
    options = Options(sleep_after=10)

    async def run(self) -> None:
        await trio.sleep(25)


class Awake(Actor):
    options = Options(sleep_after=math.inf)


class Hasty(Actor[list[str]]):
    options = Options(shutdown_grace=4)

    def create_state(self, input: object) -> list[str]:
        return []

    @action(concurrent=True)
    async def long(self, seconds: float) -> None:
        self.state.append("begun")
        await trio.sleep(seconds)
        self.state.append("done")

    @action
    async def serial(self, seconds: float) -> None:
        await self.long(seconds)

    async def on_request(self, request: Request) -> Response:
        await self.long(20)
        return Response("")

    @action
    def history(self) -> list[str]:
        return self.state

    @action(concurrent=True)
    def go_to_sleep(self) -> None:
        self.sleep()


class Patient(Hasty):
    options = Options(shutdown_grace=100)


class Light(Actor[Counts]):
    options = Options(sleep_after=10, sleep_with_connections=True)
    tick = Event(int)

    def on_wake(self) -> None:
        self.state.wakes += 1

    @action
    def wakes(self) -> int:
        self.broadcast(self.tick, self.state.wakes)
        return self.state.wakes


REGISTRY = Registry(Sleeper, Busy, Awake, Light, Hasty, Patient)


@asynccontextmanager
async def hosting(store: Store | None = None, limits: Limits | None = None) -> AsyncGenerator[Host]:
    Sleeper.alive.clear()
    async with open_host(REGISTRY, limits, store=store) as host:
        yield host


async def sleeper(host: Host, name: str = "sleeper") -> Instance:
    return (await host.get_or_create("default", name, ("k",)))[0]


async def call(host: Host, name: str, *args: object) -> object:
    return await (await sleeper(host)).call(name, list(args), request=REQUEST)  # type: ignore[arg-type]


def test_every_phase_is_reached_and_leads_on() -> None:
    reached = {phase for following in TRANSITIONS.values() for phase in following}
    assert reached == set(Phase)
    assert [phase for phase in Phase if not TRANSITIONS[phase]] == [Phase.GONE]
    with pytest.raises(AssertionError, match="ASLEEP is not followed by RUNNING"):
        Lifecycle().move(Phase.RUNNING)


async def test_an_idle_actor_sleeps_and_the_next_request_wakes_it(autojump_clock: trio.abc.Clock) -> None:
    async with hosting() as host:
        instance = await sleeper(host)
        assert await call(host, "set", 5) == 5
        await trio.sleep(9.9)
        assert instance.phase is Phase.RUNNING
        await trio.sleep(0.2)
        assert host.statistics().actors == 0
        assert await call(host, "both") == [5, 0]
        assert await call(host, "counts") == [2, 1]
        assert (await sleeper(host)).actor_id == instance.actor_id
        assert len(Sleeper.alive) == 2


async def test_anything_that_is_asked_of_it_keeps_it_awake(autojump_clock: trio.abc.Clock) -> None:
    async with hosting() as host:
        for _ in range(5):
            await trio.sleep(8)
            assert await call(host, "counts") == [1, 0]
        assert await call(host, "long", 30) == "done"
        assert await call(host, "counts") == [1, 0]


async def test_what_keeps_it_awake_and_what_does_not(autojump_clock: trio.abc.Clock) -> None:
    async with hosting() as host:
        await call(host, "watch", 25)
        await trio.sleep(30)
        assert await call(host, "counts") == [1, 0]  # 25 s of watching, 10 s of rest are not over
        await trio.sleep(11)
        assert await call(host, "counts") == [2, 1]
        busy, awake = await sleeper(host, "busy"), await sleeper(host, "awake")
        await trio.sleep(24)
        assert not busy.ended.is_set()  # its `run` has not returned
        await trio.sleep(12)
        assert busy.ended.is_set()
        await trio.sleep(1000)
        assert awake.phase is Phase.RUNNING


async def test_a_connection_keeps_an_actor_awake(autojump_clock: trio.abc.Clock) -> None:
    async with hosting() as host:
        async with connected(await sleeper(host)) as peer:
            await trio.sleep(100)
            assert await peer.call("counts") == [1, 0]
        await trio.sleep(20)
        assert await call(host, "counts") == [2, 1]


async def test_connections_survive_sleep(autojump_clock: trio.abc.Clock) -> None:
    async with hosting() as host:
        instance = await sleeper(host)
        async with connected(instance) as peer, connected(instance) as other:
            for one in (peer, other):
                one.subscribe("changed")
                one.subscribe("sleeping")
            assert await peer.call("bump") == 1
            assert await peer.call("goToSleep") == "asking"
            await trio.sleep(1)
            assert instance.phase is Phase.ASLEEP
            assert len(instance.conns) == 2
            before = len(Sleeper.alive)
            assert await peer.call("bump") == 2
            assert len(Sleeper.alive) == before + 1
            assert await other.call("set", 3) == 3
            for one in (peer, other):
                assert one.events == [("sleeping", []), ("changed", [3])]
                assert sum(type(message).__name__ == "Init" for message in one.messages) == 1
            assert await peer.call("counts") == [2, 1]
            assert await peer.call("left") == []


async def test_an_actor_may_sleep_beside_its_connections(autojump_clock: trio.abc.Clock) -> None:
    async with hosting() as host:
        instance = await sleeper(host, "light")
        async with connected(instance) as peer:
            peer.subscribe("tick")
            await trio.sleep(15)
            assert instance.phase is Phase.ASLEEP
            assert await peer.call("wakes") == 2
            assert peer.events == [("tick", [2])]


async def test_a_sleeping_actor_with_many_connections_has_no_task_of_its_own(autojump_clock: trio.abc.Clock) -> None:
    async with hosting() as host:
        instance = await sleeper(host, "light")
        tasks = len(host._actors.child_tasks)
        async with trio.open_nursery() as nursery:

            async def connect() -> None:
                async with connected(instance):
                    await trio.sleep_forever()

            for _ in range(100):
                nursery.start_soon(connect)
            await trio.sleep(15)
            assert instance.phase is Phase.ASLEEP
            assert len(instance.conns) == 100
            assert len(host._actors.child_tasks) == tasks - 1
            assert len(host.tasks.child_tasks) == 3  # the host's own
            nursery.cancel_scope.cancel()


async def test_what_arrives_while_it_goes_to_sleep_is_answered_by_its_next_life(autojump_clock: trio.abc.Clock) -> None:
    async with hosting() as host:
        instance = await sleeper(host)
        async with connected(instance) as peer:
            await peer.call("set", -1)
            old = actor_of(instance, Sleeper)
            peer.act("goToSleep")
            await settled()
            assert instance.phase is Phase.CLOSING
            answers: list[object] = []

            async def ask() -> None:
                answers.append(await instance.call("counts", [], request=REQUEST))

            async def fetch() -> None:
                answers.append((await instance.fetch(REQUEST)).text())

            async def connect() -> None:
                async with connected(instance) as late:
                    answers.append(await late.call("counts"))

            async with trio.open_nursery() as nursery:
                for fn in (ask, fetch, connect):
                    nursery.start_soon(fn)
                waiting = peer.act("counts")
                await settled()
                assert answers == []
                old.may_sleep.set()
            assert peer.answer(waiting) == [2, 1]
            assert sorted(map(str, answers)) == ["2", "[2, 1]", "[2, 1]"]


async def test_a_client_that_leaves_during_sleep_does_not_wake_it(autojump_clock: trio.abc.Clock) -> None:
    async with hosting() as host:
        instance = await sleeper(host)
        async with connected(instance) as peer:
            conn_id = peer.session.conn.id
            await peer.call("goToSleep")
            await trio.sleep(1)
        await trio.sleep(100)
        assert instance.phase is Phase.ASLEEP
        assert len(instance.conns) == 0
        assert await call(host, "left") == [f"{conn_id} 1 in life 2"]
        assert await call(host, "left") == [f"{conn_id} 1 in life 2"]


async def test_work_that_sleep_waits_for(autojump_clock: trio.abc.Clock) -> None:
    async with hosting() as host:
        await call(host, "finishBeforeSleep", 5)
        began = trio.current_time()
        assert await call(host, "both") == [7, 0]
        assert trio.current_time() - began == pytest.approx(5)


async def test_sleep_takes_no_longer_than_the_grace(autojump_clock: trio.abc.Clock) -> None:
    async with hosting(limits=Limits(shutdown_grace=8, close_timeout=1)) as host:
        await call(host, "finishBeforeSleep", 100)
        began = trio.current_time()
        assert await call(host, "both") == [0, 0]
        assert trio.current_time() - began == pytest.approx(7)


async def error_of(awaitable: Awaitable[object], errors: list[str]) -> None:
    with pytest.raises(PublicError) as caught:
        await awaitable
    errors.append(f"{caught.value.group}.{caught.value.code}")


@pytest.mark.parametrize("way", ["long", "serial", "fetch"])
async def test_what_is_cut_off_is_answered_so_and_not_begun_again(way: str, autojump_clock: trio.abc.Clock) -> None:
    async with hosting(limits=Limits(close_timeout=1)) as host:
        instance = await sleeper(host, "hasty")
        errors: list[str] = []
        async with trio.open_nursery() as nursery:
            began = trio.current_time()
            asked = instance.fetch(REQUEST) if way == "fetch" else instance.call(way, [20], request=REQUEST)
            nursery.start_soon(error_of, asked, errors)
            await settled()
            await instance.call("goToSleep", [], request=REQUEST)
            assert await (await sleeper(host, "hasty")).call("history", [], request=REQUEST) == ["begun"]
            assert trio.current_time() - began == pytest.approx(3)
        assert errors == ["actor.shutdown_timeout"]
        assert trio.current_time() - began == pytest.approx(3)


async def test_an_actor_may_have_more_grace_than_the_server(autojump_clock: trio.abc.Clock) -> None:
    async with hosting(limits=Limits(shutdown_grace=8, close_timeout=1)) as host, trio.open_nursery() as nursery:
        instance = await sleeper(host, "patient")
        nursery.start_soon(partial(instance.call, "long", [50], request=REQUEST))
        await settled()
        await instance.call("goToSleep", [], request=REQUEST)
        assert await instance.call("history", [], request=REQUEST) == ["begun", "done"]


async def test_no_grace_is_longer_than_that_of_a_server_that_stops(autojump_clock: trio.abc.Clock) -> None:
    store = MemoryStore(durable=True)
    async with hosting(store, Limits(shutdown_grace=8, close_timeout=1)) as host, trio.open_nursery() as nursery:
        instances = [(await host.get_or_create("default", "patient", (key,)))[0] for key in ("tired", "awake")]
        errors: list[str] = []
        for instance in instances:
            nursery.start_soon(error_of, instance.call("long", [50], request=REQUEST), errors)
        await settled()
        await instances[0].call("goToSleep", [], request=REQUEST)
        began = trio.current_time()
        await host.stop()
        assert trio.current_time() - began == pytest.approx(7)
    for instance in instances:
        stored = await store.load(instance.actor_id)
        assert stored is not None
        assert stored.state == b'["begun"]'


async def test_connections_that_died_with_their_process_are_seen_off_at_the_next_wake() -> None:
    store = MemoryStore(durable=True)
    conn_ids: list[str] = []
    with trio.CancelScope() as process:
        async with hosting(store) as host:
            async with connected(await sleeper(host)) as peer:
                await peer.call("bump")
                conn_ids.append(peer.session.conn.id)
                process.cancel()
                await trio.lowlevel.checkpoint()
    async with hosting(store) as host:
        assert await call(host, "left") == [f"{conn_ids[0]} 1 in life 2"]
    async with hosting(store) as host:
        assert await call(host, "left") == [f"{conn_ids[0]} 1 in life 2"]


async def test_a_destroyed_actor_is_forgotten_and_its_key_is_free(autojump_clock: trio.abc.Clock) -> None:
    store = MemoryStore(durable=True)
    async with hosting(store) as host:
        instance = await sleeper(host)
        await call(host, "set", 4)
        await trio.sleep(20)
        found = await host.by_id(instance.actor_id)
        assert found is not instance
        await found.destroy()
        with pytest.raises(PublicError, match=r"actor\.not_found"):
            await host.by_id(instance.actor_id)
        assert await store.find_id(instance.actor_id) is None
        again = await sleeper(host)
        assert again.actor_id != instance.actor_id
        assert await call(host, "both") == [0, 0]


async def test_an_old_handle_reaches_the_actor_that_has_slept(autojump_clock: trio.abc.Clock) -> None:
    async with hosting() as host:
        instance = await sleeper(host)
        await trio.sleep(20)
        assert instance.phase is Phase.GONE
        assert await instance.call("counts", [], request=REQUEST) == [2, 1]
        assert (await instance.fetch(REQUEST)).text() == "2"
        assert len(Sleeper.alive) == 2


async def test_many_requests_at_once_wake_it_once(autojump_clock: trio.abc.Clock) -> None:
    async with hosting() as host:
        await sleeper(host)
        await trio.sleep(20)
        results: list[object] = []

        async def ask() -> None:
            results.append(await call(host, "counts"))

        async with trio.open_nursery() as nursery:
            for _ in range(50):
                nursery.start_soon(ask)
        assert results == [[2, 1]] * 50


async def test_a_stop_of_the_host_says_goodbye_to_those_whose_actor_sleeps(autojump_clock: trio.abc.Clock) -> None:
    async with hosting() as host:
        instance = await sleeper(host, "light")
        async with connected(instance) as peer:
            await trio.sleep(15)
            assert instance.phase is Phase.ASLEEP
            await host.stop()
            assert peer.closed_with == "1001 ws.going_away"
        with pytest.raises(PublicError, match=r"actor\.stopping"):
            await sleeper(host, "light")
