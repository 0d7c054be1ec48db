"""What the control API tells of actors that sleep, and how it sends them to sleep: without waking any."""

import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import ClassVar

import attrs
import pytest
import trio

from tests.runtime.support import settled
from tests.server.support import Reply, WebSocketPeer, World, to
from trivet import Actor, Options, Registry, WebSocket, action
from trivet.runtime.host import open_host
from trivet.store import ActorRow, Changes, MemoryStore

JSON = [("content-type", "application/json")]


@attrs.define
class Lives:
    wakes: int = 0


class Dozer(Actor[Lives]):
    options = Options(sleep_after=10)
    happened: ClassVar[list[str]] = []

    def on_wake(self) -> None:
        self.state.wakes += 1
        self.happened.append("wake")

    def on_sleep(self) -> None:
        self.happened.append("sleep")

    async def on_destroy(self) -> None:
        await trio.sleep(3)
        self.happened.append("destroy")

    async def on_websocket(self, websocket: WebSocket) -> None:
        await websocket.send("hello")
        async for message in websocket:
            await websocket.send(message)

    @action
    def lives(self) -> int:
        return self.state.wakes


class Slow(Actor):
    """It takes its time to come to be."""

    async def on_create(self, input: object) -> None:
        await trio.sleep(5)


REGISTRY = Registry(Dozer, Slow)


@asynccontextmanager
async def open_world(store: MemoryStore | None = None) -> AsyncGenerator[World]:
    Dozer.happened.clear()
    async with open_host(REGISTRY, store=store) as host, trio.open_nursery() as nursery:
        yield World(host, nursery)
        nursery.cancel_scope.cancel()


async def create(world: World, method: str = "PUT", name: str = "dozer") -> Reply:
    body = {"name": name, "key": "k", "runner_name_selector": "default", "crash_policy": "sleep"}
    return await world.http().request(method, "/actors?namespace=default", json.dumps(body).encode(), JSON)


async def actor_id(world: World, name: str = "dozer") -> str:
    return str(json.loads((await create(world, name=name)).body)["actor"]["actor_id"])


async def listed(world: World, query: str) -> list[dict[str, object]]:
    reply = await world.http().request("GET", f"/actors?{query}&namespace=default")
    assert reply.status == 200
    actors: list[dict[str, object]] = json.loads(reply.body)["actors"]
    return actors


async def lives(world: World) -> int:
    reply = await world.http().request("POST", to("/action/lives", "dozer"), b'{"args":[]}', JSON)
    assert reply.status == 200, reply.body
    return int(json.loads(reply.body)["output"])


def error_of(reply: Reply) -> str:
    error = json.loads(reply.body)
    return f"{reply.status} {error['group']}.{error['code']}"


@pytest.mark.parametrize("by", ["name=dozer", "name=dozer&key=k", "actor_ids={}"])
async def test_one_that_sleeps_is_listed_and_sleeps_on(by: str, autojump_clock: trio.abc.Clock) -> None:
    async with open_world() as world:
        known = await actor_id(world)
        (awake,) = await listed(world, by.format(known))
        assert awake["connectable_ts"] is not None
        assert awake["sleep_ts"] is None
        await trio.sleep(20)
        (asleep,) = await listed(world, by.format(known))
        assert asleep["connectable_ts"] is None
        assert asleep["sleep_ts"] is not None
        same = ("actor_id", "name", "key", "namespace_id", "create_ts")
        assert [asleep[field] for field in same] == [awake[field] for field in same]
        assert Dozer.happened == ["wake", "sleep"]


async def test_to_look_one_up_is_no_reason_to_wake_it(autojump_clock: trio.abc.Clock) -> None:
    async with open_world() as world:
        known = await actor_id(world)
        await trio.sleep(20)
        found = json.loads((await create(world)).body)
        assert (found["actor"]["actor_id"], found["created"]) == (known, False)
        assert error_of(await create(world, "POST")) == "400 actor.duplicate_key"
        assert Dozer.happened == ["wake", "sleep"]
        assert await lives(world) == 2


async def test_a_listing_survives_the_server() -> None:
    store = MemoryStore(durable=True)
    async with open_world(store) as world:
        known = await actor_id(world)
    async with open_world(store) as world:
        assert [actor["actor_id"] for actor in await listed(world, "name=dozer")] == [known]
        assert Dozer.happened == []


