"""Durability: what is saved when, and that nobody sees what a crash could undo."""

import contextlib
import json
import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, ClassVar

import attrs
import pytest
import trio

from tests.runtime.support import FORMAT, REQUEST, FakeTransport, actor_of, connected, settled
from trivet import Actor, Conn, Event, Limits, Options, PublicError, Registry, UserError, action
from trivet.raw import Request, Response
from trivet.runtime import ending
from trivet.runtime.host import Host, open_host
from trivet.runtime.instance import Instance
from trivet.runtime.lifecycle import Phase
from trivet.store import MemoryStore, Store
from trivet.testing.store import FaultyStore


@attrs.define
class Sum:
    value: int = 0
    text: str = ""


class Counter(Actor[Sum]):
    options = Options(durability="gated")
    added = Event(int)
    typing = Event(str, gated=False)
    lives: ClassVar[list["Counter"]] = []

    def __init__(self) -> None:
        self.lives.append(self)
        self.go_on = trio.Event()

    def on_connect(self, conn: Conn) -> None:
        self.state.text += "c"

    @action
    def add(self, n: int) -> int:
        self.state.value += n
        self.broadcast(self.added, self.state.value)
        return self.state.value

    @action(concurrent=True)
    def add_beside(self, n: int) -> int:
        return self.add(n)

    @action
    def peek(self) -> int:
        return self.state.value

    @action
    def type(self, who: str) -> int:
        return self.broadcast(self.typing, who).recipients

    @action(readonly=True)
    def look(self) -> int:
        return self.state.value

    @action
    async def add_in_two_steps(self) -> int:
        self.state.value += 1
        self.broadcast(self.added, self.state.value)
        await self.go_on.wait()
        self.state.value += 1
        return self.state.value

    @action
    async def add_and_save(self) -> None:
        self.state.value += 1
        await self.save()
        self.state.text = "saved"

    @action
    def fail(self) -> None:
        self.state.value += 1
        raise RuntimeError("after the change")

    @action
    def kick(self, n: int) -> int:
        for conn in self.conns.values():
            if conn is not self.conn:
                conn.disconnect("kicked")
        return self.add(n)

    @action
    def spoil(self) -> None:
        self.state.value = "not an int"  # type: ignore[assignment]  # pyright: ignore[reportAttributeAccessIssue]

    @action
    def flood(self, size: int) -> None:
        self.state.value += 1
        for _ in range(100):
            self.broadcast("noise", "x" * size)

    def on_request(self, request: Request) -> Response:
        self.state.value += 1
        return Response(str(self.state.value))

    @action
    async def ask_other(self) -> int:
        self.state.value += 1
        answer: int = await self.client().get_or_create(Other, "o").call(Other.note)
        return answer


class Polite(Actor[Sum]):
    lives: ClassVar[list["Polite"]] = []

    def __init__(self) -> None:
        self.lives.append(self)
        self.go_on = trio.Event()

    async def on_disconnect(self, conn: Conn) -> None:
        await self.go_on.wait()
        self.state.text += "d"

    @action(concurrent=True)
    def add_beside(self, n: int) -> int:
        self.state.value += n
        if n == 0:
            raise UserError("nothing to add")
        return self.state.value


class Other(Actor[Sum]):
    options = Options(durability="none")
    notes: ClassVar[int] = 0

    @action
    def note(self) -> int:
        Other.notes += 1
        self.state.value += 1
        return Other.notes


class Relaxed(Counter):
    name = "relaxed"
    options = Options(durability="interval")


class Carefree(Counter):
    name = "carefree"
    options = Options(durability="none")

    @action
    def nap(self) -> None:
        self.sleep()


REGISTRY = Registry(Counter, Other, Relaxed, Carefree, Polite)


@asynccontextmanager
async def hosting(store: Store, limits: Limits | None = None) -> AsyncGenerator[Host]:
    async with open_host(REGISTRY, limits, store=store) as host:
        yield host


async def counter(host: Host, name: str = "counter") -> Instance:
    return (await host.get_or_create("default", name, ("k",)))[0]


async def stored(store: Store, instance: Instance) -> dict[str, Any]:
    found = await store.load(instance.actor_id)
    assert found is not None
    assert found.state is not None
    state: dict[str, Any] = json.loads(found.state)
    return state


def faulty() -> FaultyStore:
    return FaultyStore(MemoryStore(durable=True))


