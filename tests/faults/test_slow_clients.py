"""Clients that do not read cost themselves, and nobody else."""

import gc
import json
import tracemalloc

import pytest
import trio
from trio.testing import MockClock

from tests.faults.support import (
    CLOSE,
    TEXT,
    EndOfStream,
    Peer,
    connect,
    events_in,
    instance_of,
    running,
    unharmed,
    until,
)
from trivet import Limits, Server

SMALL = 4096
"""For the kernel's buffers, which would hold megabytes otherwise. It doubles them, and rounds up."""

EVENT = 8192


async def slow_peer(server: Server, *events: str) -> Peer:
    peer = await connect(server, receive_buffer=SMALL)
    return await peer.subscribe(*events)


def waiting(server: Server, peer: Peer) -> int:
    """Bytes that wait for one connection; -1 once it has left."""
    conn = instance_of(server).conns.get(peer.conn_id)
    return -1 if conn is None else conn.statistics().queued_bytes


async def what_it_got(peer: Peer) -> tuple[list[int], tuple[int, str] | None]:
    """The numbers of the events that a peer reads at last, and how it was closed."""
    numbers: list[int] = []
    try:
        while True:
            frame = await peer.frame()
            if frame.opcode == CLOSE:
                await peer.send(CLOSE, frame.payload)
                await peer.ended()
                return numbers, frame.close
            assert frame.opcode == TEXT
            numbers.append(json.loads(frame.payload)["body"]["val"]["args"][0])
    except EndOfStream:
        return numbers, None


async def test_one_that_stops_reading_is_cut_off_at_its_hard_bound_and_the_others_see_everything() -> None:
    hard = 256 * 1024
    limits = Limits(outbox_soft_bytes=64 * 1024, outbox_soft_time=1000, outbox_hard_bytes=hard)
    async with running(limits=limits, send_buffer=SMALL) as server:
        stuck, healthy = await slow_peer(server, "filled"), await (await connect(server)).subscribe("filled")
        sent, most = 0, 0
        while waiting(server, stuck) >= 0:
            assert sent < 1000, "it is never cut off"
            # The healthy one has seen the event when the answer comes: nobody waits for the stuck one.
            await healthy.call("fill", sent, EVENT)
            assert events_in(healthy.passed_over, "filled")[-1][0] == sent
            sent += 1
            most = max(most, server.statistics().host.queued_bytes)
        assert hard - 2 * EVENT <= most <= hard
        # What had begun is all that is kept for it.
        assert server.statistics().host.queued_bytes < hard
        for number in range(sent, sent + 20):
            await healthy.call("fill", number, EVENT)
        seen = [args[0] for args in events_in(healthy.passed_over, "filled")]
        assert seen == list(range(sent + 20))
        numbers, closed = await what_it_got(stuck)
        assert closed == (1013, "connection.too_slow")
        assert numbers == list(range(len(numbers)))
        assert len(numbers) < sent
        await until(lambda: server.statistics().host.queued_bytes == 0)


async def test_too_many_messages_are_too_slow_however_small() -> None:
    limits = Limits(outbox_soft_messages=100, outbox_soft_time=1000, outbox_hard_messages=1000)
    async with running(limits=limits, send_buffer=SMALL) as server:
        stuck, healthy = await slow_peer(server, "ticked"), await (await connect(server)).subscribe("ticked")
        sent = 0
        while waiting(server, stuck) >= 0:
            assert sent < 20_000, "it is never cut off"
            sent = await healthy.call("tick", sent, 100)
        assert [args[0] for args in events_in(healthy.passed_over, "ticked")] == list(range(sent))
        numbers, closed = await what_it_got(stuck)
        assert closed == (1013, "connection.too_slow")
        assert numbers == list(range(len(numbers)))


async def _fill_above(server: Server, emitter: Peer, stuck: Peer, bound: int) -> None:
    number = 0
    while waiting(server, stuck) <= bound:
        assert waiting(server, stuck) >= 0, "cut off too early"
        await emitter.call("sendTo", stuck.conn_id, number, EVENT)
        number += 1


async def test_the_soft_bound_is_for_those_who_stay_above_it(mock_clock: MockClock) -> None:
    soft = 64 * 1024
    limits = Limits(outbox_soft_bytes=soft, outbox_soft_time=5, ping_interval=500, ping_timeout=1000)
    async with running(limits=limits, send_buffer=SMALL) as server:
        emitter = await connect(server)
        stuck, tardy = await slow_peer(server), await slow_peer(server)
        for peer in (stuck, tardy):
            await _fill_above(server, emitter, peer, soft)
        mock_clock.jump(4.9)
        await emitter.call("echo", "time has passed")
        assert waiting(server, stuck) > soft
        # One reads at last, and falls below; what it is behind with does not matter then.
        async with trio.open_nursery() as reading:

            async def read() -> None:
                while True:
                    await tardy.frame()

            reading.start_soon(read)
            await until(lambda: waiting(server, tardy) == 0)
            reading.cancel_scope.cancel()
        mock_clock.jump(0.2)
        await until(lambda: waiting(server, stuck) < 0)
        numbers, closed = await what_it_got(stuck)
        assert closed == (1013, "connection.too_slow")
        assert numbers == list(range(len(numbers)))
        assert await tardy.call("echo", "still here") == "still here"
        mock_clock.jump(20)
        assert await tardy.call("echo", "still here") == "still here"


