"""Waking: what is asked of the store for it, and what becomes of it where the store cannot say."""

import attrs
import pytest
import trio
import trio.testing

from tests.runtime.support import REQUEST
from trivet import Actor, PublicError, Registry, UserError, action
from trivet.runtime.host import Host, open_host
from trivet.store import ActorRow, Changes, MemoryStore, Stored, StoreError
from trivet.testing.store import FaultyStore


@attrs.define
class Count:
    value: int = 0


class Counter(Actor[Count]):
    @action
    def add(self) -> int:
        self.state.value += 1
        return self.state.value


class WatchedStore(MemoryStore):
    """Notes what is read. `damaged`: who an actor is can be read, and nothing else of it. `near`: without waiting."""

    def __init__(self) -> None:
        super().__init__(durable=True)
        self.reads: list[str] = []
        self.damaged = False
        self.slow = False
        self.near = False

    async def find(self, namespace: str, name: str, key: tuple[str, ...]) -> ActorRow | None:
        self.reads.append("find")
        return await super().find(namespace, name, key)

    async def find_id(self, actor_id: str) -> ActorRow | None:
        self.reads.append("find_id")
        return await super().find_id(actor_id)

    async def load(self, actor_id: str) -> Stored | None:
        self.reads.append("load")
        self._check()
        return await super().load(actor_id)

    async def load_by_key(self, namespace: str, name: str, key: tuple[str, ...]) -> Stored | None:
        self.reads.append("load_by_key")
        self._check()
        stored = await super().load_by_key(namespace, name, key)
        if self.slow:
            await trio.testing.wait_all_tasks_blocked()
        return stored

    def load_by_key_nowait(self, namespace: str, name: str, key: tuple[str, ...]) -> Stored | None:
        if not self.near or self.damaged:
            raise trio.WouldBlock
        self.reads.append("load_by_key_nowait")
        return super().load_by_key_nowait(namespace, name, key)

    def _check(self) -> None:
        if self.damaged:
            raise StoreError("a page of it is damaged")


async def add(host: Host) -> object:
    instance, _ = await host.get_or_create("default", "counter", ("k",))
    return await instance.call("add", [], request=REQUEST)


async def asleep(host: Host) -> str:
    """An actor that has counted to one, and its id."""
    assert await add(host) == 1
    instance = await host.get("default", "counter", ("k",))
    await instance.sleep()
    return instance.actor_id


@pytest.mark.parametrize("near", [False, True])
async def test_a_wake_reads_the_store_once(near: bool) -> None:
    store = WatchedStore()
    store.near = near
    read = "load_by_key_nowait" if near else "load_by_key"
    async with open_host(Registry(Counter), store=store) as host:
        actor_id = await asleep(host)
        store.reads.clear()
        assert await add(host) == 2
        assert store.reads == [read]
        await host.put_to_sleep(actor_id)
        store.reads.clear()
        assert (await host.by_id(actor_id)).actor_id == actor_id
        assert store.reads == ["find_id", read]


async def test_who_is_not_there_is_asked_of_the_store_with_a_checkpoint() -> None:
    store = WatchedStore()
    store.near = True
    async with open_host(Registry(Counter), store=store) as host:
        with trio.testing.assert_checkpoints(), pytest.raises(PublicError, match="not_found"):
            await host.get("default", "counter", ("nobody",), soon=True)


async def test_whoever_asks_while_it_is_read_waits_for_that() -> None:
    """By key and by id, at once, again and again: each wake sees what the life before it has left."""
    store = WatchedStore()
    store.slow = True
    async with open_host(Registry(Counter), store=store) as host:
        actor_id = await asleep(host)
        seen: list[object] = []

        async def by_key() -> None:
            seen.append(await add(host))

        async def by_id() -> None:
            seen.append(await (await host.by_id(actor_id)).call("add", [], request=REQUEST))

        for _ in range(3):
            store.reads.clear()
            async with trio.open_nursery() as nursery:
                for _ in range(5):
                    nursery.start_soon(by_key)
                    nursery.start_soon(by_id)
            assert store.reads.count("load_by_key") == 1
            assert "load" not in store.reads
            await host.put_to_sleep(actor_id)
        assert sorted(map(str, seen)) == sorted(str(number) for number in range(2, 32))


async def test_a_life_that_begins_later_sees_what_was_committed_meanwhile() -> None:
    """What one wake has read is for that life, and none after it."""
    store = WatchedStore()
    async with open_host(Registry(Counter), store=store) as host:
        actor_id = await asleep(host)
        instance = await host.get("default", "counter", ("k",))
        with instance.visit():  # so that the object stays
            await instance.sleep()
            await store.commit(actor_id, instance.generation, Changes(b'{"value":41}', 1))
            store.reads.clear()
            assert await add(host) == 42
            assert store.reads == ["load"]


async def test_an_actor_that_cannot_be_read_fails_alone(caplog: pytest.LogCaptureFixture) -> None:
    store = WatchedStore()
    async with open_host(Registry(Counter), store=store) as host:
        actor_id = await asleep(host)
        store.damaged = True
        with pytest.raises(PublicError, match="internal_error"):
            await add(host)
        assert "counter[k]" in caplog.text
        assert "a page of it is damaged" in caplog.text
        store.damaged = False
        assert await add(host) == 2
        await host.put_to_sleep(actor_id)
        store.damaged = True
        await host.destroy(actor_id)
        assert await host.find("default", "counter", ("k",)) is None


@pytest.mark.parametrize("code", ["not_found", "service_unavailable"])
async def test_what_an_actor_says_when_it_cannot_wake_is_not_taken_for_the_hosts_own_word(code: str) -> None:
    wakes = True

    class Refusing(Actor):
        def on_wake(self) -> None:
            if not wakes:
                raise UserError("There is no such thing", code=code)

    async with open_host(Registry(Refusing), store=MemoryStore(durable=True)) as host:
        instance, _ = await host.get_or_create("default", "refusing", ("k",))
        await instance.sleep()
        wakes = False
        await host.destroy(instance.actor_id)
        assert await host.find_id(instance.actor_id) is None


async def test_one_that_is_woken_while_it_is_removed_is_destroyed_too(caplog: pytest.LogCaptureFixture) -> None:
    kept = WatchedStore()
    store = FaultyStore(kept)
    async with open_host(Registry(Counter), store=store) as host, trio.open_nursery() as nursery:
        actor_id = await asleep(host)
        kept.damaged = True
        store.hold()
        nursery.start_soon(host.destroy, actor_id)
        await trio.testing.wait_all_tasks_blocked()
        assert store.waiting == 1
        kept.damaged = False
        instance = await host.get("default", "counter", ("k",))
        store.release()
        await instance.ended.wait()
        assert host.in_memory(actor_id) is None
        assert await host.find("default", "counter", ("k",)) is None
    assert "cannot wake" in caplog.text