async def test_nothing_is_seen_before_it_is_saved() -> None:
    store = faulty()
    async with hosting(store) as host:
        instance = await counter(host)
        async with connected(instance) as peer, connected(instance) as other:
            other.subscribe("added")
            await settled()
            store.hold()
            first = peer.act("add", 1)
            second = peer.act("add", 2)
            await settled()
            assert instance.state.value.value == 3
            assert other.events == []
            for call in (first, second):
                with pytest.raises(LookupError):
                    peer.answer(call)
            store.release()
            await settled()
            assert other.events == [("added", [1]), ("added", [3])]
            assert (peer.answer(first), peer.answer(second)) == (1, 3)
            assert (await stored(store, instance))["value"] == 3


async def test_one_commit_serves_all_that_gathers_meanwhile() -> None:
    store = faulty()
    async with hosting(store) as host:
        instance = await counter(host)
        async with connected(instance) as peer:
            await peer.call("peek")
            before = store.changes
            store.hold()
            for n in range(50):
                peer.act("add", n)
            await settled()
            store.release()
            await settled()
            assert store.changes - before <= 2
            assert len(peer.messages) == 1 + 1 + 50


async def test_what_changes_nothing_waits_for_no_commit() -> None:
    store = faulty()
    async with hosting(store) as host:
        async with connected(await counter(host)) as peer:
            await peer.call("add", 1)
            before = store.changes
            store.hold()
            assert await peer.call("peek") == 1
            assert await peer.call("look") == 1
            assert store.changes == before
            store.release()


async def test_a_reader_waits_for_the_change_that_it_has_seen() -> None:
    store = faulty()
    async with hosting(store) as host:
        instance = await counter(host)
        async with connected(instance) as writer, connected(instance) as reader:
            await reader.call("peek")
            store.hold()
            writer.act("add", 1)
            look = reader.act("look")
            await settled()
            with pytest.raises(LookupError):
                reader.answer(look)
            store.release()
            await settled()
            assert reader.answer(look) == 1


@pytest.mark.parametrize("way", ["call", "concurrent call", "fetch", "init"])
async def test_every_way_out_is_gated(way: str) -> None:
    store = faulty()
    async with hosting(store) as host:
        instance = await counter(host)
        store.hold()
        out: list[object] = []

        async def use() -> None:
            if way == "call":
                out.append(await instance.call("add", [1], request=REQUEST))
            elif way == "concurrent call":
                out.append(await instance.call("addBeside", [1], request=REQUEST))
            elif way == "fetch":
                out.append((await instance.fetch(REQUEST)).text())
            else:
                async with connected(instance) as peer:
                    out.append(len(peer.messages))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(use)
            await settled()
            assert out == []
            store.release()
        assert out == [{"call": 1, "concurrent call": 1, "fetch": "1", "init": 1}[way]]


async def test_an_event_that_is_not_gated_waits_for_no_commit_and_overtakes_nothing() -> None:
    store = faulty()
    async with hosting(store) as host:
        instance = await counter(host)
        async with connected(instance) as writer, connected(instance) as reader, connected(instance) as idler:
            for peer in (reader, idler):
                peer.subscribe("typing")
            reader.subscribe("added")
            await writer.call("peek")
            store.hold()
            writer.act("add", 1)
            typed = writer.act("type", "ann")
            await settled()
            assert idler.events == [("typing", ["ann"])]
            assert reader.events == []
            writer.act("add", 2)
            store.release()
            await settled()
            assert idler.events == [("typing", ["ann"])]
            assert reader.events == [("added", [1]), ("typing", ["ann"]), ("added", [3])]
            assert writer.answer(typed) == 2
            assert await writer.call("type", "bob") == 2
            assert reader.events[3:] == idler.events[1:] == [("typing", ["bob"])]


async def test_a_call_of_another_actor_waits_too() -> None:
    store = faulty()
    async with hosting(store) as host:
        instance = await counter(host)
        await host.get_or_create("default", "other", ("o",))
        Other.notes = 0
        async with connected(instance) as peer:
            store.hold()
            call = peer.act("askOther")
            await settled()
            assert Other.notes == 0
            store.release()
            await settled()
            assert peer.answer(call) == 1


async def test_a_snapshot_may_be_taken_in_the_middle_of_an_action() -> None:
    store = faulty()
    async with hosting(store) as host:
        instance = await counter(host)
        async with connected(instance) as peer:
            peer.subscribe("added")
            call = peer.act("addInTwoSteps")
            await settled()
            assert peer.events == [("added", [1])]
            assert (await stored(store, instance))["value"] == 1
            actor_of(instance, Counter).go_on.set()
            await settled()
            assert peer.answer(call) == 2
            assert (await stored(store, instance))["value"] == 2


