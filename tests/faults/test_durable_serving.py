"""Servers on a store in a file: a disk that fills up, one that may not be written to, and clients that come and go."""

import gc
import math
import os
import re
import resource
import sys
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import attrs
import pytest
import trio
import trio.testing

from tests.faults.support import until
from trivet import Actor, ActorError, Client, Conn, Event, Limits, Options, Registry, Server, action, open_client, serve
from trivet.limits import MIB
from trivet.store import MemoryStore, Store
from trivet.store.sqlite import SQLiteStore, open_sqlite_store
from trivet.store.sqlite.file import FILE_NAME
from trivet.store.sqlite.statements import rows
from trivet.testing.store import FaultyStore

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="limits of POSIX")

SOAK_SECONDS = float(os.environ.get("TRIVET_SOAK", 3600 if os.environ.get("TRIVET_LONG") == "1" else 0))
"""Of coming and going; at least a few rounds."""
ROUNDS = 5
AT_ONCE = 500 if SOAK_SECONDS else 100
KEYS = 25
MARKS = 10


@attrs.define
class Kept:
    number: int = 0
    ballast: str = ""
    here: list[str] = attrs.field(factory=list[str])


class Keeper(Actor[Kept, None]):
    options = Options(durability="gated")
    counted = Event(int)

    def on_connect(self, conn: Conn) -> None:
        if conn.kind == "events":
            self.state.here.append(conn.id)

    def on_disconnect(self, conn: Conn) -> None:
        if conn.kind == "events":
            self.state.here.remove(conn.id)

    @action
    def count(self) -> int:
        self.state.number += 1
        self.broadcast(self.counted, self.state.number)
        return self.state.number

    @action
    def grow(self, size: int) -> None:
        self.state.number += 1000
        self.state.ballast = "x" * size

    @action
    def here(self) -> int:
        return len(self.state.here)


REGISTRY = Registry(Keeper)


@asynccontextmanager
async def serving(store: Store, sleep_after: float = math.inf) -> AsyncGenerator[tuple[Server, Client]]:
    async with trio.open_nursery() as nursery:
        start = partial(serve, REGISTRY, port=0, store=store, limits=Limits(sleep_after=sleep_after))
        server: Server = await nursery.start(start)
        async with open_client(f"http://127.0.0.1:{server.port}") as client:
            yield server, client
        await server.stop()


async def count(client: Client, key: str) -> int:
    return await client.get_or_create(Keeper, key).call(Keeper.count)


async def goes_on_after(client: Client, grow: int) -> None:
    """One actor cannot be saved. It tells its caller so; others, and it itself with less to save, go on."""
    async with client.get_or_create(Keeper, "other").connect() as other:
        seen: list[int] = []
        other.on(Keeper.counted, seen.append)
        with pytest.raises(ActorError, match=r"actor\.save_failed"):
            await client.get_or_create(Keeper, "k").call(Keeper.grow, grow)
        assert await other.call(Keeper.count) == 2
        assert seen == [2]
        assert other.status == "connected"