async def test_one_that_never_reads_again_is_given_up(mock_clock: MockClock) -> None:
    limits = Limits(outbox_hard_bytes=64 * 1024, close_timeout=5, ping_interval=500, ping_timeout=1000)
    async with running(limits=limits, send_buffer=SMALL) as server:
        emitter, stuck = await connect(server), await slow_peer(server)
        while waiting(server, stuck) >= 0:
            await emitter.call("sendTo", stuck.conn_id, 0, EVENT)
        assert server.statistics().gateway.connections == 2
        mock_clock.jump(5.1)
        await until(lambda: server.statistics().gateway.connections == 1)
        assert server.statistics().host.queued_bytes == 0


async def test_together_they_end_at_the_total_bound_the_largest_first() -> None:
    total = 1024 * 1024
    limits = Limits(outbox_soft_time=1000, outbox_total_bytes=total)
    async with running(limits=limits, send_buffer=SMALL) as server:
        emitter = await connect(server)
        small, large, middle = [await slow_peer(server) for _ in range(3)]
        await _fill_above(server, emitter, small, 100_000)
        await _fill_above(server, emitter, large, 500_000)
        await _fill_above(server, emitter, middle, 300_000)
        assert [waiting(server, peer) > 0 for peer in (small, large, middle)] == [True] * 3
        # It is the small one whose event goes over the bound, and the large one that pays.
        number = 0
        while waiting(server, large) >= 0:
            assert server.statistics().host.queued_bytes <= total
            await emitter.call("sendTo", small.conn_id, number, EVENT)
            number += 1
        assert waiting(server, small) > 0
        assert waiting(server, middle) > 0
        assert server.statistics().host.queued_bytes <= total
        assert (await what_it_got(large))[1] == (1013, "connection.too_slow")


async def test_those_that_are_ending_do_not_shelter_the_others_from_the_total_bound() -> None:
    """What was begun cannot be dropped: a connection that was ended may hold most of all for a while."""
    total = 512 * 1024
    limits = Limits(outbox_soft_time=1000, outbox_total_bytes=total)
    async with running(limits=limits, send_buffer=SMALL) as server:
        emitter = await connect(server)
        ending = await slow_peer(server)
        assert await emitter.call("sendTo", ending.conn_id, 0, 400_000)
        others = [await slow_peer(server) for _ in range(5)]
        number = 0
        while sum(waiting(server, peer) >= 0 for peer in others) > 2:
            for peer in others:
                if waiting(server, peer) >= 0:
                    await emitter.call("sendTo", peer.conn_id, number, EVENT)
                assert server.statistics().host.queued_bytes <= total
            number += 1
        assert waiting(server, ending) < 0
        assert server.statistics().host.queued_bytes > 400_000  # the frame that was begun


@pytest.mark.parametrize("count", [2_000, 12_000])
async def test_a_burst_cuts_off_nobody_who_reads(count: int) -> None:
    # Time enough for a slow machine: its clients read in the same task as the server writes.
    async with running(limits=Limits(outbox_soft_time=120)) as server:
        peers = [await (await connect(server)).subscribe("ticked") for _ in range(10)]
        emitter = await connect(server)
        received: dict[str, list[int]] = {}

        async def read(peer: Peer) -> None:
            numbers = received[peer.conn_id] = []
            while len(numbers) < count:
                tag, val = await peer.message()
                assert tag == "Event"
                numbers.append(val["args"][0])

        with trio.fail_after(150):
            async with trio.open_nursery() as readers:
                for peer in peers:
                    readers.start_soon(read, peer)
                assert await emitter.call("tick", 0, count) == count
        assert all(numbers == list(range(count)) for numbers in received.values())
        assert server.statistics().host.connections == 11


async def test_many_stuck_clients_share_the_memory_of_their_events() -> None:
    """A megabyte waits for each of forty: in memory, and in what counts towards the bound of all, it is one."""
    mebibyte = 1024 * 1024
    limits = Limits(outbox_soft_time=1000, outbox_hard_bytes=mebibyte)
    async with running(limits=limits, send_buffer=SMALL) as server:
        emitter = await connect(server)
        async with unharmed(server):
            peers = [await slow_peer(server, "filled") for _ in range(40)]
            gc.collect()
            tracemalloc.start()
            try:
                began, _ = tracemalloc.get_traced_memory()
                number = 0
                while instance_of(server).statistics().queued_bytes < 36 * mebibyte:
                    assert number < 1000, "the bound comes too early"
                    await emitter.call("fill", number, 32 * 1024)
                    number += 1
                _, peak = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
            # The task that writes for one of them holds a copy of the piece that it is at: 256 KiB and a frame at most.
            assert peak - began < 40 * 320 * 1024 + 4 * mebibyte
            assert server.statistics().host.queued_bytes < 40 * 320 * 1024 + 4 * mebibyte
            while len(instance_of(server).conns) > 1:
                await emitter.call("fill", number, 32 * 1024)
                number += 1
            for peer in peers:
                await peer.stream.aclose()