async def test_save_waits_for_the_commit() -> None:
    store = faulty()
    for name in ("counter", "relaxed", "carefree"):
        async with hosting(store) as host:
            instance = await counter(host, name)
            store.hold()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(partial(instance.call, "addAndSave", [], request=REQUEST))
                await settled()
                assert instance.state.value.text != "saved"
                store.release()
                await settled()
                assert (await stored(store, instance))["value"] == 1
                assert instance.state.value.text == "saved"


async def test_an_action_that_raises_keeps_its_changes_and_its_error_waits_for_them() -> None:
    store = faulty()
    async with hosting(store) as host:
        instance = await counter(host)
        async with connected(instance) as peer:
            await peer.call("peek")
            store.hold()
            call = peer.act("fail")
            await settled()
            with pytest.raises(LookupError):
                peer.answer(call)
            store.release()
            await settled()
            assert peer.answer(call).code == "internal_error"
            assert (await stored(store, instance))["value"] == 1


async def test_a_failed_commit_undoes_what_nobody_has_seen(caplog: pytest.LogCaptureFixture) -> None:
    store = faulty()
    async with hosting(store) as host:
        instance = await counter(host)
        async with connected(instance) as peer, connected(instance) as other:
            other.subscribe("added")
            assert await peer.call("add", 1) == 1
            store.fail()
            call = peer.act("add", 10)
            with pytest.raises(PublicError, match=r"actor\.save_failed"):
                await instance.call("add", [100], request=REQUEST)
            await settled()
            assert peer.answer(call).code == "save_failed"
            assert other.events == [("added", [1])]
            assert peer.closed_with == other.closed_with == "1012 actor.restarting"
        assert "no room on the disk" in caplog.text
        again = await counter(host)
        assert await again.call("peek", [], request=REQUEST) == 1


@pytest.mark.parametrize(("n", "answer"), [(1, 1), (0, "user.user_error")])
@pytest.mark.parametrize("fails", [False, True], ids=["", "and fails"])
async def test_the_answer_of_a_concurrent_action_waits_for_on_disconnect_and_not_for_what_that_saves(
    n: int, answer: object, fails: bool
) -> None:
    Polite.lives.clear()
    answers: list[object] = []
    store = faulty()

    async def call(instance: Instance) -> None:
        try:
            answers.append(await instance.call("addBeside", [n], request=REQUEST))
        except PublicError as error:
            answers.append(f"{error.group}.{error.code}")

    async with hosting(store) as host, trio.open_nursery() as nursery:
        instance = await counter(host, "polite")
        nursery.start_soon(call, instance)
        await settled()
        assert (await stored(store, instance))["value"] == n
        assert answers == []
        store.fail(int(fails))
        Polite.lives[0].go_on.set()
        await settled()
        assert answers == [answer]
        with pytest.raises(PublicError, match="save_failed") if fails else contextlib.nullcontext():
            await instance.save()
        assert (await stored(store, instance)) == {"value": n, "text": "" if fails else "d"}


async def test_a_commit_whose_answer_is_lost_is_not_taken_for_saved(caplog: pytest.LogCaptureFixture) -> None:
    store = faulty()
    async with hosting(store) as host:
        instance = await counter(host)
        store.fail(after=True)
        with pytest.raises(PublicError, match=r"actor\.save_failed"):
            await instance.call("add", [1], request=REQUEST)
        assert await (await counter(host)).call("peek", [], request=REQUEST) == 1  # what is stored counts


async def test_a_state_that_is_not_of_its_type_is_never_saved(caplog: pytest.LogCaptureFixture) -> None:
    store = faulty()
    async with hosting(store) as host:
        instance = await counter(host)
        await instance.call("add", [3], request=REQUEST)
        with pytest.raises(PublicError, match=r"actor\.save_failed"):
            await instance.call("spoil", [], request=REQUEST)
        assert "expected int, got str" in caplog.text
        assert await (await counter(host)).call("peek", [], request=REQUEST) == 3


async def test_what_waits_for_the_store_is_bounded() -> None:
    store = faulty()
    async with hosting(store, Limits(held_bytes=100_000)) as host:
        instance = await counter(host)
        async with connected(instance) as peer:
            peer.subscribe("noise")
            await peer.call("peek")
            store.hold()
            call = peer.act("flood", 10_000)
            await settled()
            store.release()
            await settled()
            assert peer.answer(call).code == "overloaded"
            assert 5 < len(peer.events) < 11


async def test_interval_saves_within_a_second(autojump_clock: trio.abc.Clock) -> None:
    store = faulty()
    async with hosting(store) as host:
        instance = await counter(host, "relaxed")
        async with connected(instance) as peer:
            peer.subscribe("added")
            store.hold()
            assert await peer.call("add", 1) == 1
            assert peer.events == [("added", [1])]
            store.release()
            await trio.sleep(1.1)
            assert (await stored(store, instance))["value"] == 1


