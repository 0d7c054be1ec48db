"""A world holds real clients and servers, in virtual time or over sockets, and its network fails as it is told."""

import subprocess
import sys
from collections.abc import Callable

import pytest
import trio
import trio.testing

from tests.testing.support import REGISTRY, Counter
from trivet import ConnectionLost, Limits, MemoryStore, Options, Registry
from trivet.protocol.codec import ENCODINGS, Encoding
from trivet.runtime.lifecycle import Phase
from trivet.testing import Link, World
from trivet.testing.network import BUFFER

real_and_virtual = pytest.mark.parametrize("real", [False, True], ids=["virtual", "real"])


def run(real: bool, test: Callable[[], object]) -> None:
    """Run an async test in the time that its world needs."""
    clock = None if real else trio.testing.MockClock(autojump_threshold=0)

    async def main() -> None:
        with trio.fail_after(60):
            await test()  # type: ignore[misc]  # a coroutine function, whose type says so to nobody

    trio.run(main, clock=clock)


@real_and_virtual
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_the_same_test_runs_in_memory_and_over_sockets(real: bool, encoding: Encoding) -> None:
    async def test() -> None:
        async with World(REGISTRY, real=real) as world:
            client = await world.client(encoding=encoding)
            counter = client.get_or_create(Counter, "a")
            assert await counter.call(Counter.increment) == 1
            seen: list[int] = []
            async with counter.connect() as connection:
                connection.on(Counter.counted, seen.append)
                assert await connection.call(Counter.increment, 3) == 4
                assert seen == [2, 3, 4]
            assert (world.server.addresses != ()) == real

    run(real, test)


@real_and_virtual
def test_a_broken_link_is_noticed_at_once_and_the_client_comes_back(real: bool) -> None:
    async def test() -> None:
        async with World(REGISTRY, real=real) as world:
            client = await world.client()
            async with client.get_or_create(Counter, "a").connect() as connection:
                back = trio.Event()
                connection.on_open(back.set)
                client.link.break_()
                await back.wait()
                assert await connection.call(Counter.increment) == 1

    run(real, test)


@real_and_virtual
def test_a_crash_takes_memory_and_connections_with_it(real: bool) -> None:
    async def test() -> None:
        async with World(REGISTRY, real=real) as world:
            client = await world.client()
            counter = client.get_or_create(Counter, "a")
            async with counter.connect() as connection:
                assert await connection.call(Counter.increment) == 1
                closed = trio.Event()
                connection.on_close(lambda _: closed.set())
                await world.crash_server()
                await closed.wait()
                with pytest.raises(RuntimeError, match="not running"):
                    _ = world.server
                with pytest.raises(ConnectionLost):
                    await counter.call(Counter.get_count)
                await world.restart_server()
                assert await connection.call(Counter.get_count) == 0

    run(real, test)


async def test_half_open_streams_are_found_out_by_pings_alone(autojump_clock: trio.testing.MockClock) -> None:
    async with World(REGISTRY) as world:
        client = await world.client()
        async with client.get_or_create(Counter, "a").connect() as connection:
            closed = trio.Event()
            connection.on_close(lambda _: closed.set())
            client.link.half_open()
            began = trio.current_time()
            await closed.wait()
            assert world.limits.ping_timeout - 1 <= trio.current_time() - began <= world.limits.ping_timeout + 1
            assert await connection.call(Counter.increment) == 1


async def test_a_delay_keeps_the_order(autojump_clock: trio.testing.MockClock) -> None:
    async with World(REGISTRY) as world:
        client = await world.client()
        async with client.get_or_create(Counter, "a").connect() as connection:
            seen: list[int] = []
            connection.on(Counter.counted, seen.append)
            await connection.call(Counter.get_count)
            client.link.delay(3)
            began = trio.current_time()

            async def call_slowly() -> None:
                await connection.call(Counter.increment, 2)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(call_slowly)
                await trio.sleep(1)
                client.link.delay(0)
                await connection.call(Counter.increment)
            assert seen == [1, 2, 3]
            assert trio.current_time() - began == pytest.approx(3 + 0, abs=0.5)  # the later call waited for the earlier


async def test_a_slow_reader_takes_its_time(autojump_clock: trio.testing.MockClock) -> None:
    async with World(REGISTRY) as world:
        client = await world.client()
        async with client.get_or_create(Counter, "a").connect() as connection:
            await connection.call(Counter.get_count)
            client.link.slow_reader(1000)
            began = trio.current_time()
            await connection.call(Counter.say, "x" * 10_000)
            assert trio.current_time() - began >= 10


async def test_who_stops_reading_is_ended_by_the_bounds_of_the_outbox(autojump_clock: trio.testing.MockClock) -> None:
    async with World(REGISTRY, limits=Limits(outbox_soft_bytes=BUFFER)) as world:
        slow, quick = await world.client("slow"), await world.client("quick")
        counter = Counter, "a"
        async with slow.get_or_create(*counter).connect() as one, quick.get_or_create(*counter).connect() as other:
            one.on(Counter.said, print)
            await one.call(Counter.get_count)
            codes: list[int] = []
            one.on_close(lambda closed: codes.append(closed.code))
            slow.link.stop_reading()
            for _ in range(6):
                await other.call(Counter.say, "x" * 60_000)
            assert slow.link.is_impaired
            await trio.sleep(world.limits.outbox_soft_time + 1)
            slow.link.resume_reading()
            await trio.sleep(10)
            assert codes != []


async def test_pieces_of_one_byte_make_whole_messages(autojump_clock: trio.testing.MockClock) -> None:
    async with World(REGISTRY) as world:
        client = await world.client()
        client.link.partial_writes(1)
        async with client.get_or_create(Counter, "a").connect() as connection:
            assert await connection.call(Counter.say, "whole") == "whole"