async def test_an_actor_that_does_not_fit_on_the_disk_goes_back_and_others_go_on(tmp_path: Path) -> None:
    size = 1_000_000
    async with open_sqlite_store(tmp_path) as store, serving(store) as (_, client):
        assert (await count(client, "k"), await count(client, "other")) == (1, 1)
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        log = os.stat(tmp_path / f"{FILE_NAME}-wal").st_size
        resource.setrlimit(resource.RLIMIT_FSIZE, (log + size // 2, hard))
        try:
            await goes_on_after(client, size)
            assert await count(client, "k") == 2  # from its last commit on
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        await client.get_or_create(Keeper, "k").call(Keeper.grow, size)
        assert await count(client, "k") == 1003


async def test_while_nothing_can_be_written_callers_are_told_so(tmp_path: Path) -> None:
    async with open_sqlite_store(tmp_path) as store, serving(store) as (_, client):
        assert await count(client, "k") == 1
        assert isinstance(store, SQLiteStore)
        rows(store._file.writer, "PRAGMA query_only = 1")
        for _ in range(3):
            with pytest.raises(ActorError, match=r"actor\.save_failed"):
                await count(client, "k")
        assert await client.get_or_create(Keeper, "k").call(Keeper.here) == 0  # what changes nothing is answered
        rows(store._file.writer, "PRAGMA query_only = 0")
        assert await count(client, "k") == 2


async def test_a_store_that_fails_now_and_then_costs_the_callers_it_fails() -> None:
    store = FaultyStore(MemoryStore(durable=True))
    async with serving(store) as (_, client):
        answered = 0
        for number in range(30):
            if number % 3 == 1:
                store.fail()
                with pytest.raises(ActorError, match=r"actor\.save_failed"):
                    await count(client, "k")
            else:
                answered += 1
                assert await count(client, "k") == answered


async def come_and_go(client: Client) -> None:
    """So many clients at once; each listens, calls and leaves."""

    async def visit(key: str) -> None:
        async with client.get_or_create(Keeper, key).connect() as room:
            seen: list[int] = []
            room.on(Keeper.counted, seen.append)
            assert await room.call(Keeper.count) in seen

    async with trio.open_nursery() as nursery:
        for number in range(AT_ONCE):
            nursery.start_soon(visit, f"room {number % KEYS}")


@attrs.frozen
class Footprint:
    tasks: int
    descriptors: int
    sessions: int
    timers: int
    objects: int
    resident_bytes: int


async def footprint(server: Server) -> Footprint:
    """Once all have left and all actors sleep."""
    host = server.host
    await until(lambda: not host.instances() and not host.statistics().actors, "all actors sleep")
    await until(lambda: not host.statistics().connections, "all connections are gone")
    await trio.testing.wait_all_tasks_blocked(0.05)
    re.purge()  # the patterns that it has compiled, of which it keeps some hundreds
    gc.collect()
    objects = len(gc.get_objects())
    tasks = trio.lowlevel.current_statistics().tasks_living
    descriptors = len(os.listdir("/proc/self/fd"))
    return Footprint(tasks, descriptors, len(host.sessions), len(host.timers), objects, resident_bytes())


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts descriptors in /proc")
@pytest.mark.timeout(max(180, 2 * SOAK_SECONDS))
async def test_what_comes_and_goes_leaves_nothing_behind(tmp_path: Path) -> None:
    began = time.monotonic()
    async with open_sqlite_store(tmp_path) as store, serving(store, sleep_after=0.05) as (server, client):
        await come_and_go(client)
        marks = [await footprint(server)]
        rounds = 1
        while rounds < ROUNDS or time.monotonic() < began + SOAK_SECONDS:
            await come_and_go(client)
            rounds += 1
            if SOAK_SECONDS and time.monotonic() > began + len(marks) * SOAK_SECONDS / MARKS:
                marks.append(await footprint(server))
                print(f"{time.monotonic() - began:.0f} s, {rounds * AT_ONCE} connections: {marks[-1]}")
        before, after = marks[0], await footprint(server)
        assert after.tasks <= before.tasks + 5
        assert after.descriptors <= before.descriptors + 5
        assert after.sessions == 0
        assert after.timers <= before.timers + AT_ONCE
        # A connection has dozens of objects.
        assert after.objects < before.objects + (rounds - 1) * AT_ONCE * 4
        if SOAK_SECONDS >= 600:  # the first tenth is for caches and the allocator to fill
            assert after.objects < marks[1].objects + 1000
            assert after.resident_bytes < marks[1].resident_bytes + 8 * MIB
        for number in range(KEYS):
            key = f"room {number}"
            assert await client.get_or_create(Keeper, key).call(Keeper.here) == 0
            assert await count(client, key) == AT_ONCE // KEYS * rounds + 1