async def test_none_saves_at_sleep_alone(autojump_clock: trio.abc.Clock) -> None:
    store = faulty()
    async with hosting(store) as host:
        instance = await counter(host, "carefree")
        await instance.call("add", [5], request=REQUEST)
        await trio.sleep(5)
        assert (await stored(store, instance))["value"] == 0
        await instance.call("nap", [], request=REQUEST)
        await trio.sleep(5)
        assert (await stored(store, instance))["value"] == 5


async def test_a_stop_saves_and_a_kill_does_not() -> None:
    store = MemoryStore(durable=True)
    async with hosting(store) as host:
        instance = await counter(host, "carefree")
        await instance.call("add", [5], request=REQUEST)
    assert (await stored(store, instance))["value"] == 5
    with trio.CancelScope() as process:
        async with hosting(store) as host:
            again = await counter(host, "carefree")
            assert await again.call("add", [5], request=REQUEST) == 10
            process.cancel()
            await trio.lowlevel.checkpoint()
    assert (await stored(store, instance))["value"] == 5


@pytest.mark.parametrize("crash_at", range(1, 9))
async def test_after_a_crash_at_any_commit_nothing_is_missing_that_a_client_saw(crash_at: int) -> None:
    store = faulty()
    seen: list[int] = []
    with trio.CancelScope() as process:
        async with hosting(store) as host:
            instance = await counter(host)
            async with connected(instance) as peer:
                peer.subscribe("added")
                for n in range(1, 20):
                    if store.changes >= crash_at:
                        store.hold()
                    peer.act("add", 1)
                    await settled()
                    seen = [args[0] for _, args in peer.events]
                    if n > 12:
                        process.cancel()
                        await trio.lowlevel.checkpoint()
    store.crash()
    async with hosting(store.reopened()) as host:
        remembered = await (await counter(host)).call("peek", [], request=REQUEST)
        assert isinstance(remembered, int)
        assert seen == list(range(1, len(seen) + 1))
        assert remembered >= len(seen)


async def test_a_life_that_cannot_be_saved_at_its_end_is_said_so(
    autojump_clock: trio.abc.Clock, caplog: pytest.LogCaptureFixture
) -> None:
    store = faulty()
    async with hosting(store) as host:
        instance = await counter(host, "carefree")
        await instance.call("add", [5], request=REQUEST)
        store.fail()
        with caplog.at_level(logging.ERROR):
            await instance.sleep()
        assert "could not be saved at its end: no room on the disk" in caplog.text
        assert instance.phase is Phase.GONE
        assert await (await counter(host, "carefree")).call("peek", [], request=REQUEST) == 0


@pytest.mark.parametrize("kicks", [False, True])
async def test_connections_are_told_of_a_restart_that_comes_with_a_turn(kicks: bool) -> None:
    """Then what ends them, as everything in that turn, is never saved."""
    store = faulty()
    async with hosting(store) as host:
        instance = await counter(host)
        async with connected(instance) as peer, connected(instance) as other:
            await settled()
            call = peer.act("kick" if kicks else "add", 1)
            ending.restart(instance)
            await settled()
            assert peer.answer(call).code == "save_failed"
            assert peer.closed_with == other.closed_with == "1012 actor.restarting"
            assert instance.phase is Phase.GONE
        assert await (await counter(host)).call("peek", [], request=REQUEST) == 0


@pytest.mark.parametrize("fails", [False, True])
async def test_who_is_away_learns_how_it_ended_once_that_is_saved(fails: bool) -> None:
    """And what is done to its connection after its end changes nothing."""
    store = faulty()
    async with hosting(store) as host:
        instance = await counter(host)
        transport = FakeTransport()
        async with instance.open_session(transport, FORMAT, params=None, request=REQUEST, extended=True) as session:
            await settled()
        store.hold()
        async with connected(instance, admitted=False) as peer:
            peer.act("kick", 1)
            await settled()
            assert session.farewell == (1012, "actor.restarting")
            if fails:
                store.fail()
            store.release()
            await settled()
            expected = (1012, "actor.restarting") if fails else (1000, "kicked")
            assert session.farewell == expected
            session.conn.disconnect("once more")
            await settled()
            assert session.farewell == expected


async def test_an_actor_that_cannot_be_kept_does_not_come_to_be(caplog: pytest.LogCaptureFixture) -> None:
    store = faulty()
    async with hosting(store) as host:
        store.fail()
        with pytest.raises(PublicError, match="internal_error"):
            await counter(host)
        assert await (await counter(host)).call("peek", [], request=REQUEST) == 0
