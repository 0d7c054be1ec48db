"""Actions that promise to change nothing: nobody looks for a change, and what they tell is saved all the same."""

import itertools
import json
from collections.abc import Iterator
from typing import Any, ClassVar

import attrs
import pytest
import trio

from tests.runtime.support import REQUEST, connected, settled
from trivet import Actor, Options, Registry, action
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
    """All that may change the state beside the actions of others."""

    name = "ways"
    go_on: ClassVar[trio.Event]

    def on_connect(self, conn: object) -> None:
        if self.request.url.endswith("on_connect"):
            self.state.value += 1

    def on_request(self, request: Request) -> Response:
        self.state.value += 1
        return Response()

    @action
    def begin(self, way: str) -> None:
        getattr(self, f"start_{way}")()

    async def _work(self) -> None:
        await self.go_on.wait()
        self.state.value += 1

    async def _work_in_turn(self) -> None:
        async with self.turn():
            await self._work()

    async def _work_awake(self) -> None:
        with self.keep_awake():
            await self._work()

    def start_background(self) -> None:
        self.start_soon(self._work)

    def start_wait_until(self) -> None:
        self.wait_until(self._work)

    def start_turn(self) -> None:
        self.start_soon(self._work_in_turn)

    def start_keep_awake(self) -> None:
        self.start_soon(self._work_awake)


class Waker(Summing):
    name = "waker"

    def on_wake(self) -> None:
        self.state.value += 1


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


REGISTRY = Registry(Summing, Ways, Waker, Answering, Making)


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


async def look(instance: Instance, url: str = "x") -> Any:
    return await instance.call("look", [], request=Request("POST", url))


async def test_nobody_looks_for_a_change(looks: list[State]) -> None:
    async with open_host(REGISTRY, store=MemoryStore(durable=True)) as host:
        instance = await the("summing", host)
        assert await instance.call("add", [], request=REQUEST) == 1
        await settled()
        async with connected(instance) as peer:
            await settled()
            looks.clear()
            assert [await look(instance), await peer.call("look")] == [1, 1]
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
        assert await look(await the("summing", host)) == 0
        assert looks == []


async def seen_and_remembered(store: FaultyStore, host: Host, url: str = "x", name: str = "ways") -> tuple[Any, Any]:
    """What one who looks is told, if nothing can be saved from now on, and what is stored then."""
    answers: list[Any] = []
    instance = await the(name, host)

    async def ask() -> None:
        answers.append(await look(instance, url))

    store.hold()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        await settled()
        early = list(answers)
        store.release()
    assert early in ([], answers)
    stored = await store.inner.load(instance.actor_id)
    assert stored is not None
    remembered = json.loads(stored.state or b"{}")["value"]
    return (early or answers)[0], remembered


@pytest.mark.parametrize("way", ["background", "wait_until", "turn", "keep_awake"])
@pytest.mark.parametrize("between", [False, True])
async def test_what_other_code_has_changed_is_saved_first(
    way: str, between: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`between`: somebody has looked for changes while that code ran, and found none."""
    monkeypatch.setattr(Ways, "go_on", trio.Event(), raising=False)
    store = FaultyStore(MemoryStore(durable=True))
    async with open_host(REGISTRY, store=store) as host:
        instance = await the("ways", host)
        await instance.call("begin", [way], request=REQUEST)
        await settled()
        if between:
            await instance.save()
        Ways.go_on.set()
        await settled()
        store.hold()
        assert await seen_and_remembered(store, host) == (1, 1)


async def test_what_a_raw_request_has_changed_is_saved_first() -> None:
    store = FaultyStore(MemoryStore(durable=True))
    async with open_host(REGISTRY, store=store) as host:
        instance = await the("ways", host)
        await instance.fetch(REQUEST)
        assert await seen_and_remembered(store, host) == (1, 1)


@pytest.mark.parametrize(
    ("name", "url", "value"), [("ways", "on_connect", 1), ("waker", "x", 1), ("answering", "x", 1)]
)
async def test_what_a_hook_of_its_own_has_changed_is_saved_first(name: str, url: str, value: int) -> None:
    store = FaultyStore(MemoryStore(durable=True))
    async with open_host(REGISTRY, store=store) as host:
        if name == "waker":
            async with open_host(REGISTRY, store=store.inner) as other:
                await other.get_or_create("default", name, ("k",))
            value = 2
        assert await seen_and_remembered(store, host, url, name) == (value, value)


async def test_what_was_made_up_as_the_state_was_loaded_is_saved_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Made, "numbers", _numbers(), raising=False)
    store = FaultyStore(MemoryStore(durable=True))
    async with open_host(REGISTRY, store=store) as host:
        instance = await the("making", host)
        await instance.sleep()
        await store.commit(instance.actor_id, 1, Changes(b"{}", 1))  # as an earlier class has stored it
    async with open_host(REGISTRY, store=store) as host:
        seen, remembered = await seen_and_remembered(store, host, name="making")
        assert seen == remembered > 1