async def test_small_buffers_make_the_server_wait_for_who_does_not_read(autojump_clock: trio.testing.MockClock) -> None:
    async with World(REGISTRY) as world:
        slow, quick = await world.client("slow"), await world.client("quick")
        with pytest.raises(ValueError, match="at least one byte"):
            slow.link.small_buffers(0)
        slow.link.small_buffers(200)
        counter = Counter, "a"
        async with slow.get_or_create(*counter).connect() as one, quick.get_or_create(*counter).connect() as other:
            heard: list[str] = []
            one.on(Counter.said, heard.append)
            await one.call(Counter.get_count)
            slow.link.stop_reading()
            for _ in range(3):
                await other.call(Counter.say, "x" * 500)
            await trio.sleep(1)
            assert slow.link.pending <= 2 * 200  # of each direction
            slow.link.small_buffers(None)
            slow.link.resume_reading()
            await one.call(Counter.get_count)
            assert heard == ["x" * 500] * 3


async def test_nothing_connects_over_a_link_that_is_down(autojump_clock: trio.testing.MockClock) -> None:
    async with World(REGISTRY) as world:
        client = await world.client()
        counter = client.get_or_create(Counter, "a")
        await counter.call(Counter.increment)
        client.link.down()
        with pytest.raises(ConnectionLost):
            await counter.call(Counter.increment)
        client.link.up()
        assert await counter.call(Counter.increment) == 2


async def test_an_event_that_cannot_travel_raises_though_nobody_listens(autojump_clock: trio.testing.MockClock) -> None:
    async with World(REGISTRY) as world:
        client = await world.client()
        with pytest.raises(Exception, match="internal"):
            await client.get_or_create(Counter, "a").call(Counter.emit_nonsense)


async def test_an_error_of_the_body_comes_out_alone(autojump_clock: trio.testing.MockClock) -> None:
    with pytest.raises(LookupError):
        async with World(REGISTRY):
            raise LookupError


async def test_real_sockets_refuse_a_clock_that_jumps(autojump_clock: trio.testing.MockClock) -> None:
    with pytest.raises(RuntimeError, match="real sockets need real time"):
        async with World(REGISTRY, real=True):
            pass


async def test_a_world_is_entered_once(autojump_clock: trio.testing.MockClock) -> None:
    world = World(REGISTRY)
    async with world:
        pass
    with pytest.raises(RuntimeError, match="entered once"):
        await world.__aenter__()


async def test_a_stream_keeps_trios_contract(autojump_clock: trio.testing.MockClock) -> None:
    async def make() -> tuple[trio.abc.HalfCloseableStream, trio.abc.HalfCloseableStream]:
        return Link().open_pair()

    async def clog() -> tuple[trio.abc.HalfCloseableStream, trio.abc.HalfCloseableStream]:
        link = Link()
        pair = link.open_pair()
        await pair[0].send_all(b"x" * BUFFER)
        await pair[1].send_all(b"x" * BUFFER)
        return pair

    await trio.testing.check_half_closeable_stream(make, clog)


def test_importing_trivet_or_its_world_needs_no_hypothesis_and_no_pytest() -> None:
    code = "import sys, trivet, trivet.testing; assert not {'hypothesis', 'pytest'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


async def test_the_fixture_makes_worlds_in_virtual_time(world: type[World]) -> None:
    began = trio.current_time()
    async with world(REGISTRY) as actors:
        client = await actors.client()
        await client.get_or_create(Counter, "a").call(Counter.wait, 50.0)
    assert trio.current_time() - began >= 50


class Napper(Counter):
    options = Options(sleep_after=30, sleep_with_connections=True)


@pytest.mark.parametrize("durable", [False, True])
async def test_an_actor_sleeps_with_its_connections_and_wakes_by_a_call(
    durable: bool, autojump_clock: trio.testing.MockClock
) -> None:
    async with World(Registry(Napper), store=MemoryStore(durable=durable), real=False) as world:
        checker = world.check_delivery()
        client = await world.client()
        async with client.get_or_create(Napper, "a").connect() as connection:
            closed: list[object] = []
            connection.on_close(closed.append)
            seen: list[int] = []
            connection.on(Napper.counted, seen.append)
            for count in (1, 2, 3):
                assert await connection.call(Napper.increment) == count
                await trio.sleep(3600)
                assert [one.phase for one in world.server.host.instances()] == [Phase.ASLEEP]
            await checker.settle()
            checker.verify()
            assert seen == [1, 2, 3]
            assert closed == []


async def test_a_sleeper_with_connections_survives_a_crash_of_its_server(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with World(Registry(Napper), store=MemoryStore(durable=True), real=False) as world:
        checker = world.check_delivery()
        client = await world.client()
        async with client.get_or_create(Napper, "a").connect() as connection:
            seen: list[int] = []
            connection.on(Napper.counted, seen.append)
            await connection.call(Napper.increment)
            await trio.sleep(3600)
            await world.crash_server()
            await world.restart_server()
            assert await connection.call(Napper.increment) == 2
            await trio.sleep(3600)
            assert await connection.call(Napper.increment) == 3
            await checker.settle()
            assert seen == [1, 2, 3]


async def test_a_stateless_call_after_hours_finds_that_its_stream_was_closed(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with World(REGISTRY, real=False) as world:
        counter = (await world.client()).get_or_create(Counter, "a")
        for count in (1, 2, 3):
            assert await counter.call(Counter.increment) == count
            await trio.sleep(3600)
        await world.restart_server()
        assert await counter.call(Counter.increment) == 1