async def test_actors_of_a_class_that_is_no_more_are_not_listed() -> None:
    store = MemoryStore(durable=True)
    await store.create(ActorRow("old", "default", "veteran", (), 1.0), Changes())
    async with open_world(store) as world:
        assert await listed(world, "name=veteran") == []
        assert await listed(world, "actor_ids=old") == []
        assert error_of(await world.http().request("DELETE", "/actors/old")) == "404 actor.not_found"


async def test_post_sleep_sends_one_to_sleep() -> None:
    async with open_world() as world:
        path = f"/actors/{await actor_id(world)}/sleep"
        peer = world.http()
        assert error_of(await peer.request("POST", f"{path}?namespace=other")) == "404 actor.not_found"
        assert error_of(await peer.request("GET", path)) == "405 api.method_not_allowed"
        assert Dozer.happened == ["wake"]
        for _ in range(2):  # one that sleeps is left alone
            reply = await peer.request("POST", f"{path}?namespace=default", b"{}", JSON)
            assert (reply.status, reply.body) == (200, b"{}")
            assert Dozer.happened == ["wake", "sleep"]
        assert await lives(world) == 2
        assert error_of(await peer.request("POST", "/actors/nope/sleep")) == "404 actor.not_found"


async def test_a_raw_websocket_is_closed_when_its_actor_is_sent_to_sleep() -> None:
    async with open_world() as world:
        known = await actor_id(world)
        raw = await WebSocketPeer(world.stream()).open(to("/websocket/", "dozer"))
        assert await raw.next_text() == "hello"
        async with trio.open_nursery() as nursery:
            nursery.start_soon(world.http().request, "POST", f"/actors/{known}/sleep")
            assert await raw.next_close() == (1000, "actor.stopped")
        assert Dozer.happened == ["wake", "sleep"]


async def test_delete_wakes_one_for_its_hook(autojump_clock: trio.abc.Clock) -> None:
    async with open_world() as world:
        known = await actor_id(world)
        await trio.sleep(20)
        reply = await world.http().request("DELETE", f"/actors/{known}")
        assert (reply.status, reply.body) == (200, b"{}")
        assert Dozer.happened == ["wake", "sleep", "wake", "destroy"]
        assert await listed(world, "name=dozer") == []
        assert await lives(world) == 1


async def test_delete_removes_one_that_cannot_wake(caplog: pytest.LogCaptureFixture) -> None:
    store = MemoryStore(durable=True)
    row = ActorRow("broken", "default", "dozer", ("k",), 1.0)
    await store.create(row, Changes(state=b'{"wakes":"many"}'))
    async with open_world(store) as world:
        assert [actor["actor_id"] for actor in await listed(world, "name=dozer")] == ["broken"]
        reply = await world.http().request("DELETE", "/actors/broken")
        assert (reply.status, reply.body) == (200, b"{}")
        assert await store.find_id("broken") is None
        assert await lives(world) == 1
    assert "cannot wake" in caplog.text


async def test_one_that_is_being_destroyed_is_no_more(autojump_clock: trio.abc.Clock) -> None:
    async with open_world() as world, trio.open_nursery() as nursery:
        known = await actor_id(world)
        nursery.start_soon(world.http().request, "DELETE", f"/actors/{known}")
        await settled()
        assert await listed(world, "name=dozer") == []
        assert Dozer.happened == ["wake"]
        # Who asks for that one is answered when it is over, and so is who wants another in its place.
        assert await listed(world, f"actor_ids={known}") == []
        assert Dozer.happened == ["wake", "destroy"]
        found = json.loads((await create(world)).body)
        assert found["created"] is True
        assert found["actor"]["actor_id"] != known


async def test_one_that_is_being_created_is_waited_for(autojump_clock: trio.abc.Clock) -> None:
    async with open_world() as world, trio.open_nursery() as nursery:
        replies: list[Reply] = []

        async def put() -> None:
            replies.append(await create(world, name="slow"))

        nursery.start_soon(put)
        await settled()
        assert await listed(world, "name=slow") == []
        found = await listed(world, "name=slow&key=k")
        assert trio.current_time() == pytest.approx(5, abs=1)
        await settled()
        (reply,) = replies
        assert [actor["actor_id"] for actor in found] == [json.loads(reply.body)["actor"]["actor_id"]]
